"""Learning a factorization machine row by row: weights by the rule of `normalized`, factors by one rate for each value.

For a row of weight h with entries x_j, score p and slope g = d loss / d score, what `nag` says of G, s, m and d holds for the
weights, and for the factors v of every value that was met before:

    u_jf = x_j (sum_i v_if x_i - v_jf x_j)       how the score changes with a factor
    A_j += h g^2 mean_f u_jf^2                    from `START_SQUARES` on
    e_jf = u_jf / sqrt(A_j)
    q    = rate m sum x_j d_j + factor_rate sum u_jf e_jf     how far a step of 1 along both moves the score
    t    = leap(loss, y, p, h q) / q
    w_j += t rate m d_j,   v_jf += t factor_rate e_jf

so that no step overshoots its row's target to first order. A value has no factors when it is first met: those of the many that
never come again would be noise. They are born at the second time, from what is addressed by value and factor.
"""

import math

import numpy as np

from streamsgd.kernels.compile.emit import LANES
from streamsgd.kernels.compile.jit import lean
from streamsgd.kernels.compile.vectors import derive_eight, join_eight, move_eight
from streamsgd.kernels.compile.verbs import confine, leap, slope, value
from streamsgd.kernels.encode.shuffle import mix
from streamsgd.kernels.learn.nag import LEAST_SUM
from streamsgd.kernels.structs.rows import take
from streamsgd.kernels.structs.state import ETA, LEAST, MOST, SEEN, SPREAD, STEPS
from streamsgd.kernels.structs.step import rate_now

SQUARES, SCALE, TOGETHER, ROWWISE, FACTORS = 0, 1, 2, 3, 4
"""Rows of a state's slots: as of `nag` G and s; of the row under way the sum of moves of a coordinate; A; then the factors."""

START_SQUARES = 1e-4
"""What A begins with."""

ROOT_OF_3 = math.sqrt(3.0)

SOON = 2
"""Rows whose weights are asked for ahead of time."""


@lean
def born(model, j, f):
    """Return what a factor of a coordinate begins with; in Python `machines.spread`."""
    bits = mix(np.uint64(model.key), np.uint64(j) * np.uint64(model.k) + np.uint64(f))
    return model.start * ROOT_OF_3 * (2.0 * (np.float64(bits >> np.uint64(11)) * 2.0**-53) - 1.0)


@lean
def join(slots, index, x, inner, k, own, joint):
    """Fill `own` with factors times x, by entry, and `joint` with their sums over the entries; return the sum of their squares.

    A value that is not born yet has zeros for factors, and so adds nothing.
    """
    squares = 0.0
    for first in range(0, k - LANES + 1, LANES):
        squares += join_eight(slots, FACTORS, index, x, inner, own, first, k, joint)
    for f in range(k - k % LANES, k):
        joint[f] = 0.0
        for e in range(inner):
            z = slots[FACTORS + f, index[e]] * x[e]
            own[e * k + f] = z
            joint[f] += z
            squares += z * z
    return squares


@lean
def derive_factors(x, inner, k, own, joint, lengths):
    """Turn factors times x into how the score changes with each factor, and fill `lengths` with the sums of squares of that."""
    for e in range(inner):
        lengths[e] = 0.0
    for first in range(0, k - LANES + 1, LANES):
        derive_eight(x, inner, own, first, k, joint, lengths)
    for f in range(k - k % LANES, k):
        for e in range(inner):
            u = x[e] * (joint[f] - own[e * k + f])
            own[e * k + f] = u
            lengths[e] += u * u


@lean
def move_factors(slots, index, inner, k, own, strides):
    """Move the factors of a row's values along how the score changes with them."""
    for first in range(0, k - LANES + 1, LANES):
        move_eight(slots, FACTORS, index, inner, own, first, k, strides)
    for f in range(k - k % LANES, k):
        for e in range(inner):
            slots[FACTORS + f, index[e]] += strides[e] * own[e * k + f]


def learn_rows_factored(parts, block, members, n, state, pace, epoch, shared, scratch):
    loss, model, weights, slots, sums = parts.loss, parts.model, state.weights, state.slots, state.sums
    k, linear, least = model.k, model.linear, weights.dtype.type(LEAST_SUM)
    moves, scales, totals, units = scratch.room[0], scratch.room[1], scratch.room[2], scratch.room[3]
    own, joint = scratch.out, scratch.kept  # factors by entry, and their sums over the entries
    total_loss, total_weight = 0.0, 0.0
    for r in range(min(SOON, n)):
        scratch.counts[r] = take(block.rows, members[r], weights, scratch.index[r], scratch.x[r], 1)
    for r in range(n):
        if r + SOON < n:
            q = r + SOON
            scratch.counts[q] = take(block.rows, members[q], weights, scratch.index[q], scratch.x[q], 1)
        i, index, x = members[r], scratch.index[r], scratch.x[r]
        count, y, h = scratch.counts[r], block.y[i], block.weight[i]
        inner = count - 1  # the intercept is in no pair
        if h > 0.0:
            sums[LEAST], sums[MOST] = min(sums[LEAST], y), max(sums[MOST], y)
        score = 0.0
        for e in range(count):
            score += linear * weights[index[e]] * x[e]
        for e in range(inner):
            j = index[e]
            if slots[ROWWISE, j] == 0.0 and slots[SQUARES, j] > 0.0:
                slots[ROWWISE, j] = START_SQUARES
                for f in range(k):
                    slots[FACTORS + f, j] = born(model, j, f)
        squares = join(slots, index, x, inner, k, own, joint)
        for f in range(k):
            score += 0.5 * joint[f] * joint[f]
        score = confine(loss, score - 0.5 * squares, sums[LEAST : MOST + 1])
        total_loss += h * value(loss, y, score)
        total_weight += h
        g = slope(loss, y, score)
        if g == 0.0 or h == 0.0:
            continue
        rate = rate_now(parts, pace, state.clock[STEPS] + r + 1, epoch + pace.epoch_per_row * r)
        ratio = rate / parts.optimizer.learning_rate  # a schedule is for both
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
        if block.rows.doubles:
            for e in range(count):
                slots[TOGETHER, index[e]] += moves[e]
            for e in range(count):
                reach += x[e] * slots[TOGETHER, index[e]]
            for e in range(count):
                slots[TOGETHER, index[e]] = 0.0
        else:
            for e in range(count):
                reach += x[e] * moves[e]
        sums[SPREAD] += h * spread
        sums[SEEN] += h
        pull = linear * rate * math.sqrt(sums[SEEN] / sums[SPREAD])
        derive_factors(x, inner, k, own, joint, units)
        for e in range(inner):
            total = slots[ROWWISE, index[e]]
            if total > 0.0:
                total += steep * units[e] / k
                slots[ROWWISE, index[e]] = total
            totals[e] = total
        across = 0.0
        for e in range(inner):
            scales[e] = 1.0 / np.sqrt(totals[e]) if totals[e] > 0.0 else 0.0  # 0 of a value that is not born yet
            across += units[e] * scales[e]
        force = h * (pull * reach + ratio * model.rate * across)
        if force == 0.0:
            continue
        step = leap(loss, y, score, force) * h / force
        for e in range(count):
            weights[index[e]] += step * pull * moves[e]
        for e in range(inner):
            scales[e] *= step * ratio * model.rate
        move_factors(slots, index, inner, k, own, scales)
        sums[ETA] += rate * h
    state.clock[STEPS] += n
    return total_loss, total_weight
