"""The largest eigenvalue of a symmetric matrix."""

import numpy as np

from streamsgd.kernels.compile.jit import lean_kernel

SQUARINGS = 8
"""Of a matrix, for its largest eigenvalue: 256^(1/256) is 1.02."""


@lean_kernel
def largest_eigenvalue(matrix, room, other):
    """Return a bound of the largest eigenvalue of a positive matrix of which the lower triangle counts, at most 2 % above it.

    The trace of its 2^k-th power to the power of 2^-k lies between the eigenvalue and n^(2^-k) times it. In plain loops, whose
    sums no number of threads changes.

    Parameters
    ----------
    matrix
        float64 (n, n).
    room, other
        float64 (n, n): for its powers.

    """
    n = matrix.shape[0]
    trace = 0.0
    for a in range(n):
        trace += matrix[a, a]
    if trace <= 0.0:
        return 0.0
    for a in range(n):
        for b in range(a + 1):
            room[a, b] = room[b, a] = matrix[a, b] / trace
    scale, share = np.log(trace), 1.0
    for _ in range(SQUARINGS):
        for a in range(n):
            for b in range(n):
                other[a, b] = 0.0
            for c in range(n):
                for b in range(n):
                    other[a, b] += room[a, c] * room[c, b]
        trace = 0.0
        for a in range(n):
            trace += other[a, a]
        share *= 0.5
        scale += share * np.log(trace)
        for a in range(n):
            for b in range(n):
                room[a, b] = other[a, b] / trace
    return np.exp(scale)
