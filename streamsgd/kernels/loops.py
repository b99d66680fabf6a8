"""The one training loop and the one scoring loop, for every loss, penalty, optimizer, schedule and row layout.

The gradient of the running batch lives in the state, not in the loop: a batch may begin in one chunk and end in
another, so full batch is merely a batch that spans them all, and the number of steps does not depend on chunking.
"""

from typing import Any, NamedTuple

import numpy as np

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

SPAN = 16
"""Rows of a batch whose scores are worked out side by side."""

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


def new_scratch(n_outputs: int, kind: Any) -> Any:
    """Return room for the scores, slopes, targets and weights of a span of rows, or for the outputs of one."""
    return np.zeros((4, SPAN if n_outputs == 1 else n_outputs), kind)


def learn(loss, block, members, n, weights, grad, scratch):
    """Add the gradients of the rows `members[:n]` and return the sum of their weighted losses, and of their weights."""
    return _chosen(type(loss))(loss, block, members, n, weights, grad, scratch)


def _learn_one(loss, block, members, n, weights, grad, scratch):
    # Three short loops, not one: the middle one becomes vector code, worth half of a logistic row.
    rows, scores, slopes = block.rows, scratch[0], scratch[1]
    targets, row_weights = scratch[2], scratch[3]
    for k in range(n):
        i = members[k]
        scores[k] = dot(rows, i, weights)
        targets[k], row_weights[k] = block.y[i], block.weight[i]
    total_loss, total_weight = 0.0, 0.0
    for k in range(n):
        slopes[k] = row_weights[k] * slope(loss, targets[k], scores[k])
        total_loss += row_weights[k] * value(loss, targets[k], scores[k])
        total_weight += row_weights[k]
    for k in range(n):
        add(rows, members[k], slopes[k], grad)
    return total_loss, total_weight


def _learn_many(loss, block, members, n, weights, grad, scratch):
    scores, gradient = scratch[0], scratch[1]
    total_loss, total_weight = 0.0, 0.0
    for k in range(n):
        i = members[k]
        y, weight = block.y[i], block.weight[i]
        dots(block.rows, i, weights, scores)
        slopes(loss, y, scores, gradient)
        for output in range(gradient.shape[0]):
            gradient[output] *= weight
        adds(block.rows, i, gradient, grad)
        total_loss += weight * value(loss, y, scores)
        total_weight += weight
    return total_loss, total_weight


def _chosen(loss_class):
    return _learn_many if hasattr(loss_class, "slopes") else _learn_one


@dispatch(learn)
def _(loss, block, members, n, weights, grad, scratch):
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
        As of `new_scratch`.

    """
    rows, weights, grad, clock, tally = block.rows, state.weights, state.grad, state.clock, state.tally
    filled = clock[FILLED]
    total_loss, total_weight = 0.0, 0.0
    members = np.empty(SPAN, np.int64)
    t = 0
    while t < order.shape[0]:
        # Rows of one batch meet the same weights, so some of them can be taken side by side.
        n = min(min(SPAN, order.shape[0] - t), pace.batch_size - filled)
        for k in range(n):
            tile = order[t + k]
            members[k] = heads[tile]
            heads[tile] += 1
            ahead(rows, members[k] + AHEAD)
        loss, weight = learn(parts.loss, block, members, n, weights, grad, scratch)
        total_loss += loss
        total_weight += weight
        t += n
        filled += n
        if filled == pace.batch_size:
            # The rate is that of where the batch began, or the last one of a cosine would not move at all.
            update(parts, state, pace, filled, pace.epoch + pace.epoch_per_row * (t - filled))
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
