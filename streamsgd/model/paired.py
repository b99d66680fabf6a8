"""Losses of rows that two models scored, and the mean of their differences with its standard error."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

TWO_SIDED = 1.959963984540054
"""Standard errors to either side that hold 95 % of a normal distribution."""

TINY = 1e-15
"""The least probability that a loss reckons with."""


def _log_loss(y: np.ndarray, mean: np.ndarray) -> np.ndarray:
    right = mean[np.arange(len(y)), y.astype(np.int64)] if mean.ndim > 1 else np.where(y > 0.5, mean, 1.0 - mean)
    found: np.ndarray = -np.log(np.maximum(right, TINY))
    return found


def _zero_one(y: np.ndarray, mean: np.ndarray) -> np.ndarray:
    found = mean.argmax(axis=1) if mean.ndim > 1 else (mean >= 0.5).astype(np.int64)
    wrong: np.ndarray = (found != y.astype(np.int64)).astype(np.float64)
    return wrong


def _deviance(y: np.ndarray, mean: np.ndarray) -> np.ndarray:
    logs = np.where(y > 0.0, y * np.log(np.maximum(y, TINY) / np.maximum(mean, TINY)), 0.0)
    found: np.ndarray = 2.0 * (logs - (y - mean))
    return found


LOSSES = {
    "log_loss": _log_loss,
    "zero_one_loss": _zero_one,
    "squared_error": lambda y, mean: (y - mean) ** 2,
    "absolute_error": lambda y, mean: np.abs(y - mean),
    "poisson_deviance": _deviance,
}
"""What a row costs, by its target and what was predicted."""

OF_TASK = {
    "binary": ("log_loss", "zero_one_loss"),
    "multiclass": ("log_loss", "zero_one_loss"),
    "regression": ("squared_error", "absolute_error"),
    "poisson": ("poisson_deviance", "squared_error"),
}


@dataclass
class PairedDifference:
    """The mean of differences d of weight w, and its standard error, from sums.

    The mean is D = sum w d / sum w, its standard error sqrt(n / (n - 1) sum w^2 (d - D)^2) / sum w, as of a ratio of means
    (Cochran, Sampling Techniques, 1977, section 6.3); with weights of 1 that of the mean of a sample.
    """

    rows: int = 0
    sums: np.ndarray = field(default_factory=lambda: np.zeros(5))
    """Of w, w d, w^2, w^2 d, w^2 d^2."""

    def add(self, difference: np.ndarray, weight: np.ndarray) -> None:
        """Count rows; those of weight 0 are none."""
        squares = weight * weight
        terms = (weight, weight * difference, squares, squares * difference, squares * difference * difference)
        self.rows += int(np.count_nonzero(weight))
        self.sums = self.sums + np.array([math.fsum(term) for term in terms])

    def merge(self, other: PairedDifference) -> None:
        """Add the rows that another has counted."""
        self.rows += other.rows
        self.sums = self.sums + other.sums

    def result(self) -> dict[str, Any]:
        """Return the mean difference, its standard error and a 95 % interval; None where there are too few rows."""
        weight, first, squares, cross, second = self.sums.tolist()
        if self.rows < 2 or weight <= 0.0:
            return {"difference": first / weight if weight else None, "standard_error": None, "interval": None}
        mean = first / weight
        spread = max(second - 2.0 * mean * cross + mean * mean * squares, 0.0)
        error = math.sqrt(spread * self.rows / (self.rows - 1)) / weight
        return {
            "difference": mean,
            "standard_error": error,
            "interval": [mean - TWO_SIDED * error, mean + TWO_SIDED * error],
        }
