"""Learning: epoch after epoch, in one lane or in several that are averaged or step together."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.kernels.parts.traits import reduces
from streamsgd.kernels.structs.state import CLIPPED, ROWS, STEPS
from streamsgd.planning.lanes import width
from streamsgd.training.classes.rare import thins
from streamsgd.training.job import WHOLE_EPOCH
from streamsgd.training.judged import steps as judged
from streamsgd.training.learner import Learner, LearnerState
from streamsgd.training.noise.growing import in_words, ledger_of, result_of
from streamsgd.training.phases.base import Outcome, PhaseEvent, PhaseKind, Saved, kept
from streamsgd.training.resuming.bounds import check_bounds
from streamsgd.training.rivals import rival
from streamsgd.training.tasks.base import Round
from streamsgd.training.tasks.gradient import AddGradient, Gradient, add_gradient, n_steps, step
from streamsgd.training.tasks.learn import Learn, LearnApart
from streamsgd.training.tasks.merge import move_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from streamsgd.kernels.structs.state import State
    from streamsgd.model.memory import Memory
    from streamsgd.model.model import Model
    from streamsgd.training.job import Job
    from streamsgd.training.tasks.base import ChunkReport

log = logging.getLogger("streamsgd")


class Epochs:
    """Owns the learner and the cursor.

    Parameters
    ----------
    job
        As prepared.
    reached
        Called with the passes done at 1024, 2048, 4096 ... rows within a chunk, where it is learned in this process.
    all_new
        Whether every epoch brings rows of its own, as tables of `Trainer.partial_fit` do.
    state
        Of a learner that is yet to be restored; None to begin, for which the target is looked at.

    """

    name = "epochs"
    counts = True
    validated = True

    def __init__(
        self,
        job: Job,
        reached: Callable[[float], None] | None = None,
        *,
        all_new: bool = False,
        state: State | None = None,
    ) -> None:
        self.learner = Learner(job, state)
        self.epoch, self.chunk = 0, 0
        # Nobody knows how many rows a filter leaves, so that steps alone end a run whose epochs nobody set.
        self.epochs = WHOLE_EPOCH if job.settings.steps is not None and job.settings.epochs == "auto" else job.epochs
        self.lost = 0
        """Rows that were left out with late lanes, each as often as it was."""
        self.stopped = ""
        self._reached, self._all_new = reached, all_new
        self._number, self._steps = 0, 1
        """The next step of a round in step, and how many it has."""
        self._lanes: list[int] = []
        """Rows of each of its lanes."""
        self._passes = np.zeros((3, 3))
        """Tallies of the first pass, of the last one that ended, and of all when that ended."""

    # --- rounds

    @property
    def job(self) -> Job:
        """What is done; its optimizer is another one once a race has ended."""
        return self.learner.job

    @property
    def done(self) -> bool:
        """Whether all epochs are over, or it was stopped."""
        return self.epoch >= self.epochs or bool(self.stopped) or self.learner.rows_left <= 0

    @property
    def cursor(self) -> tuple[int, int]:
        """Epoch and number of the next chunk."""
        return self.epoch, self.chunk

    @property
    def tally(self) -> np.ndarray:
        """As of the learner."""
        return self.learner.tally

    def begin(self, before: Outcome) -> None:
        """Do nothing: a learner begins where it is made."""

    def go_on(self, job: Job) -> None:
        """Learn the data of this job, which nobody saw before, as one more epoch."""
        # By the parts of the learner: the end of a race, or a start from a model, brought another optimizer.
        self.learner.job = replace(job, parts=self.learner.job.parts)
        self.chunk, self.epochs = 0, self.epoch + 1

    def next(self) -> Round:
        """Return one chunk for each lane."""
        passes, n = self.epochs - self.epoch, self._width()
        if self.job.lanes.combine == "sync":
            task = AddGradient(self.learner, self._number, self.job.batch_size)
            return Round(task, self.epoch, self.chunk, n, passes, again=n, together=True)
        if n == 1:
            return Round(Learn(self.learner, self._reached), self.epoch, self.chunk, 1, passes)
        return Round(LearnApart(self.learner), self.epoch, self.chunk, n, passes, together=True)

    def _width(self) -> int:
        n_chunks = self.job.plan.n_chunks(self.epoch)
        return width(self.job.lanes, self.epoch, self.chunk, n_chunks, alone=self.learner.racing)

    def take(self, share: Any, reports: Sequence[ChunkReport]) -> Iterator[PhaseEvent]:
        """Move by what was learned."""
        yield from self.take_width(share, reports)

    def take_width(self, share: Any, reports: Sequence[ChunkReport], n: int | None = None) -> Iterator[PhaseEvent]:
        """Move by what was learned of n chunks; None for as many as `next` asked for."""
        n = self._width() if n is None else n
        if self.job.lanes.combine == "sync":
            if self._step(share, reports, n):
                return
        else:
            self._move(share, reports, n)
        self.learner.clear_tally()
        yield from self._advance(n)

    def _move(self, share: Any, reports: Sequence[ChunkReport], n: int) -> None:
        """Take the learner that has learned, or move the common one by what its lanes made of it."""
        if n == 1 and share is not None:
            if share.state is not None:
                self.learner.restore(share.state)
        elif share is not None:
            move_by(self.job.parts.optimizer, self.learner.state, share)
            self.learner.totals += share.tally
        self._lose(self._rows(n) - sum(report.chunk.rows for report in reports))

    def _rows(self, n: int) -> int:
        """Return the rows of the next chunks."""
        return sum(self.job.plan.chunk(self.epoch, self.chunk + k).rows for k in range(n))

    def _step(self, gradient: Gradient | None, reports: Sequence[ChunkReport], n: int) -> bool:
        """Make a step of a round of n lanes, with a full batch only add its gradient up; return whether more will follow."""
        job, plan = self.job, self.job.plan
        if not self._number:
            self._lanes = [report.rows for report in reports]
            self._steps = n_steps(self._lanes, job.batch_size)
            self._lose(self._rows(n) - sum(report.chunk.rows for report in reports))
        else:
            asked = sum(min(job.batch_size, max(0, rows - self._number * job.batch_size)) for rows in self._lanes)
            self._lose(asked - (gradient.rows if gradient else 0))
        if gradient is not None:
            add_gradient(self.learner, gradient)
        if job.settings.batch_size != "full":
            before = self.epoch + plan.rows_before(self.epoch, self.chunk) / plan.n_rows
            share = self._rows(n) / plan.n_rows
            step(self.learner, job.batch_size * job.lanes.number, before + share * self._number / max(self._steps, 1))
        self._number += 1
        if self._number < self._steps:
            return True
        self._number, self._steps = 0, 1
        return False

    def _lose(self, rows: int) -> None:
        """Count rows of lanes that nobody waited for, each as often as it was lost."""
        self.lost += rows
        if rows:
            log.info("epoch %d: %d rows of late lanes are left out, as --straggler says", self.epoch, rows)

    def _advance(self, n: int) -> Iterator[PhaseEvent]:
        """Go on by n chunks, and end the epoch behind its last one."""
        self.chunk += n
        last = self.chunk == self.job.plan.n_chunks(self.epoch)
        done = self.job.plan.rows_before(self.epoch, self.chunk) / self.job.plan.n_rows if not last else 1.0
        passes = self.epoch + done
        yield PhaseEvent("chunk", passes)
        if last:
            self._end_epoch()
        yield PhaseEvent("evaluation", passes, judge="pass" if last else "due")

    def _end_epoch(self) -> None:
        self.learner.end_batch(self.epoch + 1.0)
        self.learner.clear_tally()
        for one in filter(None, (self.learner, self.learner.rival)):
            if not self._all_new:  # of rows seen before the losses say nothing
                one.end_races()
        self._note_pass()
        self.epoch, self.chunk = self.epoch + 1, 0

    def _note_pass(self) -> None:
        """Keep apart what was predicted of new rows, and of rows that were learned before."""
        if self._all_new:
            return
        first, latest, until = self._passes
        latest[:] = self.learner.totals - until
        until[:] = self.learner.totals
        if not first[ROWS]:
            first[:], latest[:] = latest, 0.0

    def skip_pass(self) -> None:
        """Go to the next epoch: this one was spent on something else."""
        self.epoch, self.chunk = self.epoch + 1, 0

    # --- what comes out

    def model(self) -> Model:
        """Return the model as it is."""
        return self.learner.model()

    def stop(self, why: str) -> None:
        """End with the weights as they are."""
        self.stopped = why

    def go_on_from(self, memory: Memory, race: dict[str, Any] | None) -> None:
        """Start with what an earlier run came to."""
        self.learner.go_on_from(memory, race)

    def outcome(self) -> Outcome:
        """Return what was learned."""
        keeps = self.job.settings.keep_memory
        best = rival.kept(self.learner)
        learner = best.after_race() if keeps else best
        return Outcome(
            learner.job,
            best.weights().reshape(best.job.shape),
            best.own_tally,
            first=self._passes[0].copy() if best is self.learner else best.own_tally,
            latest=self._passes[1].copy(),
            epochs=self.epoch,
            passes=self.epoch,
            steps=int(best.state.clock[STEPS]),
            clipped=int(best.state.clock[CLIPPED]) if self.job.lanes.number == 1 else 0,
            lost=self.lost,
            race=learner.race,
            memory=learner.memory() if keeps else None,
            **self._grown(),
        )

    def _grown(self) -> dict[str, Any]:
        """Return what came of batches that grow, or of steps that are judged, if there are such."""
        growth, job, judge = self.learner.growth, self.job, self.learner.judge
        if self.learner.rival is not None:
            return {"metrics": {self.name: {"beside": rival.compared(self.learner)}}}
        if judge is not None:
            return {"ledger": judge.ledger_lines(), "metrics": {self.name: judge.result(int(self.tally[ROWS]))}}
        if growth is None:
            return {}
        steps, rows = int(self.learner.state.clock[STEPS]), int(self.tally[ROWS])
        return {"ledger": ledger_of(growth), "metrics": {self.name: result_of(growth, job.settings, steps, rows)}}

    def save(self) -> Saved:
        """Return the learner and the cursor; a round in step is never saved half done."""
        packed = self.learner.packed()
        header = {"cursor": [self.epoch, self.chunk], "lost": self.lost, "stopped": self.stopped, "race": packed.race}
        return Saved(header, {**packed.arrays, "passes": self._passes.copy()})

    def restore(self, saved: Saved, before: Outcome) -> None:  # noqa: ARG002  nothing comes before
        """Go to where a checkpoint was saved."""
        header = saved.header
        self.learner.restore(LearnerState(saved.arrays, header["race"]))
        for one in (self.learner, *self.learner.beside):
            check_bounds(one.state, one.batch_rows, one.growth)
        self._passes = kept(saved.arrays, "passes", self._passes)
        self.epoch, self.chunk = header["cursor"]
        self.lost, self.stopped = header["lost"], header["stopped"]


def _described(metrics: dict[str, Any]) -> str:
    if "beside" in metrics:
        return rival.in_words(metrics["beside"])
    return judged.in_words(metrics) if "proposals" in metrics else in_words(metrics)


EPOCHS = PhaseKind(
    "epochs",
    wanted=lambda settings, parts: not (reduces(parts.optimizer) or settings.noise or thins(parts)),
    check=lambda _settings, _parts, _encoding: None,
    memory=lambda _outline: 0,
    passes=lambda outline: outline.epochs,
    make=Epochs,
    learns=lambda job: job.epochs,
    describe=lambda metrics: [_described(metrics)],
)
