"""Recalibration: a map from scores to log-odds that hold, fitted to the rows that were held out, in one pass."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.errors import SettingsError
from streamsgd.kernels.sums.calibration import N_LEVELS, N_SUMS
from streamsgd.model.probability.calibration import Calibration
from streamsgd.model.probability.recalibrate import fit_map
from streamsgd.training.classes.class_weights import of_population
from streamsgd.training.learner import model_of
from streamsgd.training.phases.base import Outcome, PhaseKind, Saved, kept
from streamsgd.training.phases.one_pass import OnePass
from streamsgd.training.tasks.base import ChunkReport, report_on

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.features.encoding import Encoding
    from streamsgd.kernels.structs.block import Parts
    from streamsgd.model.model import Model
    from streamsgd.settings.fields import Settings
    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.training.job import Job

COPIES = 6
"""Of the sums at a time."""


@dataclass(slots=True)
class LevelSums:
    """Rows by level of their score."""

    levels: np.ndarray = field(default_factory=lambda: np.zeros((N_LEVELS, N_SUMS)))
    """As of `tally_levels`."""

    @property
    def nbytes(self) -> int:
        """Bytes of the sums."""
        return self.levels.nbytes

    def merge(self, other: LevelSums) -> LevelSums:
        """Return the rows of both."""
        return LevelSums(self.levels + other.levels)


@dataclass
class AddLevels:
    """Add a chunk's held-out rows at some weights by level of their score."""

    weights: np.ndarray
    """float64 (n_weights,)."""

    name = "levels"
    exact = True

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return self.weights.nbytes

    def open(self, job: Job) -> Callable[[LoadedChunk], tuple[LevelSums, ChunkReport]]:
        """Return what adds up a chunk."""
        return partial(self._add, job, of_population(job, model_of(job, self.weights.astype(job.settings.precision))))

    def _add(self, job: Job, model: Model, filled: LoadedChunk) -> tuple[LevelSums, ChunkReport]:
        began, found = time.perf_counter(), Calibration()
        for block in filled.held_blocks():
            scores, _, _ = model.score_block(block, 0, len(block.y))
            found.update(block.y, scores[:, 0], block.weight)
        return LevelSums(found.levels), report_on(job, filled, began, int(filled.helds.sum()), None)


class Recalibrating(OnePass[LevelSums]):
    """The pass."""

    name = "recalibration"

    def task(self) -> AddLevels:
        """Return what adds up a chunk."""
        return AddLevels(self._weights)

    def outcome(self) -> Outcome:
        """Return what came before, with the map.

        Raises
        ------
        DataError
            The rows that were held out do not tell it.

        """
        sums = (self._sums or LevelSums()).levels
        found, told = fit_map(self.job.settings.recalibrate, sums)
        metrics = {**self._known.metrics, self.name: told}
        return replace(self._known, score_map=found, passes=self.cursor[0] + 1, metrics=metrics)

    # --- checkpoints

    def save(self) -> Saved:
        """Return the pass so far."""
        sums = (self._sums or LevelSums()).levels
        return Saved({"chunk": self._chunk}, {"weights": self._weights, "levels": sums})

    def restore(self, saved: Saved, before: Outcome) -> None:
        """Take back what a checkpoint kept."""
        super().restore(saved, before)
        self._sums = LevelSums(kept(saved.arrays, "levels", np.zeros((N_LEVELS, N_SUMS))))


REFUSED = {
    "conformal": "the same rows would be calibrated on twice: leave one of them out",
    "standard_errors": "they are of weights as they were learned: leave one of them out",
    "method": "draws are of weights as they were learned: leave one of them out",
    "keep_memory": "a later run would go on from other weights: leave one of them out",
}
"""Settings that do not go with it, and why."""


def check_recalibration(settings: Settings, parts: Parts, _encoding: Encoding) -> None:
    """Refuse to recalibrate what has no two classes, on no rows, or on rows that chose the weights.

    Raises
    ------
    SettingsError
        That is what was asked for.

    """
    flag = f"--recalibrate {settings.recalibrate}"
    if parts.loss.task not in ("binary", "margin"):
        raise SettingsError(
            f"{flag} sets probabilities of two classes right, and {settings.target!r} has not two: leave it out"
        )
    if settings.validation in ("auto", 0.0):
        raise SettingsError(f"{flag} is fitted to rows that are held out: pass --validation 0.1 too")
    if settings.patience is not None and settings.valid is None:
        raise SettingsError(
            f"{flag} must not be fitted to held-out rows that choose the weights: leave --patience out, or "
            "choose them by other data, with --valid"
        )
    for name, why in REFUSED.items():
        if getattr(settings, name):
            raise SettingsError(f"{flag} with --{name.replace('_', '-')}: {why}")


def describe(told: dict[str, Any]) -> list[str]:
    """Return what was found, for people."""
    by = f"{told['slope']:.4g} * score {told['shift']:+.4g}" if told["method"] == "platt" else f"{told['knots']} knots"
    rows = f"held-out rows of weight {told['weight']:,.0f}, {told['positives']:,.0f} of it positive"
    losses = f"their log loss was {told['log_loss_before']:.6g} and is {told['log_loss']:.6g}"
    return [f"recalibrated ({told['method']}: {by}) on {rows}: {losses}"]


RECALIBRATION = PhaseKind(
    "recalibration",
    wanted=lambda settings, _parts: settings.recalibrate != "none",
    check=check_recalibration,
    memory=lambda outline: 8 * COPIES * N_LEVELS * N_SUMS + 16 * outline.n_parameters,
    passes=lambda _outline: 1,
    make=Recalibrating,
    describe=describe,
)
