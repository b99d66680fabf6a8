"""scikit-learn's names of losses, penalties and learning rates, and the parts that they stand for."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from streamsgd.kernels.parts import losses, optimizers, penalties, schedules
from streamsgd.kernels.structs.block import Parts


class ModifiedHuber(NamedTuple):
    """max(0, 1 - s score)^2 with s = 2 y - 1, linear below a margin of -1: smooth, robust, with probabilities."""

    task = "margin"
    curvature = 2.0
    source = "Zhang 2004, Annals of Statistics 32"

    def value(loss, y, score):
        margin = (2.0 * y - 1.0) * score
        short = max(0.0, 1.0 - margin)
        return short * short if margin >= -1.0 else -4.0 * margin

    def slope(loss, y, score):
        sign = 2.0 * y - 1.0
        margin = sign * score
        return -2.0 * sign * max(0.0, 1.0 - margin) if margin >= -1.0 else -4.0 * sign

    def mean(loss, score):
        return 0.5 * (min(max(score, -1.0), 1.0) + 1.0)

    def leap(loss, y, score, force):
        sign = 2.0 * y - 1.0
        margin = sign * score
        # At a speed of 4 up to a margin of -1, from there on towards 1 by halves.
        steady = min(force, max(0.0, -1.0 - margin) / 4.0)
        short = max(0.0, 1.0 - margin - 4.0 * steady)
        return sign * (4.0 * steady - short * math.expm1(-2.0 * (force - steady)))


class EpsilonInsensitive(NamedTuple):
    """max(0, |score - y| - epsilon): the loss of support vector regression."""

    epsilon: float = 0.1

    task = "regression"
    smooth = False
    source = "Vapnik 1995"

    def value(loss, y, score):
        return max(0.0, abs(score - y) - loss.epsilon)

    def slope(loss, y, score):
        error = score - y
        return 1.0 if error > loss.epsilon else (-1.0 if error < -loss.epsilon else 0.0)

    def mean(loss, score):
        return score

    def leap(loss, y, score, force):
        step = min(force, max(0.0, abs(score - y) - loss.epsilon))
        return step if y > score else -step


class SquaredEpsilonInsensitive(NamedTuple):
    """max(0, |score - y| - epsilon)^2."""

    epsilon: float = 0.1

    task = "regression"
    curvature = 2.0
    source = "Vapnik 1995"

    def value(loss, y, score):
        beyond = max(0.0, abs(score - y) - loss.epsilon)
        return beyond * beyond

    def slope(loss, y, score):
        beyond = max(0.0, abs(score - y) - loss.epsilon)
        return 2.0 * beyond if score > y else -2.0 * beyond

    def mean(loss, score):
        return score

    def leap(loss, y, score, force):
        step = -max(0.0, abs(score - y) - loss.epsilon) * math.expm1(-2.0 * force)
        return step if y > score else -step


class Optimal(NamedTuple):
    """1 / (start + step - 1): with a rate of 1 / alpha the schedule that scikit-learn calls optimal."""

    start: float = 1.0

    source = "Bottou 2012, Stochastic Gradient Descent Tricks"

    def factor(schedule, step, epoch, epochs):
        return 1.0 / (schedule.start + step - 1.0)


CLASSIFIER_LOSSES: dict[str, Any] = {
    "hinge": lambda _epsilon: losses.Hinge(),
    "log_loss": lambda _epsilon: losses.Logistic(),
    "modified_huber": lambda _epsilon: ModifiedHuber(),
    "squared_hinge": lambda _epsilon: losses.SquaredHinge(),
}
REGRESSOR_LOSSES: dict[str, Any] = {
    "squared_error": lambda _epsilon: losses.Squared(),
    "huber": losses.Huber,
    "epsilon_insensitive": EpsilonInsensitive,
    "squared_epsilon_insensitive": SquaredEpsilonInsensitive,
    "quantile": lambda _epsilon: losses.Quantile(),
    "poisson": lambda _epsilon: losses.Poisson(),
}
"""What makes a loss of a name, given scikit-learn's `epsilon`; the last two are ours besides."""

LEARNING_RATES = ("auto", "constant", "optimal", "invscaling", "adaptive")


def penalty_of(name: str | None, alpha: float, l1_ratio: float) -> Any:
    """Return the penalty alpha (l1_ratio ||w||_1 + (1 - l1_ratio) / 2 ||w||^2), or that of which a name is a special case."""
    if name is None or alpha == 0.0:
        return penalties.Free()
    if name == "l2":
        return penalties.Ridge(alpha)
    return penalties.Lasso(alpha) if name == "l1" else penalties.ElasticNet(alpha * l1_ratio, alpha * (1.0 - l1_ratio))


def in_units(loss: Any, penalty: Any, unit: float) -> tuple[Any, Any]:
    """Return loss and penalty that have the same minimum, in multiples of a unit, for targets in multiples of it."""
    if unit == 1.0:
        return loss, penalty
    fields = {key: getattr(loss, key) / unit for key in ("delta", "epsilon") if key in loss._fields}
    size = unit if isinstance(loss, losses.Quantile | EpsilonInsensitive) else unit * unit
    weighed = {"l1": unit / size, "l2": unit * unit / size}
    return loss._replace(**fields), penalty._replace(**{key: getattr(penalty, key) * weighed[key] for key in penalty._fields})


class Rate(NamedTuple):
    """What scikit-learn's learning rates are made of."""

    alpha: float
    eta0: float
    power_t: float


def parts_of(loss: Any, penalty: Any, learning_rate: str, rate: Rate) -> Parts:
    """Return loss and penalty with the optimizer and schedule of a learning rate of scikit-learn's, or of ours, `auto`."""
    if learning_rate == "auto":
        return Parts(loss, penalty, optimizers.Normalized(), schedules.Constant())
    if learning_rate == "optimal":
        return Parts(loss, penalty, optimizers.SGD(1.0 / rate.alpha), Optimal(_first_step(loss, rate.alpha)))
    if learning_rate == "invscaling":
        return Parts(loss, penalty, optimizers.SGD(rate.eta0), schedules.InverseScaling(rate.power_t))
    return Parts(loss, penalty, optimizers.SGD(rate.eta0), schedules.Constant())


def _first_step(loss: Any, alpha: float) -> float:
    """Return where `Optimal` starts: so that the first step is that of weights as large as they are expected to become."""
    typical = math.sqrt(1.0 / math.sqrt(alpha))
    return float(max(1.0, abs(loss.slope(1.0, -typical))) / (alpha * typical))
