"""Crews: who does the work of the lanes of a round. The work itself is a pure function, so that crews give the same bits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from streamsgd.planning.lanes import READ_AHEAD, n_blocks
from streamsgd.planning.tree import joined
from streamsgd.stream.stream import Stream
from streamsgd.training.tasks.gradient import Gradient, add_up, join_gradients
from streamsgd.training.tasks.learn import learn_all, learn_apart
from streamsgd.training.tasks.merge import Delta, join_deltas

if TYPE_CHECKING:
    from collections.abc import Generator

    from streamsgd.compute.executors import Executor
    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.training.backends.base import WorkerStats
    from streamsgd.training.job import Job
    from streamsgd.training.learner import Learner
    from streamsgd.training.tasks.base import ChunkReport
    from streamsgd.training.tasks.gradient import Step


class ThreadsBackend:
    """The threads of this process: they read and learn, and nothing is copied but the state that a lane changes."""

    share = None

    def __init__(self, job: Job, executor: Executor) -> None:
        self.executor = executor
        self.work: dict[str, WorkerStats] = {}
        together = job.lanes.combine == "sync"
        blocks = n_blocks(job.lanes) if together else min(n_blocks(job.lanes), executor.n_workers + READ_AHEAD)
        self._most = blocks - 1
        self._stream = Stream(job.recipe, job.plan, executor, n_blocks=blocks)
        self._chunks: Generator[LoadedChunk] | None = None
        self._open: list[LoadedChunk] = []
        """The chunks of a round of steps."""
        # Not the executor, whose milliseconds per task are more than a step takes.
        self._hands = ThreadPoolExecutor(executor.n_workers, "streamsgd-step")
        self._epochs = job.epochs

    def begin(self, epoch: int, chunk: int) -> None:
        """Begin to read."""
        self._chunks = self._stream.chunks(epoch, chunk, self._epochs, kept=True)

    def _next(self) -> LoadedChunk:
        assert self._chunks is not None, "begin comes first"  # noqa: S101  for the type checker
        return next(self._chunks)

    def lead(self, learner: Learner, epoch: int, chunk: int) -> list[ChunkReport]:  # noqa: ARG002  the next one it is
        """Learn in the calling thread."""
        filled = self._next()
        brought = learn_all(learner, filled)
        self._stream.give_back(filled)
        return [brought]

    def round(self, learner: Learner, epoch: int, chunk: int, n: int) -> tuple[Delta | None, list[ChunkReport]]:
        """Learn side by side, as far as there are threads and blocks."""
        running: list[tuple[LoadedChunk, Any]] = []
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
        return joined([gain for gain, _ in found], join_deltas), [brought for _, brought in found]

    def _ended(self, running: list[tuple[LoadedChunk, Any]]) -> tuple[Delta, ChunkReport]:
        filled, result = running.pop(0)
        try:
            found: tuple[Delta, ChunkReport] = result.result()
        finally:
            self._stream.give_back(filled)
        return found

    def step(self, learner: Learner, at: Step) -> tuple[Gradient | None, list[ChunkReport]]:
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
