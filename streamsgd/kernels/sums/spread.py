"""How far predictions of rows are uncertain because the weights are: from a covariance, or from draws of the weights.

Nothing moves. `score_variances` works out the variance x'Vx of scores, `draw_spread` the scores of all draws in one visit of a
row.
"""

import math
from typing import Any, NamedTuple

from streamsgd.kernels.compile.jit import dispatch, lean, lean_kernel
from streamsgd.kernels.compile.verbs import entries, mean, means
from streamsgd.kernels.structs.rows import OWN

MEAN, LOWER, UPPER, ERROR = range(4)
"""Places in what is said of a prediction."""


class Spread(NamedTuple):
    """Room for a row, and what is to be worked out."""

    scores: Any
    """float64 (n_outputs, n_draws): of each draw."""
    means: Any
    """Likewise, behind the link."""
    ends: Any
    """float64 (2, n_ends): the smallest and the largest so far, as many as tell the ends of the interval."""
    one: Any
    """float64 (2, n_outputs): scores and means of one draw."""


def _form_dense(rows, i, covariance, x, scratch):
    values = rows.values
    n = values.shape[1] - OWN
    for j in range(n):
        x[j] = values[i, j]
    x[n] = 1.0
    total = 0.0
    for a in range(n + 1):
        part = 0.0
        for b in range(a):
            part += covariance[a, b] * x[b]
        total += x[a] * (2.0 * part + covariance[a, a] * x[a])
    return total


def _form_entries(rows, i, covariance, x, scratch):
    n, total = entries(rows, i, scratch.index[0], scratch.x[0]), 0.0
    for e in range(n):
        part = 0.0
        for f in range(n):
            part += covariance[scratch.index[0, e], scratch.index[0, f]] * scratch.x[0, f]
        total += part * scratch.x[0, e]
    return total


def _form(rows):
    return _form_dense if hasattr(rows, "dot") else _form_entries


def quadratic_form(rows, i, covariance, x, scratch):
    """Return x'Vx of row i, for one output."""
    return _form(type(rows))(rows, i, covariance, x, scratch)


@dispatch(quadratic_form)
def _(rows, i, covariance, x, scratch):
    return _form(rows.instance_class)


@lean_kernel
def score_variances(block, start, stop, covariance, out, x, scratch):
    """Fill `out`, float64 (n,), with the variance of the score of rows start to stop, of one output.

    Parameters
    ----------
    block, start, stop
        Rows, and which.
    covariance
        float64 (n_coordinates, n_coordinates), both triangles.
    out, x, scratch
        Filled; room, float64 (n_coordinates,); as of `new_scratch`.

    """
    for i in range(start, stop):
        out[i - start] = quadratic_form(block.rows, i, covariance, x, scratch)


@lean_kernel
def score_covariances(block, start, stop, covariance, out, scratch):
    """Fill `out`, float64 (n, n_outputs, n_outputs), with the covariances of the scores of rows start to stop."""
    n_outputs = out.shape[1]
    for i in range(start, stop):
        n = entries(block.rows, i, scratch.index[0], scratch.x[0])
        for k in range(n_outputs):
            for q in range(k + 1):
                total = 0.0
                for e in range(n):
                    a, part = scratch.index[0, e] * n_outputs + k, 0.0
                    for f in range(n):
                        part += covariance[a, scratch.index[0, f] * n_outputs + q] * scratch.x[0, f]
                    total += part * scratch.x[0, e]
                out[i - start, k, q] = out[i - start, q, k] = total


@lean
def _entropy(p):
    return -p * math.log(p) if p > 0.0 else 0.0


@lean
def _coin_entropy(p):
    return _entropy(p) + _entropy(1.0 - p)


@lean
def _fill_ends(values, share, ends, out):
    """Say between which values a part of all lies: beyond the last but one of `ends`, and `share` of the way to the last."""
    n, count = values.shape[0], ends.shape[1]
    for c in range(count):
        ends[0, c], ends[1, c] = math.inf, -math.inf
    for m in range(n):
        v = values[m]
        if v < ends[0, count - 1]:
            c = count - 1
            while c > 0 and v < ends[0, c - 1]:
                ends[0, c] = ends[0, c - 1]
                c -= 1
            ends[0, c] = v
        if v > ends[1, count - 1]:
            c = count - 1
            while c > 0 and v > ends[1, c - 1]:
                ends[1, c] = ends[1, c - 1]
                c -= 1
            ends[1, c] = v
    at = max(count - 2, 0)
    out[LOWER] = ends[0, at] + share * (ends[0, count - 1] - ends[0, at])
    out[UPPER] = ends[1, at] + share * (ends[1, count - 1] - ends[1, at])


def spread_row(loss, row, out, entropies, share, spread):
    """Say of one row's scores by all draws the mean, the ends of an interval and the standard deviation of its prediction."""
    _spreader(type(loss))(loss, row, out, entropies, share, spread)


def _spread_one(loss, row, out, entropies, share, spread):
    n, scores = spread.scores.shape[1], spread.scores[0]
    for m in range(n):
        spread.means[0, m] = mean(loss, scores[m])
    total, squares, doubt, first = 0.0, 0.0, 0.0, spread.means[0, 0]
    for m in range(n):
        off = spread.means[0, m] - first
        total += off
        squares += off * off
    center = first + total / n
    out[row, 0, MEAN] = center
    out[row, 0, ERROR] = max(0.0, (squares - total * total / n) / max(n - 1, 1)) ** 0.5
    _fill_ends(spread.means[0], share, spread.ends, out[row, 0])
    if entropies.shape[1] > 0:
        for m in range(n):
            doubt += _coin_entropy(spread.means[0, m])
        entropies[row, 0], entropies[row, 1] = _coin_entropy(center), doubt / n


def _spread_many(loss, row, out, entropies, share, spread):
    n_outputs, n = spread.scores.shape
    doubt = 0.0
    for m in range(n):
        for k in range(n_outputs):
            spread.one[0, k] = spread.scores[k, m]
        means(loss, spread.one[0], spread.one[1])
        for k in range(n_outputs):
            spread.means[k, m] = spread.one[1, k]
            doubt += _entropy(spread.one[1, k])
    whole = 0.0
    for k in range(n_outputs):
        total, squares, first = 0.0, 0.0, spread.means[k, 0]
        for m in range(n):
            total += spread.means[k, m] - first
            squares += (spread.means[k, m] - first) * (spread.means[k, m] - first)
        out[row, k, MEAN] = first + total / n
        out[row, k, ERROR] = max(0.0, (squares - total * total / n) / max(n - 1, 1)) ** 0.5
        _fill_ends(spread.means[k], share, spread.ends, out[row, k])
        whole += _entropy(first + total / n)
    if entropies.shape[1] > 0:
        entropies[row, 0], entropies[row, 1] = whole, doubt / n


def _spreader(loss):
    return _spread_many if hasattr(loss, "means") else _spread_one


@dispatch(spread_row)
def _(loss, row, out, entropies, share, spread):
    return _spreader(loss.instance_class)


@lean
def _score_draws(rows, i, draws, scores, scratch):
    """Fill `scores`, (n_outputs, n_draws), of row i."""
    n_outputs, n_draws = scores.shape
    scores[:] = 0.0
    n = entries(rows, i, scratch.index[0], scratch.x[0])
    for e in range(n):
        x, first = scratch.x[0, e], scratch.index[0, e] * n_outputs
        for k in range(n_outputs):
            for m in range(n_draws):
                scores[k, m] += draws[first + k, m] * x


@lean_kernel
def draw_spread(loss, block, start, stop, draws, share, out, entropies, spread, scratch):
    """Say of rows start to stop what draws of the weights say of their predictions.

    Parameters
    ----------
    loss, block, start, stop
        A loss, rows, and which.
    draws
        float32 or float64 (n_weights, n_draws): so that those of a weight lie side by side.
    share
        Between the last two of `ends`, where the ends of the interval are.
    out
        float64 (n, n_outputs, 4), filled: mean, lower and upper end, and standard deviation of the prediction.
    entropies
        float64 (n, 2), filled with that of the mean prediction and the mean of that of each draw; (n, 0) for none.
    spread, scratch
        Room: as its class says, and as of `new_scratch`.

    """
    for i in range(start, stop):
        _score_draws(block.rows, i, draws, spread.scores, scratch)
        spread_row(loss, i - start, out, entropies, share, spread)


def link_row(loss, scores, out):
    """Fill `out`, (n_outputs,), with the prediction of scores."""
    _linker(type(loss))(loss, scores, out)


def _link_one(loss, scores, out):
    out[0] = mean(loss, scores[0])


def _link_many(loss, scores, out):
    means(loss, scores, out)


def _linker(loss):
    return _link_many if hasattr(loss, "means") else _link_one


@dispatch(link_row)
def _(loss, scores, out):
    return _linker(loss.instance_class)


@lean_kernel
def link(loss, scores, out):
    """Fill `out`, float64 (n, n_outputs), with the predictions of scores."""
    for i in range(scores.shape[0]):
        link_row(loss, scores[i], out[i])


@lean_kernel
def touches(block, start, stop, marked, out, scratch):
    """Say of rows start to stop, in bool (n,), whether any has a coordinate that is marked, bool (n_coordinates,)."""
    for i in range(start, stop):
        n, found = entries(block.rows, i, scratch.index[0], scratch.x[0]), False
        for e in range(n):
            found = found or marked[scratch.index[0, e]]
        out[i - start] = found
