"""Crews: who does the work of the lanes of a round. The work itself is a pure function, so that crews give the same bits."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from streamsgd.kernels.state import copy_state
from streamsgd.lanes import READ_AHEAD, n_blocks
from streamsgd.learner import Learner
from streamsgd.merging import Gain, gain_of, join, joined
from streamsgd.stream import Stream
from streamsgd.syncing import Gradient, gradient_of, join_gradients
from streamsgd.validation import held_metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from streamsgd.executors import Executor
    from streamsgd.job import Job
    from streamsgd.kernels.state import State
    from streamsgd.metrics import Metrics
    from streamsgd.parquet import Spent
    from streamsgd.planning import Chunk
    from streamsgd.polish import Share, Wanted
    from streamsgd.recipe import Loaded
    from streamsgd.stream import Filled


@dataclass
class Brought:
    """What one lane brought, beside what it learned: the account of its chunk."""

    chunk: Chunk
    pieces: list[Loaded] = field(repr=False)
    """Without their rows."""
    spent: Spent
    held: Metrics | None = None
    """Of the rows held out."""
    waited: float = 0.0
    fit_seconds: float = 0.0
    rows: int = 0
    """That were learned."""
    worker: str = ""
    """Who did it; empty for this process."""
    bytes_sent: int = 0


@dataclass
class Work:
    """What one worker did."""

    rows: int = 0
    lanes: int = 0
    seconds: float = 0.0
    """Of tasks, by the driver's clock."""
    open: float = 0.0
    decode: float = 0.0
    encode: float = 0.0
    fit: float = 0.0
    bytes_read: int = 0
    bytes_sent: int = 0
    again: int = 0
    """Lanes that it did for a worker that was late or lost."""

    def idle(self, seconds: float) -> float:
        """Return for how many of the run's seconds it had nothing to do."""
        return max(0.0, seconds - self.seconds)


class Step(NamedTuple):
    """A step of a round whose lanes make their gradients together."""

    epoch: int
    chunk: int
    """The first of the round."""
    lanes: int
    number: int
    batch_rows: int
    """Of each lane."""


class Crew(Protocol):
    """Does the work of lanes."""

    work: dict[str, Work]
    """What each worker did; empty where that is this process."""

    def begin(self, epoch: int, chunk: int) -> None:
        """Make ready to go on from a chunk."""

    def lead(self, learner: Learner, epoch: int, chunk: int) -> list[Brought]:
        """Let the learner itself learn one chunk."""

    def round(self, learner: Learner, epoch: int, chunk: int, n: int) -> tuple[Gain | None, list[Brought]]:
        """Let n lanes learn a chunk each from the learner's state, which stays as it is; None if all were lost."""

    def step(self, learner: Learner, at: Step) -> tuple[Gradient | None, list[Brought]]:
        """Let lanes add up the gradient of a step; what they brought comes with the first of a round. None if all were lost."""

    @property
    def share(self) -> Callable[[Wanted, int, int], tuple[Share, list[Brought]]] | None:
        """What adds up losses, gradient and curvature of n chunks in the order of the data; None where they are read here."""

    def close(self) -> None:
        """Release everything."""


def learn_all(learner: Learner, filled: Filled) -> Brought:
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
    return Brought(chunk, pieces, filled.spent, held, filled.waited, seconds, len(filled.order))


def learn_apart(job: Job, before: State, filled: Filled) -> tuple[Gain, Brought]:
    """Let one lane learn a chunk from a state, which stays as it is; return what it made of it."""
    learner = Learner(job, copy_state(before))
    brought = learn_all(learner, filled)
    after = learner.state
    if after.paid.size:  # so that lanes that stand at different sums of rates can be compared; no mean is kept here
        after.weights[:] = learner.weights()
    return gain_of(job.parts.optimizer, before, after, len(filled.order), after.tally.copy()), brought


def add_up(learner: Learner, filled: Filled, number: int, batch_rows: int) -> tuple[Gradient, list[Brought]]:
    """Return a lane's share of the gradient of a step, and with the first one the account of its chunk."""
    began = time.perf_counter()
    n = len(filled.order)
    first = min(n, number * batch_rows)
    gradient = gradient_of(learner, filled, first, min(n, first + batch_rows))
    brought = []
    if not number:
        held = held_metrics(learner.job, filled, learner.model)
        pieces = [without_rows(piece) for piece in filled.pieces]
        brought.append(Brought(filled.chunk, pieces, filled.spent, held, filled.waited, rows=n))
        brought[0].fit_seconds = time.perf_counter() - began
    return gradient, brought


def without_rows(piece: Loaded) -> Loaded:
    """Return the account of a piece alone, for messages; how many rows it held out goes with it."""
    nothing = np.zeros(0, np.int64)
    return replace(piece, starts=nothing, counts=nothing, helds=np.array([piece.helds.sum()]), pools=[])


class Threads:
    """The threads of this process: they read and learn, and nothing is copied but the state that a lane changes."""

    share = None

    def __init__(self, job: Job, executor: Executor) -> None:
        self.executor = executor
        self.work: dict[str, Work] = {}
        together = job.lanes.combine == "sync"
        blocks = n_blocks(job.lanes) if together else min(n_blocks(job.lanes), executor.n_workers + READ_AHEAD)
        self._most = blocks - 1
        self._stream = Stream(job.recipe, job.plan, executor, n_blocks=blocks)
        self._chunks: Generator[Filled] | None = None
        self._open: list[Filled] = []
        """The chunks of a round of steps."""
        # Not the executor, whose milliseconds per task are more than a step takes.
        self._hands = ThreadPoolExecutor(executor.n_workers, "streamsgd-step")
        self._epochs = job.epochs

    def begin(self, epoch: int, chunk: int) -> None:
        """Begin to read."""
        self._chunks = self._stream.chunks(epoch, chunk, self._epochs, kept=True)

    def _next(self) -> Filled:
        assert self._chunks is not None, "begin comes first"  # noqa: S101  for the type checker
        return next(self._chunks)

    def lead(self, learner: Learner, epoch: int, chunk: int) -> list[Brought]:  # noqa: ARG002  the next one it is
        """Learn in the calling thread."""
        filled = self._next()
        brought = learn_all(learner, filled)
        self._stream.give_back(filled)
        return [brought]

    def round(self, learner: Learner, epoch: int, chunk: int, n: int) -> tuple[Gain | None, list[Brought]]:
        """Learn side by side, as far as there are threads and blocks."""
        running: list[tuple[Filled, Any]] = []
        found = []
        for lane in range(n):
            while len(running) >= self._most:
                found.append(self._ended(running))
            filled = self._next()
            name = f"streamsgd-learn-epoch{epoch}-chunk{chunk + lane}"
            work = partial(learn_apart, learner.job, learner.state, filled)
            running.append((filled, self.executor.submit(work, name)))
        while running:
            found.append(self._ended(running))
        return joined([gain for gain, _ in found], join), [brought for _, brought in found]

    def _ended(self, running: list[tuple[Filled, Any]]) -> tuple[Gain, Brought]:
        filled, result = running.pop(0)
        try:
            found: tuple[Gain, Brought] = result.result()
        finally:
            self._stream.give_back(filled)
        return found

    def step(self, learner: Learner, at: Step) -> tuple[Gradient | None, list[Brought]]:
        """Add up side by side, as far as there are threads."""
        if not at.number:
            for filled in self._open:
                self._stream.give_back(filled)
            self._open = []
            for _lane in range(at.lanes):
                self._open.append(self._next())
        running = [self._hands.submit(add_up, learner, filled, at.number, at.batch_rows) for filled in self._open]
        found = [result.result() for result in running]
        return joined([gradient for gradient, _ in found], join_gradients), [one for _, brought in found for one in brought]

    def close(self) -> None:
        """Stop reading."""
        self._hands.shutdown()
        if self._chunks is not None:
            self._chunks.close()
