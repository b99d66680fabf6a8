"""The inverse of a Cholesky factor: coordinates in which a positive matrix is the identity."""

from streamsgd.kernels.compile.jit import lean_kernel


@lean_kernel
def invert_factor(matrix, least):
    """Turn a matrix H (lower triangle) into W, lower triangular, with W H W' the identity; return -1.

    Where there is none, return the first row that depends on those before it.

    Parameters
    ----------
    matrix
        float64 (n, n), its diagonal at most 1; its upper triangle is set to 0.
    least
        The least pivot that counts; what is left below it is taken for rounding.

    """
    n = matrix.shape[0]
    for a in range(n):
        for b in range(a):
            total = matrix[a, b]
            for c in range(b):
                total -= matrix[a, c] * matrix[b, c]
            matrix[a, b] = total / matrix[b, b]
        rest = matrix[a, a]
        for c in range(a):
            rest -= matrix[a, c] * matrix[a, c]
        if not rest > least:
            return a
        matrix[a, a] = rest**0.5
    for a in range(n):
        pivot = 1.0 / matrix[a, a]
        # Row a of the inverse from the rows above it, which are inverted already.
        for b in range(a):
            factor = matrix[a, b]
            matrix[a, b] = 0.0
            for c in range(b + 1):
                matrix[a, c] -= factor * matrix[b, c]
        for c in range(a):
            matrix[a, c] *= pivot
        matrix[a, a] = pivot
        for c in range(a + 1, n):
            matrix[a, c] = 0.0
    return -1


@lean_kernel
def gram(factor, out):
    """Fill `out` with W'W of a lower triangular W: the inverse of what W whitens."""
    n = factor.shape[0]
    for a in range(n):
        for b in range(n):
            out[a, b] = 0.0
    for c in range(n):
        for a in range(c + 1):
            part = factor[c, a]
            for b in range(a + 1):
                out[a, b] += part * factor[c, b]
    for a in range(n):
        for b in range(a):
            out[b, a] = out[a, b]


@lean_kernel
def quadratic_forms(matrix, middle, out):
    """Fill `out`, float64 (n,), with P_j M P_j' for every row P_j of a matrix; the lower triangle of M counts."""
    n = matrix.shape[0]
    for j in range(n):
        total = 0.0
        for a in range(n):
            part = 0.0
            for b in range(a):
                part += middle[a, b] * matrix[j, b]
            total += matrix[j, a] * (2.0 * part + middle[a, a] * matrix[j, a])
        out[j] = total
