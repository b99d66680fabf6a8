"""Mean and variance of a column, merged over parts of it."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np

from streamsgd.errors import DataError

log = logging.getLogger("streamsgd")

ROUNDED = 1e-14
"""Of a mean: below it are the deviations that rounding makes of values that are all the same."""

WHOLE = 1 << 53
"""Up to here float64 holds every whole number."""

COARSE = 0.01
"""Of a deviation: what is lost in rounding beyond which it is said."""


def finite_only(values: np.ndarray) -> np.ndarray:
    """Return the finite ones of some floats: the array itself if all are, for choosing them takes longer than the sums."""
    finite = np.isfinite(values)
    return values if finite.all() else values[finite]


@dataclass
class Moments:
    """Mean and squared deviations of finite values, merged by Chan, Golub and LeVeque's formula (1979)."""

    n: int = 0
    missing: int = 0
    mean: float = 0.0
    m2: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def add(self, values: np.ndarray) -> None:
        """Take in float values, counting NaN and Inf as missing."""
        finite = finite_only(values)
        self.missing += len(values) - len(finite)
        self.add_finite(finite)

    def add_finite(self, values: np.ndarray) -> None:
        """Take in float values of which none is NaN or Inf."""
        if not len(values):
            return
        work = values.astype(np.float64)  # in place from here on: memory that is new costs more than the sums
        low, high = float(work.min()), float(work.max())
        with np.errstate(over="ignore", invalid="ignore"):  # `check_moments` refuses what overflows
            mean = float(work.mean())
            work -= mean
            m2 = float(np.square(work, out=work).sum())
        self.join(Moments(len(work), 0, mean, m2, low, high))

    def join(self, other: Moments) -> None:
        """Take in the values that another one has seen."""
        self.missing += other.missing
        if not other.n:
            return
        n, delta = self.n + other.n, other.mean - self.mean
        self.m2 += other.m2 + delta * delta * self.n * other.n / n
        self.mean += delta * other.n / n
        self.n = n
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)

    @property
    def deviation(self) -> float:
        """Population standard deviation, 1 where it is zero or lost in rounding."""
        deviation = math.sqrt(self.m2 / self.n) if self.n else 0.0
        return deviation if deviation > ROUNDED * abs(self.mean) else 1.0


def check_moments(moments: Moments, what: str) -> None:
    """Refuse values too large to have a variance, which are marks for missing values more often than numbers.

    Values that differ by little beside their size, as identifiers and moments in nanoseconds do, are said.

    Raises
    ------
    DataError
        The mean or the variance overflows.

    """
    if not (math.isfinite(moments.mean) and math.isfinite(moments.m2)):
        raise DataError(f"{what} has values so large that their variance overflows; clean them, or use a smaller unit")
    if moments.low == moments.high and abs(moments.low) > WHOLE:
        log.warning("%s is %.6g in every row, as far as float64 tells whole numbers beyond 2^53", what, moments.low)
    step = float(np.spacing(max(abs(moments.low), abs(moments.high)))) if moments.n else 0.0
    if moments.low < moments.high and step > COARSE * math.sqrt(moments.m2 / moments.n):
        log.warning(
            "%s has values of about %.3g, which float64 tells apart in steps of %.3g only, %.2g of their deviations: what lies "
            "between is lost; subtract the least of them",
            what,
            moments.mean,
            step,
            step / math.sqrt(moments.m2 / moments.n),
        )


def farthest(moments: Moments) -> float:
    """Return by how many deviations the farthest value is off the mean."""
    if not moments.n:
        return 0.0
    return max(moments.high - moments.mean, moments.mean - moments.low, 0.0) / moments.deviation
