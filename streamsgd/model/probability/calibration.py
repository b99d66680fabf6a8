"""Whether probabilities are what happens: sums by level of the log-odds, which merge, and a table of equal shares of the rows.

There are 64 levels in a unit of log-odds. A group of the table is a run of levels with about a twentieth of the weight, so its
sums are exact: it holds the rows whose probability lies within its limits, and no other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.kernels.sums.calibration import (
    FARTHEST,
    N_LEVELS,
    N_SUMS,
    OBSERVED,
    PER_UNIT,
    PREDICTED,
    SQUARES,
    WEIGHT,
    tally_levels,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

GROUPS = 20
"""Groups of the table, of about equal weight."""


@dataclass(slots=True, eq=False)
class Calibration:
    """Sums of a binary task, to be updated block by block and merged."""

    levels: np.ndarray = field(default_factory=lambda: np.zeros((N_LEVELS, N_SUMS)))

    def update(self, y: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> None:
        """Count n rows: targets of 0 or 1, log-odds, and weights of at least 0, or None for 1, each (n,)."""
        score = np.ascontiguousarray(score).ravel()
        target = np.ascontiguousarray(y, score.dtype)
        row_weight = np.empty(0, score.dtype) if weight is None else np.ascontiguousarray(weight, score.dtype)
        tally_levels(target, score, row_weight, self.levels)

    def merge(self, other: Calibration) -> None:
        """Add the rows that `other` has counted."""
        self.levels += other.levels

    def result(self) -> dict[str, Any]:
        """Return what there is to say; nothing where no row weighs anything.

        brier                          weighted mean of (y - p)^2
        mean_prediction, prevalence    weighted means of p and y
        calibration_error              sum over groups of their share of the weight times |mean y - mean p|: ECE of groups of
                                       equal weight (Naeini, Cooper and Hauskrecht 2015, AAAI)
        calibration                    the groups; see `table`
        """
        total = self.levels.sum(axis=0)
        if not total[WEIGHT] > 0.0:
            return {}
        groups = self.table()
        away = sum(group["weight"] * abs(group["observed"] - group["predicted"]) for group in groups)
        return {
            "brier": float(total[SQUARES] / total[WEIGHT]),
            "mean_prediction": float(total[PREDICTED] / total[WEIGHT]),
            "prevalence": float(total[OBSERVED] / total[WEIGHT]),
            "calibration_error": away / float(total[WEIGHT]),
            "calibration": groups,
        }

    def table(self, n_groups: int = GROUPS) -> list[dict[str, float]]:
        """Return groups of rows of rising probability, of about equal weight.

        Each has `low` and `high`, between which its probabilities are, `weight`, their mean `predicted`, the share of positives
        `observed`, and its `standard_error`, as of so many rows of weight 1.
        """
        weight = self.levels[:, WEIGHT]
        used = np.flatnonzero(weight > 0.0)
        middle = (np.cumsum(weight) - 0.5 * weight)[used] / weight.sum()
        number = np.minimum((middle * n_groups).astype(np.int64), n_groups - 1)
        first = np.flatnonzero(np.append(True, number[1:] != number[:-1]))
        return [_group(used[a:b], self.levels) for a, b in zip(first, [*first[1:], len(used)], strict=True)]


def _group(members: np.ndarray, levels: np.ndarray) -> dict[str, float]:
    sums = levels[members].sum(axis=0)
    share = float(sums[OBSERVED] / sums[WEIGHT])
    return {
        "low": _probability(members[0]),
        "high": _probability(members[-1] + 1),
        "weight": float(sums[WEIGHT]),
        "predicted": float(sums[PREDICTED] / sums[WEIGHT]),
        "observed": share,
        "standard_error": math.sqrt(max(share * (1.0 - share), 0.0) / float(sums[WEIGHT])),
    }


def _probability(level: int) -> float:
    """Return the probability at which a level begins."""
    if level <= 0 or level >= N_LEVELS:
        return 0.0 if level <= 0 else 1.0
    return 1.0 / (1.0 + math.exp(FARTHEST - level / PER_UNIT))
