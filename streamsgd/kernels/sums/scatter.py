"""How far the gradients of rows scatter within their class, at given weights. Nothing moves."""

import numpy as np

from streamsgd.kernels.compile.jit import lean_kernel
from streamsgd.kernels.compile.verbs import entries, slope

ROWS, SQUARES = 0, 1
"""Places in the sums of a class: rows, and squared lengths of their gradients."""


@lean_kernel
def add_scatter(loss, block, starts, counts, weights, sums, totals, scratch):
    """Add up the gradients of rows, h dl/ds x of weight h, by class.

    Parameters
    ----------
    loss, block
        Of two classes, and its rows.
    starts, counts
        int64 (n_tiles,): first row of each tile, and their number.
    weights
        float64 (n_weights,): at which.
    sums
        float64 (2, 2): added to, by class and place.
    totals
        float64 (2, n_weights): sums of gradients by class, added to.
    scratch
        As of `new_scratch`.

    """
    index, x = scratch.index[0], scratch.x[0]
    for tile in range(starts.shape[0]):
        for i in range(starts[tile], starts[tile] + counts[tile]):
            count, y = entries(block.rows, i, index, x), np.float64(block.y[i])
            score, square = 0.0, 0.0
            for e in range(count):
                score += weights[index[e]] * x[e]
                square += np.float64(x[e]) * x[e]
            c = 1 if y > 0.5 else 0
            g = np.float64(block.weight[i]) * slope(loss, y, score)
            sums[c, ROWS] += 1.0
            sums[c, SQUARES] += g * g * square
            for e in range(count):
                totals[c, index[e]] += g * x[e]
