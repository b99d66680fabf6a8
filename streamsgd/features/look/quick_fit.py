"""Quick fits of some thousand rows of the first look: numbers, and one weight of each column of codes.

Conjugate gradients and Newton steps in NumPy: neither a compiler nor a library whose bits depend on its threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = 30
"""Of conjugate gradients, ..."""

NEWTON_STEPS, STEPS_OF_NEWTON = 5, 8
"""... and of a logistic regression, each with so many."""

SMALL = 1e-10
"""Share of the squared length of the first residual at which they end."""

RIDGE = 10.0
"""Penalty on squared weights, in rows."""


@dataclass(frozen=True)
class Rows:
    """Rows of a fit: numbers (n, d), with a 1 as the last, and of each bin column the number of a weight, (n, b)."""

    numbers: np.ndarray
    codes: np.ndarray
    n_bins: int

    def times(self, weights: np.ndarray) -> np.ndarray:
        """Return the products of rows with weights, (n,)."""
        d = self.numbers.shape[1]
        scores: np.ndarray = np.einsum("ij,j->i", self.numbers, weights[:d])
        return scores + weights[d:][self.codes].sum(axis=1) if self.n_bins else scores

    def transposed(self, residuals: np.ndarray) -> np.ndarray:
        """Return the products of columns with a number for each row, (d + n_bins,)."""
        ours = np.einsum("ij,i->j", self.numbers, residuals)
        each = np.broadcast_to(residuals[:, None], self.codes.shape).ravel()
        return np.append(ours, np.bincount(self.codes.ravel(), each, self.n_bins)) if self.n_bins else ours

    def sizes(self) -> np.ndarray:
        """Return the sum of squares of every column."""
        ours = np.einsum("ij,ij->j", self.numbers, self.numbers)
        return np.append(ours, np.bincount(self.codes.ravel(), minlength=self.n_bins)) if self.n_bins else ours

    def some(self, which: np.ndarray, *, bins: bool) -> Rows:
        """Return some of the rows, with or without their bins."""
        return Rows(self.numbers[which], self.codes[which], self.n_bins if bins else 0)


def fit_squares(rows: Rows, y: np.ndarray) -> np.ndarray:
    """Return weights of least squares with a small ridge."""
    return solve(rows, rows.transposed(y), np.ones(len(y)), STEPS)


def fit_class(rows: Rows, y: np.ndarray) -> np.ndarray:
    """Return weights of a logistic regression with a small ridge, by Newton steps that are halved until the loss falls."""
    return fit(rows, y, "class")


def fit(rows: Rows, y: np.ndarray, family: str, ridge: Any = RIDGE) -> np.ndarray:
    """Return weights by the loss of a family: Newton steps that are halved until the loss falls.

    `ridge` is the penalty on squared weights, in rows, one for all or (d + n_bins,).
    """
    if family == "squares":
        return solve(rows, rows.transposed(y), np.ones(len(y)), STEPS, ridge)
    loss, slope = FAMILIES[family].loss, FAMILIES[family].slope
    weights = np.zeros(rows.numbers.shape[1] + rows.n_bins)
    if family == "counts":  # from the best constant: the first step from elsewhere goes far
        weights[rows.numbers.shape[1] - 1] = math.log(max(float(y.mean()), 1e-9))
    score = rows.times(weights)
    cost = float(loss(score, y).sum())
    for _ in range(NEWTON_STEPS):
        rest, curvature = slope(score, y)
        step = solve(rows, rows.transposed(rest) - ridge * weights, np.maximum(curvature, 1e-3), STEPS_OF_NEWTON, ridge)
        for k in range(NEWTON_STEPS):
            moved = weights + step / 2.0**k
            reached = rows.times(moved)
            now = float(loss(reached, y).sum()) + float((ridge * moved * moved).sum()) / 2.0
            if now <= cost:
                weights, score, cost = moved, reached, now
                break
    return weights


class Family(NamedTuple):
    """A loss of scores: of every row, and what is left with its curvature."""

    loss: Callable[[np.ndarray, np.ndarray], np.ndarray]
    slope: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    """The negative slope, and the second derivative."""


def _of_class(score: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    chance = 1.0 / (1.0 + np.exp(-np.clip(score, -30.0, 30.0)))
    return y - chance, chance * (1.0 - chance)


def _of_counts(score: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = np.exp(np.clip(score, -30.0, 30.0))
    return y - mean, mean


def _deviance(score: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return half of the deviance of every row, so that 0 is perfect."""
    known = np.where(y > 0.0, y * np.log(np.maximum(y, 1e-300)) - y, 0.0)
    halves: np.ndarray = np.exp(np.clip(score, -30.0, 30.0)) - y * score + known
    return halves


FAMILIES: dict[str, Family] = {
    "squares": Family(lambda score, y: np.square(score - y), lambda score, y: (y - score, np.ones(len(y)))),
    "class": Family(lambda score, y: np.logaddexp(0.0, score) - y * score, _of_class),
    "counts": Family(_deviance, _of_counts),
}


def solve(rows: Rows, right: np.ndarray, by: np.ndarray, steps: int, ridge: Any = RIDGE) -> np.ndarray:
    """Solve (A' diag(by) A + ridge) x = right by conjugate gradients, each column in units of its size."""
    scale = 1.0 / np.sqrt(rows.sizes() * by.mean() + ridge)
    found = np.zeros(len(scale))
    residual = scale * right
    direction, size = residual.copy(), float(np.einsum("i,i->", residual, residual))
    least = size * SMALL
    for _ in range(steps):
        if size <= least:
            break
        moved = scale * (rows.transposed(by * rows.times(scale * direction)) + ridge * scale * direction)
        step = size / float(np.einsum("i,i->", direction, moved))
        found += step * direction
        residual -= step * moved
        size, before = float(np.einsum("i,i->", residual, residual)), size
        direction = residual + size / before * direction
    solved: np.ndarray = scale * found
    return solved
