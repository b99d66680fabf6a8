"""What training changes: arrays only, written to checkpoints as they are."""

from typing import Any, NamedTuple

import numpy as np

STEPS, FILLED, TOUCHED = 0, 1, 2
"""Places in `State.clock`."""

LOSS, WEIGHT, ROWS = 0, 1, 2
"""Places in `State.tally`."""

SPREAD, SEEN, LEAST, MOST, ETA, RACE = 0, 1, 2, 3, 4, 5
"""Places in `State.sums`; from the last on stand those of a race."""

MANY = 64
"""Bytes to which cells are aligned, so that one of up to four float32 is in one line of memory."""


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
    """int64 (3,): updates done, rows in the running batch, and places of `touched` that are filled, -1 for all weights."""
    tally: Any
    """float64 (3,): weighted loss before learning, weight and number of rows since it was last cleared."""
    sums: Any = np.zeros(5)
    """float64 (5,): of sequential optimizers the sum of (x/s)^2 and of weights, the least and the greatest target; the sum of
    all rates so far, by which penalties are paid late."""
    touched: Any = np.zeros((0, 0), np.int32)
    """int32, or int64 if there are many: weights that the running batch has a gradient for, where not all are updated. Where
    all are, it has two dimensions and no room: a type of its own, so that kernels leave out what is about lists."""
    paid: Any = np.zeros(0)
    """float64, shape of `weights`: the sum of rates up to which each weight has paid its penalty; empty without penalty."""


def make_state(
    weights: Any, n_memories: int, grad_kind: Any, *, few: bool = False, lazy: bool = False, batches: bool = True
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

    """
    n, kind = weights.size, weights.dtype
    tally, clock, sums = np.zeros(3), np.zeros(3, np.int64), np.zeros(5)
    if not few:
        return State(weights.copy(), np.zeros((max(1, n_memories), n), kind), np.zeros(n, grad_kind), clock, tally, sums)
    size = 2 + n_memories
    size += size % 2  # three or five numbers would straddle lines
    cells = aligned(n, size, kind)
    cells[:, 0] = weights
    columns = cells.T
    touched, paid = np.zeros(n if batches else 0, np.int32 if n < 1 << 31 else np.int64), np.zeros(n if lazy else 0)
    return State(columns[0], columns[1 : 1 + n_memories], columns[size - 1], clock, tally, sums, touched, paid)


def aligned(n: int, size: int, kind: Any) -> Any:
    """Return zeros, (n, size), that begin where a line of memory does."""
    room = np.zeros(n * size * kind.itemsize + MANY, np.uint8)
    first = -room.ctypes.data % MANY
    return room[first : first + n * size * kind.itemsize].view(kind).reshape(n, size)
