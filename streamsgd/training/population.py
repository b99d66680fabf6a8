"""What thinned rows say of the population: its loss while learning, and how many positives to predict.

What the kernel that learns adds up is the loss of the thinned rows, whose odds are others. So rows are scored a few thousand at
a time, by the weights that the first of them meets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.kernels.structs.state import LOSS, WEIGHT
from streamsgd.kernels.sums.thin import population_loss

if TYPE_CHECKING:
    from streamsgd.kernels.structs.block import Block, Scratch
    from streamsgd.kernels.structs.state import State
    from streamsgd.training.job import Job

LEAST_ROWS = 4096
"""Rows that are scored by the same weights, ..."""

FARTHEST = 20.0
"""Log-odds by which an intercept may be moved."""

PER_WEIGHT = 8
"""... or, where there are more weights than these times the rows, one for so many of them: they are copied each time."""


class PopulationLoss:
    """Scores rows before they are learned.

    Parameters
    ----------
    job
        That thins.
    scratch
        With room for the entries of the rows.

    """

    def __init__(self, job: Job, scratch: Scratch) -> None:
        self._rule, self._scratch = job.known_thinner.rule, scratch
        self.most_rows = max(LEAST_ROWS, job.n_weights // PER_WEIGHT)
        """That are scored by the same weights."""

    def of(self, weights: np.ndarray, state: State, block: Block, order: np.ndarray, heads: np.ndarray) -> Any:
        """Return what the first two numbers of the tally are once these rows are learned, float64 (2,)."""
        found = state.tally[[LOSS, WEIGHT]]
        population_loss(block, order, heads.copy(), weights, self._rule, self._scratch, found)
        return found


def shift_to(scores: np.ndarray, weights: np.ndarray, wanted: float) -> float:
    """Return by how much all scores must move for the weighted sum of their probabilities to be as wanted: by bisection."""
    low, high = -FARTHEST, FARTHEST
    for _ in range(60):
        middle = 0.5 * (low + high)
        total = float((weights * probabilities(scores + middle)).sum())  # not a product of BLAS, whose threads round
        low, high = (middle, high) if total < wanted else (low, middle)
    return 0.5 * (low + high)


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Return the probabilities of log-odds."""
    found: np.ndarray = 1.0 / (1.0 + np.exp(-np.clip(scores, -500.0, 500.0)))
    return found
