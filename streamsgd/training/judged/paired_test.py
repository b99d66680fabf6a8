"""A sequential test of paired differences: rows are added until it is clear on which side of a threshold their mean is.

With n rows, mean D and standard deviation s of the differences, the j-th look accepts if D - z_j s / sqrt(n) is at least the
threshold, refuses if D + z_j s / sqrt(n) is below it, and asks for twice the rows else. z_j is the normal quantile of
1 - alpha_j, alpha_j = alpha / (j (j + 1)), whose sum over all looks is alpha: so often, at most, is the mean of all rows on
the other side.

That is so for normal differences. Of others a term of Bernstein's inequality is added to the half width, z_j^2 R / (6 n), R
being their range: a row in ten thousand may outweigh all others, and few rows do not tell that there is one.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple


class Evidence(NamedTuple):
    """What rows say of the mean of all."""

    mean: float
    half: float
    """Half the width of the interval."""

    def verdict(self, threshold: float) -> bool | None:
        """Say whether the mean is at least the threshold; None where that is not clear."""
        if not (math.isfinite(self.mean) and math.isfinite(self.half)):
            return False
        if self.mean - self.half >= threshold:
            return True
        return False if self.mean + self.half < threshold else None


def quantile(alpha: float, look: int) -> float:
    """Return z_j of the look j = 1, 2, ..."""
    return NormalDist().inv_cdf(1.0 - alpha / (look * (look + 1)))


def evidence(total: float, squares: float, n: int, z: float, *, reach: float = 0.0, n_all: float = math.inf) -> Evidence:
    """Return the evidence of n of `n_all` rows, each once, by sums of differences and of their squares, and their range."""
    mean = total / n
    variance = max(0.0, squares / n - mean * mean) * n / max(1, n - 1)
    left = max(0.0, 1.0 - n / n_all)
    if not math.isfinite(variance + reach):
        return Evidence(mean, math.inf)
    return Evidence(mean, z * math.sqrt(variance / n * left) + z * z * reach / (6.0 * n) * left)
