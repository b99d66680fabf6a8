"""What losses predict of scores, as `kernels.parts.losses` has it, and what a row is then."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def logistic(score: float) -> float:
    """Return 1 / (1 + exp(-score))."""
    tail = math.exp(-abs(score))
    return (1.0 if score >= 0.0 else tail) / (1.0 + tail)


def softmax(scores: list[float]) -> list[float]:
    """Return exp(score) of every class, as shares."""
    top = max(scores)
    shares = [math.exp(score - top) for score in scores]
    total = sum(shares)
    return [share / total for share in shares]


MEANS: dict[str, Callable[[float], float]] = {
    "squared": lambda score: score,
    "huber": lambda score: score,
    "quantile": lambda score: score,
    "logistic": logistic,
    "hinge": lambda score: float(score > 0.0),
    "squared-hinge": lambda score: float(score > 0.0),
    "poisson": lambda score: math.exp(min(max(score, -708.0), 709.0)),
}
"""By the name of a loss of one score."""

PROBABLE = ("logistic", "softmax")
"""Losses whose means are probabilities."""
