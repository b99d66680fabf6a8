"""What the covariance of weights is made of: sums over rows at given weights, and the algebra that follows. Nothing moves.

For a row of weight h with entries x_i, slope g and second derivative c of its loss by the score, two matrices are added up,
sum of h c x_i x_j and sum of h^2 g^2 x_i x_j, and the gradient, sum of h g x_i; of several outputs, c is a matrix and g g a
product. Sums are float64 whatever the rows are; only the lower triangles of the matrices count.

Linear algebra is written out: that of NumPy belongs to a library whose threads cut sums as they please, on which a model's
bits may not depend.
"""

from typing import Any, NamedTuple

import numpy as np

from streamsgd.kernels.compile.jit import dispatch, lean, lean_kernel
from streamsgd.kernels.compile.tiles import add_triangle
from streamsgd.kernels.compile.verbs import dot, slope, slopes
from streamsgd.kernels.structs.block import SPAN
from streamsgd.kernels.structs.rows import OWN, take

NEAR = 3e-5
"""Half the distance of the slopes whose difference is a second derivative, relative to a score beyond 1: what it neglects, and
its rounding, are about 1e-10 of it."""


class Sandwich(NamedTuple):
    """The sums."""

    gradient: Any
    """float64 (n_weights,)."""
    bread: Any
    """float64 (n_weights, n_weights): of second derivatives."""
    filling: Any
    """Likewise: of products of row gradients."""
    room: Any
    """float64 (3 SPAN or 3 + n_outputs, n_coordinates or n_outputs), whichever is more: for what is worked out per row."""


def new_sandwich(n_weights: int, n_outputs: int) -> Sandwich:
    """Return zeros for so many weights."""
    room = np.zeros((max(3 * SPAN, 3 + n_outputs), max(n_weights // n_outputs, n_outputs)))
    return Sandwich(np.zeros(n_weights), np.zeros((n_weights, n_weights)), np.zeros((n_weights, n_weights)), room)


@lean
def second_derivative(loss, y, score):
    """Return the second derivative of a loss."""
    step = NEAR * max(1.0, abs(score))
    below, above = 0.0, 0.0
    for side in range(2):  # one call of the verb, because Numba warns of names where it is written several times
        below, above = above, slope(loss, y, score + (2 * side - 1) * step)
    return (above - below) / (2.0 * step)


@lean
def second_derivatives(loss, y, scores, room):
    """Fill rows 3 and on of `room` with second derivatives by every two outputs."""
    n = scores.shape[0]
    for k in range(n):
        score = scores[k]
        step = NEAR * max(1.0, abs(score))
        for side in range(2):  # one call here too
            scores[k] = score + (2 * side - 1) * step
            slopes(loss, y, scores, room[side, :n])
        scores[k] = score
        for q in range(n):
            room[3 + q, k] = (room[1, q] - room[0, q]) / (2.0 * step)


def lay_rows(loss, block, first, n, weights, sandwich, scratch):
    """Add up the rows `first` to `first + n`, at most `SPAN`; `scratch` as of `new_scratch`, in float64."""
    _layer(type(block.rows), type(loss))(loss, block, first, n, weights, sandwich, scratch)


def _lay_dense(loss, block, first, n, weights, sandwich, scratch):
    """Take the rows side by side, so that a tile of the matrices comes from memory once for all of them.

    Row by row and line by line they cost twice as much.
    """
    room = sandwich.room
    x, bent, spread = room[:SPAN], room[SPAN : 2 * SPAN], room[2 * SPAN : 3 * SPAN]
    scores, slopes_, bends = scratch.numbers[0], scratch.numbers[1], scratch.numbers[4]
    targets, row_weights, values = scratch.numbers[2], scratch.numbers[3], block.rows.values
    n_columns = values.shape[1] - OWN
    for k in range(n):
        scores[k] = dot(block.rows, first + k, weights)
        targets[k], row_weights[k] = block.y[first + k], block.weight[first + k]
    for k in range(n):
        slopes_[k] = row_weights[k] * slope(loss, targets[k], scores[k])
        bends[k] = row_weights[k] * second_derivative(loss, targets[k], scores[k])
        for j in range(n_columns):
            x[k, j] = values[first + k, j]
        x[k, n_columns] = 1.0
    bend_rows(x, slopes_, bends, bent, spread, sandwich.gradient, n_columns + 1, n)
    add_triangle(bent, x, sandwich.bread, n)
    add_triangle(spread, x, sandwich.filling, n)


def bend_rows(x, slopes_, bends, bent, spread, gradient, n_columns, n):
    """Fill `bent` and `spread` with rows times second derivatives and squares of slopes; add up the gradient.

    In loops of their own, so that what is added up was rounded before.
    """
    for k in range(n):
        for j in range(n_columns):
            bent[k, j], spread[k, j] = bends[k] * x[k, j], slopes_[k] * x[k, j]
    for k in range(n):
        for j in range(n_columns):
            gradient[j] += spread[k, j]
    for k in range(n):
        for j in range(n_columns):
            spread[k, j] *= slopes_[k]


@dispatch(bend_rows, exact=True, within=True)
def _(x, slopes_, bends, bent, spread, gradient, n_columns, n):
    return bend_rows


def _lay_entries_one(loss, block, first, n, weights, sandwich, scratch):
    gradient, bread, filling = sandwich.gradient, sandwich.bread, sandwich.filling
    index, x = scratch.index[0], scratch.x[0]
    for i in range(first, first + n):
        count, y, h = take(block.rows, i, weights, index, x, 1), block.y[i], block.weight[i]
        score = 0.0
        for e in range(count):
            score += weights[index[e]] * x[e]
        g, c = h * slope(loss, y, score), h * second_derivative(loss, y, score)
        for e in range(count):
            a = index[e]
            gradient[a] += g * x[e]
            for f in range(e + 1):
                b = index[f]
                product = x[e] * x[f] * (2.0 if a == b and e != f else 1.0)
                bread[max(a, b), min(a, b)] += c * product
                filling[max(a, b), min(a, b)] += g * g * product


def _lay_entries_many(loss, block, first, n, weights, sandwich, scratch):
    index, x, scores, g = scratch.index[0], scratch.x[0], scratch.numbers[0], scratch.numbers[1]
    n_outputs = scores.shape[0]
    for i in range(first, first + n):
        count, y, h = take(block.rows, i, weights, index, x, n_outputs), block.y[i], block.weight[i]
        scores[:] = 0.0
        for e in range(count):
            for k in range(n_outputs):
                scores[k] += weights[index[e] * n_outputs + k] * x[e]
        second_derivatives(loss, y, scores, sandwich.room)
        slopes(loss, y, scores, g)
        for k in range(n_outputs):
            g[k] *= h
        for e in range(count):
            for k in range(n_outputs):
                sandwich.gradient[index[e] * n_outputs + k] += g[k] * x[e]
            for f in range(e + 1):
                a, b = max(index[e], index[f]), min(index[e], index[f])
                _add_pair(a, b, x[e] * x[f] * (2.0 if a == b and e != f else 1.0), h, g, n_outputs, sandwich)


@lean
def _add_pair(a, b, product, h, g, n_outputs, sandwich):
    bread, filling, room = sandwich.bread, sandwich.filling, sandwich.room
    for k in range(n_outputs):
        for q in range(n_outputs):
            bread[a * n_outputs + k, b * n_outputs + q] += product * h * room[3 + k, q]
            filling[a * n_outputs + k, b * n_outputs + q] += product * g[k] * g[q]


def _layer(rows, loss):
    if hasattr(loss, "slopes"):
        return _lay_entries_many
    return _lay_dense if hasattr(rows, "dot") else _lay_entries_one


@dispatch(lay_rows)
def _(loss, block, first, n, weights, sandwich, scratch):
    rows = block.types[block.fields.index("rows")]
    return _layer(rows.instance_class, loss.instance_class)


@lean_kernel
def lay_chunk(loss, block, starts, counts, weights, sandwich, scratch):
    """Add up the rows of a chunk: of tile t `counts[t]` rows from `starts[t]` on, at weights float64 (n_weights,)."""
    for t in range(starts.shape[0]):
        at, last = starts[t], starts[t] + counts[t]
        while at < last:
            n = min(SPAN, last - at)
            lay_rows(loss, block, at, n, weights, sandwich, scratch)
            at += n
