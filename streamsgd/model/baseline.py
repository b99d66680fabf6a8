"""The best constant prediction: what a model must beat to have learned anything from its features.

Targets are summed while they are read, piece by piece, and the sums are joined in the order of the plan, so
that the result does not depend on who read what when. A sum is float64: (n_classes,) weights of a target with
classes, else (weight, mean, sum of squared deviations), joined by the formula of Chan, Golub and LeVeque
(1979).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.kernels.parts import losses
from streamsgd.kernels.sums.adjusted import AdjustedLogistic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def best_constant_loss(loss: Any, sums: np.ndarray) -> float | None:
    """Return the mean loss of the best constant score, or None where sums do not tell it (Huber, quantile).

    squared        Var(y) / 2
    logistic       -p log p - q log q, p + q = 1 the shares of the classes; softmax alike over all
    hinge          2 min(p, q)
    squared hinge  4 p q
    poisson        m - m log m, m the mean count
    """
    formula = _FORMULAS.get(type(loss))
    return formula(sums) if formula is not None and sums.any() else None


def constant_loss_of_rows(loss: Any, metrics: Mapping[str, float]) -> float | None:
    """Return the mean loss of the best constant score of the rows that metrics are of, or None where these do not tell it.

    Other rows have another one: squared losses of rows that happen to scatter more are greater by any prediction.
    """
    if isinstance(loss, losses.Squared):
        found, best = metrics["rmse"], metrics["best_constant_rmse"]
        return metrics["loss"] * (best / found) ** 2 if found > 0.0 else None
    if isinstance(loss, losses.Poisson):  # a deviance is twice the loss, less what follows from the targets alone
        return metrics["loss"] - (metrics["poisson_deviance"] - metrics["best_constant_poisson_deviance"]) / 2.0
    if isinstance(loss, losses.Hinge | losses.SquaredHinge):
        most = metrics["best_constant_accuracy"]
        return best_constant_loss(loss, np.array([most, 1.0 - most]))
    return metrics.get("best_constant_log_loss") if type(loss) in _FORMULAS else None


def _entropy(sums: np.ndarray) -> float:
    shares = sums[sums > 0.0] / sums.sum()
    return max(0.0, -float((shares * np.log(shares)).sum()))


def _half_variance(sums: np.ndarray) -> float:
    return float(sums[2] / sums[0]) / 2.0


def _hinge(sums: np.ndarray) -> float:
    return 2.0 * float(sums.min() / sums.sum())


def _squared_hinge(sums: np.ndarray) -> float:
    return 4.0 * float(sums[0] * sums[1] / sums.sum() ** 2)


def _poisson(sums: np.ndarray) -> float:
    mean = float(sums[1])
    return mean - mean * math.log(mean) if mean > 0.0 else 0.0


_FORMULAS: dict[type, Callable[[np.ndarray], float]] = {
    losses.Squared: _half_variance,
    losses.Logistic: _entropy,
    AdjustedLogistic: _entropy,
    losses.Softmax: _entropy,
    losses.Hinge: _hinge,
    losses.SquaredHinge: _squared_hinge,
    losses.Poisson: _poisson,
}
