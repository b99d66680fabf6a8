"""Gradients that lanes make together: every step is the mean over the rows of all lanes, so it is that of one large batch.

In step k of a round lane v adds up the gradients of rows k b to (k + 1) b of its chunk, at the common weights. Sums are joined
in float64 along the tree of `merging` and divided by the number of rows, so a lane counts by its rows, and one that has fewer
or whose rows were lost distorts nothing. With a full batch the one step of a round takes all rows, and weights move when the
epoch ends.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamsgd.features.layout import most_entries
from streamsgd.kernels.learn.fit import fit, update
from streamsgd.kernels.structs.block import new_scratch
from streamsgd.kernels.structs.state import FILLED, TOUCHED, State, copy_state
from streamsgd.kernels.structs.step import StepContext
from streamsgd.stream.chunk import without_rows
from streamsgd.training.averaging import begin
from streamsgd.training.job import WHOLE_EPOCH
from streamsgd.training.tasks.base import ChunkReport, held_metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.training.learner import Learner


class Step(NamedTuple):
    """A step of a round whose lanes make their gradients together."""

    epoch: int
    chunk: int
    """The first of the round."""
    lanes: int
    number: int
    batch_rows: int
    """Of each lane."""


def add_up(learner: Learner, filled: LoadedChunk, number: int, batch_rows: int) -> tuple[Gradient, list[ChunkReport]]:
    """Return a lane's share of the gradient of a step, and with the first one the account of its chunk."""
    began = time.perf_counter()
    n = len(filled.order)
    first = min(n, number * batch_rows)
    gradient = gradient_of(learner, filled, first, min(n, first + batch_rows))
    brought = []
    if not number:
        held = held_metrics(learner.job, filled, learner.model)
        pieces = [without_rows(piece) for piece in filled.pieces]
        brought.append(ChunkReport(filled.chunk, pieces, filled.spent, held, filled.waited, rows=n))
        brought[0].fit_seconds = time.perf_counter() - began
    return gradient, brought


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


def gradient_of(learner: Learner, filled: LoadedChunk, first: int, last: int) -> Gradient:
    """Return the gradient of rows `first` to `last` of a chunk's order, at the learner's weights, which stay as they are."""
    job, common = learner.job, learner.state
    order = filled.order[first:last]
    heads = filled.starts + np.bincount(filled.order[:first], minlength=len(filled.starts))
    own = _own(common)
    scratch = new_scratch(job.n_outputs, job.settings.precision, most_entries(filled.block, filled.layout))
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


def join_gradients(a: Gradient, b: Gradient) -> Gradient:
    """Return the gradient of the rows of both."""
    rows, tally = a.rows + b.rows, a.tally + b.tally
    if a.index is None or b.index is None:
        return Gradient(rows, tally, None, _dense(a, b) + _dense(b, a))
    index = np.union1d(a.index, b.index)
    values = np.zeros(len(index))
    values[np.searchsorted(index, a.index)] = a.values
    values[np.searchsorted(index, b.index)] += b.values
    return Gradient(rows, tally, index, values)


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
    if rows:
        begin(learner.state, learner.job.average_from, epoch, 1.0, 1)
        pace = StepContext(batch_rows, learner.n_penalised, epoch, 0.0, float(learner.job.epochs), *learner.job.clips)
        update(learner.job.parts, learner.state, pace, rows, epoch)


def n_steps(rows: Sequence[int], batch_rows: int) -> int:
    """Return the steps of a round whose lanes have so many rows each."""
    return -(-max(rows, default=0) // batch_rows)
