"""What bounds the curvature of rows."""

import numpy as np

from streamsgd.kernels.compile.jit import lean_kernel
from streamsgd.kernels.compile.verbs import entries
from streamsgd.kernels.learn.coin import add_up

LARGEST, SUM, ROWS, COUNTED = 0, 1, 2, 3
"""Places in the sums of `measure_chunk`."""


@lean_kernel
def measure_chunk(block, starts, counts, every, sums, products, room, scratch):
    """Add up what bounds the curvature of the rows of a chunk.

    Parameters
    ----------
    block, starts, counts
        Rows: of tile t `counts[t]` from `starts[t]` on.
    every
        Of how many rows one is in the products.
    sums
        float64 (4,): the largest h |x|^2, their sum, rows, and rows in the products.
    products
        float64 (n_coordinates, n_coordinates) or empty: the lower triangle of the sum of h x x'.
    room
        Zeros, at least (n_coordinates,): zeros again afterwards.
    scratch
        As of `new_scratch`.

    """
    index, x = scratch.index[0], scratch.x[0]
    for t in range(starts.shape[0]):
        for i in range(starts[t], starts[t] + counts[t]):
            count, h = entries(block.rows, i, index, x), np.float64(block.weight[i])
            if block.rows.doubles:
                add_up(index, x, count, room)
            square = 0.0
            for e in range(count):
                square += np.float64(x[e]) * x[e]
            sums[LARGEST] = max(sums[LARGEST], h * square)
            sums[SUM] += h * square
            sums[ROWS] += 1.0
            if products.shape[0] > 0 and i % every == 0:
                sums[COUNTED] += 1.0
                for e in range(count):
                    for f in range(e + 1):
                        products[max(index[e], index[f]), min(index[e], index[f])] += h * x[e] * x[f]
