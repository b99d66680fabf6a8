"""Learning chunks: with the one learner there is, or each with a copy of a common one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.kernels.structs.block import new_scratch
from streamsgd.kernels.structs.state import State, copy_state
from streamsgd.kernels.structs.step import StepContext
from streamsgd.training.initial import empty_state
from streamsgd.training.learner import Learner, LearnerState
from streamsgd.training.tasks.base import ChunkReport, report_on
from streamsgd.training.tasks.merge import Delta, delta_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.training.job import Job


@dataclass
class Learned:
    """What learning with the one learner brings."""

    state: LearnerState | None
    """What it came to; None where the learner is the phase's own, which has changed in place."""

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return 0 if self.state is None else self.state.nbytes

    def merge(self, other: Learned) -> Learned:
        """Raise: one learner learns one chunk after another."""
        raise ValueError(f"one learner cannot have learned two chunks at once, {self} and {other}")


class Learn:
    """Go on with the one learner there is: in place in its own process, elsewhere from its state.

    Parameters
    ----------
    learner
        Changed where it is.
    reached
        Called with the passes done at 1024, 2048, 4096 ... rows; in its own process only.

    """

    name = "learn"
    exact = False

    def __init__(self, learner: Learner, reached: Callable[[float], None] | None = None) -> None:
        self._learner: Learner | None = learner
        self._reached = reached
        self._state = learner.packed()

    def __getstate__(self) -> LearnerState:
        return self._state

    def __setstate__(self, state: LearnerState) -> None:
        self._learner, self._reached, self._state = None, None, state

    @property
    def nbytes(self) -> int:
        """Bytes of the learner's state."""
        return self._state.nbytes

    def open(self, job: Job) -> Callable[[LoadedChunk], tuple[Learned, ChunkReport]]:
        """Return what learns a chunk."""
        return self._here if self._learner is not None else partial(self._there, job)

    def _here(self, filled: LoadedChunk) -> tuple[Learned, ChunkReport]:
        assert self._learner is not None, "open sees to that"  # noqa: S101  for the type checker
        report = learn_chunk(self._learner, filled, self._reached)
        self._learner.clear_tally()
        return Learned(None), report

    def _there(self, job: Job, filled: LoadedChunk) -> tuple[Learned, ChunkReport]:
        learner = restored(job, self._state)  # anew for each chunk: a task that was lost on its way back is run again
        report = learn_chunk(learner, filled)
        learner.clear_tally()
        return Learned(learner.packed()), report


class LearnApart:
    """Let every chunk be learned by a copy of the common learner, which stays as it is."""

    name = "learn"
    exact = False

    def __init__(self, learner: Learner) -> None:
        self._learner: Learner | None = learner
        self._state = learner.packed()

    def __getstate__(self) -> LearnerState:
        return self._state

    def __setstate__(self, state: LearnerState) -> None:
        self._learner, self._state = None, state

    @property
    def nbytes(self) -> int:
        """Bytes of the learner's state."""
        return self._state.nbytes

    def open(self, job: Job) -> Callable[[LoadedChunk], tuple[Delta, ChunkReport]]:
        """Return what learns a chunk from the common state."""
        learner = self._learner or restored(job, self._state)
        return partial(learn_apart, learner.job, learner.state)


def restored(job: Job, state: LearnerState) -> Learner:
    """Return a learner that goes on from a state."""
    learner = Learner(job, empty_state(job))
    learner.restore(state)
    return learner


def learn_chunk(learner: Learner, filled: LoadedChunk, reached: Callable[[float], None] | None = None) -> ChunkReport:
    """Learn a chunk to its end; then score its held-out rows.

    Where there are several lanes, what is left of a batch is not carried over to the next chunk, which may be another lane's.

    Raises
    ------
    DivergedError
        Loss or weights are no longer finite.

    """
    began, busy, before = time.perf_counter(), time.thread_time(), learner.rows
    learner.fit(filled, reached)
    end_lane(learner, filled)
    busy = time.thread_time() - busy
    report = report_on(learner.job, filled, began, learner.rows - before, learner.model)
    report.learn_seconds = busy
    learner.check_finite(filled)
    return report


def end_lane(learner: Learner, filled: LoadedChunk) -> None:
    """End the running batch with a chunk, where the next one may be another lane's."""
    chunk, plan = filled.chunk, learner.job.plan
    if learner.job.lanes.number > 1:
        learner.end_batch(chunk.epoch + (plan.rows_before(chunk.epoch, chunk.number) + chunk.rows) / plan.n_rows)


def learn_apart(job: Job, before: State, filled: LoadedChunk) -> tuple[Delta, ChunkReport]:
    """Let one lane learn a chunk from a state, which stays as it is; return what it made of it."""
    learner = Learner(job, copy_state(before))
    report = learn_chunk(learner, filled)
    after = learner.state
    if after.paid.size:  # so that lanes that stand at different sums of rates can be compared; no mean is kept here
        after.weights[:] = learner.weights()
    return delta_of(job.parts.optimizer, before, after, len(filled.order), after.tally.copy()), report


def compile_for(job: Job) -> None:
    """Load or compile the kernel that learns, by letting it learn no rows: before anybody waits for it."""
    if job.rival is not None:
        compile_for(job.rival)
    learner, layout = Learner(job, empty_state(job)), job.recipe.layout
    scratch = new_scratch(job.n_outputs, job.settings.precision, layout.entries, job.parts.model)
    step = StepContext(learner.batch_rows, learner.n_penalised, 0.0, 0.0, job.span, *job.clips)
    nothing: Any = np.zeros(0, np.int32)
    learner.scratch = scratch
    learner.learn(job.recipe.allocate(1), nothing, np.zeros(1, np.int64), step)
