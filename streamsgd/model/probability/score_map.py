"""Scores mapped to log-odds that hold: Platt's line or a monotone one, fitted to rows that the weights have not seen."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np

from streamsgd.errors import ModelError


class ScoreMap(msgspec.Struct, frozen=True):
    """From scores to log-odds, never falling."""

    method: Literal["platt", "isotonic"]
    slope: float = 1.0
    shift: float = 0.0
    """Of `platt`: slope * score + shift."""
    scores: list[float] = []
    log_odds: list[float] = []
    """Of `isotonic`: rising scores, and log-odds at them; lines between them, and constant beyond."""

    def of(self, scores: np.ndarray) -> np.ndarray:
        """Return the log-odds of scores, float64, of the same shape."""
        if self.method == "platt":
            line: np.ndarray = self.slope * scores.astype(np.float64) + self.shift
            return line
        found: np.ndarray = np.interp(scores.astype(np.float64), self.scores, self.log_odds)
        return found

    def fault(self) -> str:
        """Return what is wrong with its numbers; nothing of a map of ours."""
        numbers = np.array([self.slope, self.shift, *self.scores, *self.log_odds])
        if not np.isfinite(numbers).all() or not self.slope > 0.0:
            return "holds a number that is not finite, or a slope that is not above 0"
        if self.method == "platt":
            return ""
        if not self.scores or len(self.scores) != len(self.log_odds):
            return "has not a log-odds for each score"
        rises = (np.diff(self.scores) > 0.0).all() and (np.diff(self.log_odds) >= 0.0).all()
        return "" if rises else "falls somewhere"


def mapped(found: ScoreMap, y: np.ndarray, scores: np.ndarray, means: np.ndarray, losses: np.ndarray) -> None:
    """Replace scores and means, (n, 1), and log losses, (n,), by those of the log-odds; y is 0 or 1, (n,)."""
    odds = found.of(scores[:, 0])
    tail = np.exp(-np.abs(odds))
    scores[:, 0], means[:, 0] = odds, np.where(odds >= 0.0, 1.0, tail) / (1.0 + tail)
    losses[:] = np.maximum(odds, 0.0) - y * odds + np.log1p(tail)


def need_sum(model: Any, what: str) -> None:
    """Refuse what only scores that are sums of weights have.

    Raises
    ------
    ModelError
        They are mapped to others.

    """
    if model.score_map is not None:
        raise ModelError(
            f"the model was trained with --recalibrate {model.score_map.method}, which bends its scores, so that there is no "
            f"{what}: train it with --recalibrate platt, or none"
        )
