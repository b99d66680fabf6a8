"""Steps by a model of the objective: quadratic within a radius, or straight along the gradient.

Weights are measured in units in which each has a curvature of 1: u_j = sqrt(H_jj) s_j. With q the gradient and C the curvature
in these units, the step is the dogleg: u = -C^-1 q where that is within the radius, else the way from 0 over the minimum along
-q toward it, up to the radius (Powell 1970). Sums are NumPy's, not BLAS's, on whose threads the bits may not depend.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from streamsgd.kernels.algebra.factor import factorise_pivoted, solve_back, solve_forth

FLAT = 1e-12
"""Of the largest curvature of a weight, the least that counts."""

LEAST_PIVOT = 1e-9
"""Of a factor: what is left below it is taken for rounding."""

RIDGE = 1e-7
"""Added to every curvature of 1, and ..."""

RIDGE_BY_ROWS = 0.1
"""... this times the square of weights per row, by which the curvature of few rows is off."""


class Proposal(NamedTuple):
    """A step that is yet to be judged."""

    step: np.ndarray
    """float64 (n_weights,)."""
    predicted: float
    """By how much the mean loss falls, by the model."""
    length: float
    """In units of the radius or of the stride."""


def along_gradient(gradient: np.ndarray, stride: float) -> Proposal:
    """Return the step of a stride against the gradient, with what the gradient alone promises."""
    return Proposal(-stride * gradient, stride * _product(gradient, gradient), stride)


def within_radius(
    gradient: np.ndarray, diagonal: np.ndarray, matrix: np.ndarray | None, rows: float, radius: float
) -> Proposal:
    """Return the dogleg step of a quadratic model.

    Parameters
    ----------
    gradient, diagonal
        float64 (n,): of the mean loss, and its curvature by each weight.
    matrix
        float64 (n, n): its curvature by every two weights, of which the lower triangle counts; None for that of each alone.
    rows
        By how many the matrix is known.
    radius
        In units of u.

    """
    scale = np.sqrt(np.maximum(diagonal, max(FLAT * float(diagonal.max(initial=0.0)), 1e-300)))
    scale[diagonal <= 0.0] = 1.0
    q = gradient / scale
    if matrix is None:
        u = -q * min(1.0, radius / max(_length(q), 1e-300))
        bent = u
    else:
        n = len(q)
        whole = np.tril(matrix) + np.tril(matrix, -1).T
        whole /= scale[:, None] * scale
        whole[np.diag_indices(n)] += RIDGE + RIDGE_BY_ROWS * (n / max(rows, 1.0)) ** 2
        u = _dogleg(q, whole, radius)
        bent = (whole * u).sum(axis=1)
    return Proposal(u / scale, -_product(q, u) - 0.5 * _product(bent, u), _length(u))


def _dogleg(q: np.ndarray, matrix: np.ndarray, radius: float) -> np.ndarray:
    newton = _solve(matrix, -q)
    if _length(newton) <= radius:
        return newton
    bent = _product((matrix * q).sum(axis=1), q)
    cauchy = -q * (_product(q, q) / max(bent, 1e-300))
    if _length(cauchy) >= radius:
        return -q * (radius / max(_length(q), 1e-300))
    way = newton - cauchy
    a, b, c = _product(way, way), _product(cauchy, way), _product(cauchy, cauchy) - radius * radius
    return cauchy + way * ((-b + math.sqrt(max(0.0, b * b - a * c))) / a)


def _solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    n = len(right)
    factor, order = np.ascontiguousarray(matrix.copy()), np.empty(n, np.int64)
    rank = factorise_pivoted(factor, order, LEAST_PIVOT, np.zeros(n))
    columns = np.ascontiguousarray(right[order[:rank], None])
    solve_forth(factor, rank, columns)
    solve_back(factor, rank, columns)
    found = np.zeros(n)
    found[order[:rank]] = columns[:, 0]
    return found


def _product(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum())


def _length(a: np.ndarray) -> float:
    return math.sqrt(_product(a, a))
