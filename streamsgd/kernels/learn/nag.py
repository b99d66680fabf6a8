"""Learning row by row with the normalised adaptive invariant update (Normalized; see `optimizers.Normalized` for the sources).

For a row of weight h with entries x_j, score p and slope g = d loss / d score:

    G_j += h g^2 x_j^2
    s_j  = max(s_j, |x_j|), the weight being rescaled by the ratio of the old to the new
    N   += h sum (x_j / s_j)^2;  T += h;  m = sqrt(T / N)
    d_j  = m x_j / (s_j sqrt(G_j))                          summed over the entries of a coordinate, if it has several
    q    = sum x_j d_j                                      how far a step of 1 along d moves the score
    w_j += leap(loss, y, p, rate h q) / q  d_j

The leap is where infinitely many small steps would bring the score, so that no step overshoots, whatever the rate or h.
Everything stays the same if a column is multiplied by a constant. A row without slope changes nothing but what a penalty takes.
"""

import math

import numpy as np

from streamsgd.kernels.compile.jit import lean
from streamsgd.kernels.compile.memory import SIDE
from streamsgd.kernels.compile.verbs import confine, leap, slope, slopes, value
from streamsgd.kernels.learn.averaging import arrive, leave, weigh
from streamsgd.kernels.learn.sparse import pay_all
from streamsgd.kernels.structs.rows import OWN, take
from streamsgd.kernels.structs.state import CLIPPED, ETA, LEAST, MOST, SEEN, SPREAD, STEPS
from streamsgd.kernels.structs.step import rate_now

SOON = 2
"""Rows whose weights are asked for ahead of time."""

LEAST_SUM = 1e-30
"""What a sum of squares is taken for that underflows."""


def learn_rows_one(parts, block, members, n, state, pace, epoch, shared, scratch):
    loss, weights, slots, sums = parts.loss, state.weights, state.slots, state.sums
    least = weights.dtype.type(LEAST_SUM)
    moves, scales, totals, units = scratch.room[0], scratch.room[1], scratch.room[2], scratch.room[3]
    lag, lagging, paid = state.lag, state.lag.shape[0] > 0, state.paid
    total_loss, total_weight, clipped = 0.0, 0.0, 0
    for r in range(min(SOON, n)):
        scratch.counts[r] = take(block.rows, members[r], weights, scratch.index[r], scratch.x[r], 1)
    for r in range(n):
        if r + SOON < n:
            q = r + SOON
            scratch.counts[q] = take(block.rows, members[q], weights, scratch.index[q], scratch.x[q], 1)
        rate = rate_now(parts, pace, state.clock[STEPS] + r + 1, epoch + pace.epoch_per_row * r)
        i, index, x = members[r], scratch.index[r], scratch.x[r]
        count, y, h = scratch.counts[r], block.y[i], block.weight[i]
        if paid.shape[0] > 0:
            pay_all(parts, state, index, count, 1, shared)
        if h > 0.0:
            sums[LEAST], sums[MOST] = min(sums[LEAST], y), max(sums[MOST], y)
        score = weights.dtype.type(0.0)
        for e in range(count):
            score += weights[index[e]] * x[e]
        free, score = score, confine(loss, score, sums[LEAST : MOST + 1])
        clipped += score != free
        total_loss += h * value(loss, y, score)
        total_weight += h
        g = slope(loss, y, score)
        if g == 0.0 or h == 0.0:
            if paid.shape[0] > 0 and sums[SPREAD] > 0.0:  # a row that asks for nothing has a share of the penalty too
                sums[ETA] += rate * h * math.sqrt(sums[SEEN] / sums[SPREAD])
            continue
        squares, before = h * g * g, weigh(state.clock, state.clock[STEPS] + r + 1)
        spread, reach = weights.dtype.type(0.0), weights.dtype.type(0.0)
        for e in range(count):
            j, size = index[e], abs(x[e])
            scale, total = slots[1, j], slots[0, j] + squares * size * size
            slots[0, j] = total
            if size > scale:
                if scale > 0.0:
                    w = np.float64(weights[j])
                    weights[j] *= scale / size
                    if lagging:
                        lag[j] += before * (weights[j] - w)
                slots[1, j] = scale = size
            scales[e], totals[e] = scale, max(total, least)
        if block.rows.doubles:  # all entries of a coordinate move by what all of them have made of it
            for e in range(count):
                scales[e], totals[e] = slots[1, index[e]], max(slots[0, index[e]], least)
        # Apart, and by a known number at a time, so that it is vector code to the last entry: roots and quotients are dear.
        # What stands after the last entry is of an earlier row, and is not used.
        for first in range(0, count, SIDE):
            for e in range(first, first + SIDE):
                units[e] = x[e] / scales[e]
                moves[e] = units[e] / np.sqrt(totals[e])
        for e in range(count):
            spread += units[e] * units[e]
            reach += x[e] * moves[e]
        if block.rows.doubles:
            reach = joint_reach(index, x, moves, count, state.grad)
        sums[SPREAD] += h * spread
        sums[SEEN] += h
        m = math.sqrt(sums[SEEN] / sums[SPREAD])
        force = rate * h * m * reach
        step = leap(loss, y, score, force) / reach
        for e in range(count):
            j = index[e]
            w = np.float64(weights[j])
            weights[j] += step * moves[e]
            if lagging:
                lag[j] += before * (weights[j] - w)
        sums[ETA] += rate * h * m
    state.clock[STEPS] += n
    state.clock[CLIPPED] += clipped
    return total_loss, total_weight


def learn_rows_dense(parts, block, members, n, state, pace, epoch, shared, scratch):
    """Learn rows that meet all weights in order, which is vector code from end to end; no penalty is paid."""
    loss, weights, sums = parts.loss, state.weights, state.sums
    totals, scales = state.slots[0], state.slots[1]
    least, one, values = weights.dtype.type(LEAST_SUM), weights.dtype.type(1.0), block.rows.values
    x, moves, scale, total = scratch.x[0], scratch.room[0], scratch.room[1], scratch.room[2]
    n_columns = values.shape[1] - OWN
    room = -(-(n_columns + 1) // SIDE) * SIDE
    x[n_columns] = one
    lag, lagging = state.lag, state.lag.shape[0] > 0
    total_loss, total_weight, clipped = 0.0, 0.0, 0
    for r in range(n):
        rate = rate_now(parts, pace, state.clock[STEPS] + r + 1, epoch + pace.epoch_per_row * r)
        i = members[r]
        y, h = block.y[i], block.weight[i]
        if h > 0.0:
            sums[LEAST], sums[MOST] = min(sums[LEAST], y), max(sums[MOST], y)
        score = weights[n_columns]
        for j in range(n_columns):
            score += values[i, j] * weights[j]
        free, score = score, confine(loss, score, sums[LEAST : MOST + 1])
        clipped += score != free
        total_loss += h * value(loss, y, score)
        total_weight += h
        g = slope(loss, y, score)
        if g == 0.0 or h == 0.0:
            continue
        for j in range(n_columns):
            x[j] = values[i, j]
        if lagging:  # asked here, because two calls that do nothing take 6 ns of 150
            leave(lag, weigh(state.clock, state.clock[STEPS] + r + 1), weights)
        squares, larger = weights.dtype.type(h * g * g), False
        for j in range(n_columns + 1):
            sum_ = totals[j] + squares * x[j] * x[j]
            totals[j] = sum_
            total[j] = max(sum_, least)
            scale[j] = scales[j] if scales[j] > 0.0 else one
            larger |= abs(x[j]) > scales[j]
        if larger:
            for j in range(n_columns + 1):
                size = abs(x[j])
                if size > scales[j]:
                    if scales[j] > 0.0:
                        weights[j] *= scales[j] / size
                    scales[j] = scale[j] = size
        # By a known number at a time, as in `learn_rows_one`; beyond the last column x is 0 and the divisors are not.
        for first in range(0, room, SIDE):
            for j in range(first, first + SIDE):
                moves[j] = x[j] / (scale[j] * np.sqrt(total[j]))
        spread, reach = weights.dtype.type(0.0), weights.dtype.type(0.0)
        for first in range(0, room, SIDE):
            for j in range(first, first + SIDE):
                spread += moves[j] * moves[j] * total[j]
                reach += x[j] * moves[j]
        sums[SPREAD] += h * spread
        sums[SEEN] += h
        m = math.sqrt(sums[SEEN] / sums[SPREAD])
        step = weights.dtype.type(leap(loss, y, score, rate * h * m * reach) / reach)
        for j in range(n_columns + 1):
            weights[j] += step * moves[j]
        if lagging:
            arrive(lag, weigh(state.clock, state.clock[STEPS] + r + 1), weights)
    state.clock[STEPS] += n
    state.clock[CLIPPED] += clipped
    return total_loss, total_weight


@lean
def joint_reach(index, x, moves, count, room):
    """Return sum x_e d_e where d_e is the sum of the moves of all entries of that coordinate; `room` is 0 before and after."""
    for e in range(count):
        room[index[e]] += moves[e]
    reach = room.dtype.type(0.0)
    for e in range(count):
        reach += x[e] * room[index[e]]
    for e in range(count):
        room[index[e]] = 0.0
    return reach


def learn_rows_many(parts, block, members, n, state, pace, epoch, shared, scratch):
    """Take plain steps: the loss of several scores has no closed leap.

    Entries of one coordinate share a step.
    """
    loss, weights, slots, sums = parts.loss, state.weights, state.slots, state.sums
    least = weights.dtype.type(LEAST_SUM)
    scores, gradient = scratch.numbers[0], scratch.numbers[1]
    n_outputs = scores.shape[0]
    lag, lagging = state.lag, state.lag.shape[0] > 0
    total_loss, total_weight = 0.0, 0.0
    for r in range(n):
        rate = rate_now(parts, pace, state.clock[STEPS] + r + 1, epoch + pace.epoch_per_row * r)
        i, index, x = members[r], scratch.index[0], scratch.x[0]
        count, y, h = take(block.rows, i, weights, index, x, n_outputs), block.y[i], block.weight[i]
        if state.paid.shape[0] > 0:
            pay_all(parts, state, index, count, n_outputs, shared)
        scores[:] = 0.0
        for e in range(count):
            for k in range(n_outputs):
                scores[k] += weights[index[e] * n_outputs + k] * x[e]
        total_loss += h * value(loss, y, scores)
        total_weight += h
        if h == 0.0:
            continue
        slopes(loss, y, scores, gradient)
        spread = 0.0
        for e in range(count):
            size = abs(x[e])
            unit = size / max(size, slots[1, index[e] * n_outputs])
            spread += unit * unit
        sums[SPREAD] += h * spread
        sums[SEEN] += h
        m = math.sqrt(sums[SEEN] / sums[SPREAD])
        times, before = scratch.room[0], weigh(state.clock, state.clock[STEPS] + r + 1)
        for e in range(count):
            state.grad[index[e] * n_outputs] += 1.0
        for e in range(count):
            times[e] = state.grad[index[e] * n_outputs]
        for e in range(count):
            state.grad[index[e] * n_outputs] = 0.0
        for e in range(count):
            for k in range(n_outputs):
                g = gradient[k]
                if g != 0.0:
                    j, size = index[e] * n_outputs + k, abs(x[e])
                    scale, total = slots[1, j], slots[0, j] + h * g * g * size * size
                    slots[0, j] = total
                    w = np.float64(weights[j])
                    if size > scale:
                        if scale > 0.0:
                            weights[j] *= scale / size
                        slots[1, j] = scale = size
                    weights[j] -= rate * h * m * g * x[e] / (times[e] * scale * np.sqrt(max(total, least)))
                    if lagging:
                        lag[j] += before * (weights[j] - w)
        sums[ETA] += rate * h * m
    state.clock[STEPS] += n
    return total_loss, total_weight
