"""Learning row by row by betting on every weight (coin betting; see `optimizers.Coin` for the sources).

A weight's slots are z and G, the sums of its negative gradients and of their sizes, W, what its bets have won, L, the largest
slope that it met, and M, the largest |x|. For a row of weight h with entries x_j:

    M_j  = max(M_j, |x_j|)
    b_j  = (alpha + W_j) z_j / (L_j M_j (L_j M_j + G_j))    a share of the wealth, in the direction of the gradients so far
    N   += h sum (x_j / M_j)^2;  T += h;  n = (N + 1e-6) / T
    p    = sum x_j (start_j + b_j / n)                      confined to what the loss makes sense for
    g    = h d loss / d p
    L_j  = max(L_j, |g|), at least beta once there was a slope; b_j anew where it rose
    W_j -= g x_j b_j;  z_j -= g x_j;  G_j += |g x_j|

A share is below 1 and |g x_j| at most L_j M_j, so that no bet loses all of the wealth. `state.weights` keeps where the weights
started; what they are now is worked out of the slots. Everything stays the same if a column is multiplied by a constant.

Entries of one coordinate count as their sum. Vowpal Wabbit takes them one after another, each as if the others were not there.
"""

import math

from streamsgd.kernels.compile.jit import lean
from streamsgd.kernels.compile.verbs import confine, slope, slopes, value
from streamsgd.kernels.structs.rows import take
from streamsgd.kernels.structs.state import LEAST, MOST, SEEN, SPREAD, STEPS

SLOTS = 5
"""Numbers that are kept per weight."""

SOON = 2
"""Rows whose weights are asked for ahead of time."""

TINY = 1e-6
"""What Vowpal Wabbit adds to the sum of squares."""


@lean
def bet(alpha, slots, j, steep, size):
    """Return how far a weight is from its start, but for n, where `steep` is its L and `size` its M."""
    # As float64, and the share first: L M squared would leave the float32 at slopes and values of 1e10, or of 1e-12.
    most = 1.0 * steep * size
    if most == 0.0:
        return 0.0
    # By its formula the wealth stays above 0; the sum of many rounded gains need not.
    return max(alpha + slots[2, j], 0.0) * (slots[0, j] / (most + slots[1, j])) / most


@lean
def add_up(index, x, count, room):
    """Give the first entry of each coordinate the sum of all, and 0 to the others; `room` is 0 before and after."""
    for e in range(count):
        room[index[e]] += x[e]
    for e in range(count):
        x[e] = room[index[e]]
        room[index[e]] = 0.0


def bet_rows_one(parts, block, members, n, state, pace, epoch, shared, scratch):
    loss, weights, slots, sums = parts.loss, state.weights, state.slots, state.sums
    alpha, beta = parts.optimizer.learning_rate, parts.optimizer.beta
    bets, sizes = scratch.room[0], scratch.room[1]
    total_loss, total_weight = 0.0, 0.0
    for r in range(min(SOON, n)):
        scratch.counts[r] = take(block.rows, members[r], weights, scratch.index[r], scratch.x[r], 1)
    for r in range(n):
        if r + SOON < n:
            q = r + SOON
            scratch.counts[q] = take(block.rows, members[q], weights, scratch.index[q], scratch.x[q], 1)
        i, index, x = members[r], scratch.index[r], scratch.x[r]
        count, y, h = scratch.counts[r], block.y[i], block.weight[i]
        if h == 0.0:
            continue
        if block.rows.doubles:
            add_up(index, x, count, state.grad)
        sums[LEAST], sums[MOST] = min(sums[LEAST], y), max(sums[MOST], y)
        base, won, spread = 0.0, 0.0, 0.0
        for e in range(count):
            if x[e] != 0.0:
                j = index[e]
                sizes[e] = max(slots[4, j], abs(x[e]))
                bets[e] = bet(alpha, slots, j, slots[3, j], sizes[e])
                unit = x[e] / sizes[e]
                spread += unit * unit
                base += weights[j] * x[e]
                won += bets[e] * x[e]
        sums[SPREAD] += h * spread
        sums[SEEN] += h
        score = weights.dtype.type(base + won * sums[SEEN] / (sums[SPREAD] + TINY))
        if not math.isfinite(score):  # a loss that confines its scores would hide it
            total_loss = math.inf
        score = confine(loss, score, sums[LEAST : MOST + 1])
        total_loss += h * value(loss, y, score)
        total_weight += h
        g = h * slope(loss, y, score)
        for e in range(count):
            if x[e] != 0.0:
                j, part = index[e], g * x[e]
                slots[4, j] = sizes[e]
                if abs(g) > slots[3, j]:
                    slots[3, j] = max(abs(g), beta)
                    bets[e] = bet(alpha, slots, j, slots[3, j], sizes[e])
                slots[2, j] -= part * bets[e]
                slots[0, j] -= part
                slots[1, j] += abs(part)
    state.clock[STEPS] += n
    return total_loss, total_weight


def bet_rows_many(parts, block, members, n, state, pace, epoch, shared, scratch):
    """Let every output bet on its own, by its own slope; n and M are common to them."""
    loss, weights, slots, sums = parts.loss, state.weights, state.slots, state.sums
    alpha, beta = parts.optimizer.learning_rate, parts.optimizer.beta
    scores, gradient, bases = scratch.numbers[0], scratch.numbers[1], scratch.numbers[2]
    n_outputs = scores.shape[0]
    total_loss, total_weight = 0.0, 0.0
    for r in range(n):
        i, index, x = members[r], scratch.index[0], scratch.x[0]
        count, y, h = take(block.rows, i, weights, index, x, n_outputs), block.y[i], block.weight[i]
        if h == 0.0:
            continue
        if block.rows.doubles:
            add_up(index, x, count, state.grad)
        scores[:] = 0.0
        bases[:] = 0.0
        spread = 0.0
        for e in range(count):
            if x[e] != 0.0:
                first = index[e] * n_outputs
                size = max(slots[4, first], abs(x[e]))
                spread += (x[e] / size) * (x[e] / size)
                for k in range(n_outputs):
                    j = first + k
                    bases[k] += weights[j] * x[e]
                    scores[k] += bet(alpha, slots, j, slots[3, j], size) * x[e]
        sums[SPREAD] += h * spread
        sums[SEEN] += h
        for k in range(n_outputs):
            scores[k] = bases[k] + scores[k] * sums[SEEN] / (sums[SPREAD] + TINY)
        total_loss += h * value(loss, y, scores)
        total_weight += h
        slopes(loss, y, scores, gradient)
        for e in range(count):
            if x[e] != 0.0:
                first = index[e] * n_outputs
                size = max(slots[4, first], abs(x[e]))
                for k in range(n_outputs):
                    j, g = first + k, h * gradient[k]
                    part = g * x[e]
                    slots[4, j] = size
                    if abs(g) > slots[3, j]:
                        slots[3, j] = max(abs(g), beta)
                    slots[2, j] -= part * bet(alpha, slots, j, slots[3, j], size)
                    slots[0, j] -= part
                    slots[1, j] += abs(part)
    state.clock[STEPS] += n
    return total_loss, total_weight


def settle_bets(parts, state, n_penalised, shared, weights):
    """Fill `weights` with what the weights are."""
    slots, sums = state.slots, state.sums
    for j in range(weights.shape[0]):
        won = bet(parts.optimizer.learning_rate, slots, j, slots[3, j], slots[4, j])
        weights[j] = state.weights[j] + won * sums[SEEN] / (sums[SPREAD] + TINY)
