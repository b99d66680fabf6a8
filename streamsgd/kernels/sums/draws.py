"""What draws of the weights say of rows' predictions: mean, interval, standard deviation, entropies, in one visit of a row.

As many rows as a line of memory holds are worked on side by step: `scores[k][m][r]` is output k of draw m for the r-th of them.
What a row comes to does not depend on the others, so it has the same bits wherever it stands. The draws of a row are put in
order by a sorting network, of which only what an interval's ends need is done.
"""

import math
from typing import Any, NamedTuple

from streamsgd.kernels.compile.jit import dispatch, lean, lean_kernel
from streamsgd.kernels.compile.lines import highest, length, load_line, lowest, repeat, store_line
from streamsgd.kernels.compile.maths import exp, log, log1p
from streamsgd.kernels.compile.verbs import entries, mean, means
from streamsgd.kernels.parts.losses import Logistic, Softmax
from streamsgd.kernels.structs.rows import OWN
from streamsgd.kernels.sums.spread import ERROR, LOWER, MEAN, UPPER

TILE = 4
"""Draws whose scores stay in registers."""


class DrawnWeights(NamedTuple):
    """Draws, and which of the ordered predictions an interval ends at."""

    values: Any
    """float32 or float64, flat, of [coordinate][output][draw]: those of a weight side by step, as many as whole lines hold."""
    number: int
    """Draws; those beyond are 0."""
    outputs: int
    pairs: Any
    """int64 (n_pairs, 2): of `algebra.sorting.selection_network`."""
    places: Any
    """int64 (4,): between which two of the ordered predictions the lower end is, and the upper one, the outer ones first."""
    share: float
    """How far from the outer to the inner one the ends are."""


class DrawRoom(NamedTuple):
    """Room for as many rows as a line holds, `n_rows`; all flat and of one type."""

    x: Any
    """(n_coordinates * n_rows,), of rows that meet all weights."""
    scores: Any
    """(n_outputs * n_draws * n_rows,): of [output][draw][row]."""
    means: Any
    """Likewise, behind the link."""
    doubts: Any
    """(n_draws * n_rows,): the entropy of each draw's prediction."""
    work: Any
    """(3 * n_draws * n_rows,)."""
    sums: Any
    """(2 * n_rows,)."""


def score_lines(rows, first, n, draws, room, scratch):
    """Fill the scores of n rows from the first on, at most a line's; places beyond are as the last one."""
    _scorer(type(rows))(rows, first, n, draws, room, scratch)


def _score_dense(rows, first, n, draws, room, scratch):
    values, x, w, scores = rows.values, room.x, draws.values, room.scores
    width, step = values.shape[1] - OWN, length(values)
    for r in range(step):
        i = first + min(r, n - 1)
        for j in range(width):
            x[j * step + r] = values[i, j]
    n_all = w.shape[0] // (width + 1)
    for m in range(0, n_all, TILE):
        at = width * n_all + m
        a, b, c, d = repeat(w, at), repeat(w, at + 1), repeat(w, at + 2), repeat(w, at + 3)
        for j in range(width):
            at, some = j * n_all + m, load_line(x, j * step)
            a = a + repeat(w, at) * some
            b = b + repeat(w, at + 1) * some
            c = c + repeat(w, at + 2) * some
            d = d + repeat(w, at + 3) * some
        store_line(scores, m * step, a)
        store_line(scores, (m + 1) * step, b)
        store_line(scores, (m + 2) * step, c)
        store_line(scores, (m + 3) * step, d)


def _score_listed(rows, first, n, draws, room, scratch):
    index, x, w, one = scratch.index[0], scratch.x[0], draws.values, room.work
    step = length(w)
    n_all = room.scores.shape[0] // step
    for r in range(n):
        count = entries(rows, first + r, index, x)
        for m in range(0, n_all, 2 * step):
            last = repeat(x, count - 1)  # of the intercept, which is 1
            a = last - last
            b = a
            for e in range(count):
                at, factor = index[e] * n_all + m, repeat(x, e)
                a = a + load_line(w, at) * factor
                b = b + load_line(w, at + step) * factor
            store_line(one, m, a)
            store_line(one, m + step, b)
        for m in range(n_all):
            room.scores[m * step + r] = one[m]
    for r in range(n, step):
        for m in range(n_all):
            room.scores[m * step + r] = one[m]


def _scorer(rows):
    return _score_dense if hasattr(rows, "dot") else _score_listed


@dispatch(score_lines)
def _(rows, first, n, draws, room, scratch):
    return _scorer(rows.instance_class)


@lean
def _entropy(p):
    return -p * math.log(p) if p > 0.0 else 0.0


def link_lines(loss, draws, doubtful, room):
    """Fill means, and if asked for doubts, from scores."""
    _linker(type(loss))(loss, draws, doubtful, room)


def _link_one(loss, draws, doubtful, room):
    for q in range(room.scores.shape[0]):
        room.means[q] = mean(loss, room.scores[q])
    if doubtful:
        for q in range(room.scores.shape[0]):
            room.doubts[q] = _entropy(room.means[q]) + _entropy(1.0 - room.means[q])


def _link_logistic(loss, draws, doubtful, room):
    """With t = e^-|s| and q = t / (1 + t), the less probable class's, entropy is log(1 + t) + |s| q."""
    scores, found, doubts = room.scores, room.means, room.doubts
    one = scores.dtype.type(1.0)
    for q in range(scores.shape[0]):
        size = abs(scores[q])
        tail = exp(-size)
        more = one / (one + tail)
        less = tail * more
        found[q] = more if scores[q] >= 0.0 else less
        doubts[q] = log1p(tail) + size * less


def _link_many(loss, draws, doubtful, room):
    size, n = room.doubts.shape[0], draws.outputs
    scores, found, given, made = room.scores, room.means, room.work[:n], room.work[n : 2 * n]
    for q in range(size):
        room.doubts[q] = 0.0
        for k in range(n):
            given[k] = scores[k * size + q]
        means(loss, given, made)
        for k in range(n):
            found[k * size + q] = made[k]
            room.doubts[q] += _entropy(made[k])


def _link_softmax(loss, draws, doubtful, room):
    """With s less the largest score and z = sum e^s, entropy is log z - sum e^s s / z."""
    size = room.doubts.shape[0]
    scores, found = room.scores, room.means
    top, total, doubts = room.work[:size], room.work[size : 2 * size], room.doubts
    for q in range(size):
        top[q], total[q], doubts[q] = scores[q], 0.0, 0.0
    for k in range(1, draws.outputs):
        for q in range(size):
            top[q] = max(top[q], scores[k * size + q])
    for k in range(draws.outputs):
        for q in range(size):
            below = scores[k * size + q] - top[q]
            part = exp(below)
            found[k * size + q] = part
            total[q] += part
            doubts[q] -= part * below
    for q in range(size):
        doubts[q] = log(total[q]) + doubts[q] / total[q]
    for k in range(draws.outputs):
        for q in range(size):
            found[k * size + q] /= total[q]


def _linker(loss):
    own = {Logistic: _link_logistic, Softmax: _link_softmax}
    return own.get(loss, _link_many if hasattr(loss, "means") else _link_one)


@dispatch(link_lines)
def _(loss, draws, doubtful, room):
    return _linker(loss.instance_class)


@lean
def _sum_lines(values, first, count, sums):
    """Fill `sums` with the sum of so many lines, and of their squares, each less the first line."""
    step = length(values)
    begin = load_line(values, first)
    total = begin - begin
    squares = total
    for m in range(count):
        off = load_line(values, first + m * step) - begin
        total = total + off
        squares = squares + off * off
    store_line(sums, 0, total)
    store_line(sums, step, squares)


@lean
def _order_lines(values, first, pairs):
    """Put as many lines in order, row by row, as pairs do."""
    step = length(values)
    for c in range(pairs.shape[0]):
        low, high = first + pairs[c, 0] * step, first + pairs[c, 1] * step
        a, b = load_line(values, low), load_line(values, high)
        store_line(values, low, lowest(a, b))
        store_line(values, high, highest(a, b))


@lean
def _tell_moments(room, draws, first, k, row, n, out):
    """Write mean and standard deviation of n rows' output k, whose draws begin at `first`."""
    step, count = length(room.means), draws.number
    _sum_lines(room.means, first, count, room.sums)
    for r in range(n):
        total, squares = room.sums[r], room.sums[step + r]
        out[k, MEAN, row + r] = room.means[first + r] + total / count
        out[k, ERROR, row + r] = max(0.0, (squares - total * total / count) / max(count - 1, 1)) ** 0.5


@lean
def _tell_ends(room, draws, first, k, row, n, out):
    """Write where the interval ends; the draws are put in order."""
    step = length(room.means)
    _order_lines(room.means, first, draws.pairs)
    for end in range(2):
        outer, inner = first + draws.places[2 * end] * step, first + draws.places[2 * end + 1] * step
        for r in range(n):
            begin = room.means[outer + r]
            out[k, LOWER + end * (UPPER - LOWER), row + r] = begin + draws.share * (room.means[inner + r] - begin)


@lean
def _tell_entropies(room, draws, row, n, out, entropies):
    """Write the entropy of the mean prediction, and the mean of that of each draw."""
    _sum_lines(room.doubts, 0, draws.number, room.sums)
    for r in range(n):
        entropies[1, row + r] = room.doubts[r] + room.sums[r] / draws.number
        whole = 0.0
        for k in range(draws.outputs):
            whole += _entropy(out[k, MEAN, row + r])
        if draws.outputs == 1:
            whole += _entropy(1.0 - out[0, MEAN, row + r])
        entropies[0, row + r] = whole


@lean_kernel
def draw_spread(loss, block, start, stop, draws, out, entropies, room, scratch):
    """Say of rows start to stop what draws of the weights say of their predictions.

    Parameters
    ----------
    loss, block, start, stop
        A loss, rows, and which.
    draws
        `DrawnWeights`.
    out
        float32 or float64 (n_outputs, 4, n), filled: mean, lower and upper end, and standard deviation of the prediction.
    entropies
        Likewise (2, n), filled with that of the mean prediction and the mean of that of each draw; (0, n) for none.
    room, scratch
        As its class says, and as of `new_scratch`.

    """
    step = length(draws.values)
    size = room.doubts.shape[0]
    for first in range(start, stop, step):
        n, row = min(step, stop - first), first - start
        score_lines(block.rows, first, n, draws, room, scratch)
        link_lines(loss, draws, entropies.shape[0] > 0, room)
        for k in range(draws.outputs):
            _tell_moments(room, draws, k * size, k, row, n, out)
            _tell_ends(room, draws, k * size, k, row, n, out)
        if entropies.shape[0] > 0:
            _tell_entropies(room, draws, row, n, out, entropies)
