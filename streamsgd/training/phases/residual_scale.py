"""How large residuals are, by row: a second set of weights that predicts |y - prediction|, by least squares in one pass.

Intervals whose width follows it are shorter where residuals are of different sizes (Lei et al. 2018, JASA 113, section 5.2).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.features.layout import most_entries
from streamsgd.kernels.algebra.whiten import invert_factor
from streamsgd.kernels.models.machines import is_linear
from streamsgd.kernels.structs.block import new_scratch
from streamsgd.kernels.sums.sandwich import lay_chunk, new_sandwich
from streamsgd.model.probability.sketch import Spread
from streamsgd.settings.registry import make
from streamsgd.training.learner import model_of
from streamsgd.training.phases.base import Outcome, PhaseKind, Saved, kept
from streamsgd.training.phases.one_pass import OnePass
from streamsgd.training.tasks.base import ChunkReport, report_on

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.kernels.structs.block import Parts
    from streamsgd.model.model import Model
    from streamsgd.settings.fields import Settings
    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.training.job import Job

MOST_WEIGHTS = 1024
"""Of which the pairs are added up; more have plain residuals."""

RIDGE = 1e-6
"""Of the curvature of a weight: where columns depend on one another, any solution does."""

LEAST_SHARE = 0.1
"""Of the mean residual, that one is predicted to be at least."""

MATRICES = 8
"""Of pairs at a time."""


@dataclass(slots=True)
class ResidualSums:
    """What some chunks add."""

    products: np.ndarray
    """float64 (n_weights, n_weights), lower triangle: of entries with one another."""
    residuals: np.ndarray
    """float64 (n_weights,): of entries with residuals."""

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return int(self.products.nbytes + self.residuals.nbytes)

    def merge(self, other: ResidualSums) -> ResidualSums:
        """Return what the chunks of both add."""
        return ResidualSums(self.products + other.products, self.residuals + other.residuals)


@dataclass
class AddResiduals:
    """Add up a chunk's rows with their residuals at some weights."""

    weights: np.ndarray
    """float64 (n_weights,)."""

    name = "residuals"
    exact = True

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return self.weights.nbytes

    def open(self, job: Job) -> Callable[[LoadedChunk], tuple[ResidualSums, ChunkReport]]:
        """Return what adds up a chunk."""
        return partial(self._add, job, model_of(job, self.weights.astype(job.settings.precision)))

    def _add(self, job: Job, model: Model, filled: LoadedChunk) -> tuple[ResidualSums, ChunkReport]:
        began, block, n = time.perf_counter(), filled.block, self.weights.size
        off = np.zeros((len(block.y), 2), block.y.dtype)[:, 0]  # laid out as targets are
        for start, stop in filled.learned_runs():
            _, means, _ = model.score_block(block, start, stop)
            off[start:stop] = np.abs(block.y[start:stop] - means[:, 0])
        sums, scratch = new_sandwich(n, 1), new_scratch(1, np.float64, most_entries(block, filled.layout))
        lay_chunk(make("loss", "squared"), block._replace(y=off), filled.starts, filled.counts, np.zeros(n), sums, scratch)
        return ResidualSums(sums.bread, -sums.gradient), report_on(job, filled, began, int(filled.counts.sum()), None)


class ResidualScale(OnePass[ResidualSums]):
    """The pass that adds up, and the weights that come of it."""

    name = "residual_scale"

    @property
    def done(self) -> bool:
        """Whether the pass has seen every chunk; of too many weights there is none."""
        return super().done or self.job.n_weights > MOST_WEIGHTS

    def task(self) -> AddResiduals:
        """Return what adds up a chunk."""
        return AddResiduals(self._weights)

    def outcome(self) -> Outcome:
        """Return what came before, with the weights of the scale in units of the target."""
        if self._sums is None:
            return self._known
        return replace(self._known, spread=solved(self._sums, self.job.target.scale), passes=self.cursor[0] + 1)

    # --- checkpoints

    def save(self) -> Saved:
        """Return the pass so far."""
        sums = {} if self._sums is None else {"products": self._sums.products, "residuals": self._sums.residuals}
        return Saved({"chunk": self._chunk}, {"weights": self._weights, **sums})

    def restore(self, saved: Saved, before: Outcome) -> None:
        """Take back what a checkpoint kept."""
        super().restore(saved, before)
        if "products" in saved.arrays:
            n = self._weights.size
            products, residuals = kept(saved.arrays, "products", np.zeros((n, n))), kept(saved.arrays, "residuals", np.zeros(n))
            self._sums = ResidualSums(products, residuals)


def solved(sums: ResidualSums, scale: float) -> Spread | None:
    """Return the weights that predict residuals best, in units of the target; None where all residuals are 0."""
    diagonal, count = np.diagonal(sums.products), float(sums.products[-1, -1])
    mean = float(sums.residuals[-1]) / max(count, 1e-300)
    if not mean > 0.0:
        return None
    unit = np.where(diagonal > 0.0, 1.0 / np.sqrt(np.where(diagonal > 0.0, diagonal, 1.0)), 0.0)
    whiten = np.tril(sums.products * unit[:, None] * unit)
    whiten[np.diag_indices(len(unit))] = 1.0 + RIDGE
    invert_factor(whiten, 0.0)
    whiten *= unit
    white = (whiten * sums.residuals).sum(axis=1)
    weights = (whiten * white[:, None]).sum(axis=0) / scale
    return Spread(weights, LEAST_SHARE * mean / scale, mean / scale)


def is_wanted(settings: Settings, parts: Parts) -> bool:
    """Whether intervals are to follow the size of residuals."""
    return settings.conformal and parts.loss.task == "regression" and is_linear(parts.model)


def describe(_said: dict[str, Any]) -> list[str]:
    """Say nothing: calibration does."""
    return []


RESIDUAL_SCALE = PhaseKind(
    "residual_scale",
    wanted=is_wanted,
    check=lambda _settings, _parts, _encoding: None,
    memory=lambda outline: 8 * MATRICES * outline.n_parameters**2,
    passes=lambda outline: int(outline.n_weights <= MOST_WEIGHTS),
    make=ResidualScale,
    describe=describe,
)
