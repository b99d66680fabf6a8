"""Batches whose rows touch a few of many weights: only those have a gradient, and only those move.

A weight counts as touched if its gradient is not zero. Optimizers whose memory fades (momentum, Adam) let it fade only where it
is touched, as torch.optim.SparseAdam does (but for where epsilon stands); the others move as if every weight were updated.

A penalty is paid late: by its flow, when a weight is next read, for all the steps that passed it by. The flow of two durations
is that of their sum, so that the weight is what paying after every step would have made it.
"""

import numpy as np

from streamsgd.kernels.compile.jit import lean
from streamsgd.kernels.compile.verbs import bounded, move, settle, slope, slopes, stretch, value
from streamsgd.kernels.learn.averaging import weigh
from streamsgd.kernels.structs.rows import take
from streamsgd.kernels.structs.state import CLIPPED, ETA, STEPS, TOUCHED


@lean
def pay_all(parts, state, index, n, n_outputs, shared):
    """Let the weights of a row's entries pay; the last entry is the intercept, which owes nothing."""
    weights, slots, paid, now = state.weights, state.slots, state.paid, state.sums[ETA]
    for e in range(n - 1):
        for k in range(n_outputs):
            j = index[e] * n_outputs + k
            owed = now - paid[j]
            if owed > 0.0:
                weights[j] = settle(parts.penalty, weights[j], owed * stretch(parts.optimizer, slots, j, shared))
                paid[j] = now


@lean
def remember(touched, n_touched, j):
    """Note that a weight has a gradient now; return how many have, -1 once the list of them is full."""
    if n_touched == touched.shape[0]:
        return -1
    touched[n_touched] = j
    return n_touched + 1


def learn_entries_one(parts, block, members, n, state, pace, epoch, shared, scratch):
    loss, weights = parts.loss, state.weights
    grad, touched, n_touched = state.grad, state.touched, state.clock[TOUCHED]
    total_loss, total_weight, clipped = 0.0, 0.0, 0
    scores, targets, row_weights = scratch.numbers[0], scratch.numbers[2], scratch.numbers[3]
    for r in range(n):
        scratch.counts[r] = take(block.rows, members[r], weights, scratch.index[r], scratch.x[r], 1)
    for r in range(n):
        i, index, x, count = members[r], scratch.index[r], scratch.x[r], scratch.counts[r]
        if state.paid.shape[0] > 0:
            pay_all(parts, state, index, count, 1, shared)
        score = scores.dtype.type(0.0)
        for e in range(count):
            score += weights[index[e]] * x[e]
        scores[r], targets[r], row_weights[r] = score, block.y[i], block.weight[i]
    for r in range(n):
        index, x = scratch.index[r], scratch.x[r]
        free = scores[r]
        scores[r] = bounded(loss, targets[r], free, state.sums)
        clipped += scores[r] != free
        total_loss += row_weights[r] * value(loss, targets[r], scores[r])
        total_weight += row_weights[r]
        g = row_weights[r] * slope(loss, targets[r], scores[r])
        # Written out here and below: as a function it costs 40 ns per entry, for counting references to its arrays.
        for e in range(scratch.counts[r]):
            j, part = index[e], g * x[e]
            if part != 0.0:
                if grad[j] == 0.0 and n_touched >= 0:
                    n_touched = remember(touched, n_touched, j)
                grad[j] += part
    state.clock[TOUCHED] = n_touched
    state.clock[CLIPPED] += clipped
    return total_loss, total_weight


def learn_entries_many(parts, block, members, n, state, pace, epoch, shared, scratch):
    loss, weights = parts.loss, state.weights
    scores, gradient = scratch.numbers[0], scratch.numbers[1]
    grad, touched, n_touched = state.grad, state.touched, state.clock[TOUCHED]
    n_outputs = scores.shape[0]
    total_loss, total_weight = 0.0, 0.0
    for r in range(n):
        i, index, x = members[r], scratch.index[0], scratch.x[0]
        count = take(block.rows, i, weights, index, x, n_outputs)
        if state.paid.shape[0] > 0:
            pay_all(parts, state, index, count, n_outputs, shared)
        scores[:] = 0.0
        for e in range(count):
            for k in range(n_outputs):
                scores[k] += weights[index[e] * n_outputs + k] * x[e]
        weight = block.weight[i]
        total_loss += weight * value(loss, block.y[i], scores)
        total_weight += weight
        slopes(loss, block.y[i], scores, gradient)
        for e in range(count):
            for k in range(n_outputs):
                j, part = index[e] * n_outputs + k, weight * gradient[k] * x[e]
                if part != 0.0:
                    if grad[j] == 0.0 and n_touched >= 0:
                        n_touched = remember(touched, n_touched, j)
                    grad[j] += part
    state.clock[TOUCHED] = n_touched
    return total_loss, total_weight


def move_touched(parts, state, n_penalised, n_rows, eta, shared):
    """Move all weights that the batch touched."""
    weights, slots, grad, touched, paid = state.weights, state.slots, state.grad, state.touched, state.paid
    n_touched, owing, now = state.clock[TOUCHED], paid.shape[0] > 0, state.sums[ETA] + eta
    lagging, before = state.lag.shape[0] > 0, weigh(state.clock, state.clock[STEPS])
    for t in range(n_touched if n_touched >= 0 else weights.shape[0]):
        j = np.int64(touched[t]) if n_touched >= 0 else t
        if grad[j] != 0.0:
            moved, stride = move(parts.optimizer, weights[j], grad[j] / n_rows, slots, j, eta, shared)
            grad[j] = 0.0
            if owing and j < n_penalised:
                moved = settle(parts.penalty, moved, stride)
                paid[j] = now
            w = np.float64(weights[j])
            weights[j] = moved
            if lagging:
                state.lag[j] += before * (weights[j] - w)
    state.clock[TOUCHED] = 0
    state.sums[ETA] = now


def settle_all(parts, state, n_penalised, shared, weights):
    """Fill `weights` with what the weights are once everything is paid."""
    for j in range(weights.shape[0]):
        weights[j] = state.weights[j]
        if j < n_penalised and state.paid.shape[0] > 0 and weights[j] != 0.0:
            duration = (state.sums[ETA] - state.paid[j]) * stretch(parts.optimizer, state.slots, j, shared)
            weights[j] = settle(parts.penalty, weights[j], duration)
