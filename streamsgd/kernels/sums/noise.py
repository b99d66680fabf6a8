"""How the gradients of rows scatter at given weights: sums about the gradient of a reference row. Nothing moves.

With g_i = h_i d loss_i of a row of weight h_i, as a batch takes it, and g_0 the gradient of a reference row, the sums are those
of g_i - g_0 and of its squares, coordinate by coordinate, in float64. Equal rows add exactly 0, and nothing cancels.

Of many weights g is projected: every weight has one of some places and a sign, both by a hash, and g becomes the sums of its
signed coordinates by place. Over the hash the squared length of such a projection is that of the vector in the mean, and
products of two are theirs (Charikar, Chen and Farach-Colton 2002, ICALP; Weinberger et al. 2009, ICML).
"""

from typing import Any, NamedTuple

import numpy as np

from streamsgd.kernels.compile.jit import dispatch, lean, lean_kernel
from streamsgd.kernels.compile.verbs import (
    add,
    adds,
    beyond,
    derive,
    dot,
    dots,
    listed,
    output,
    slope,
    slopes,
    stretch,
    value,
    width,
)
from streamsgd.kernels.encode.hashing import absorb, finish
from streamsgd.kernels.structs.rows import take

ROWS, WEIGHT, LOSS, SQUARE = 0, 1, 2, 3
"""Places in a tally: rows, their weights, their weighted losses, and the squares of these."""

SEED = np.uint32(0x9E3779B9)

SIGN = np.uint32(31)
"""The bit of the hash that is the sign; the place is in the low ones."""


class Scatter(NamedTuple):
    """Sums about a reference row."""

    reference: Any
    """float64 (n_places,): its gradient, projected if there are fewer places than weights: then a power of two."""
    known: Any
    """int64 (1,): whether there is one; else the first row becomes it."""
    sums: Any
    """float64 (n_places,): of differences from the reference."""
    squares: Any
    """float64 (n_places,): of their squares."""
    tally: Any
    """float64 (4,)."""
    gradient: Any
    """float64 (n_places,): room for that of a row, projected ..."""
    whole: Any
    """... and float64 (n_weights,), or (0,) for rows that are lists of entries."""


def new_scatter(n_places: int, n_whole: int) -> Scatter:
    """Return zeros for so many places, with room for the gradient of a row of so many weights."""
    reference, sums, squares, gradient = np.zeros((4, n_places))
    return Scatter(reference, np.zeros(1, np.int64), sums, squares, np.zeros(4), gradient, np.zeros(n_whole))


@lean
def put(gradient, w, change, projected):
    if projected:
        h = finish(absorb(SEED, np.uint32(w)), 4)
        place = np.int64(h & np.uint32(gradient.shape[0] - 1))
        gradient[place] += -change if h >> SIGN else change
    else:
        gradient[w] += change


def fill(loss, block, i, weights, scale, scatter, scratch):
    """Fill `scatter.gradient` with the gradient of row i; return its weighted loss. Arguments are as of `scatter_rows`."""
    return _filler(type(block.rows), type(loss))(loss, block, i, weights, scale, scatter, scratch)


@lean
def _place_all(weights, scale, scatter):
    """Place the coordinates of a row's whole gradient, and clear it."""
    gradient, whole = scatter.gradient, scatter.whole
    projected = gradient.shape[0] < weights.shape[0]
    if projected or scale.shape[0] > 0:
        gradient[:] = 0.0
        for w in range(whole.shape[0]):
            put(gradient, w, whole[w] * (scale[w] if scale.shape[0] > 0 else 1.0), projected)
    else:
        for w in range(whole.shape[0]):
            gradient[w] = whole[w]
    whole[:] = 0.0


def _fill_dense_one(loss, block, i, weights, scale, scatter, scratch):
    score, y, h = dot(block.rows, i, weights), np.float64(block.y[i]), np.float64(block.weight[i])
    add(block.rows, i, h * slope(loss, y, score), scatter.whole)
    _place_all(weights, scale, scatter)
    return h * value(loss, y, score)


def _fill_dense_many(loss, block, i, weights, scale, scatter, scratch):
    scores, g, y, h = scratch.numbers[0], scratch.numbers[1], block.y[i], np.float64(block.weight[i])
    dots(block.rows, i, weights, scores)
    slopes(loss, y, scores, g)
    for k in range(g.shape[0]):
        g[k] *= h
    adds(block.rows, i, g, scatter.whole)
    _place_all(weights, scale, scatter)
    return h * value(loss, y, scores)


def _fill_entries_one(loss, block, i, weights, scale, scatter, scratch):
    index, x, gradient = scratch.index[0], scratch.x[0], scatter.gradient
    count, y, h = take(block.rows, i, weights, index, x, 1), np.float64(block.y[i]), np.float64(block.weight[i])
    projected, score = gradient.shape[0] < weights.shape[0], 0.0
    for e in range(count):
        score += weights[index[e]] * x[e]
    g = h * slope(loss, y, score)
    gradient[:] = 0.0
    for e in range(count):
        w = np.int64(index[e])
        put(gradient, w, g * x[e] * (scale[w] if scale.shape[0] > 0 else 1.0), projected)
    return h * value(loss, y, score)


def _fill_entries_many(loss, block, i, weights, scale, scatter, scratch):
    index, x, scores, g = scratch.index[0], scratch.x[0], scratch.numbers[0], scratch.numbers[1]
    gradient, n_outputs = scatter.gradient, scores.shape[0]
    count, y, h = take(block.rows, i, weights, index, x, n_outputs), block.y[i], np.float64(block.weight[i])
    projected = gradient.shape[0] < weights.shape[0]
    scores[:] = 0.0
    for e in range(count):
        for k in range(n_outputs):
            scores[k] += weights[index[e] * n_outputs + k] * x[e]
    slopes(loss, y, scores, g)
    gradient[:] = 0.0
    for e in range(count):
        for k in range(n_outputs):
            w = np.int64(index[e]) * n_outputs + k
            put(gradient, w, h * g[k] * x[e] * (scale[w] if scale.shape[0] > 0 else 1.0), projected)
    return h * value(loss, y, scores)


def _filler(rows, loss):
    several = hasattr(loss, "slopes")
    if hasattr(rows, "dot"):
        return _fill_dense_many if several else _fill_dense_one
    return _fill_entries_many if several else _fill_entries_one


@dispatch(fill)
def _(loss, block, i, weights, scale, scatter, scratch):
    rows = block.types[block.fields.index("rows")]
    return _filler(rows.instance_class, loss.instance_class)


@lean_kernel
def scatter_rows(loss, block, members, weights, scale, scatter, scratch):
    """Add up how the gradients of some rows scatter.

    Parameters
    ----------
    loss, block
        A loss and rows.
    members
        int64 (n,): which of them.
    weights
        float64 (n_weights,), [coordinate][output]: at which.
    scale
        float64 (n_weights,): by what each coordinate of a gradient is multiplied, or (0,) for 1.
    scatter
        As its class says: added to.
    scratch
        As of `new_scratch`, in float64.

    """
    for t in range(members.shape[0]):
        i = members[t]
        _add_row(fill(loss, block, i, weights, scale, scatter, scratch), block.weight[i], scatter)


@lean
def _add_row(cost, h, scatter):
    """Add the row whose gradient stands in `scatter`; the first one becomes the reference."""
    reference, sums, squares, tally = scatter.reference, scatter.sums, scatter.squares, scatter.tally
    gradient = scatter.gradient
    if scatter.known[0] == 0:
        scatter.known[0] = 1
        for p in range(gradient.shape[0]):
            reference[p] = gradient[p]
    for p in range(gradient.shape[0]):
        away = gradient[p] - reference[p]
        sums[p] += away
        squares[p] += away * away
    tally[ROWS] += 1.0
    tally[WEIGHT] += h
    tally[LOSS] += cost
    tally[SQUARE] += cost * cost


@lean_kernel
def scatter_modelled(loss, model, block, members, weights, scale, scatter, scratch):
    """Do what `scatter_rows` does with a model that is not linear, of one score per row.

    The gradient of a row is its slope times what the model derives, over all parameters: those of a value that a row has twice
    get both parts, and what belongs to no coordinate stands behind those that do.
    """
    for t in range(members.shape[0]):
        i = members[t]
        _add_row(_fill_modelled(loss, model, block, i, weights, scale, scatter, scratch), block.weight[i], scatter)


@lean
def _fill_modelled(loss, model, block, i, weights, scale, scatter, scratch):
    index, x, kept, out, gradient = scratch.index[0], scratch.x[0], scratch.kept, scratch.out, scatter.gradient
    count, across, further = listed(model, block.rows, i, index, x), width(model), beyond(model)
    y, h, projected = np.float64(block.y[i]), np.float64(block.weight[i]), gradient.shape[0] < weights.shape[0]
    score = output(model, index, x, count, weights, kept)
    g = h * slope(loss, y, score)
    derive(model, index, x, count, weights, kept, out)
    gradient[:] = 0.0
    first = (np.int64(index[count - 1]) + 1) * across
    for e in range(count + 1):
        at, size = (np.int64(index[e]) * across, across) if e < count else (first, further)
        part = out[e * across : e * across + size]
        if projected:
            for f in range(size):
                put(gradient, at + f, g * part[f] * (scale[at + f] if scale.shape[0] > 0 else 1.0), projected)
            continue
        # Parts of arrays, whose indices are counted from 0: loops become vectors.
        to = gradient[at : at + size]
        if scale.shape[0] > 0:
            by = scale[at : at + size]
            for f in range(size):
                to[f] += g * part[f] * by[f]
        else:
            for f in range(size):
                to[f] += g * part[f]
    return h * value(loss, y, score)


@lean_kernel
def step_lengths(optimizer, slots, shared, lengths):
    """Fill `lengths`, float64 (n_weights,), with the root of how far each weight moves per unit of gradient and rate.

    A weight whose memory is empty has met nothing, and has 0.
    """
    for j in range(lengths.shape[0]):
        met = 0.0
        for k in range(slots.shape[0]):
            met += abs(np.float64(slots[k, j]))
        lengths[j] = np.sqrt(np.float64(stretch(optimizer, slots, j, shared))) if met > 0.0 else 0.0
