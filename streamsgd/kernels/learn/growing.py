"""Batches that grow: rows are added to a step until their gradients pass a test, then the weights move.

The rows of a step are dealt to `GROUPS` groups in turn, and the gradients of each are summed in float64. With n rows, m groups
and A[k, l] the product of the mean gradients of groups k and l, unbiased for independent rows are

    tr S     the variance between the sums of groups, times m / n
    |G|^2    |g|^2 - tr S / n, which is the mean of A[k, l] over k != l
    |G|^4    the mean of A[k, l] A[p, q] over k, l, p, q all different
    G'SG     n / m times the mean of A[k, l] A[k, p] over k, l, p all different, less |G|^4

which are pooled with those of earlier steps, each worth less by `decay`: ratios are of means, not means of ratios. Differences
are taken from the first group, so equal rows have a variance of exactly 0. The tests are those of `planning.batches`.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from streamsgd.kernels.compile.jit import dispatch, lean, lean_kernel
from streamsgd.kernels.compile.verbs import add, adds, ahead, bounded, count_rows, dot, dots, prepare, slope, slopes
from streamsgd.kernels.learn.clipping import clip
from streamsgd.kernels.learn.fit import AHEAD, learn, move_on
from streamsgd.kernels.structs.block import SPAN
from streamsgd.kernels.structs.rows import take
from streamsgd.kernels.structs.state import FILLED, LOSS, ROWS, SEEN, STEPS, WEIGHED, WEIGHT
from streamsgd.kernels.structs.step import rate_now
from streamsgd.kernels.sums.noise import put

THETA, NU, DECAY, LEAST, MOST, TEST, FOLLOW, USUAL, MARGIN = range(9)
"""Places in `Growth.setup`."""

GOAL, LOOKS, LINES, STRIDE, CAPPED, CUT, LARGEST = range(7)
"""Places in `Growth.counts`."""

TRACE, NORM, ALONG, FOURTH, PAST, NEED = range(6)
"""Places in `Growth.memory`."""

STEP, TAKEN, TRACE_NOW, NORM_NOW, VALUE = range(5)
"""Columns of the ledger."""


class Growth(NamedTuple):
    """What decides how many rows a step takes."""

    groups: Any
    """float64 (GROUPS, n_places): sums of gradients of the rows of the running step, projected if there are fewer places than
    weights."""
    setup: Any
    """float64 (9,): theta, nu, decay of the evidence from step to step, least and most rows, number of the test and of the rule
    that the rate follows, the rows that a rate is for, and times how many of the rows called for a step takes."""
    counts: Any
    """int64 (7,): rows at which the running step is judged next; judgements so far; lines of the ledger, of how many steps
    one is kept; steps that moved at the most rows without passing, that the end of an epoch cut short; the most rows of any."""
    memory: Any
    """float64 (6,): evidence of the past steps: trace, |G|^2, G'SG, |G|^4; how many steps it is worth; and rows called for."""
    ledger: Any
    """float64 (MOST_LINES, 5): step, rows, pooled trace and |G|^2, and both sides of the test as a ratio."""
    room: Any
    """float64 (6,) for the evidence of a judgement, and ..."""
    products: Any
    """... float64 (GROUPS,), and ..."""
    whole: Any
    """... float64 (n_weights,) for a dense gradient that is yet to be projected, else (0,)."""


def collect(loss, block, i, state, group, whole, scratch):
    """Add the gradient of row i to a group."""
    _collector(type(block.rows), type(loss))(loss, block, i, state, group, whole, scratch)


@lean
def _project(group, whole):
    for w in range(whole.shape[0]):
        put(group, w, whole[w], True)
        whole[w] = 0.0


def _collect_dense_one(loss, block, i, state, group, whole, scratch):
    score, y, h = dot(block.rows, i, state.weights), block.y[i], np.float64(block.weight[i])
    g = h * slope(loss, y, bounded(loss, y, score, state.sums))
    if whole.shape[0] > 0:
        add(block.rows, i, g, whole)
        _project(group, whole)
    else:
        add(block.rows, i, g, group)


def _collect_dense_many(loss, block, i, state, group, whole, scratch):
    scores, g, y, h = scratch.numbers[0], scratch.numbers[1], block.y[i], block.weight[i]
    dots(block.rows, i, state.weights, scores)
    slopes(loss, y, scores, g)
    for k in range(g.shape[0]):
        g[k] *= h
    if whole.shape[0] > 0:
        adds(block.rows, i, g, whole)
        _project(group, whole)
    else:
        adds(block.rows, i, g, group)


def _collect_entries_one(loss, block, i, state, group, whole, scratch):
    weights, index, x = state.weights, scratch.index[0], scratch.x[0]
    count, y, h = take(block.rows, i, weights, index, x, 1), block.y[i], np.float64(block.weight[i])
    projected, score = group.shape[0] < weights.shape[0], scratch.numbers.dtype.type(0.0)
    for e in range(count):
        score += weights[index[e]] * x[e]
    g = h * slope(loss, y, bounded(loss, y, score, state.sums))
    for e in range(count):
        put(group, np.int64(index[e]), g * x[e], projected)


def _collect_entries_many(loss, block, i, state, group, whole, scratch):
    weights, index, x, scores, g = state.weights, scratch.index[0], scratch.x[0], scratch.numbers[0], scratch.numbers[1]
    n_outputs = scores.shape[0]
    count, y, h = take(block.rows, i, weights, index, x, n_outputs), block.y[i], np.float64(block.weight[i])
    projected = group.shape[0] < weights.shape[0]
    scores[:] = 0.0
    for e in range(count):
        for k in range(n_outputs):
            scores[k] += weights[index[e] * n_outputs + k] * x[e]
    slopes(loss, y, scores, g)
    for e in range(count):
        for k in range(n_outputs):
            put(group, np.int64(index[e]) * n_outputs + k, h * g[k] * x[e], projected)


def _collector(rows, loss):
    several = hasattr(loss, "slopes")
    if hasattr(rows, "dot"):
        return _collect_dense_many if several else _collect_dense_one
    return _collect_entries_many if several else _collect_entries_one


@dispatch(collect)
def _(loss, block, i, state, group, whole, scratch):
    rows = block.types[block.fields.index("rows")]
    return _collector(rows.instance_class, loss.instance_class)


@lean
def deal(loss, block, members, n, filled, state, growth, scratch):
    """Add the gradients of the rows `members[:n]` to the groups whose turn it is.

    A function of its own: verbs that the learning loop calls too are put into the same loop once only.
    """
    for k in range(n):
        group = growth.groups[(filled + k) % growth.groups.shape[0]]
        collect(loss, block, members[k], state, group, growth.whole, scratch)


@lean
def measure(growth, n):
    """Fill `growth.room` with trace and |G|^2 of a step of n rows, a multiple of the groups."""
    groups, room = growth.groups, growth.room
    m, between, length = groups.shape[0], 0.0, 0.0
    for p in range(groups.shape[1]):
        first, away, squares = groups[0, p], 0.0, 0.0
        for k in range(1, m):
            a = groups[k, p] - first
            away += a
            squares += a * a
        between += squares - away * away / m
        mean = (m * first + away) / n
        length += mean * mean
    room[TRACE] = max(0.0, between) / (m - 1) * m / n
    room[NORM] = length - room[TRACE] / n


@lean
def measure_along(growth, n):
    """Fill `growth.room` with G'SG and |G|^4 too."""
    groups, sums, m = growth.groups, growth.products, growth.groups.shape[0]
    scale, squares = (m / n) * (m / n), 0.0
    sums[:] = 0.0
    for k in range(m):
        for j in range(k):
            product = 0.0
            for p in range(groups.shape[1]):
                product += groups[k, p] * groups[j, p]
            product *= scale
            sums[k] += product
            sums[j] += product
            squares += 2.0 * product * product
    total, of_rows = 0.0, 0.0
    for k in range(m):
        total += sums[k]
        of_rows += sums[k] * sums[k]
    fourth = (total * total - 4.0 * of_rows + 2.0 * squares) / (m * (m - 1.0) * (m - 2.0) * (m - 3.0))
    third = (of_rows - squares) / (m * (m - 1.0) * (m - 2.0))
    growth.room[FOURTH] = fourth
    growth.room[ALONG] = n / m * (third - fourth)


@lean
def called_for(growth):
    """Return the rows that the evidence in `growth.room` calls for; infinite where it shows no gradient."""
    theta, room, test = growth.setup[THETA], growth.room, growth.setup[TEST]
    if room[TRACE] <= 0.0:
        return 0.0
    if room[NORM] <= 0.0:
        return math.inf
    if test == 0.0:
        return growth.setup[MARGIN] * room[TRACE] / (theta * theta * room[NORM])
    along = max(0.0, room[ALONG])
    need = along / (theta * theta * room[FOURTH]) if room[FOURTH] > 0.0 else math.inf
    if test == 2.0:
        across = max(0.0, room[TRACE] - along / room[NORM])
        need = max(need, across / (growth.setup[NU] * growth.setup[NU] * room[NORM]))
    return growth.setup[MARGIN] * need


@lean
def rounded(growth, rows):
    """Return so many rows as a whole number of rows per group, no fewer than the least and no more than the most."""
    m, setup = growth.groups.shape[0], growth.setup
    return np.int64(math.ceil(min(max(rows, setup[LEAST]), setup[MOST]) / m)) * m


@lean
def judged(growth, n, step):
    """Say whether a step of n rows may move; else set the goal at which it is judged again."""
    room, memory, counts, setup = growth.room, growth.memory, growth.counts, growth.setup
    measure(growth, n)
    if setup[TEST] > 0.0:
        measure_along(growth, n)
    past = memory[PAST]
    for k in range(PAST):
        room[k] = (past * memory[k] + room[k]) / (past + 1.0)
    need = called_for(growth)
    counts[LOOKS] += 1
    if need > n and n < setup[MOST]:
        counts[GOAL] = max(rounded(growth, min(need, 2.0 * n)), n + growth.groups.shape[0])
        return False
    if need > n:
        counts[CAPPED] += 1
    for k in range(PAST):
        memory[k] = room[k]
    memory[PAST], memory[NEED] = (past + 1.0) * setup[DECAY], min(need, setup[MOST])
    counts[LARGEST] = max(counts[LARGEST], n)
    note(growth, n, step, need)
    counts[GOAL] = rounded(growth, need)
    return True


@lean
def thinned(ledger, stride):
    """Keep the lines of every so many steps; return how many they are."""
    kept = 0
    for k in range(ledger.shape[0]):
        if (np.int64(ledger[k, STEP]) - 1) % stride == 0:
            for c in range(ledger.shape[1]):
                ledger[kept, c] = ledger[k, c]
            kept += 1
    ledger[kept:] = 0.0
    return kept


@lean
def note(growth, n, step, need):
    """Write a line into the ledger; of a full one every other line makes room, and of later steps fewer are kept."""
    ledger, counts = growth.ledger, growth.counts
    if (step - 1) % counts[STRIDE] != 0:
        return
    while counts[LINES] == ledger.shape[0]:
        counts[STRIDE] *= 2
        counts[LINES] = thinned(ledger, counts[STRIDE])
    if (step - 1) % counts[STRIDE] != 0:
        return
    line = counts[LINES]
    ledger[line, STEP], ledger[line, TAKEN] = step, n
    ledger[line, TRACE_NOW], ledger[line, NORM_NOW] = growth.room[TRACE], growth.room[NORM]
    ledger[line, VALUE] = min(need / growth.setup[MARGIN] / n, 1e300)
    counts[LINES] += 1


@lean
def share_of_rate(growth, n):
    """Return what a step of n rows multiplies the rate by."""
    follow, ratio = growth.setup[FOLLOW], n / growth.setup[USUAL]
    return 1.0 if follow == 0.0 else (ratio if follow == 1.0 else math.sqrt(ratio))


@lean_kernel
def fit_growing(parts, block, order, heads, state, pace, scratch, growth):
    """Learn the rows named by `order`, moving the weights whenever the rows of a step pass.

    Parameters
    ----------
    parts, block, order, heads, state, pace, scratch
        As of `kernels.learn.fit.fit`: if `order` is empty, the running step ends as it is, and moves by its share of the rows
        that it was to have.
    growth
        As its class says.

    """
    rows, clock, tally = block.rows, state.clock, state.tally
    filled = clock[FILLED]
    total_loss, total_weight = 0.0, 0.0
    members = scratch.counts[SPAN:]
    t, early = 0, order.shape[0] == 0
    while t < order.shape[0] or early:
        n = min(min(SPAN, order.shape[0] - t), growth.counts[GOAL] - filled)
        for k in range(n):
            tile = order[t + k]
            members[k] = heads[tile]
            heads[tile] += 1
            ahead(rows, members[k] + AHEAD)
        shared = prepare(parts.optimizer, clock[STEPS] + 1, filled + n, state.sums[SEEN] + filled + n)
        epoch = pace.epoch + pace.epoch_per_row * t
        loss, weight = learn(parts, block, members, n, state, pace, epoch, shared, scratch)
        deal(parts.loss, block, members, n, filled, state, growth, scratch)
        total_loss += loss
        total_weight += weight
        if weight > 0.0:
            clock[WEIGHED] = 1
        t += n
        filled += n
        goal = growth.counts[GOAL]
        # Rows that nobody weighs are no evidence, and no step.
        if early or (filled == goal and (clock[WEIGHED] == 0 or judged(growth, filled, clock[STEPS] + 1))):
            if clock[WEIGHED]:
                if early:
                    growth.counts[CUT] += 1
                    growth.counts[GOAL] = rounded(growth, growth.memory[NEED])
                clock[STEPS] += 1
                # The rate is that of where the step began.
                eta = rate_now(parts, pace, clock[STEPS], pace.epoch + pace.epoch_per_row * (t - filled))
                eta *= share_of_rate(growth, goal) * (filled / goal)
                if min(pace.clip_norm, pace.clip_value) < math.inf:
                    clip(state, pace, filled)
                count_rows(parts.optimizer, state.sums, filled)
                move_on(parts, state, pace, filled, eta, prepare(parts.optimizer, clock[STEPS], filled, state.sums[SEEN]))
            growth.groups[:] = 0.0
            clock[WEIGHED] = 0
            filled, early = 0, False
    clock[FILLED] = filled
    tally[LOSS] += total_loss
    tally[WEIGHT] += total_weight
    tally[ROWS] += order.shape[0]
