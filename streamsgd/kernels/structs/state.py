"""What training changes: arrays only, written to checkpoints as they are."""

from typing import Any, NamedTuple

import numpy as np

STEPS, FILLED, TOUCHED, SINCE, WEIGHED, CLIPPED = 0, 1, 2, 3, 4, 5
"""Places in `State.clock`."""

NEVER = 1 << 62
"""A step that no run reaches."""

LOSS, WEIGHT, ROWS = 0, 1, 2
"""Places in `State.tally`."""

SPREAD, SEEN, LEAST, MOST, ETA, RACE = 0, 1, 2, 3, 4, 5
"""Places in `State.sums`; from the last on stand those of a race."""

MANY = 64
"""Bytes to which cells are aligned, so that one of up to four float32 is in one line of memory."""

CELLS = ("weights", "slots", "grad")
"""Arrays of a state that are columns of one where rows touch few of many weights."""


class State(NamedTuple):
    """The weights and what optimizers remember.

    Where rows touch few of many weights, the first three are columns of one array, so that what belongs to a weight shares a
    line of memory.
    """

    weights: Any
    """Shape (n_coordinates * n_outputs,), ordered [coordinate][output]; the last coordinate is the intercept's. Of
    optimizers that bet, where the weights started: what they are is in the slots (`loops.settled`)."""
    slots: Any
    """The optimizer's memory, shape (optimizer.n_slots, weights.size)."""
    grad: Any
    """Sum of row gradients of the running batch, shape of `weights`."""
    clock: Any
    """int64 (6,): updates done, rows in the running batch, places of `touched` that are filled, -1 for all weights, the
    updates done when averaging began, `NEVER` before, whether a row of the running batch has a weight above 0,
    and rows whose score was brought within what the loss makes sense for."""
    tally: Any
    """float64 (3,): weighted loss before learning, weight and number of rows since it was last cleared."""
    sums: Any = np.zeros(5)
    """float64 (5,): of sequential optimizers the sum of (x/s)^2 and of weights (of those that fade by rows, the rows of
    all steps), the least and the greatest target, of steep
    losses in batches too; the sum of all rates so far, by which penalties are paid late."""
    touched: Any = np.zeros((0, 0), np.int32)
    """int32, or int64 if there are many: weights that the running batch has a gradient for, where not all are updated. Where
    all are, it has two dimensions and no room: a type of its own, so that kernels leave out what is about lists."""
    paid: Any = np.zeros(0)
    """float64, shape of `weights`: the sum of rates up to which each weight has paid its penalty; empty without penalty."""
    lag: Any = np.zeros(0)
    """float64, shape of `weights`: by which the mean of the weights lags behind (`kernels.learn.averaging`); empty without."""


def make_state(
    weights: Any,
    n_memories: int,
    grad_kind: Any,
    *,
    few: bool = False,
    lazy: bool = False,
    batches: bool = True,
    lag: bool = False,
) -> State:
    """Return the state that starts from these weights.

    Parameters
    ----------
    weights
        Flat; its type is that of the memory.
    n_memories
        Numbers that the optimizer keeps per weight.
    grad_kind
        Type of the gradient, where it is an array of its own.
    few
        Whether rows touch a few of the weights.
    lazy
        Whether the weights that they do not touch owe a penalty.
    batches
        Whether gradients are summed over batches.
    lag
        Whether the weights are averaged.

    """
    n, kind = weights.size, weights.dtype
    tally, clock, sums, behind = np.zeros(3), new_clock(), np.zeros(5), np.zeros(n if lag else 0)
    if not few:
        slots, grad = np.zeros((max(1, n_memories), n), kind), np.zeros(n, grad_kind)
        return State(weights.copy(), slots, grad, clock, tally, sums, lag=behind)
    size = 2 + n_memories
    size += size % 2  # three or five numbers would straddle lines
    cells = aligned(n, size, kind)
    cells[:, 0] = weights
    columns = cells.T
    touched = np.zeros(n if batches else (0, 0), np.int32 if n < 1 << 31 else np.int64)
    paid = np.zeros(n if lazy else 0)
    return State(columns[0], columns[1 : 1 + n_memories], columns[size - 1], clock, tally, sums, touched, paid, behind)


def new_clock() -> Any:
    """Return a clock at the start."""
    return np.array([0, 0, 0, NEVER, 0, 0])


def aligned(n: int, size: int, kind: Any) -> Any:
    """Return zeros, (n, size), that begin where a line of memory does."""
    room = np.zeros(n * size * kind.itemsize + MANY, np.uint8)
    first = -room.ctypes.data % MANY
    return room[first : first + n * size * kind.itemsize].view(kind).reshape(n, size)


def copy_state(state: State) -> State:
    """Return a state of its own memory, laid out alike."""
    n, size = state.weights.size, state.weights.strides[0] // state.weights.itemsize if state.weights.size else 1
    kept = {name: array.copy() for name, array in state._asdict().items() if name not in CELLS}
    if size <= 1:
        return State(**kept, **{name: getattr(state, name).copy() for name in CELLS})
    cells = aligned(n, size, state.weights.dtype)
    cells[:] = cells_of(state)
    columns = cells.T
    return State(columns[0], columns[1 : 1 + state.slots.shape[0]], columns[size - 1], **kept)


def cells_of(state: State) -> Any:
    """Return the one array, (n, size), whose columns are weights, slots and gradient; without columns, (n, 0)."""
    n, weights = state.weights.size, state.weights
    size = weights.strides[0] // weights.itemsize if n else 1
    return np.lib.stride_tricks.as_strided(weights, (n, size if size > 1 else 0), (weights.strides[0], weights.itemsize))
