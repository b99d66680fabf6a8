"""Which size reaches the same loss in the least time: steps to it, as measured on the way, times the seconds of a step.

The loss is one that every size comes to, a good part of the way: near the end curves are flat, and the noise of three seeds
decides when they cross a line.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamsgd.training.events import Report

SHARE = 0.75
"""Of what the size that gained least in all steps has gained: the loss to which times are compared."""

HALVINGS = 6
"""How often the steps are halved for branches on the way."""


class SameLoss(NamedTuple):
    """How sizes come to the same loss."""

    loss: float
    steps: np.ndarray
    """Of each size."""
    least_steps: float
    """Of batches without noise ..."""
    least_rows: float
    """... and rows of the smallest ones: S(B) = least_steps + least_rows / B."""

    @property
    def critical(self) -> float | None:
        """Rows of a batch with which both are twice as many as need be; None where nothing is known of large batches."""
        return self.least_rows / self.least_steps if self.least_steps > 0.0 else None


def on_the_way(steps: int) -> list[int]:
    """Return the steps after which branches are looked at before the end."""
    return [n for k in range(HALVINGS, 0, -1) if (n := steps >> k)]


def same_loss(before: float, sizes: np.ndarray, steps: Sequence[int], losses: np.ndarray) -> SameLoss | None:
    """Return how sizes come to the same loss, given mean losses (n_sizes, n_lengths); None where one gained nothing."""
    gained = before - float(losses[:, -1].max())
    if len(steps) < 2 or not (np.isfinite(losses).all() and gained > 0.0):
        return None
    goal = before - SHARE * gained
    taken = np.array([steps_to(goal, before, steps, curve) for curve in losses])
    return SameLoss(goal, taken, *relative_line(1.0 / sizes, taken))


def steps_to(goal: float, before: float, steps: Sequence[int], losses: np.ndarray) -> float:
    """Return the steps to a loss on the way, by the falling curve nearest to the losses; between steps it is straight."""
    at, curve = np.array([0, *steps], float), falling(np.array([before, *losses]))
    j = int(np.argmax(curve <= goal)) if curve[-1] <= goal else len(curve) - 1
    drop = curve[j - 1] - curve[j]
    return float(at[j - 1] + (at[j] - at[j - 1]) * (min(1.0, (curve[j - 1] - goal) / drop) if drop > 0.0 else 1.0))


def falling(values: np.ndarray) -> np.ndarray:
    """Return the curve that never rises and is nearest in squares: neighbours that rise become their mean."""
    pools = list[tuple[float, int]]()
    for value in values.tolist():
        now = (value, 1)
        while pools and pools[-1][0] <= now[0]:
            mean, n = pools.pop()
            now = ((mean * n + now[0] * now[1]) / (n + now[1]), n + now[1])
        pools.append(now)
    return np.repeat([mean for mean, _n in pools], [n for _mean, n in pools])


def relative_line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return p and q of y = p + q x, neither below 0, by least squares of relative errors."""
    y = np.maximum(y, np.finfo(np.float64).tiny ** 0.25)  # clocks of coarse ticks count nothing
    design = np.column_stack([np.ones_like(x), x]) / y[:, None]
    p, q = np.linalg.lstsq(design, np.ones(len(x)), rcond=None)[0].tolist()
    if p < 0.0:
        return 0.0, float(design[:, 1].sum() / np.square(design[:, 1]).sum())
    return (p, q) if q >= 0.0 else (float(design[:, 0].sum() / np.square(design[:, 0]).sum()), 0.0)


def step_seconds(reports: Mapping[int, Sequence[Report]]) -> dict[int, float]:
    """Return the processor's seconds of a step of each size, learning and reading its rows, given the reports of its runs."""
    read = [one for some in reports.values() for one in some if one.rows_met > one.spent.cached_rows]
    reading = min(((one.spent.decode + one.spent.encode) / (one.rows_met - one.spent.cached_rows) for one in read), default=0.0)
    return {size: _learning(some) + size * reading if some else math.nan for size, some in reports.items()}


def _learning(reports: Sequence[Report]) -> float:
    """Return the seconds of a step by what the longest run takes more than the shortest, of those that were disturbed least.

    What a chunk costs once is not of its steps.
    """
    least = dict[int, float]()
    for one in reports:
        least[one.steps] = min(one.learn_seconds, least.get(one.steps, math.inf))
    first, last = min(least), max(least)
    more = (least[last] - least[first]) / (last - first) if last > first else 0.0
    return more if more > 0.0 else least[last] / max(1, last)


def least_time(alpha: float, beta: float, critical_size: float | None) -> float:
    """Return the batch of least time to a loss: of steps of alpha + beta B seconds, whose number falls as 1 + Bc/B."""
    if alpha <= 0.0 or critical_size == 0.0:
        return 0.0
    return math.inf if critical_size is None or beta <= 0.0 else math.sqrt(alpha * critical_size / beta)


def between_neighbours(least: float, sizes: np.ndarray, seconds: np.ndarray) -> float:
    """Return the batch of least time, not nearer to another of the sizes than to the one that was fastest as measured.

    Steps of very small batches are more than the law says, which would take one of them.
    """
    k, middles = int(np.argmin(seconds)), np.sqrt(sizes[:-1] * sizes[1:])
    low, high = (middles[k - 1] if k else sizes[0]), (middles[k] if k < len(middles) else sizes[-1])
    return float(np.clip(least, low, high))


def as_dict(same: SameLoss | None, seconds: np.ndarray) -> dict[str, Any] | None:
    """Return it as JSON values, with the seconds to that loss."""
    if same is None:
        return None
    return {
        "loss": same.loss,
        "steps": same.steps.tolist(),
        "seconds": (same.steps * seconds).tolist(),
        "least_steps": same.least_steps,
        "least_rows": same.least_rows,
    }
