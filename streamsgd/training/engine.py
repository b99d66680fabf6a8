"""The training loop: chunks in, weights changing, events out, checkpoints on the way."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from streamsgd.data.sizes import row_width
from streamsgd.errors import ModelError, Stopped
from streamsgd.features.frequent import FrequentValues
from streamsgd.features.target import join_target_sums
from streamsgd.kernels.structs.state import LOSS, ROWS, STEPS, WEIGHT
from streamsgd.model.baseline import best_constant_loss
from streamsgd.planning.lanes import width
from streamsgd.planning.tree import Adder
from streamsgd.settings.make import identity
from streamsgd.settings.registry import spec_of
from streamsgd.stream.stream import Stream
from streamsgd.training.events import Event, Report
from streamsgd.training.initial import new_state
from streamsgd.training.learner import Learner, LearnerState, model_of, next_mark
from streamsgd.training.phases.polish import Polish
from streamsgd.training.phases.standard_errors import StandardErrors
from streamsgd.training.phases.svrg import Reduction
from streamsgd.training.tasks.gradient import Step, add_gradient, n_steps, step
from streamsgd.training.tasks.merge import move_by
from streamsgd.training.tasks.objective import ObjectiveSums, join_sums, objective_sums
from streamsgd.training.validation import Validator, make_validator
from streamsgd.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from streamsgd.compute.executors import Executor
    from streamsgd.model.model import Model
    from streamsgd.stream.chunk import LoadedChunk, LoadedPiece
    from streamsgd.training.backends.base import Backend
    from streamsgd.training.checkpoint import Checkpoints
    from streamsgd.training.job import Job
    from streamsgd.training.tasks.base import ChunkReport

log = logging.getLogger("streamsgd")


class Engine:
    """One training run: owns the state, moves the cursor.

    Parameters
    ----------
    job
        As prepared.
    executor
        Who reads.
    checkpoints
        Where to save, or None.
    emit
        Called with every `Event`.
    crew
        Who does the work of lanes; None where there is one, and it is this process.

    """

    def __init__(
        self,
        job: Job,
        executor: Executor,
        checkpoints: Checkpoints | None = None,
        emit: Callable[[Event], None] | None = None,
        crew: Backend | None = None,
    ) -> None:
        self.crew = crew
        self.executor, self.checkpoints = executor, checkpoints
        self.emit = emit or (lambda _event: None)
        self.learner = Learner(job)
        self.epoch, self.chunk = 0, 0
        self._spec = spec_of("optimizer", job.parts.optimizer)
        self.all_new = False
        """Whether every epoch brings rows of its own."""
        self.counts = {"filtered": 0, "skipped": 0, "missing": 0, "held": 0, "lost": 0}
        self.problems: list[str] = []
        self.common = FrequentValues()
        self.targets = np.zeros(len(job.target.classes) or 3)
        self.judge: Validator = make_validator(job, executor, getattr(self.crew, "client", None))
        self.polish = Polish(job)
        self.reduction = Reduction(job)
        self.errors = StandardErrors(job)
        self.report = Report()
        self.stop = threading.Event()
        self._saved_at = time.monotonic()
        self._since_save = 0
        self._shown = np.zeros(3)
        self._next_mark = next_mark(0)
        self._rows_restored = 0
        self._began = time.monotonic()
        self._finished = False
        self._row_bytes = row_width(job.dataset, job.roles.read)

    @property
    def job(self) -> Job:
        """What is done; its optimizer is another one once a race has ended."""
        return self.learner.job

    @job.setter
    def job(self, job: Job) -> None:
        self.learner.job = job

    # --- the loop

    def train(self) -> Model:
        """Run to the end, or to a stop.

        Raises
        ------
        Stopped
            A time limit or a signal came; a checkpoint was saved.
        DivergedError
            Loss or weights are no longer finite; the last checkpoint is of before.
        DataError
            The data cannot be read.

        """
        if not (self.polish.begun or self.errors.begun):
            self._train()
        if self.job.settings.polish and not self.errors.begun:
            self._polish()
        if self.job.settings.standard_errors:
            self._add_up()
        return self.finish()

    def _train(self) -> None:
        if self.crew is not None:
            self._train_lanes(self.crew)
            return
        job, stream = self.job, Stream(self.job.recipe, self.job.plan, self.executor)
        filled: LoadedChunk
        for filled in self._ahead(stream.chunks(self.epoch, self.chunk, job.epochs)):
            self._learn(filled)
            self.learner.clear_tally()  # as a worker does, so that the sums are the same bits
            last = filled.chunk.number + 1 == job.plan.n_chunks(filled.chunk.epoch)
            due = self.judge.due(self._rows)
            if last:
                self._end_epoch()
            elif due:
                self._judge()
            self.epoch, self.chunk = (self.epoch + 1, 0) if last else (self.epoch, self.chunk + 1)
            if self._finished or self.judge.exhausted:
                break
            if self.epoch < job.epochs:
                self._maybe_save()

    def _train_lanes(self, crew: Backend) -> None:
        """Let lanes learn round by round, the crew doing the work."""
        job, learner = self.job, self.learner
        crew.begin(self.epoch, self.chunk)
        while self.epoch < job.epochs and not self.judge.exhausted:
            n, brought = self._round(crew)
            learner.clear_tally()
            for one in brought:
                self._take(one)
            asked = sum(job.plan.chunk(self.epoch, self.chunk + k).rows for k in range(n))
            self._lose(asked - sum(one.chunk.rows for one in brought))
            self.chunk += n
            last = self.chunk == job.plan.n_chunks(self.epoch)
            if last:
                learner.end_batch(self.epoch + 1.0)
                self.epoch, self.chunk = self.epoch + 1, 0
                if learner.racing:
                    learner.end_race()
            self._show(self._passes, kind="chunk")
            self._show_marks()
            if last or self.judge.due(self._rows):
                self._judge(end_of_epoch=last)
            if self.epoch < job.epochs and not self.judge.exhausted:
                self._maybe_save()

    def _round(self, crew: Backend) -> tuple[int, list[ChunkReport]]:
        """Learn the next chunks, one per lane; return how many."""
        job, learner = self.job, self.learner
        n_chunks = job.plan.n_chunks(self.epoch)
        n = width(job.lanes, self.epoch, self.chunk, n_chunks, alone=learner.racing)
        if job.lanes.combine == "sync":
            return n, self._steps(crew, n)
        if n == 1:
            return n, crew.lead(learner, self.epoch, self.chunk)
        gain, brought = crew.round(learner, self.epoch, self.chunk, n)
        if gain is not None:
            move_by(self.job.parts.optimizer, learner.state, gain)
            learner.totals += gain.tally
        return n, brought

    def _steps(self, crew: Backend, n: int) -> list[ChunkReport]:
        """Make the steps of a round of n lanes together; with a full batch only add up its gradient."""
        job, learner, plan = self.job, self.learner, self.job.plan
        full = job.settings.batch_size == "full"
        before = self.epoch + plan.rows_before(self.epoch, self.chunk) / plan.n_rows
        share = sum(plan.chunk(self.epoch, self.chunk + k).rows for k in range(n)) / plan.n_rows
        found: list[ChunkReport] = []
        number, steps = 0, 1
        while number < steps:
            gradient, brought = crew.step(learner, Step(self.epoch, self.chunk, n, number, job.batch_size))
            if not number:
                found = brought
                steps = n_steps([one.rows for one in brought], job.batch_size)
            if gradient is not None:
                add_gradient(learner, gradient)
            if number:
                asked = sum(min(job.batch_size, max(0, one.rows - number * job.batch_size)) for one in found)
                self._lose(asked - (gradient.rows if gradient else 0))
            if not full:
                step(learner, job.batch_size * job.lanes.number, before + share * number / max(steps, 1))
            number += 1
        return found

    def _lose(self, rows: int) -> None:
        """Count rows of lanes that nobody waited for, each as often as it was lost."""
        self.counts["lost"] += rows
        if rows:
            log.info("epoch %d: %d rows of late lanes are left out, as --straggler says", self.epoch, rows)

    def _take(self, brought: ChunkReport, *, again: bool = False) -> None:
        """Take in the account of a chunk, whose rows count if they have not been learned before."""
        chunk = brought.chunk
        self.report.wait_seconds += brought.waited
        self.report.fit_seconds += brought.fit_seconds
        self.report.spent.add(brought.spent)
        self.report.bytes += chunk.rows * self._row_bytes
        if not again:
            self._count(chunk.epoch, brought.pieces)
        self.judge.take(brought.held)

    def pass_over(self, epoch: int) -> None:
        """Learn the job's data, which nobody saw before, as this epoch, apart from any plan of epochs."""
        self.epoch, self.all_new = epoch, True
        for filled in self._ahead(Stream(self.job.recipe, self.job.plan, self.executor).chunks(epoch, 0, epoch + 1)):
            self._learn(filled)
        self._end_epoch()

    def _polish(self) -> None:
        """Make the passes of `polish`, each of which counts as an epoch for the cursor and the judge."""
        polish = self.polish
        if not polish.begun:
            best = self.judge.best_weights
            polish.begin(self.learner.model().weights if best is None else best, self.epoch)
            self.judge.renew_patience()
        with closing(self._shares()) as shares:
            self._go_down(shares)
        self.epoch, self.chunk = polish.first_epoch, 0

    def _go_down(self, shares: Iterator[ObjectiveSums]) -> None:
        polish = self.polish
        for share in shares:
            polish.add(share)
            if polish.at_end:
                self._end_pass()
            else:
                self._show(float(polish.cursor[0]), kind="chunk")
            if polish.stopped:
                break
            self.epoch, self.chunk = polish.cursor
            self._maybe_save()

    def _shares(self) -> Generator[ObjectiveSums]:
        """Yield what the chunks of each round add to the passes of polishing, round after round, as long as it goes on."""
        add_up = self.crew.share if self.crew is not None else None
        if add_up is not None:
            while not self.polish.stopped:
                share, brought = add_up(self.polish.wanted, self.polish.cursor[1], self.polish.width)
                for one in brought:
                    self._take(one, again=True)
                yield share
        else:
            yield from self._shares_here()

    def _shares_here(self) -> Generator[ObjectiveSums]:
        polish, adder = self.polish, Adder(join_sums)
        width, n = polish.width, 0
        for filled in self._ahead(polish.chunks(self.executor)):
            self._account(filled)
            began = time.perf_counter()
            adder.add(objective_sums(self.job, filled, polish.wanted))
            self.judge.watch(filled, lambda: model_of(self.job, polish.tried))
            self.report.fit_seconds += time.perf_counter() - began
            n += 1
            if n == width:
                yield adder.total()
                width, n = polish.width, 0

    def _end_pass(self) -> None:
        polish = self.polish
        best = best_constant_loss(self.job.parts.loss, self.targets)
        accepted = polish.end_pass(best, lambda: new_state(self.job).weights)
        note = polish.line(accepted=accepted)
        if accepted:
            judged = self.judge.judge(lambda: model_of(self.job, polish.weights), end_of_epoch=True)
            note += f"; {judged}" if judged else ""
        else:
            self.judge.forget()
        if self.judge.exhausted:
            polish.stopped = "patience"
        self._show(float(polish.cursor[0]), kind="polish", note=note, metrics={**polish.numbers(), **self.judge.last})

    def _add_up(self) -> None:
        """Make the pass of `standard_errors`, which counts as an epoch for the cursor."""
        errors, polish = self.errors, self.polish
        if not errors.begun:
            errors.begin(self._chosen(), polish.cursor[0] if polish.begun else self.epoch, self.epoch)
        for filled in self._ahead(errors.chunks(self.executor)):
            self._account(filled)
            began = time.perf_counter()
            errors.add(filled)
            self.report.fit_seconds += time.perf_counter() - began
            self._show(float(errors.cursor[0]), kind="chunk")
            self.epoch, self.chunk = errors.cursor
            if not errors.at_end:
                self._maybe_save()
        self.epoch, self.chunk = errors.epochs, 0

    def _ahead(self, chunks: Iterator[LoadedChunk]) -> Iterator[LoadedChunk]:
        try:
            yield from chunks
        finally:
            chunks.close()  # type: ignore[attr-defined]

    def _account(self, filled: LoadedChunk) -> None:
        self.report.wait_seconds += filled.waited
        self.report.spent.add(filled.spent)
        self.report.bytes += filled.chunk.rows * self._row_bytes

    def _count(self, epoch: int, pieces: list[LoadedPiece]) -> None:
        """Take in the account of some pieces."""
        new = self.all_new or not epoch
        for piece in pieces:
            if piece.targets is not None:
                self.targets = join_target_sums(self.targets, piece.targets, len(self.job.target.classes))
            if new:
                self.counts["filtered"] += piece.filtered
                self.counts["skipped"] += piece.skipped
                self.counts["missing"] += piece.missing
                self.counts["held"] += int(piece.helds.sum())
                self.common.add(piece.common)
            if piece.problem and new:
                self.problems.append(piece.problem)
                log.warning("left out: %s", piece.problem)

    def _learn(self, filled: LoadedChunk) -> None:
        self._account(filled)
        self._count(filled.chunk.epoch, filled.pieces)
        began = time.perf_counter()
        if self.reduction.measures(filled.chunk.epoch):
            self.reduction.add(filled, self.learner.state, self.learner.n_penalised)
        else:
            self.learner.fit(filled, self._reach)
            self.judge.watch(filled, self.learner.model)
        self.report.fit_seconds += time.perf_counter() - began
        self._check_finite(filled)
        self.learner.clear_tally()
        self._show(filled.chunk.epoch + self._share_done(filled), kind="chunk")

    def _reach(self, epoch: float) -> None:
        self._show(epoch)
        self._next_mark = next_mark(self._rows)

    def _show_marks(self) -> None:
        if self._rows >= self._next_mark:
            self._show(self._passes)
        self._next_mark = next_mark(self._rows)

    @property
    def _passes(self) -> float:
        """Passes done, as far as the cursor says."""
        plan = self.job.plan
        return self.epoch + (plan.rows_before(self.epoch, self.chunk) / plan.n_rows if self.chunk else 0.0)

    def _share_done(self, filled: LoadedChunk) -> float:
        before = self.job.plan.rows_before(filled.chunk.epoch, filled.chunk.number)
        return (before + filled.chunk.rows) / self.job.plan.n_rows

    @property
    def _rows(self) -> int:
        return self.learner.rows

    def _end_epoch(self) -> None:
        if self.reduction.measures(self.epoch):
            self._take_snapshot()
            return
        self.learner.end_batch(self.epoch + 1.0)
        self.learner.clear_tally()
        if self.learner.racing and not self.all_new:  # of rows seen before the losses say nothing
            self.learner.end_race()
        self._judge(end_of_epoch=True)

    def _take_snapshot(self) -> None:
        self.reduction.end_pass(self.learner.state, self.learner.n_penalised)
        self.learner.go_on_at(self.reduction.rate)
        self._finished = bool(self.reduction.stopped)
        metrics = {key: value for key, value in self.reduction.metrics().items() if isinstance(value, float | int)}
        self._show(self.epoch + 1.0, kind="snapshot", note=self.reduction.line(), metrics=metrics)

    def _judge(self, *, end_of_epoch: bool = False) -> None:
        note = self.judge.judge(self.learner.model, end_of_epoch=end_of_epoch)
        if note:
            epoch = self.epoch + 1.0 if end_of_epoch else float(self.epoch)
            self._show(epoch, kind="evaluation", note=note, metrics=dict(self.judge.last))

    def _check_finite(self, filled: LoadedChunk) -> None:
        kept = self.checkpoints and self.checkpoints.names()
        self.learner.check_finite(filled, " The last checkpoint is from before." if kept else "")

    # --- checkpoints

    def _maybe_save(self) -> None:
        settings = self.job.settings
        self._since_save += 1
        elapsed = time.monotonic() - self._began
        out_of_time = settings.time_limit is not None and elapsed >= settings.time_limit
        due = time.monotonic() - self._saved_at >= settings.checkpoint_every
        due |= settings.checkpoint_chunks is not None and self._since_save >= settings.checkpoint_chunks
        if not (due or out_of_time or self.stop.is_set()):
            return
        if self.checkpoints:
            self.save_checkpoint()
        if out_of_time or self.stop.is_set():
            why = "the time limit" if out_of_time else "a signal"
            saved = (
                f"a checkpoint is in {self.checkpoints.folder}; start again to go on" if self.checkpoints else "nothing saved"
            )
            raise Stopped(f"stopped by {why} before epoch {self.epoch}, chunk {self.chunk}: {saved}")

    def save_checkpoint(self) -> None:
        """Save the run as it stands between two chunks."""
        if self.checkpoints is None:
            raise ModelError("this run has no folder for checkpoints")
        header = {
            "settings": identity(self.job.settings),
            "fingerprint": self.job.dataset.fingerprint,
            "encoding": msgspec.to_builtins(self.job.encoding),
            "target": msgspec.to_builtins(self.job.target),
            "chunk_rows": self.job.plan.chunk_rows,
            "optimizer": self._spec,
            "race": self.learner.race,
            "cursor": [self.epoch, self.chunk],
            "counts": self.counts,
            "problems": self.problems,
            "condemned": sorted(self.job.recipe.condemned),
            "common": self.common.kept(),
            "judge": self.judge.header(),
            "polish": self.polish.header(),
            "svrg": self.reduction.header(),
            "errors": self.errors.header(),
        }
        arrays = {**self.learner.packed().arrays, "targets": self.targets, **self.judge.arrays()}
        arrays |= self.polish.arrays() | self.reduction.arrays() | self.errors.arrays()
        arrays = {key: np.ascontiguousarray(value) for key, value in arrays.items()}
        self.checkpoints.save(self.epoch, self.chunk, header, arrays)
        self._saved_at, self._since_save = time.monotonic(), 0

    def restore(self, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Go to where a checkpoint was saved."""
        self.learner.restore(LearnerState(arrays, header["race"]))
        self.targets[...] = arrays["targets"]
        self.epoch, self.chunk = header["cursor"]
        self.counts, self.problems = {**self.counts, **header["counts"]}, list(header["problems"])
        self.job.recipe.condemned = frozenset(header.get("condemned", ()))
        self.common = FrequentValues(header["common"])
        self.judge.restore(header["judge"], arrays)
        self.polish.restore(header["polish"], arrays)
        self.reduction.restore(header["svrg"], arrays)
        self.learner.go_on_at(self.reduction.rate)
        self.errors.restore(header["errors"], arrays)
        self.report.resumed_from = (self.epoch, self.chunk)
        self._rows_restored = self._rows
        self._next_mark = next_mark(self._rows)
        self._show(float(self.epoch), kind="resumed", note=f"resumed at epoch {self.epoch}, chunk {self.chunk}")

    # --- what comes out

    def finish(self) -> Model:
        """Return the final model: the best weights if validation chose them, else the last."""
        self.learner.clear_tally()
        job, totals = self.job, self.learner.totals
        model = model_of(job, self._chosen())
        model.settings, model.common = identity(job.settings), self.common.best()
        rows, weight = int(totals[ROWS]), float(totals[WEIGHT])
        best = best_constant_loss(job.parts.loss, self.targets)
        model.metrics = {"progressive_loss": float(totals[LOSS]) / weight if weight else None}
        model.metrics |= {} if best is None else {"best_constant_loss": best}
        model.metrics |= self.judge.metrics()
        if self.polish.begun:
            model.metrics["polish"] = self.report.polish = self.polish.metrics()
        if self.reduction.active:
            model.metrics["svrg"] = self.report.svrg = self.reduction.metrics()
        if self.errors.begun:
            model.weights, model.covariance, self.report.errors = self.errors.result()
            model.metrics["standard_errors"] = self.report.errors
        model.provenance = self._provenance(rows)
        self.report.best_constant_loss = best
        self.report.rows_now = rows - self._rows_restored
        self.report.rows, self.report.steps = rows, int(self.learner.state.clock[STEPS])
        self.report.workers = dict(self.crew.work) if self.crew else {}
        self.report.epochs, self.report.seconds = self.epoch, time.monotonic() - self._began
        return model

    def _chosen(self) -> np.ndarray:
        """Return the best weights, (n_coordinates, n_outputs), if validation chose them, else the last."""
        if self.judge.best_weights is not None:
            return self.judge.best_weights.reshape(-1, self.job.n_outputs)
        return self.polish.weights if self.polish.begun else self.learner.model().weights

    def _provenance(self, rows: int) -> dict[str, Any]:
        from importlib.metadata import version  # noqa: PLC0415

        job = self.job
        return {
            "fingerprint": job.dataset.fingerprint,
            "files": job.dataset.n_files,
            "row_groups": job.dataset.n_row_groups,
            "rows": job.dataset.n_rows,
            "rows_learned": rows,
            "steps": int(self.learner.state.clock[STEPS]),
            "chunk_rows": job.plan.chunk_rows,
            "counts": self.counts,
            "left_out": self.problems[:100],
            "parts": {kind: spec_of(kind, part) for kind, part in zip(job.parts._fields, job.parts, strict=True)},
            "epochs": job.epochs,
            "lanes": job.lanes._asdict(),
            "race": self.learner.race,
            "versions": {
                "streamsgd": __version__,
                **{name: version(name) for name in ("numpy", "numba", "pyarrow")},
            },
        }

    def _show(self, epoch: float, kind: str = "progress", note: str = "", metrics: dict[str, float] | None = None) -> None:
        now = self.learner.tally
        recent = now - self._shown
        seconds = time.monotonic() - self._began
        self.emit(
            Event(
                rows=int(now[ROWS]),
                total_rows=self.job.plan.n_rows * self.reduction.learning_passes,
                epoch=epoch,
                loss=now[LOSS] / now[WEIGHT] if now[WEIGHT] else float("nan"),
                recent=recent[LOSS] / recent[WEIGHT] if recent[WEIGHT] else now[LOSS] / max(now[WEIGHT], 1e-300),
                seconds=seconds,
                rows_per_second=(now[ROWS] - self._rows_restored) / max(seconds, 1e-9),
                bytes=self.report.bytes,
                kind=kind,
                note=note,
                metrics=metrics or {},
            )
        )
        if kind != "chunk":
            self._shown = now
