"""Learning a field-weighted machine row by row: as `factors` does, and the weights of pairs of columns by adaptive rates.

With z_jf = x_j v_jf, c(j) the place of entry j and r the weights of pairs, what `factors` says of A, q and t holds for

    u_jf = x_j sum_{i != j} r_{c(i) c(j)} z_if      how the score changes with a factor
    u_ab = sum_{c(i) = a, c(j) = b} <z_i, z_j>      how it changes with the weight of a pair
    G_ab += h g^2 u_ab^2                            from `PAIR_SQUARES` on
    q     = ... + pair_rate sum u_ab^2 / sqrt(G_ab)
    r_ab += t pair_rate u_ab / sqrt(G_ab)

Products of factors are tiny in the beginning. An adaptive rate would make steps of full size of them, in directions that are
noise; that is why G begins so high that weights of pairs move as far as products say until these are of the size of scores.
"""

import math

import numpy as np

from streamsgd.kernels.compile.emit import LANES
from streamsgd.kernels.compile.jit import lean
from streamsgd.kernels.compile.memory import touch_item
from streamsgd.kernels.compile.vectors import products_of_eight, pull_eight
from streamsgd.kernels.compile.verbs import confine, leap, listed, slope, value
from streamsgd.kernels.learn.factors import FACTORS, ROWWISE, SCALE, SOON, SQUARES, START_SQUARES, TOGETHER, born
from streamsgd.kernels.learn.nag import LEAST_SUM
from streamsgd.kernels.structs.state import ETA, LEAST, MOST, SEEN, SPREAD, STEPS
from streamsgd.kernels.structs.step import rate_now

PAIR_RATE = 0.25
"""Of the weights of pairs."""

PAIR_SQUARES = 1.0
"""What G begins with."""


@lean
def entry_room(k):
    """Return the numbers that an entry's factors take, whole vectors of 8, so that loops over them become vector code."""
    return -(-k // 8) * 8


def learn_rows_paired(parts, block, members, n, state, pace, epoch, shared, scratch):
    loss, model, weights, slots, sums = parts.loss, parts.model, state.weights, state.slots, state.sums
    k, linear, columns, least = model.k, model.linear, model.columns, weights.dtype.type(LEAST_SUM)
    start = weights.dtype.type(PAIR_SQUARES)
    moves, scales, totals, units = scratch.room[0], scratch.room[1], scratch.room[2], scratch.room[3]
    n_pairs = columns * (columns + 1) // 2
    products = scratch.out.shape[0] - n_pairs  # behind the factors of entries: u_ab, 0 between rows
    own, pulls, out = scratch.out, scratch.kept, scratch.out  # factors by entry, and how the score changes with them
    stride = entry_room(k)
    total_loss, total_weight = 0.0, 0.0
    for r in range(n):
        scratch.counts[r] = listed(model, block.rows, members[r], scratch.index[r], scratch.x[r])
        for e in range(scratch.counts[r] if r < SOON else 0):
            touch_item(weights, scratch.index[r, e])
    for r in range(n):
        for e in range(scratch.counts[r + SOON] if r + SOON < n else 0):
            touch_item(weights, scratch.index[r + SOON, e])
        i, index, x = members[r], scratch.index[r], scratch.x[r]
        count, y, h = scratch.counts[r], block.y[i], block.weight[i]
        inner, pairs = count - 1, np.int64(index[count - 1]) + 1  # the intercept is in no pair
        if h > 0.0:
            sums[LEAST], sums[MOST] = min(sums[LEAST], y), max(sums[MOST], y)
        score, twice = 0.0, 0.0
        for e in range(count):
            score += linear * weights[index[e]] * x[e]
        for e in range(inner):
            j, at = index[e], e * stride
            if slots[ROWWISE, j] == 0.0 and slots[SQUARES, j] > 0.0:
                slots[ROWWISE, j] = START_SQUARES
                for f in range(k):
                    slots[FACTORS + f, j] = born(model, j, f)
            alive = slots[ROWWISE, j] > 0.0
            for f in range(stride):
                own[at + f] = slots[FACTORS + f, j] * x[e] if alive and f < k else 0.0
                pulls[at + f] = 0.0
        for b in range(1, inner):
            high = np.int64(index[count + b])
            for a in range(b):
                low = np.int64(index[count + a])
                moves[a] = weights[pairs + (low * (2 * columns - low - 1) >> 1) + high]
            for first in range(0, stride, LANES):
                pull_eight(own, pulls, moves, b, first, stride)
        for e in range(inner * stride):
            twice += own[e] * pulls[e]
        score = confine(loss, score + 0.5 * twice, sums[LEAST : MOST + 1])
        total_loss += h * value(loss, y, score)
        total_weight += h
        g = slope(loss, y, score)
        if g == 0.0 or h == 0.0:
            continue
        rate = rate_now(parts, pace, state.clock[STEPS] + r + 1, epoch + pace.epoch_per_row * r)
        ratio = rate / parts.optimizer.learning_rate  # a schedule is for all
        steep = h * g * g
        for e in range(count):
            j, size = index[e], abs(x[e])
            scale, total = slots[SCALE, j], slots[SQUARES, j] + steep * size * size
            slots[SQUARES, j] = total
            if size > scale:
                if scale > 0.0:
                    weights[j] *= scale / size
                slots[SCALE, j] = scale = size
            scales[e], totals[e] = scale, max(total, least)
        if block.rows.doubles:  # all entries of a coordinate move by what all of them have made of it
            for e in range(count):
                scales[e], totals[e] = slots[SCALE, index[e]], max(slots[SQUARES, index[e]], least)
        spread, reach = 0.0, 0.0
        for e in range(count):
            units[e] = x[e] / scales[e]
            moves[e] = units[e] / np.sqrt(totals[e])
            spread += units[e] * units[e]
        for e in range(count):
            slots[TOGETHER, index[e]] += moves[e]
        for e in range(count):
            reach += x[e] * slots[TOGETHER, index[e]]
        for e in range(count):
            slots[TOGETHER, index[e]] = 0.0
        sums[SPREAD] += h * spread
        sums[SEEN] += h
        pull = linear * rate * math.sqrt(sums[SEEN] / sums[SPREAD])
        across, between = 0.0, 0.0
        for b in range(1, inner):
            high = np.int64(index[count + b])
            for a in range(b):
                units[a] = 0.0
            for first in range(0, stride, LANES):
                products_of_eight(own, b, first, stride, units)
            for a in range(b):
                low = np.int64(index[count + a])
                out[products + (low * (2 * columns - low - 1) >> 1) + high] += units[a]
        for e in range(inner):
            j, at, length = index[e], e * stride, 0.0
            for f in range(k):
                pulls[at + f] *= x[e]
                length += pulls[at + f] * pulls[at + f]
            scales[e] = 0.0
            if slots[ROWWISE, j] > 0.0:
                slots[ROWWISE, j] += steep * length / k
                scales[e] = 1.0 / np.sqrt(slots[ROWWISE, j])
                across += length * scales[e]
        for p in range(n_pairs):
            u = out[products + p]
            if u != 0.0:
                slots[SQUARES, pairs + p] += steep * u * u
                moved = u / np.sqrt(start + slots[SQUARES, pairs + p])
                between += u * moved
                out[products + p] = moved
        force = h * (pull * reach + ratio * (model.rate * across + PAIR_RATE * between))
        step = leap(loss, y, score, force) * h / force if force != 0.0 else 0.0
        for e in range(count):
            weights[index[e]] += step * pull * moves[e]
        for e in range(inner):
            j, at, by = index[e], e * stride, step * ratio * model.rate * scales[e]
            if by != 0.0:
                for f in range(k):
                    slots[FACTORS + f, j] += by * pulls[at + f]
        for p in range(n_pairs):
            moved = out[products + p]
            if moved != 0.0:
                weights[pairs + p] += step * ratio * PAIR_RATE * moved
                out[products + p] = 0.0
        sums[ETA] += rate * h
    state.clock[STEPS] += n
    return total_loss, total_weight
