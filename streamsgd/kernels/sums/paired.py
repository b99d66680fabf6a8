"""Losses of the same rows at two sets of weights: what rows share falls out of the difference."""

from typing import Any

import numpy as np

from streamsgd.kernels.compile.jit import dispatch, lean_kernel
from streamsgd.kernels.compile.verbs import dot, dots, value
from streamsgd.kernels.structs.rows import take

LESS, SQUARES, BEFORE, WEIGHT, MOST, LEAST = 0, 1, 2, 3, 4, 5
"""Places in the sums: of differences, of their squares, of losses at the first weights, and of row weights; then the largest
and the smallest difference."""


def no_sums() -> Any:
    """Return the sums of no row, float64 (6,)."""
    return np.array([0.0, 0.0, 0.0, 0.0, -np.inf, np.inf])


def join_sums(sums: Any, further: Any) -> None:
    """Add the sums of further rows, in place."""
    sums[:MOST] += further[:MOST]
    sums[MOST], sums[LEAST] = max(sums[MOST], further[MOST]), min(sums[LEAST], further[LEAST])


def cost(loss, block, i, weights, scratch):
    """Return the loss of row i at some weights, (n_weights,)."""
    return _coster(type(block.rows), type(loss))(loss, block, i, weights, scratch)


def _cost_dense_one(loss, block, i, weights, scratch):
    return value(loss, block.y[i], dot(block.rows, i, weights))


def _cost_dense_many(loss, block, i, weights, scratch):
    scores = scratch.numbers[0]
    dots(block.rows, i, weights, scores)
    return value(loss, block.y[i], scores)


def _cost_entries_one(loss, block, i, weights, scratch):
    index, x, score = scratch.index[0], scratch.x[0], 0.0
    for e in range(take(block.rows, i, weights, index, x, 1)):
        score += weights[index[e]] * x[e]
    return value(loss, block.y[i], score)


def _cost_entries_many(loss, block, i, weights, scratch):
    index, x, scores = scratch.index[0], scratch.x[0], scratch.numbers[0]
    n_outputs = scores.shape[0]
    scores[:] = 0.0
    for e in range(take(block.rows, i, weights, index, x, n_outputs)):
        for k in range(n_outputs):
            scores[k] += weights[index[e] * n_outputs + k] * x[e]
    return value(loss, block.y[i], scores)


def _coster(rows, loss):
    several = hasattr(loss, "slopes")
    if hasattr(rows, "dot"):
        return _cost_dense_many if several else _cost_dense_one
    return _cost_entries_many if several else _cost_entries_one


@dispatch(cost)
def _(loss, block, i, weights, scratch):
    rows = block.types[block.fields.index("rows")]
    return _coster(rows.instance_class, loss.instance_class)


@lean_kernel
def compare(loss, block, starts, counts, both, sums, scratch):
    """Add up by how much losses fall from one set of weights to another.

    Parameters
    ----------
    loss, block
        A loss and rows.
    starts, counts
        int64 (n_tiles,): rows `starts[t]` to `starts[t] + counts[t]`.
    both
        float64 (2, n_weights): from where, and to where.
    sums
        As of `no_sums`: added to.
    scratch
        As of `new_scratch`, in float64.

    """
    for t in range(starts.shape[0]):
        for i in range(starts[t], starts[t] + counts[t]):
            weight, before, after = np.float64(block.weight[i]), 0.0, 0.0
            for side in range(2):  # one call of the verb, because Numba warns of names where it is written several times
                before, after = after, cost(loss, block, i, both[side], scratch)
            less = weight * (before - after)
            sums[LESS] += less
            sums[SQUARES] += less * less
            sums[BEFORE] += weight * before
            sums[WEIGHT] += weight
            sums[MOST], sums[LEAST] = max(sums[MOST], less), min(sums[LEAST], less)
