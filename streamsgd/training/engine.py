"""The engine: one loop over phases, which asks each for rounds, has a backend run them, and saves in between.

It knows no phase and no task by name.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakMethod

import numpy as np

from streamsgd.errors import DivergedError, ModelError, Stopped
from streamsgd.kernels.structs.state import LOSS, ROWS, WEIGHT
from streamsgd.training.backends.base import Abandoned
from streamsgd.training.callbacks import Callbacks
from streamsgd.training.events import Event, Report
from streamsgd.training.learner import next_mark
from streamsgd.training.phases.base import Outcome, PhaseEvent, Saved, prefixed, under
from streamsgd.training.result import header_of, losses_of, settled
from streamsgd.training.totals import Totals
from streamsgd.training.validation import make_validator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamsgd.compute.executors import Executor
    from streamsgd.model.memory import Memory
    from streamsgd.training.backends.base import Backend
    from streamsgd.training.checkpoint import Checkpoints
    from streamsgd.training.job import Job
    from streamsgd.training.phases.base import Phase, PhaseKind
    from streamsgd.training.validation import Validator


class Engine:
    """One training run.

    Parameters
    ----------
    job
        As prepared.
    kinds
        Of its phases, in their order.
    backend
        Who runs rounds.
    executor
        Who reads a validation set of its own.
    checkpoints
        Where to save, or None.
    callbacks
        Told of every `Event`.
    all_new
        Whether every epoch brings rows that nobody saw before.
    ends
        When to save and stop, on the monotonic clock.

    """

    def __init__(
        self,
        job: Job,
        kinds: Sequence[PhaseKind],
        backend: Backend,
        executor: Executor,
        *,
        checkpoints: Checkpoints | None = None,
        callbacks: Callbacks | None = None,
        all_new: bool = False,
        ends: float = math.inf,
    ) -> None:
        self.job, self.backend, self.checkpoints = job, backend, checkpoints
        self.callbacks = callbacks or Callbacks()
        self.phases: Sequence[Phase] = [kind.make(job, weakly(self._reach)) for kind in kinds]
        self._total_rows = job.plan.n_rows * sum(kind.learns(job) for kind in kinds)
        self.totals = Totals(job, all_new=all_new)
        self.validator: Validator = make_validator(job, executor, backend.client)
        self.report = Report()
        self.stop, self.ends = threading.Event(), ends
        self._begun: list[Phase] = []
        self._began = self._saved_at = time.monotonic()
        self._since_save = 0
        self._shown = np.zeros(3)
        self._rows_restored, self._next_mark = 0, next_mark(0)

    @property
    def phase(self) -> Phase:
        """The phase under way, or that ended last."""
        return self._begun[-1]

    def run(self) -> Outcome:
        """Run all phases to their end, or to a stop.

        Raises
        ------
        Stopped
            A time limit or a signal came; a checkpoint was saved.
        DivergedError
            Loss or weights are no longer finite; the last checkpoint is of before.
        DataError
            The data cannot be read.

        """
        self.callbacks.on_begin(self.job)
        outcome = self._nothing()
        for phase in self.phases:
            if phase not in self._begun:
                phase.begin(outcome)
                self._begun.append(phase)
                self.validator.renew_patience()
            self._drive(phase, outcome)
            outcome = self._outcome(phase)
        return settled(outcome)

    def _drive(self, phase: Phase, before: Outcome) -> None:
        """Run the rounds of a phase."""
        while not phase.done:
            try:
                share, reports = self._round(phase, before)
            except Abandoned:  # nothing of the round was taken: the phase stands where it stood before
                self._save_if_due(phase)
                continue
            self.totals.add(reports, self.report, counts=phase.counts)
            for report in reports:
                self.validator.take(report.held)
            told = False
            for event in phase.take(share, reports):
                told = True
                self._tell(phase, event)
            if told and not phase.done:  # a phase that says nothing is in the middle of a step
                self._save_if_due(phase)

    def _round(self, phase: Phase, before: Outcome) -> Any:
        work = phase.next()
        if before.view is not None:
            work = before.view[1].refine(work)
        try:
            # Not for a time limit, or a run of many short starts would begin the same round again and again.
            return self.backend.run(work, self.stop.is_set)
        except DivergedError as error:
            if not (self.checkpoints and self.checkpoints.names()):
                raise
            raise DivergedError(f"{error} The last checkpoint is from before.") from error

    def _nothing(self) -> Outcome:
        return Outcome(self.job, np.zeros(self.job.shape))

    def _outcome(self, phase: Phase) -> Outcome:
        """Return what the run has come to, with the weights that validation chose."""
        outcome = replace(phase.outcome(), best_constant=self.totals.best_constant(self.job.parts.loss))
        best = self.validator.best_weights
        return outcome if best is None or not phase.validated else replace(outcome, weights=best.reshape(outcome.weights.shape))

    def go_on_from(self, memory: Memory, race: dict[str, Any] | None) -> None:
        """Start with what an earlier run came to, in the phases that can."""
        for phase in self.phases:
            if hasattr(phase, "go_on_from"):
                phase.go_on_from(memory, race)

    # --- what is told

    def _tell(self, phase: Phase, event: PhaseEvent) -> None:
        """Judge held-out rows if it is time to, and tell of a round."""
        judged = self._judge(phase, event)
        if event.kind == "evaluation" and not judged:
            return
        note = "; ".join(filter(None, (event.note, judged)))
        metrics = {**event.metrics, **self.validator.last} if event.judge else event.metrics
        self._show(phase.tally, event.epoch, event.kind, note, metrics)
        if event.kind == "chunk" and phase.tally[ROWS] >= self._next_mark:
            self._reach(event.epoch, phase)
        if self.validator.exhausted:
            phase.stop("patience")

    def _judge(self, phase: Phase, event: PhaseEvent) -> str:
        if event.judge == "drop":
            self.validator.forget()
        if event.judge not in ("due", "pass"):
            return ""
        due = self.validator.due(int(phase.tally[ROWS]))
        if not due and event.judge == "due":
            return ""
        return self.validator.judge(phase.model, end_of_epoch=event.judge == "pass")

    def _reach(self, epoch: float, phase: Phase | None = None) -> None:
        """Tell of 1024, 2048, 4096 ... rows."""
        tally = (phase or self._begun[-1]).tally
        self._show(tally, epoch)
        self._next_mark = next_mark(int(tally[ROWS]))

    def _show(
        self, tally: np.ndarray, epoch: float, kind: str = "progress", note: str = "", metrics: dict[str, float] | None = None
    ) -> None:
        recent = tally - self._shown
        seconds = time.monotonic() - self._began
        event = Event(
            rows=int(tally[ROWS]),
            total_rows=self._total_rows,
            epoch=epoch,
            loss=tally[LOSS] / tally[WEIGHT] if tally[WEIGHT] else float("nan"),
            recent=recent[LOSS] / recent[WEIGHT] if recent[WEIGHT] else tally[LOSS] / max(tally[WEIGHT], 1e-300),
            seconds=seconds,
            rows_per_second=(tally[ROWS] - self._rows_restored) / max(seconds, 1e-9),
            bytes=self.report.bytes,
            kind=kind,
            note=note,
            metrics=metrics or {},
        )
        if kind != "chunk":
            self._shown = tally
        if why := self.callbacks.on_event(event):
            self._begun[-1].stop(why)

    # --- checkpoints

    def _is_stopping(self) -> bool:
        """Whether the time is over, or a signal came."""
        return self.stop.is_set() or time.monotonic() >= self.ends

    def _save_if_due(self, phase: Phase) -> None:
        settings, now = self.job.settings, time.monotonic()
        self._since_save += 1
        due = now - self._saved_at >= settings.checkpoint_every
        due |= settings.checkpoint_chunks is not None and self._since_save >= settings.checkpoint_chunks
        stopping = self._is_stopping()
        if self.checkpoints and (due or stopping):
            self.save(phase)
        if stopping:
            why = "a signal" if self.stop.is_set() else "the time limit"
            saved = "nothing saved"
            if self.checkpoints:
                saved = f"a checkpoint is in {self.checkpoints.folder}; start again to go on"
            epoch, chunk = phase.cursor
            raise Stopped(f"stopped by {why} before epoch {epoch}, chunk {chunk}: {saved}")

    def save(self, phase: Phase) -> None:
        """Save the run as it stands between two rounds of a phase."""
        if self.checkpoints is None:
            raise ModelError("this run has no folder for checkpoints")
        self.checkpoints.save(*phase.cursor, *self.state())
        self._saved_at, self._since_save = time.monotonic(), 0

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return header and arrays of a checkpoint of the run as it stands."""
        phase = self._begun[-1]
        saved = {one.name: one.save() for one in self._begun}
        header = header_of(self.job) | {
            "cursor": list(phase.cursor),
            "phases": {name: one.header for name, one in saved.items()},
            "totals": self.totals.header(),
            "poisoned": sorted(self.backend.poisoned),
            "validation": self.validator.header(),
        }
        arrays = {"targets": self.totals.targets} | prefixed("validation", self.validator.arrays())
        for name, one in saved.items():
            arrays |= prefixed(name, one.arrays)
        return header, arrays

    def restore(self, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Go to where a checkpoint was saved."""
        self.totals.restore(header["totals"], arrays["targets"])
        self.validator.restore(header["validation"], under("validation", arrays))
        outcome = self._nothing()
        for phase in self.phases:
            if phase.name not in header["phases"]:
                break
            phase.restore(Saved(header["phases"][phase.name], under(phase.name, arrays)), outcome)
            self._begun.append(phase)
            if phase.done:
                outcome = self._outcome(phase)
        tally, (epoch, chunk) = self._begun[-1].tally, header["cursor"]
        self.report.resumed_from = epoch, chunk
        self._rows_restored = int(tally[ROWS])
        self._next_mark = next_mark(self._rows_restored)
        self._show(tally, float(epoch), kind="resumed", note=f"resumed at epoch {epoch}, chunk {chunk}")

    def go_back(self, phases: Sequence[Phase], header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Go back to where `state` was, in phases that have not begun: those under way may be in the middle of anything."""
        self.phases, self._begun = phases, []
        self.restore(header, arrays)

    def finish(self, outcome: Outcome) -> None:
        """Complete the report."""
        report, rows = self.report, int(outcome.tally[ROWS])
        report.best_constant_loss, report.phases = outcome.best_constant, outcome.metrics
        report.rows_now, report.rows, report.steps = rows - self._rows_restored, rows, outcome.steps
        report.losses, report.ledger = losses_of(outcome), outcome.ledger
        report.pilot = self.job.pilot
        report.workers, report.order = dict(self.backend.workers), self.job.order
        report.epochs, report.seconds = outcome.epochs, time.monotonic() - self._began


def weakly(method: Callable[[float], None]) -> Callable[[float], None]:
    """Return a function that calls a method while its object is there.

    A phase that held its engine would be a circle: all that a run has read would stay until the collector comes by.
    """
    known = WeakMethod(method)

    def call(epoch: float) -> None:
        if (found := known()) is not None:
            found(epoch)

    return call
