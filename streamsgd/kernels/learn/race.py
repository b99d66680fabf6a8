"""A race: learners of the rule of `sequential`, their rates powers of two apart, learn every row and mix what they predict.

Nobody knows the rate that suits new data: of real tables some want an eighth, others four. All are tried at once for a bounded
number of rows, at the cost of the arithmetic alone: what belongs to a coordinate is one cell of memory, its weights and sums of
squares by learner, then the largest |x|, which they share.

Learner k has a weight p_k in the mixture, from the losses L_k that it had so far:

* A loss that is the negative logarithm of a likelihood (`mixing = "likelihood"`): p_k ~ exp(-L_k), and the loss of the row is
  -log sum p_k exp(-loss_k), so that the total is at most min L_k + log K, whatever the data (Vovk 1990, COLT).
* A squared loss (`mixing = "squares"`) of targets and scores within a range of R, weighted by up to H: p_k ~
  exp(-L_k / (H R^2)), and the mean score predicts; at most min L_k + H R^2 log K (Kivinen and Warmuth 1999), R and H so far.
* Any other convex loss: p_k ~ exp(-eta L_k) with eta = log K / D, D being what mixing lost so far, and the mean score
  predicts; at most min L_k + 2 D (AdaHedge: de Rooij, van Erven, Grunwald and Koolen 2014, JMLR 15).

A penalty is paid late, by its flow, as in `sparse`: what the weights of a row owe for the rows that passed them by is paid when
they are next read, each learner's at its own rate. Losses are without it: who predicts best goes on.
"""

import math

import numpy as np

from streamsgd.kernels.compile.jit import dispatch, lean
from streamsgd.kernels.compile.maths import exp
from streamsgd.kernels.compile.verbs import confine, leap, settle, slope, value
from streamsgd.kernels.structs.block import MOST_LEARNERS
from streamsgd.kernels.structs.rows import take
from streamsgd.kernels.structs.state import CLIPPED, ETA, LEAST, MOST, RACE, STEPS
from streamsgd.kernels.structs.step import rate_now

CELL = 16
"""Numbers of a cell, 64 bytes of float32: a line of memory. Six weights, six sums of squares, the largest |x|, and ..."""

SQUARES, SCALE, TOGETHER, PAID = 6, 12, 13, 14
"""... the sum of the row's factors of this coordinate, 0 between rows, and the sum of rates up to which a penalty is paid."""

SLOWEST = 0.25
"""Rate of the first learner in units of the given one; each further one has twice as much."""

LEAST_SUM = 1e-30
"""What a sum of squares is taken for that underflows."""

NOTHING = 700.0
"""By so much a learner may be behind, in units of the mixture, and still have a share."""

MIXED, GAP, HEAVIEST, LOSSES, SPREADS, SEENS = 0, 1, 2, 3, 3 + MOST_LEARNERS, 3 + 2 * MOST_LEARNERS
"""Places in `State.sums` from `RACE` on: loss of the mixture, what mixing lost, the largest weight of a row, then by learner:
losses, sums of (x/s)^2, and of weights."""

RACE_SUMS = 3 + 3 * MOST_LEARNERS

SCORES, SLOPES, COSTS, SHARES = 0, 1, 2, 3
"""Rows of `Scratch.learners`."""

REACHES, FORCES, SQUARED = 0, 1, 2
"""Rows of `Scratch.steps`."""


def mixed(loss, y, h, learners, eta, sums):
    """Return the loss of the mixture on a row of weight h, given scores, losses and shares by learner."""
    return _mixer(getattr(type(loss), "mixing", ""))(loss, y, h, learners, eta, sums)


def _of_likelihoods(loss, y, h, learners, eta, sums):
    for k in range(MOST_LEARNERS):
        if learners[SHARES, k] == 0.0:
            return mixed_exactly(learners, sums)
    return soft_least(learners, eta)


def _of_mean(loss, y, h, learners, eta, sums):
    mean = 0.0
    for k in range(MOST_LEARNERS):
        mean += learners[SHARES, k] * learners[SCORES, k]
    return h * value(loss, y, mean)


def _of_mean_hedged(loss, y, h, learners, eta, sums):
    cost = _mean_cost(loss, y, h, learners, eta, sums)
    sums[RACE + GAP] += max(0.0, cost - soft_least(learners, eta))
    return cost


_mean_cost = lean(_of_mean)


def _mixer(mixing):
    return {"likelihood": _of_likelihoods, "squares": _of_mean}.get(mixing, _of_mean_hedged)


@dispatch(mixed)
def _(loss, y, h, learners, eta, sums):
    return _mixer(getattr(loss.instance_class, "mixing", ""))


def temper(loss, sums):
    """Return by how much the losses so far weigh: p_k ~ exp(-eta L_k)."""
    return _temperer(getattr(type(loss), "mixing", ""))(loss, sums)


def _one(loss, sums):
    return 1.0


def _of_range(loss, sums):
    width = max(sums[MOST], 0.0) - min(sums[LEAST], 0.0)
    return 1.0 / max(sums[RACE + HEAVIEST] * width * width, LEAST_SUM)


def _of_gap(loss, sums):
    return math.log(MOST_LEARNERS) / max(sums[RACE + GAP], LEAST_SUM)


def _temperer(mixing):
    return {"likelihood": _one, "squares": _of_range}.get(mixing, _of_gap)


@dispatch(temper)
def _(loss, sums):
    return _temperer(getattr(loss.instance_class, "mixing", ""))


@lean
def soft_least(learners, eta):
    """Return -log sum p_k exp(-eta loss_k) / eta for the shares p_k; those who have none cannot help."""
    costs, shares = learners[COSTS], learners[SHARES]
    least, total = math.inf, 0.0
    for k in range(MOST_LEARNERS):
        if shares[k] > 0.0:
            least = min(least, costs[k])
    for k in range(MOST_LEARNERS):
        total += shares[k] * exp(-eta * (costs[k] - least)) if shares[k] > 0.0 else 0.0
    return least - math.log(total) / eta


@lean
def mixed_exactly(learners, sums):
    """Return log sum exp(-L_k) - log sum exp(-L_k - loss_k): one row may cost more than a learner is behind, share or none."""
    costs, best, least = learners[COSTS], math.inf, math.inf
    for k in range(MOST_LEARNERS):
        best = min(best, sums[RACE + LOSSES + k])
        least = min(least, sums[RACE + LOSSES + k] + costs[k])
    before, after = 0.0, 0.0
    for k in range(MOST_LEARNERS):
        before += exp(-min(sums[RACE + LOSSES + k] - best, NOTHING))
        after += exp(-min(sums[RACE + LOSSES + k] + costs[k] - least, NOTHING))
    return (least - best) - math.log(after) + math.log(before)


@lean
def share_out(eta, sums, shares):
    """Fill the shares of the learners from their losses so far."""
    best, total = sums[RACE + LOSSES], 0.0
    for k in range(1, MOST_LEARNERS):
        best = min(best, sums[RACE + LOSSES + k])
    for k in range(MOST_LEARNERS):
        over = eta * (sums[RACE + LOSSES + k] - best)
        shares[k] = exp(-over) if over < NOTHING else 0.0
        total += shares[k]
    for k in range(MOST_LEARNERS):
        shares[k] /= total


def pay_learners(parts, state, index, n):
    """Let the weights of a row's entries pay, of all learners; the last entry is the intercept, which owes nothing."""
    _payer(type(parts.penalty))(parts, state, index, n)


def _owe_nothing(parts, state, index, n):
    return None


def _pay_entries(parts, state, index, n):
    for e in range(n - 1):
        _pay_one(parts, state, np.int64(index[e]) * CELL)


def _payer(penalty):
    return _pay_entries if penalty._fields else _owe_nothing


@dispatch(pay_learners)
def _(parts, state, index, n):
    return _payer(parts.types[parts.fields.index("penalty")].instance_class)


@lean
def _pay_one(parts, state, at):
    """Let the weights of a coordinate pay, whose cell begins at `at`."""
    cells = state.weights
    # In the precision of the cell, or what rounding leaves would be paid again.
    now = cells.dtype.type(state.sums[ETA])
    if now > cells[at + PAID]:
        for k in range(MOST_LEARNERS):
            cells[at + k] = settled_of(parts, cells, at, k, now)
        cells[at + PAID] = now


@lean
def settled_of(parts, cells, at, k, now):
    """Return the weight of a learner once its penalty is paid up to a sum of rates."""
    owed, total = now - cells[at + PAID], cells[at + SQUARES + k]
    if total == 0.0 or owed <= 0.0:
        return cells[at + k]
    return settle(parts.penalty, cells[at + k], owed * (1 << k) / (cells[at + SCALE] * math.sqrt(total)))


def pass_time(penalty, sums, force):
    """Add to the sum of rates of the first learner, by which penalties are paid, that of a row: rate times weight.

    Of the others it is twice that, four times ..., as far as their slopes are not 0 where those of the first are.
    """
    _clock_of(type(penalty))(penalty, sums, force)


def _pass_none(penalty, sums, force):
    return None


def _pass_some(penalty, sums, force):
    if sums[RACE + SPREADS] > 0.0:
        sums[ETA] += force * math.sqrt(sums[RACE + SEENS] / sums[RACE + SPREADS])


def _clock_of(penalty):
    return _pass_some if penalty._fields else _pass_none


@dispatch(pass_time)
def _(penalty, sums, force):
    return _clock_of(penalty.instance_class)


def settle_race(parts, state, n_penalised, shared, weights):
    """Fill `weights` with what those of the learner are that predicted best, once its penalty is paid."""
    cells, losses, best = state.weights, state.sums[RACE + LOSSES :], 0
    now = cells.dtype.type(state.sums[ETA])
    for k in range(1, MOST_LEARNERS):
        best = k if losses[k] < losses[best] else best
    for j in range(weights.shape[0]):
        weights[j] = settled_of(parts, cells, j * CELL, best, now) if j < n_penalised else cells[j * CELL + best]


def learn_rows_race(parts, block, members, n, state, pace, epoch, shared, scratch):
    """Learn row by row with all learners; `weights` are the cells, CELL numbers each."""
    loss, cells, sums, learners = parts.loss, state.weights, state.sums, scratch.learners
    index, x, roots = scratch.index[0], scratch.x[0], scratch.roots
    scores, slopes, costs = learners[SCORES], learners[SLOPES], learners[COSTS]
    sides, reaches, forces, squared = scratch.sides, scratch.steps[REACHES], scratch.steps[FORCES], scratch.steps[SQUARED]
    least, one, doubles = cells.dtype.type(LEAST_SUM), cells.dtype.type(1.0), block.rows.doubles
    total_loss, total_weight, clipped = 0.0, 0.0, 0
    for r in range(n):
        rate = rate_now(parts, pace, state.clock[STEPS] + r + 1, epoch + pace.epoch_per_row * r) * SLOWEST
        i = members[r]
        count, y, h = take(block.rows, i, cells, index, x, CELL), block.y[i], block.weight[i]
        force = rate * h
        pay_learners(parts, state, index, count)
        if h > 0.0:
            sums[LEAST], sums[MOST] = min(sums[LEAST], y), max(sums[MOST], y)
            sums[RACE + HEAVIEST] = max(sums[RACE + HEAVIEST], h)
        for k in range(MOST_LEARNERS):
            reaches[k] = 0.0
        for e in range(count):
            at = np.int64(index[e]) * CELL
            for k in range(MOST_LEARNERS):
                reaches[k] += cells[at + k] * x[e]
        moving, clips = False, 0
        for k in range(MOST_LEARNERS):
            scores[k] = confine(loss, reaches[k], sums[LEAST : MOST + 1])
            clips += scores[k] != reaches[k]
            slopes[k] = slope(loss, y, scores[k])
            costs[k] = h * value(loss, y, scores[k])
            squared[k], reaches[k] = h * slopes[k] * slopes[k], 0.0
            moving |= slopes[k] != 0.0
        clipped += clips == MOST_LEARNERS
        eta = temper(loss, sums)
        share_out(eta, sums, learners[SHARES])
        cost = mixed(loss, y, h, learners, eta, sums)
        for k in range(MOST_LEARNERS):
            sums[RACE + LOSSES + k] += costs[k]
        sums[RACE + MIXED] += cost
        total_loss += cost
        total_weight += h
        if not moving or h == 0.0:
            pass_time(parts.penalty, sums, force)
            continue
        spread = cells.dtype.type(0.0)
        for e in range(count):
            at, size = np.int64(index[e]) * CELL, abs(x[e])
            scale = cells[at + SCALE]
            if size > scale:
                if scale > 0.0:
                    for k in range(MOST_LEARNERS):
                        cells[at + k] *= scale / size
                cells[at + SCALE] = scale = size
            for k in range(MOST_LEARNERS):
                cells[at + SQUARES + k] += squared[k] * size * size
        if doubles:
            for e in range(count):
                cells[np.int64(index[e]) * CELL + TOGETHER] += x[e]
        for e in range(count):
            at = np.int64(index[e]) * CELL
            sides[e] = x[e] / cells[at + SCALE]
            spread += sides[e] * sides[e]
            stride = sides[e] * (cells[at + TOGETHER] if doubles else x[e])
            for k in range(MOST_LEARNERS):
                root = one / np.sqrt(max(cells[at + SQUARES + k], least))
                roots[e, k] = root
                reaches[k] += stride * root
        for k in range(MOST_LEARNERS):
            forces[k] = 0.0
            if slopes[k] != 0.0:
                sums[RACE + SPREADS + k] += h * spread
                sums[RACE + SEENS + k] += h
                m = math.sqrt(sums[RACE + SEENS + k] / sums[RACE + SPREADS + k])
                forces[k] = leap(loss, y, scores[k], rate * h * m * reaches[k]) / reaches[k]
            rate *= 2.0
        for e in range(count):
            at = np.int64(index[e]) * CELL
            cells[at + TOGETHER] = 0.0
            for k in range(MOST_LEARNERS):
                cells[at + k] += forces[k] * sides[e] * roots[e, k]
        pass_time(parts.penalty, sums, force)
    state.clock[STEPS] += n
    state.clock[CLIPPED] += clipped
    return total_loss, total_weight
