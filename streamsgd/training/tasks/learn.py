"""Learning a chunk: with the one learner there is, or with a copy of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from streamsgd.kernels.structs.state import copy_state
from streamsgd.stream.chunk import without_rows
from streamsgd.training.learner import Learner
from streamsgd.training.tasks.base import ChunkReport, held_metrics
from streamsgd.training.tasks.merge import Delta, delta_of

if TYPE_CHECKING:
    from streamsgd.kernels.structs.state import State
    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.training.job import Job


def learn_all(learner: Learner, filled: LoadedChunk) -> ChunkReport:
    """Learn a chunk to its end.

    Where there are several lanes, what is left of a batch is not carried over to the next chunk, which may be another lane's.
    """
    began = time.perf_counter()
    if learner.job.lanes.number == 1:  # in the parts in which `Run` has it learned, whose sums are rounded part by part
        learner.fit(filled)
    else:
        learner.fit(filled)
    chunk, plan = filled.chunk, learner.job.plan
    if learner.job.lanes.number > 1:
        learner.end_batch(chunk.epoch + (plan.rows_before(chunk.epoch, chunk.number) + chunk.rows) / plan.n_rows)
    held = held_metrics(learner.job, filled, learner.model)
    learner.check_finite(filled)
    seconds = time.perf_counter() - began
    pieces = [without_rows(piece) for piece in filled.pieces]
    return ChunkReport(chunk, pieces, filled.spent, held, filled.waited, seconds, len(filled.order))


def learn_apart(job: Job, before: State, filled: LoadedChunk) -> tuple[Delta, ChunkReport]:
    """Let one lane learn a chunk from a state, which stays as it is; return what it made of it."""
    learner = Learner(job, copy_state(before))
    brought = learn_all(learner, filled)
    after = learner.state
    if after.paid.size:  # so that lanes that stand at different sums of rates can be compared; no mean is kept here
        after.weights[:] = learner.weights()
    return delta_of(job.parts.optimizer, before, after, len(filled.order), after.tally.copy()), brought
