"""What pilots say: the loss against one over the size of the batch, and what a larger batch would still bring.

L(B) = a + c/B by weighted least squares: near a minimum the excess of SGD at a constant rate is in proportion to 1/B. Three
seeds of one size say little of its variance, so these are pooled over all sizes, in proportion to B^-p: p is 2 where a minimum
has been reached and 1 on the way there (0.6 to 1.6 on ten real tables), and is found with the rest. As three seeds know it
badly, the interval of c is the wider one of that p and of 1.5. Branches of a seed meet the same rows, but the correlation of
their losses is hardly above 0 (0.05 in scripts/bench_pilot.py).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from streamsgd.training.noise.gradient_noise import T95

TOLERANCE = 0.005
"""Gain of a doubling, of |a|, below which it is not worth it."""

LEAST_FALL, MIDDLE_FALL, MOST_FALL = 1.0, 1.5, 2.0
"""Powers of 1/B by which variances fall, at least and at most, and what lies between."""

Z95 = 1.96
"""Quantile of the normal distribution at 0.975, beyond the degrees of freedom of which that of Student's t is known."""

LARGEST = 1 << 30
"""Rows that no recommendation goes beyond."""


class Fit(NamedTuple):
    """L(B) = a + c/B."""

    a: float
    c: float
    se: float | None
    """Of c; None of one seed."""
    interval: tuple[float, float] | None
    """95 % of c, by Student's t."""
    loss_se: float
    """Of the loss of one run as that of its size: by how much seeds differ, pooled; 0 of one seed. More seeds know it better
    and do not make it less, or they would recommend larger batches."""
    lack_of_fit: dict[str, float] | None
    """F, its degrees of freedom, and the probability of more if the loss is linear in 1/B; None with two sizes or one seed."""
    fall: float
    """Power of 1/B by which variances fall."""


def fit_losses(sizes: np.ndarray, losses: np.ndarray) -> Fit:
    """Fit mean losses, (n_seeds, n_sizes), at sizes, (n_sizes,)."""
    seeds, n = losses.shape
    variances = losses.var(axis=0, ddof=1) if seeds > 1 else np.zeros(n)
    fall, freedom = fall_of(sizes, variances), n * (seeds - 1) - 1
    weights = (sizes / sizes[0]) ** fall
    a, c = straight_line(sizes, losses.mean(axis=0), weights)
    if seeds == 1:
        return Fit(a, c, None, None, 0.0, None, fall)
    pooled = float(np.mean(variances * weights))
    se = max(_slope_error(sizes, variances, weights, power) for power in (fall, MIDDLE_FALL)) / math.sqrt(seeds)
    t = T95[freedom - 1] if freedom <= len(T95) else Z95
    lack = None
    if n > 2 and pooled > 0.0:
        away = losses.mean(axis=0) - a - c / sizes
        ratio = float(seeds * (weights * away**2).sum() / (n - 2) / pooled)
        lack = {"F": ratio, "df1": n - 2, "df2": freedom, "p": f_tail(ratio, n - 2, freedom)}
    return Fit(a, c, se, (c - t * se, c + t * se), math.sqrt(float(variances.mean())), lack, fall)


def _slope_error(sizes: np.ndarray, variances: np.ndarray, weights: np.ndarray, power: float) -> float:
    """Return the error of c of one seed, by variances that are pooled as falling with a power of 1/B."""
    away, shape = 1.0 / sizes - np.average(1.0 / sizes, weights=weights), (sizes / sizes[0]) ** -power
    of_sizes = float(np.mean(variances / shape)) * shape
    return float(np.sqrt((weights**2 * away**2 * of_sizes).sum()) / (weights * away**2).sum())


def fall_of(sizes: np.ndarray, variances: np.ndarray) -> float:
    """Return the power of 1/B by which variances, (n_sizes,), fall: between 1 and 2, where they are known."""
    if not (variances > 0.0).all():
        return LEAST_FALL
    away = np.log(sizes) - np.log(sizes).mean()
    return float(np.clip(-(away @ np.log(variances)) / (away @ away), LEAST_FALL, MOST_FALL))


def straight_line(sizes: np.ndarray, losses: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Return a and c of losses, (n_sizes,), by weighted least squares."""
    x = 1.0 / sizes
    at, level = np.average(x, weights=weights), np.average(losses, weights=weights)
    c = float((weights * (x - at) * (losses - level)).sum() / (weights * (x - at) ** 2).sum())
    return float(level - c * at), c


def recommended(fit: Fit, sizes: np.ndarray) -> int:
    """Return the smallest power of two, from the smallest size on, whose doubling gains less than is worth it."""
    least = 1 << max(0, int(sizes.min() - 1).bit_length())
    needed = fit.c / (2.0 * worth(fit))
    return min(LARGEST, max(least, 1 << max(0, math.ceil(needed) - 1).bit_length())) if needed > 1.0 else least


def worth(fit: Fit) -> float:
    """Return the gain of a doubling below which it is not worth it: the error of the loss of one run, or 0.5 % of |a|."""
    return max(fit.loss_se, TOLERANCE * abs(fit.a), 1e-300)


def f_tail(f: float, d1: int, d2: int) -> float:
    """Return the probability that an F of d1 and d2 degrees of freedom is larger, by the incomplete beta function."""
    return _incomplete_beta(d2 / 2.0, d1 / 2.0, d2 / (d2 + d1 * f))


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Return it, regularised, by Lentz's continued fraction (Press et al., Numerical Recipes, 6.4)."""
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - front * _fraction(b, a, 1.0 - x) / b
    return front * _fraction(a, b, x) / a


def _fraction(a: float, b: float, x: float) -> float:
    tiny = 1e-300
    c, d = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1.0) or tiny)
    h = d
    for m in range(1, 300):
        for top in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / (1.0 + top * d or tiny)
            c = 1.0 + top / c or tiny
            h *= d * c
        if abs(d * c - 1.0) < 1e-15:
            break
    return h


def as_dict(fit: Fit) -> dict[str, Any]:
    """Return it as JSON values."""
    return {**fit._asdict(), "interval": None if fit.interval is None else list(fit.interval)}
