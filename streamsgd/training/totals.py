"""What a run has seen so far: counts of rows, targets, frequent values, and where the time went."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.data.sizes import row_width
from streamsgd.features.frequent import FrequentValues
from streamsgd.features.target import join_target_sums
from streamsgd.model.baseline import best_constant_loss
from streamsgd.training.classes.rare import plain_loss

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamsgd.stream.chunk import LoadedPiece
    from streamsgd.training.events import Report
    from streamsgd.training.job import Job
    from streamsgd.training.tasks.base import ChunkReport

log = logging.getLogger("streamsgd")


class Totals:
    """The accounts of a run.

    Parameters
    ----------
    job
        As prepared.
    all_new
        Whether every epoch brings rows of its own; else those of the first one are counted.

    """

    def __init__(self, job: Job, *, all_new: bool = False) -> None:
        self._n_classes, self._row_bytes = len(job.target.classes), row_width(job.dataset, job.roles.read)
        self._all_new = all_new
        self.counts = {"filtered": 0, "skipped": 0, "missing": 0, "held": 0, "lost": 0}
        self.counts |= {"thinned": 0} if job.thinner else {}
        self.problems: list[str] = []
        self.frequent = FrequentValues()
        self.targets = np.zeros(self._n_classes or 3)

    def add(self, reports: Sequence[ChunkReport], report: Report, *, counts: bool) -> None:
        """Take in the reports of a round; `counts` is whether its rows are those of an epoch."""
        for chunk in reports:
            report.wait_seconds += chunk.waited
            report.fit_seconds += chunk.fit_seconds
            report.learn_seconds += chunk.learn_seconds
            report.rows_met += chunk.chunk.rows
            report.spent.add(chunk.spent)
            report.bytes += chunk.chunk.rows * self._row_bytes
            if counts and chunk.thinned and not chunk.chunk.epoch:
                self.counts["thinned"] += chunk.thinned
            for piece in chunk.pieces:
                if counts and piece.targets is not None:
                    self.targets = join_target_sums(self.targets, piece.targets, self._n_classes)
                if counts and (self._all_new or not chunk.chunk.epoch):
                    self._count_new(piece)
                elif piece.problem and piece.problem not in self.problems:
                    self._count_lost(piece)

    def _count_new(self, piece: LoadedPiece) -> None:
        self.counts["filtered"] += piece.filtered
        self.counts["skipped"] += piece.skipped
        self.counts["missing"] += piece.missing
        self.counts["held"] += int(piece.helds.sum())
        self.frequent.add(piece.common)
        self._tell(piece.problem)

    def _count_lost(self, piece: LoadedPiece) -> None:
        """Count rows that an earlier pass could read; more often, if they are lost in several passes."""
        self.counts["lost"] += piece.skipped
        self._tell(f"{piece.problem} (in a later pass)")

    def _tell(self, problem: str) -> None:
        """Say why rows were left out, once: slices of a row group have one problem."""
        if problem and problem not in self.problems:
            self.problems.append(problem)
            log.warning("left out: %s", problem)

    def best_constant(self, loss: Any) -> float | None:
        """Return the mean loss of the best constant prediction of the targets so far; None where it is not known."""
        return best_constant_loss(plain_loss(loss), self.targets)

    # --- checkpoints

    def header(self) -> dict[str, Any]:
        """Return what a checkpoint keeps as JSON."""
        return {"counts": self.counts, "problems": self.problems, "common": self.frequent.kept()}

    def restore(self, header: dict[str, Any], targets: np.ndarray) -> None:
        """Take back what a checkpoint kept."""
        self.counts, self.problems = {**self.counts, **header["counts"]}, list(header["problems"])
        self.frequent = FrequentValues(header["common"])
        self.targets[...] = targets
