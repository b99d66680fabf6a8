"""Pivoted Cholesky factors, and solving with them."""

from streamsgd.kernels.compile.jit import lean_kernel


@lean_kernel
def factorise_pivoted(matrix, order, least, room):
    """Turn a symmetric matrix into its Cholesky factor (lower triangle), the largest pivot first; return its rank.

    Parameters
    ----------
    matrix
        float64 (n, n), both triangles; its diagonal at most 1.
    order
        int64 (n,): filled with which row of the matrix stands where.
    least
        The least pivot that counts; what is left below it is taken for rounding.
    room
        float64 (n,).

    """
    n = matrix.shape[0]
    for a in range(n):
        order[a] = a
    for k in range(n):
        p = k
        for a in range(k + 1, n):
            if matrix[a, a] > matrix[p, p]:
                p = a
        if not matrix[p, p] > least:
            return k
        if p != k:
            order[k], order[p] = order[p], order[k]
            for c in range(n):
                matrix[k, c], matrix[p, c] = matrix[p, c], matrix[k, c]
            for c in range(n):
                matrix[c, k], matrix[c, p] = matrix[c, p], matrix[c, k]
        root = matrix[k, k] ** 0.5
        matrix[k, k] = root
        for a in range(k + 1, n):
            matrix[a, k] /= root
            room[a] = matrix[a, k]
        for a in range(k + 1, n):
            for b in range(k + 1, n):
                matrix[a, b] -= room[a] * room[b]
    return n


@lean_kernel
def solve_forth(factor, rank, columns):
    """Divide `columns`, (rank, m), by the leading lower triangle of a factor."""
    m = columns.shape[1]
    for a in range(rank):
        for c in range(a):
            for j in range(m):
                columns[a, j] -= factor[a, c] * columns[c, j]
        for j in range(m):
            columns[a, j] /= factor[a, a]


@lean_kernel
def solve_back(factor, rank, columns):
    """Divide `columns`, (rank, m), by the transpose of that triangle."""
    m = columns.shape[1]
    for a in range(rank - 1, -1, -1):
        for j in range(m):
            columns[a, j] /= factor[a, a]
        for c in range(a):
            for j in range(m):
                columns[c, j] -= factor[a, c] * columns[a, j]
