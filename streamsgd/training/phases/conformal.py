"""Calibration by the rows that were held out: one pass that keeps how far predictions are off, and learns nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from streamsgd.errors import DataError, SettingsError
from streamsgd.model.probability.calibrate import warn_of_few
from streamsgd.model.probability.conformal import sketch_rows
from streamsgd.model.probability.sketch import MOST_BINS, ScoreSketch, Spread, new_sketch, read_sketch, said_of
from streamsgd.planning.tree import FAN, levels
from streamsgd.training.learner import model_of
from streamsgd.training.phases.base import Outcome, PhaseKind, Saved
from streamsgd.training.phases.one_pass import OnePass
from streamsgd.training.tasks.base import ChunkReport, report_on

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from streamsgd.features.encoding import Encoding
    from streamsgd.kernels.structs.block import Parts
    from streamsgd.model.model import Model
    from streamsgd.settings.fields import Settings
    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.training.job import Job
    from streamsgd.training.outline import Outline

DIVIDED = 1
"""The class of divided residuals, while it is open whether they are better than plain ones, which are of class 0."""

COPIES = 3
"""Of a sketch at a time, beside one per level of the tree: of the pass, of the chunk, and what two are merged into."""

SORTED = 16
"""Copies of one class's bins: half while two sketches are merged, class by class, and half of what chunks of a round bring."""


@dataclass
class AddScores:
    """Add the scores of a chunk's held-out rows at some weights."""

    weights: np.ndarray
    """float64 (n_weights,)."""
    spread: Spread | None = None
    """Scores divided by which are added too, as those of another class."""

    name = "scores"
    exact = True

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return self.weights.nbytes

    def open(self, job: Job) -> Callable[[LoadedChunk], tuple[ScoreSketch, ChunkReport]]:
        """Return what adds up a chunk."""
        return partial(self._add, job, model_of(job, self.weights.astype(job.settings.precision)))

    def _add(self, job: Job, model: Model, filled: LoadedChunk) -> tuple[ScoreSketch, ChunkReport]:
        began, sketch = time.perf_counter(), new_sketch()
        for block in filled.held_blocks():
            rows = [(0, len(block.y))]
            sketch = sketch.merge(sketch_rows(model, block, rows))
            if self.spread is not None:
                divided = sketch_rows(replace(model, spread=self.spread), block, rows)
                sketch = sketch.merge(divided.of_class(DIVIDED))
        return sketch, report_on(job, filled, began, int(filled.helds.sum()), None)


class Calibrating(OnePass[ScoreSketch]):
    """The pass."""

    name = "calibration"

    def task(self) -> AddScores:
        """Return what adds up a chunk."""
        return AddScores(self._weights, self._known.spread)

    def outcome(self) -> Outcome:
        """Return what came before, with the sketch.

        Raises
        ------
        DataError
            No row was held out.

        """
        sketch, classes = self._sums or new_sketch(), self.job.target.classes
        if not sketch.rows:
            raise DataError("--conformal: no row was held out to calibrate on; pass a larger --validation")
        sketch, spread = shorter(sketch, self._known.spread)
        warn_of_few(sketch, classes)
        said = {**said_of(sketch, classes), "follows_residuals": spread is not None}
        metrics = {**self._known.metrics, self.name: said}
        return replace(self._known, conformal=sketch, spread=spread, passes=self.cursor[0] + 1, metrics=metrics)

    # --- checkpoints

    def save(self) -> Saved:
        """Return the pass so far."""
        sketch = self._sums or new_sketch()
        return Saved({"chunk": self._chunk}, {"weights": self._weights, **sketch.arrays()})

    def restore(self, saved: Saved, before: Outcome) -> None:
        """Take back what a checkpoint kept."""
        super().restore(saved, before)
        arrays = {name: array.copy() for name, array in saved.arrays.items() if name in new_sketch().arrays()}
        self._sums = read_sketch(arrays, max(len(self.job.target.classes), DIVIDED + 1), str(self.job.settings.checkpoint))


def shorter(sketch: ScoreSketch, spread: Spread | None) -> tuple[ScoreSketch, Spread | None]:
    """Return the sketch of plain residuals, or of divided ones where these make shorter intervals of 90 % on average."""
    plain = sketch.only(0)
    if spread is None:
        return (sketch, None)
    divided = sketch.only(DIVIDED).of_class(0)
    widths = plain.quantile(0.9).value, divided.quantile(0.9).value * spread.mean
    return (divided, spread) if widths[1] < widths[0] else (plain, None)


def check_conformal(settings: Settings, _parts: Parts, _encoding: Encoding) -> None:
    """Refuse to calibrate on no rows, or on rows that chose the weights.

    Raises
    ------
    SettingsError
        That is what was asked for.

    """
    if settings.validation in ("auto", 0.0):
        raise SettingsError(
            "--conformal calibrates on rows that are held out: pass --validation 0.1 too, or use streamsgd calibrate"
        )
    if settings.patience is not None:
        raise SettingsError(
            "--conformal must not calibrate on held-out rows that choose the weights: leave --patience out, or calibrate on "
            "others with streamsgd calibrate"
        )


def sketch_bytes(outline: Outline) -> int:
    """Return the bytes of sketches, checkpoints included.

    One process takes one chunk after another, whatever its threads: it has a sketch of the pass, one per level of the tree,
    and that of the chunk. A worker keeps what its chunks brought until the round is over, which may be all of it.
    """
    of_class, lanes, settings = 16 * MOST_BINS, max(outline.lanes, FAN), outline.settings
    one = of_class * max(2, outline.n_outputs)
    away = settings.workers is not None or settings.scheduler is not None
    kept = min(lanes * one, 16 * outline.n_rows) if away else 0
    return one * (COPIES + levels(lanes)) + of_class * SORTED + 16 * outline.n_parameters + kept


def describe(said: dict[str, Any]) -> list[str]:
    """Return what was found, for people."""
    return [f"calibrated on {said['rows']:,} rows that were held out, rank error {said['rank_error']:.2%}"]


CONFORMAL = PhaseKind(
    "calibration",
    wanted=lambda settings, _parts: settings.conformal,
    check=check_conformal,
    memory=sketch_bytes,
    passes=lambda _outline: 1,
    make=Calibrating,
    describe=describe,
)
