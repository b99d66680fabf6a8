"""Batches whose gradients are corrected by those at a snapshot of the weights, and what the first pass measures.

For a batch B of b rows of weight h, at the weights w and at the snapshot s (slot 0), with G = grad f(s) / n (slot 1):

    g = 1/b sum over B of h (loss'(y, x w) - loss'(y, x s)) x       row by row: one difference of slopes times x
    w <- w - eta (g + G)                                            then the proximal step of the penalty

g + G has the mean of the gradient at w, and at w = s no noise at all. A row is read once for both scores.

Where rows touch a few of many weights, G still moves all of them in every step. They move late: a weight that is next read has
drifted along G and the penalty for all the steps that passed it by, by the flow of both (`penalties.drift`). Two flows one
after another are one of both durations, so that this is what drifting after every step would have made. Flow and gradient stand
still at the same weights.
"""

import numpy as np

from streamsgd.kernels.compile.jit import lean
from streamsgd.kernels.compile.verbs import add, adds, dot, dots, drift, slope, slopes, value
from streamsgd.kernels.learn.sparse import remember
from streamsgd.kernels.structs.rows import take
from streamsgd.kernels.structs.state import ETA, TOUCHED


@lean
def _slope(loss, y, score):
    return slope(loss, y, score)


@lean
def _slopes(loss, y, scores, out):
    slopes(loss, y, scores, out)


@lean
def _dot(rows, i, weights):
    return dot(rows, i, weights)


@lean
def _dots(rows, i, weights, scores):
    dots(rows, i, weights, scores)


@lean
def _drift(penalty, w, g, duration):
    return drift(penalty, w, g, duration)


def reduce_one(parts, block, members, n, state, pace, epoch, shared, scratch):
    loss, rows, weights, grad = parts.loss, block.rows, state.weights, state.grad
    snapshot = state.slots[0]
    scores, anchors = scratch.numbers[0], scratch.numbers[1]
    targets, row_weights = scratch.numbers[2], scratch.numbers[3]
    for k in range(n):
        i = members[k]
        scores[k], anchors[k] = _dot(rows, i, weights), _dot(rows, i, snapshot)
        targets[k], row_weights[k] = block.y[i], block.weight[i]
    total_loss, total_weight = 0.0, 0.0
    for k in range(n):
        total_loss += row_weights[k] * value(loss, targets[k], scores[k])
        total_weight += row_weights[k]
        anchors[k] = row_weights[k] * (_slope(loss, targets[k], scores[k]) - _slope(loss, targets[k], anchors[k]))
    for k in range(n):
        add(rows, members[k], anchors[k], grad)
    return total_loss, total_weight


def reduce_many(parts, block, members, n, state, pace, epoch, shared, scratch):
    loss, rows, weights, grad = parts.loss, block.rows, state.weights, state.grad
    snapshot = state.slots[0]
    scores, gradient, anchors = scratch.numbers[0], scratch.numbers[1], scratch.numbers[2]
    total_loss, total_weight = 0.0, 0.0
    for k in range(n):
        i = members[k]
        y, weight = block.y[i], block.weight[i]
        _dots(rows, i, weights, scores)
        _dots(rows, i, snapshot, anchors)
        total_loss += weight * value(loss, y, scores)
        total_weight += weight
        _subtract(loss, y, weight, scores, anchors, gradient, scratch.numbers[3])
        adds(rows, i, gradient, grad)
    return total_loss, total_weight


@lean
def _subtract(loss, y, weight, scores, anchors, gradient, room):
    """Fill `gradient` with the weighted difference of the slopes at two lists of scores."""
    _slopes(loss, y, scores, gradient)
    _slopes(loss, y, anchors, room)
    for k in range(gradient.shape[0]):
        gradient[k] = weight * (gradient[k] - room[k])


@lean
def catch_up(parts, state, j, n_penalised):
    """Let a weight drift for all the steps that passed it by."""
    owed = state.sums[ETA] - state.paid[j]
    if owed > 0.0:
        state.weights[j] = drifted(parts, state, j, n_penalised, state.weights[j], owed)
        state.paid[j] = state.sums[ETA]


@lean
def drifted(parts, state, j, n_penalised, w, duration):
    """Return where a weight comes to from w; that of an intercept pays no penalty."""
    whole = state.slots[1, j]
    return _drift(parts.penalty, w, whole, duration) if j < n_penalised else w - whole * duration


def reduce_entries_one(parts, block, members, n, state, pace, epoch, shared, scratch):
    loss, weights, slots = parts.loss, state.weights, state.slots
    grad, touched, n_touched = state.grad, state.touched, state.clock[TOUCHED]
    total_loss, total_weight = 0.0, 0.0
    scores, anchors = scratch.numbers[0], scratch.numbers[1]
    targets, row_weights = scratch.numbers[2], scratch.numbers[3]
    for r in range(n):
        scratch.counts[r] = take(block.rows, members[r], weights, scratch.index[r], scratch.x[r], 1)
    for r in range(n):
        i, index, x = members[r], scratch.index[r], scratch.x[r]
        here, there = scores.dtype.type(0.0), scores.dtype.type(0.0)
        for e in range(scratch.counts[r]):
            j = np.int64(index[e])
            catch_up(parts, state, j, pace.n_penalised)
            here += weights[j] * x[e]
            there += slots[0, j] * x[e]
        scores[r], anchors[r], targets[r], row_weights[r] = here, there, block.y[i], block.weight[i]
    for r in range(n):
        index, x = scratch.index[r], scratch.x[r]
        total_loss += row_weights[r] * value(loss, targets[r], scores[r])
        total_weight += row_weights[r]
        g = row_weights[r] * (_slope(loss, targets[r], scores[r]) - _slope(loss, targets[r], anchors[r]))
        for e in range(scratch.counts[r]):
            j, part = index[e], g * x[e]
            if part != 0.0:
                if grad[j] == 0.0 and n_touched >= 0:
                    n_touched = remember(touched, n_touched, j)
                grad[j] += part
    state.clock[TOUCHED] = n_touched
    return total_loss, total_weight


def reduce_entries_many(parts, block, members, n, state, pace, epoch, shared, scratch):
    loss, weights, slots = parts.loss, state.weights, state.slots
    scores, gradient, anchors = scratch.numbers[0], scratch.numbers[1], scratch.numbers[2]
    grad, touched, n_touched = state.grad, state.touched, state.clock[TOUCHED]
    n_outputs = scores.shape[0]
    total_loss, total_weight = 0.0, 0.0
    for r in range(n):
        i, index, x = members[r], scratch.index[0], scratch.x[0]
        count = take(block.rows, i, weights, index, x, n_outputs)
        scores[:] = 0.0
        anchors[:] = 0.0
        for e in range(count):
            for k in range(n_outputs):
                j = np.int64(index[e]) * n_outputs + k
                catch_up(parts, state, j, pace.n_penalised)
                scores[k] += weights[j] * x[e]
                anchors[k] += slots[0, j] * x[e]
        y, weight = block.y[i], block.weight[i]
        total_loss += weight * value(loss, y, scores)
        total_weight += weight
        _subtract(loss, y, weight, scores, anchors, gradient, scratch.numbers[3])
        for e in range(count):
            for k in range(n_outputs):
                j, part = index[e] * n_outputs + k, gradient[k] * x[e]
                if part != 0.0:
                    if grad[j] == 0.0 and n_touched >= 0:
                        n_touched = remember(touched, n_touched, j)
                    grad[j] += part
    state.clock[TOUCHED] = n_touched
    return total_loss, total_weight


def move_drifting(parts, state, n_penalised, n_rows, eta, shared):
    """Move the weights that the batch has a gradient for; time goes on for the others."""
    weights, grad, touched, paid = state.weights, state.grad, state.touched, state.paid
    n_touched, now = state.clock[TOUCHED], state.sums[ETA] + eta
    for t in range(n_touched if n_touched >= 0 else weights.shape[0]):
        j = np.int64(touched[t]) if n_touched >= 0 else t
        if grad[j] != 0.0:
            moved = weights[j] - eta * (grad[j] / n_rows)
            grad[j] = 0.0
            weights[j] = drifted(parts, state, j, n_penalised, moved, now - paid[j])
            paid[j] = now
    state.clock[TOUCHED] = 0
    state.sums[ETA] = now


def settle_drifts(parts, state, n_penalised, shared, weights):
    """Fill `weights` with what the weights are once all have drifted to where the last step leaves them."""
    for j in range(weights.shape[0]):
        weights[j] = state.weights[j]
        if state.paid.shape[0] > 0 and state.sums[ETA] > state.paid[j]:
            weights[j] = drifted(parts, state, j, n_penalised, weights[j], state.sums[ETA] - state.paid[j])
