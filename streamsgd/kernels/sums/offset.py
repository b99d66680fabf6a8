"""The loss that makes up for rows that were left out by their class and features.

A row that was kept with probability r_1 if its target is 1, and r_0 if it is 0, has the odds of the population times r_1 / r_0.
So the score of the population is what remains once log(r_1 / r_0), the row's offset, is added (Prentice and Pyke 1979,
Biometrika 66; Fithian and Hastie 2014, Annals of Statistics 42). Target and offset are one number, for which rows have room:
sign (BASE + offset), positive where the target is 1. Rows that nobody thinned have a target of 0 or 1 as always.
"""

from typing import Any, NamedTuple

from streamsgd.kernels.compile.jit import dispatch, lean
from streamsgd.kernels.compile.maths import exp, log1p_flat
from streamsgd.kernels.parts.losses import Logistic

BASE = 32.0
"""A float32 near it holds an offset to 2e-6."""

MOST_OFFSET = 30.0
"""Offsets beyond are this: probabilities of 1e-13."""


@lean
def target_of(y):
    """Return the target, 0 or 1, of a number that holds an offset too, or does not."""
    return 1.0 if y > 0.5 else 0.0


@lean
def offset_of(y):
    """Return the offset; 0 of a row that nobody thinned."""
    return abs(y) - BASE if abs(y) > 1.0 else 0.0


def log_loss(target, reach):
    """Return the log loss of log-odds, rounded as written whether or not it is worked out for rows side by side."""
    return max(reach, 0.0) - target * reach + log1p_flat(exp(-abs(reach)))


@dispatch(log_loss, exact=True, within=True)
def _(target, reach):
    return log_loss


_leap = lean(Logistic.leap)


class OffsetLogistic(NamedTuple):
    """The log loss of a score plus the row's offset."""

    task = "binary"
    mixing = "likelihood"
    curvature = 0.25
    offset = True
    source = "Prentice and Pyke 1979, Biometrika 66"

    def value(loss, y, score):
        return log_loss(target_of(y), score + offset_of(y))

    def slope(loss, y, score):
        reach = score + offset_of(y)
        tail = exp(-abs(reach))
        return (1.0 if reach >= 0.0 else tail) / (1.0 + tail) - target_of(y)

    def mean(loss, score):
        tail = exp(-abs(score))
        return (1.0 if score >= 0.0 else tail) / (1.0 + tail)

    def leap(loss, y, score, force):
        return _leap(loss, target_of(y), score + offset_of(y), force)

    def confine(loss, score, limits):
        return min(max(score, -50.0), 50.0)


def offset_loss() -> Any:
    """Return the loss of rows with offsets."""
    return OffsetLogistic()  # type: ignore[call-arg]
