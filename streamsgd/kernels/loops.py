"""The one training loop and the one scoring loop, for every loss, penalty, optimizer, schedule and row layout.

The gradient of the running batch lives in the state, not in the loop: a batch may begin in one chunk and end in
another, so full batch is merely a batch that spans them all, and the number of steps does not depend on chunking.
"""

from typing import Any, NamedTuple

from streamsgd.kernels.jit import dispatch, kernel
from streamsgd.kernels.verbs import (
    add,
    adds,
    ahead,
    dot,
    dots,
    factor,
    mean,
    means,
    move,
    prepare,
    pull,
    shrink,
    slope,
    slopes,
    value,
)

STEPS, FILLED = 0, 1
"""Places in `State.clock`."""

AHEAD = 2
"""Rows of a tile to ask for ahead of time: hundreds of tiles take turns, which is more than the processor foresees."""

LOSS, WEIGHT, ROWS = 0, 1, 2
"""Places in `State.tally`."""


class Parts(NamedTuple):
    """What is being minimised and how: one part of each kind, hyper-parameters only."""

    loss: Any
    penalty: Any
    optimizer: Any
    schedule: Any


class Block(NamedTuple):
    """A chunk as numbers; targets and weights may be views of the rows' own memory."""

    rows: Any
    """A layout of `kernels.rows`."""
    y: Any
    """Targets, shape (n_rows,): 0 or 1, a class index, or a number."""
    weight: Any
    """Row weights, shape (n_rows,)."""


class State(NamedTuple):
    """What training changes: arrays only, written to checkpoints as they are."""

    weights: Any
    """Shape (n_slots * n_outputs,), ordered [slot][output]; the last slot is the intercept's."""
    slots: Any
    """The optimizer's memory, shape (optimizer.n_slots, weights.size)."""
    grad: Any
    """Sum of row gradients of the running batch, shape of `weights`."""
    clock: Any
    """int64 (2,): updates done, rows in the running batch."""
    tally: Any
    """float64 (3,): weighted loss before learning, weight and number of rows since it was last cleared."""


class Pace(NamedTuple):
    """Where this call stands in the run, for batches and schedules."""

    batch_size: int
    """Rows per update."""
    n_penalised: int
    """Leading weights that the penalty sees: all but the intercepts."""
    epoch: float
    """Passes over the data done before this call, as a fraction."""
    epoch_per_row: float
    """What one row adds to it."""
    epochs: float
    """Passes planned."""


def learn(loss, rows, i, y, weight, weights, grad, scratch):
    """Add row i's gradient and return its loss under the weights as they are."""
    return _chosen(type(loss))(loss, rows, i, y, weight, weights, grad, scratch)


def _learn_one(loss, rows, i, y, weight, weights, grad, scratch):
    score = dot(rows, i, weights)
    add(rows, i, grad.dtype.type(weight * slope(loss, y, score)), grad)
    return value(loss, y, score)


def _learn_many(loss, rows, i, y, weight, weights, grad, scratch):
    scores, gradient = scratch[0], scratch[1]
    dots(rows, i, weights, scores)
    slopes(loss, y, scores, gradient)
    for k in range(gradient.shape[0]):
        gradient[k] *= weight
    adds(rows, i, gradient, grad)
    return value(loss, y, scores)


def _chosen(loss_class):
    return _learn_many if hasattr(loss_class, "slopes") else _learn_one


@dispatch(learn)
def _(loss, rows, i, y, weight, weights, grad, scratch):
    return _chosen(loss.instance_class)


def _update(parts, state, pace, n_rows, epoch):
    """Move every weight by the mean gradient of `n_rows` rows and clear it."""
    weights, slots, grad, clock = state.weights, state.slots, state.grad, state.clock
    clock[STEPS] += 1
    step = clock[STEPS]
    optimizer, penalty = parts.optimizer, parts.penalty
    shared = prepare(optimizer, step)
    eta = optimizer.learning_rate * factor(parts.schedule, step, epoch, pace.epochs)
    # A short last batch moves less, or its rows would weigh more than the others'.
    eta *= n_rows / pace.batch_size
    for j in range(pace.n_penalised):
        w = weights[j]
        g = grad[j] / n_rows + pull(penalty, w)
        grad[j] = 0.0
        moved, stride = move(optimizer, w, g, slots, j, eta, shared)
        weights[j] = shrink(penalty, moved, stride)
    for j in range(pace.n_penalised, weights.shape[0]):
        g = grad[j] / n_rows
        grad[j] = 0.0
        moved, _stride = move(optimizer, weights[j], g, slots, j, eta, shared)
        weights[j] = moved
    clock[FILLED] = 0


update = kernel(_update)
"""The kernel that ends a batch early, at the end of an epoch: update(parts, state, pace, n_rows, epoch)."""


@kernel
def fit(parts, block, order, heads, state, pace, scratch):
    """Learn the rows named by `order`, updating the weights after every `pace.batch_size` of them.

    Parameters
    ----------
    parts, block, state, pace
        As their classes say.
    order
        int32 (n,): the tile that gives the next row.
    heads
        int64 (n_tiles,): the next unread row of each tile; advanced.
    scratch
        Shape (2, n_outputs): room for one row's scores and slopes.

    """
    rows, y, weight = block.rows, block.y, block.weight
    weights, grad, clock, tally = state.weights, state.grad, state.clock, state.tally
    filled = clock[FILLED]
    total_loss, total_weight = 0.0, 0.0
    for t in range(order.shape[0]):
        tile = order[t]
        i = heads[tile]
        heads[tile] = i + 1
        ahead(rows, i + AHEAD)
        row_weight = weight[i]
        total_loss += row_weight * learn(parts.loss, rows, i, y[i], row_weight, weights, grad, scratch)
        total_weight += row_weight
        filled += 1
        if filled == pace.batch_size:
            # The rate is that of where the batch began, or the last one of a cosine would not move at all.
            update(parts, state, pace, filled, pace.epoch + pace.epoch_per_row * (t + 1 - filled))
            filled = 0
    clock[FILLED] = filled
    tally[LOSS] += total_loss
    tally[WEIGHT] += total_weight
    tally[ROWS] += order.shape[0]


def predict(loss, rows, i, y, weights, scores, means_out):
    """Fill row i's scores and means; return its loss."""
    return _predictor(type(loss))(loss, rows, i, y, weights, scores, means_out)


def _predict_one(loss, rows, i, y, weights, scores, means_out):
    score = dot(rows, i, weights)
    scores[i, 0] = score
    means_out[i, 0] = mean(loss, score)
    return value(loss, y, score)


def _predict_many(loss, rows, i, y, weights, scores, means_out):
    dots(rows, i, weights, scores[i])
    means(loss, scores[i], means_out[i])
    return value(loss, y, scores[i])


def _predictor(loss_class):
    return _predict_many if hasattr(loss_class, "means") else _predict_one


@dispatch(predict)
def _(loss, rows, i, y, weights, scores, means_out):
    return _predictor(loss.instance_class)


@kernel
def score(loss, block, start, stop, weights, scores, means_out, losses):
    """Fill scores and means (n, n_outputs) and losses (n,) of rows start to stop without learning from them."""
    for i in range(start, stop):
        losses[i] = predict(loss, block.rows, i, block.y[i], weights, scores, means_out)
