"""How far scores of rows are uncertain because the weights are, from a covariance: the variance x'Vx. Nothing moves.

As many rows as a line of memory holds are worked on side by side, at twice the speed of one by one. What a row comes to does
not depend on the others, so it has the same bits wherever it stands.
"""

from typing import Any, NamedTuple

from streamsgd.kernels.compile.jit import dispatch, lean_kernel
from streamsgd.kernels.compile.lines import length, load_line, repeat, store_line
from streamsgd.kernels.compile.verbs import entries, mean, means
from streamsgd.kernels.structs.rows import OWN

MEAN, LOWER, UPPER, ERROR = range(4)
"""Places in what is said of a prediction."""

TILE = 4
"""Rows of the covariance whose products stay in registers."""


class CovarianceLines(NamedTuple):
    """The covariance of the weights of one output, with room for as many rows as a line holds."""

    values: Any
    """float64, flat, of [coordinate][coordinate], both triangles; tiles are whole, and what is beyond is 0."""
    size: int
    """Coordinates, those beyond among them."""
    x: Any
    """float64 (size * n_rows,): of the rows."""
    found: Any
    """float64 (n_rows,): their variances."""


def variance_lines(rows, first, n, covariance, scratch):
    """Fill `found` of the covariance with x'Vx of n rows from the first on, at most a line's."""
    _former(type(rows))(rows, first, n, covariance, scratch)


def _form_dense(rows, first, n, covariance, scratch):
    values, v, x, size = rows.values, covariance.values, covariance.x, covariance.size
    width, step = values.shape[1] - OWN, length(x)
    for r in range(step):
        i = first + min(r, n - 1)
        for j in range(width):
            x[j * step + r] = values[i, j]
        x[width * step + r] = 1.0
    total = load_line(x, width * step)
    total = total - total
    for a in range(0, size, TILE):
        row = a * size
        zero = load_line(x, width * step)
        p = zero - zero
        q, r, s = p, p, p
        for b in range(a):
            some = load_line(x, b * step)
            p = p + repeat(v, row + b) * some
            q = q + repeat(v, row + size + b) * some
            r = r + repeat(v, row + 2 * size + b) * some
            s = s + repeat(v, row + 3 * size + b) * some
        at = row + a
        one, two = load_line(x, a * step), load_line(x, (a + 1) * step)
        three, four = load_line(x, (a + 2) * step), load_line(x, (a + 3) * step)
        q = q + repeat(v, at + size) * one
        r = r + repeat(v, at + 2 * size) * one + repeat(v, at + 2 * size + 1) * two
        s = s + repeat(v, at + 3 * size) * one + repeat(v, at + 3 * size + 1) * two + repeat(v, at + 3 * size + 2) * three
        total = total + one * (p + p + repeat(v, at) * one) + two * (q + q + repeat(v, at + size + 1) * two)
        total = total + three * (r + r + repeat(v, at + 2 * size + 2) * three)
        total = total + four * (s + s + repeat(v, at + 3 * size + 3) * four)
    store_line(covariance.found, 0, total)


def _form_entries(rows, first, n, covariance, scratch):
    for r in range(n):
        count, total = entries(rows, first + r, scratch.index[0], scratch.x[0]), 0.0
        for e in range(count):
            part, at = 0.0, scratch.index[0, e] * covariance.size
            for f in range(count):
                part += covariance.values[at + scratch.index[0, f]] * scratch.x[0, f]
            total += part * scratch.x[0, e]
        covariance.found[r] = total


def _former(rows):
    return _form_dense if hasattr(rows, "dot") else _form_entries


@dispatch(variance_lines)
def _(rows, first, n, covariance, scratch):
    return _former(rows.instance_class)


@lean_kernel
def score_variances(block, start, stop, covariance, out, scratch):
    """Fill `out`, float64 (n,), with the variance of the score of rows start to stop, of one output.

    Parameters
    ----------
    block, start, stop
        Rows, and which.
    covariance
        `CovarianceLines`.
    out, scratch
        Filled; as of `new_scratch`.

    """
    step = length(covariance.found)
    for first in range(start, stop, step):
        n = min(step, stop - first)
        variance_lines(block.rows, first, n, covariance, scratch)
        for r in range(n):
            out[first - start + r] = covariance.found[r]


@lean_kernel
def link_beside(loss, scores, errors, width, out):
    """Fill `out`, float64 (n,), with the predictions of scores, each so many of its errors away; of one output."""
    for i in range(scores.shape[0]):
        out[i] = mean(loss, scores[i] + width * errors[i])


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
