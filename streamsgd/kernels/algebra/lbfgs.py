"""What quasi-Newton steps do to vectors, in loops that round the same on any machine of a kind.

NumPy's `dot` is left out: it belongs to a BLAS whose threads cut sums as they please, on which a model's bits may not depend.

All weights are float64, flat; l1 is paid by the first `n_penalised`. A weight is *free* if l1 does not hold it at 0 now.
"""

from streamsgd.kernels.compile.jit import lean, lean_kernel

LEAST_COSINE = 1e-10
"""Of a step and the change of the gradient along it, below which a pair says nothing about curvature."""

LEAST_REST = 1e-10
"""Of a diagonal element, what is left in its factor at least: columns may depend on one another."""


@lean
def _free(w, j, n_penalised, l1):
    return w != 0.0 or j >= n_penalised or l1 == 0.0


@lean_kernel
def inner(a, b):
    """Return sum a_j b_j."""
    total = 0.0
    for j in range(a.shape[0]):
        total += a[j] * b[j]
    return total


@lean_kernel
def penalise(weights, l1, l2, n_penalised, grad):
    """Add l2 w to the gradient; return the penalty, l1 |w|_1 + l2 / 2 |w|^2."""
    ones, squares = 0.0, 0.0
    for j in range(n_penalised):
        ones += abs(weights[j])
        squares += weights[j] * weights[j]
        grad[j] += l2 * weights[j]
    return l1 * ones + 0.5 * l2 * squares


@lean_kernel
def steepest(weights, grad, l1, n_penalised, out):
    """Fill `out` with the gradient of least size that the objective has here; return its largest component.

    Where w = 0 the objective has slopes from g - l1 to g + l1, of which 0 is one if |g| <= l1 (Andrew and Gao 2007, eq. 4).
    """
    most = 0.0
    for j in range(weights.shape[0]):
        g, w = grad[j], weights[j]
        if j < n_penalised:
            if w > 0.0:
                g += l1
            elif w < 0.0:
                g -= l1
            else:
                g = g - l1 if g > l1 else (g + l1 if g < -l1 else 0.0)
        out[j] = g
        most = max(most, abs(g))
    return most


@lean_kernel
def walk(weights, toward, slope, stride, l1, n_penalised, out):
    """Fill `out` with weights + stride toward, stopping at 0 whatever would change its sign; return whether any moved.

    What leaves 0 does so against its `slope`; what l1 does not see goes where it will.
    """
    moved = False
    for j in range(weights.shape[0]):
        w = weights[j]
        to = w + stride * toward[j]
        if j < n_penalised and l1 > 0.0 and (w * to < 0.0 or (w == 0.0 and slope[j] * to >= 0.0)):
            to = 0.0
        out[j] = to
        moved = moved or to != w
    return moved


@lean_kernel
def along(slope, before, after):
    """Return sum slope_j (after_j - before_j)."""
    total = 0.0
    for j in range(slope.shape[0]):
        total += slope[j] * (after[j] - before[j])
    return total


@lean_kernel
def remember(before, after, grad_before, grad_after, step, change):
    """Fill `step` and `change` with the differences; return whether they tell a curvature."""
    product, size, bend = 0.0, 0.0, 0.0
    for j in range(before.shape[0]):
        s, y = after[j] - before[j], grad_after[j] - grad_before[j]
        step[j], change[j] = s, y
        product += s * y
        size += s * s
        bend += y * y
    return product > LEAST_COSINE * (size * bend) ** 0.5


@lean_kernel
def even_out(block, weights_of, diagonal):
    """Scale rows and columns of a block, so that its diagonal becomes the given one; what it has not seen stands alone."""
    n = block.shape[0]
    for a in range(n):
        for b in range(a):
            seen = block[a, a] * block[b, b]
            wanted = diagonal[weights_of[a]] * diagonal[weights_of[b]]
            block[a, b] *= (wanted / seen) ** 0.5 if seen > 0.0 else 0.0
    for a in range(n):
        block[a, a] = diagonal[weights_of[a]]


@lean_kernel
def factorise(block, weights_of, weights, l1, n_penalised, out):
    """Fill `out` with the Cholesky factor of a block whose weights that are not free stand alone."""
    n = block.shape[0]
    for a in range(n):
        here = _free(weights[weights_of[a]], weights_of[a], n_penalised, l1)
        rest = block[a, a]
        for b in range(a):
            total = 0.0
            if here and _free(weights[weights_of[b]], weights_of[b], n_penalised, l1):
                total = block[a, b]
                for c in range(b):
                    total -= out[a, c] * out[b, c]
                total /= out[b, b]
            out[a, b] = total
            rest -= total * total
        out[a, a] = max(rest, LEAST_REST * block[a, a]) ** 0.5


@lean_kernel
def solve(factor, weights_of, diagonal, vector, room):
    """Divide a vector by the matrix whose block has this factor and which is diagonal elsewhere."""
    n = factor.shape[0]
    for a in range(n):
        total = vector[weights_of[a]]
        for b in range(a):
            total -= factor[a, b] * room[b]
        room[a] = total / factor[a, a]
    for a in range(n - 1, -1, -1):
        room[a] /= factor[a, a]
        for b in range(a):
            room[b] -= factor[a, b] * room[a]
    for j in range(vector.shape[0]):
        vector[j] /= diagonal[j]
    for a in range(n):
        vector[weights_of[a]] = room[a]


@lean_kernel
def back(weights, slope, steps, changes, newest, n_pairs, l1, n_penalised, products, parts, out):
    """Make the first of the two loops of L-BFGS (Nocedal 1980; Nocedal and Wright 2006, algorithm 7.4), over free weights.

    The free part of a pair describes the free part of the Hessian, of weights that were free then (Schmidt 2010, PSSgb).

    Parameters
    ----------
    weights, slope
        Where we are, and what `steepest` says there.
    steps, changes
        float64 (memory, n_weights): pairs, in a ring.
    newest, n_pairs
        The place of the last, and how many there are.
    l1, n_penalised
        Of the penalty.
    products, parts
        float64 (memory,): filled for `forth`; a product of 0 is a pair that says nothing.
    out
        float64 (n_weights,): filled with what is to be divided by the first Hessian.

    """
    n, memory = weights.shape[0], steps.shape[0]
    for j in range(n):
        out[j] = slope[j] if _free(weights[j], j, n_penalised, l1) else 0.0
    for ago in range(n_pairs):
        p = (newest - ago + memory) % memory
        step, change = steps[p], changes[p]
        product, size, bend, part = 0.0, 0.0, 0.0, 0.0
        for j in range(n):
            if _free(weights[j], j, n_penalised, l1):
                s, y = step[j], change[j]
                product += s * y
                size += s * s
                bend += y * y
                part += s * out[j]
        products[p] = 0.0
        if product > LEAST_COSINE * (size * bend) ** 0.5:
            products[p], parts[p] = product, part / product
            for j in range(n):
                if _free(weights[j], j, n_penalised, l1):
                    out[j] -= parts[p] * change[j]


@lean_kernel
def forth(weights, slope, steps, changes, newest, n_pairs, l1, n_penalised, products, parts, fit, diagonal, out):
    """Make the second loop, and turn: `out`, divided and times `fit`, becomes the direction.

    Weights that are not free take a step of gradient descent, so that the direction always leads down (two-metric projection,
    Gafni and Bertsekas 1984).
    """
    n, memory = weights.shape[0], steps.shape[0]
    for j in range(n):
        out[j] *= fit
    for ago in range(n_pairs - 1, -1, -1):
        p = (newest - ago + memory) % memory
        if products[p] > 0.0:
            step, change = steps[p], changes[p]
            part = 0.0
            for j in range(n):
                part += change[j] * out[j]
            part = parts[p] - part / products[p]
            for j in range(n):
                if _free(weights[j], j, n_penalised, l1):
                    out[j] += part * step[j]
    for j in range(n):
        out[j] = -out[j] if _free(weights[j], j, n_penalised, l1) else -slope[j] * fit / diagonal[j]


@lean_kernel
def only_free(weights, vector, l1, n_penalised, out):
    """Fill `out` with a vector of which only the free part is left."""
    for j in range(weights.shape[0]):
        out[j] = vector[j] if _free(weights[j], j, n_penalised, l1) else 0.0
