"""What thinned rows say of the population: its loss while learning, and how many positives to predict.

What the kernel that learns adds up is the loss of the thinned rows, whose odds are others. So rows are scored a few thousand at
a time, by the weights that the first of them meets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamsgd.kernels.structs.state import LOSS, WEIGHT
from streamsgd.kernels.sums.thin import MIXED, TARGETED, population_loss

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.kernels.structs.block import Block, Scratch
    from streamsgd.kernels.structs.state import State
    from streamsgd.kernels.sums.thin import Rule
    from streamsgd.training.job import Job

LEAST_ROWS = 4096
"""Rows that are scored by the same weights, ..."""

LEAST = 1e-300
"""What sums are taken for that underflow."""

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
    """Return by how much all scores must move for the weighted sum of their probabilities to be as wanted."""
    return shift_of(scores, lambda p: float((weights * p).sum()), wanted)  # not a product of BLAS, whose threads round


def shift_of(scores: np.ndarray, total: Callable[[np.ndarray], float], wanted: float) -> float:
    """Return by how much all scores must move for a sum that rises with their probabilities to be as wanted: by bisection."""
    low, high = -FARTHEST, FARTHEST
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if total(probabilities(scores + middle)) < wanted else (low, middle)
    return 0.5 * (low + high)


def chances_of_negatives(rule: Rule, p: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the probabilities that negatives are kept, by a rule that keeps all positives: `kernels.sums.thin.chance`."""
    mixed = p + MIXED * (rule.mean - p) if rule.mean > 0.0 else p
    often = rule.c * mixed * lengths / rule.size if rule.kind == TARGETED else np.full(len(p), rule.c)
    found: np.ndarray = np.minimum(1.0, often)
    return found


class Known(NamedTuple):
    """What is known of each row that was drawn, and of all rows: its class, and what the pilot predicts."""

    positive: np.ndarray
    """bool (n,)."""
    foreseen: np.ndarray
    """float64 (n,)."""
    positives: float
    """The sum over all rows."""
    total: float
    """The sum of what the pilot predicts over all rows."""


def missed(p: np.ndarray, each: np.ndarray, known: Known) -> tuple[float, float]:
    """Return by how much a sum of p over rows that were drawn is probably above that over all, and the error that is left.

    The regression estimator for rows drawn each for itself (Cochran 1977, Sampling Techniques, chapter 7): p is fitted by
    the class and the pilot's prediction, with v = each (each - 1), the variance that a row brings, for weights. What the fit
    adds up to is known of all rows, so that chance is left only in the residuals, of variance sum of v residual^2.

    Parameters
    ----------
    p
        float64 (n,): what is added up.
    each
        float64 (n,): how many rows of the population each of them is.
    known
        What is like p.

    """
    varies = np.maximum(each * (each - 1.0), 0.0)
    of_positives = np.where(known.positive, varies, 0.0)
    drawn = max(float(of_positives.sum()), LEAST)
    by_class, its = (float((of_positives * of).sum()) / drawn for of in (p, known.foreseen))
    own, theirs = p - by_class * known.positive, known.foreseen - its * known.positive
    slope = float((varies * own * theirs).sum()) / max(float((varies * theirs * theirs).sum()), LEAST)
    fitted = by_class * known.positive + slope * theirs
    of_all = by_class * known.positives + slope * (known.total - its * known.positives)
    error = float(np.sqrt((varies * (p - fitted) ** 2).sum()))
    return float((each * fitted).sum()) - of_all, error


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Return the probabilities of log-odds."""
    found: np.ndarray = 1.0 / (1.0 + np.exp(-np.clip(scores, -500.0, 500.0)))
    return found
