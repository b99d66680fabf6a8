"""Gradients that lanes make together: every step is the mean over the rows of all lanes, so it is that of one large batch.

In step k of a round lane v adds up the gradients of rows k b to (k + 1) b of its chunk, at the common weights. Sums are merged
in float64 along the tree of `planning.tree` and divided by the number of rows, so a lane counts by its rows, and one that
has fewer or whose rows were lost distorts nothing. With a full batch the one step of a round takes all rows, and weights move
when the epoch ends.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from streamsgd.features.layout import most_entries
from streamsgd.kernels.learn.fit import fit, update
from streamsgd.kernels.structs.block import new_scratch
from streamsgd.kernels.structs.state import FILLED, TOUCHED, WEIGHED, WEIGHT, State, copy_state
from streamsgd.kernels.structs.step import StepContext
from streamsgd.training.averaging import begin
from streamsgd.training.job import WHOLE_EPOCH
from streamsgd.training.tasks.base import ChunkReport, report_on
from streamsgd.training.tasks.learn import restored

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.training.job import Job
    from streamsgd.training.learner import Learner, LearnerState


class AddGradient:
    """Add up one lane's share of the gradient of a step, at the weights of the common learner.

    Parameters
    ----------
    learner
        Stays as it is.
    number
        Of the step in its round: rows `number * batch_rows` to `(number + 1) * batch_rows` of every chunk.
    batch_rows
        Of each lane.

    """

    name = "gradient"
    exact = False

    def __init__(self, learner: Learner, number: int, batch_rows: int) -> None:
        self._learner: Learner | None = learner
        self._state = learner.packed()
        self.number, self.batch_rows = number, batch_rows

    def __getstate__(self) -> tuple[LearnerState, int, int]:
        return self._state, self.number, self.batch_rows

    def __setstate__(self, state: tuple[LearnerState, int, int]) -> None:
        self._learner = None
        self._state, self.number, self.batch_rows = state

    @property
    def nbytes(self) -> int:
        """Bytes of the learner's state."""
        return self._state.nbytes

    def open(self, job: Job) -> Callable[[LoadedChunk], tuple[Gradient, ChunkReport | None]]:
        """Return what adds up a chunk's rows; the report comes with the first step of a round."""
        return partial(self._add, self._learner or restored(job, self._state))

    def _add(self, learner: Learner, filled: LoadedChunk) -> tuple[Gradient, ChunkReport | None]:
        began, n = time.perf_counter(), len(filled.order)
        first = min(n, self.number * self.batch_rows)
        gradient = gradient_of(learner, filled, first, min(n, first + self.batch_rows))
        return gradient, None if self.number else report_on(learner.job, filled, began, n, learner.model)


@dataclass(slots=True)
class Gradient:
    """The sum of the gradients of some rows."""

    rows: int
    tally: np.ndarray
    """float64 (3,): weighted loss, weight and number of the rows."""
    index: np.ndarray | None
    """int32 or int64 (m,): the weights that it is not 0 for, in order; None for all."""
    values: np.ndarray
    """float64 (m,)."""

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        return self.values.nbytes + (0 if self.index is None else self.index.nbytes)

    def merge(self, other: Gradient) -> Gradient:
        """Return the gradient of the rows of both."""
        rows, tally = self.rows + other.rows, self.tally + other.tally
        if self.index is None or other.index is None:
            return Gradient(rows, tally, None, _dense(self, other) + _dense(other, self))
        index = np.union1d(self.index, other.index)
        values = np.zeros(len(index))
        values[np.searchsorted(index, self.index)] = self.values
        values[np.searchsorted(index, other.index)] += other.values
        return Gradient(rows, tally, index, values)


def gradient_of(learner: Learner, filled: LoadedChunk, first: int, last: int) -> Gradient:
    """Return the gradient of rows `first` to `last` of a chunk's order, at the learner's weights, which stay as they are."""
    job, common = learner.job, learner.state
    order, heads = filled.turn(first, last, filled.heads(first))
    own = _own(common)
    entries = most_entries(filled.block, filled.layout)
    scratch = new_scratch(job.n_outputs, job.settings.precision, entries, job.parts.model)
    pace = StepContext(WHOLE_EPOCH, learner.n_penalised, 0.0, 0.0, float(job.epochs), *job.clips)
    if len(order):  # of none it would end the batch
        fit(job.parts, filled.block, order, heads, own, pace, scratch)
    n_touched = int(own.clock[TOUCHED])
    if not own.touched.size or n_touched < 0:
        return Gradient(len(order), own.tally, None, own.grad.astype(np.float64))
    index = np.sort(own.touched[:n_touched])
    return Gradient(len(order), own.tally, index, own.grad[index].astype(np.float64))


def _own(common: State) -> State:
    """Return a state that shares the weights, and has an empty gradient of its own."""
    own = copy_state(common)._replace(weights=common.weights, slots=common.slots)
    own.grad[:], own.tally[:] = 0.0, 0.0
    own.clock[[FILLED, TOUCHED]] = 0
    return own


def _dense(one: Gradient, other: Gradient) -> np.ndarray:
    """Return the values of one as an array of all weights, of which the other has as many if this one has not."""
    if one.index is None:
        return one.values
    values = np.zeros_like(other.values)
    values[one.index] = one.values
    return values


def add_gradient(learner: Learner, gradient: Gradient) -> None:
    """Add it to the running batch of the learner."""
    state = learner.state
    learner.totals += gradient.tally
    state.clock[FILLED] += gradient.rows
    if gradient.tally[WEIGHT] > 0.0:  # or the end of a full batch would take it for one that nobody weighs
        state.clock[WEIGHED] = 1
    if gradient.index is None:
        state.grad[:] += gradient.values
        state.clock[TOUCHED] = -1 if state.touched.size else 0
        return
    fresh = gradient.index[state.grad[gradient.index] == 0.0]
    state.grad[gradient.index] += gradient.values
    n = int(state.clock[TOUCHED])
    if n >= 0 and n + len(fresh) <= state.touched.size:
        state.touched[n : n + len(fresh)] = fresh
        state.clock[TOUCHED] = n + len(fresh)
    else:
        state.clock[TOUCHED] = -1


def step(learner: Learner, batch_rows: int, epoch: float) -> None:
    """Move the learner by its running batch, of `batch_rows` rows if it is full, after so many passes."""
    rows = int(learner.state.clock[FILLED])
    if rows and not learner.state.clock[WEIGHED]:  # a batch of weight 0 moves nothing
        learner.state.clock[FILLED] = 0
    elif rows:
        learner.state.clock[WEIGHED] = 0
        begin(learner.state, learner.job.average_from, epoch, 1.0, 1)
        pace = StepContext(batch_rows, learner.n_penalised, epoch, 0.0, float(learner.job.epochs), *learner.job.clips)
        update(learner.job.parts, learner.state, pace, rows, epoch)


def n_steps(rows: Sequence[int], batch_rows: int) -> int:
    """Return the steps of a round whose lanes have so many rows each."""
    return -(-max(rows, default=0) // batch_rows)
