"""What losses predict of scores, as `kernels.parts.losses` has it, and what a row is then."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING, Any

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


def score_map(said: dict[str, Any] | None) -> Callable[[float], float] | None:
    """Return what makes log-odds of a score, as `model.probability.score_map` has it; None where scores are."""
    if said is None:
        return None
    scores, odds = said.get("scores", ()), said.get("log_odds", ())
    if said["method"] == "platt":
        slope, shift = said["slope"], said["shift"]
        return lambda score: slope * score + shift

    def between(score: float) -> float:
        k = bisect_right(scores, score)
        if not 0 < k < len(scores):
            return float(odds[0] if k == 0 else odds[-1])
        part = (score - scores[k - 1]) / (scores[k] - scores[k - 1])
        return float(odds[k - 1] + part * (odds[k] - odds[k - 1]))

    return between


MEANS: dict[str, Callable[[float], float]] = {
    "squared": lambda score: score,
    "huber": lambda score: score,
    "quantile": lambda score: score,
    "logistic": logistic,
    "adjusted-logistic": logistic,
    "focal": logistic,
    "hinge": lambda score: float(score > 0.0),
    "squared-hinge": lambda score: float(score > 0.0),
    "poisson": lambda score: math.exp(min(max(score, -708.0), 709.0)),
}
"""By the name of a loss of one score."""

PROBABLE = ("logistic", "adjusted-logistic", "focal", "softmax")
"""Losses whose means are probabilities."""
