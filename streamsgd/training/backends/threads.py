"""The threads of this process: chunks are read ahead, and nothing is copied but the state that a lane changes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from streamsgd.planning.lanes import READ_AHEAD, n_blocks
from streamsgd.planning.tree import Adder
from streamsgd.stream.distilled import DistilledChunks
from streamsgd.stream.stream import Stream
from streamsgd.training.backends.base import Abandoned, never
from streamsgd.training.job import IN_ORDER
from streamsgd.training.tasks.base import merge

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from streamsgd.compute.executors import Executor
    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.training.backends.base import WorkerStats
    from streamsgd.training.job import Job
    from streamsgd.training.tasks.base import ChunkReport, Place, Round


class ThreadsBackend:
    """Reads with an executor, and works on chunks in the calling thread, or in threads of its own where rounds allow it.

    Parameters
    ----------
    job
        As prepared.
    executor
        Who reads.

    """

    client = None

    def __init__(self, job: Job, executor: Executor) -> None:
        self.job = job
        self.workers: dict[str, WorkerStats] = {}
        self.poisoned: frozenset[int] = job.recipe.poisoned
        n_chunks = n_blocks(job.lanes)
        if job.lanes.combine != "sync":
            n_chunks = min(n_chunks, executor.n_workers + READ_AHEAD)
        self._reader = _Reader(job, executor, n_chunks)
        self._most = n_chunks - 1
        # Not the executor, whose milliseconds per task are more than a step takes.
        self._threads = ThreadPoolExecutor(executor.n_workers, "streamsgd-work")

    def run(self, work: Round, stop: Callable[[], bool] = never) -> tuple[Any, list[ChunkReport]]:
        """Run a task over the chunks of a round; see `base.Backend`."""
        run_on, total = work.task.open(self.job), Adder[Any](merge)
        reports: list[ChunkReport] = []
        chunks = self._reader.chunks(work)
        done = self._side_by_side(run_on, chunks) if work.together and work.width > 1 else self._in_turn(run_on, chunks)
        for share, report in done:
            total.add(share)
            reports += [report] if report else []
            if work.task.exact and len(reports) < work.width and stop():
                raise Abandoned
        return total.total(), reports

    def _in_turn(self, run_on: Callable[[LoadedChunk], Any], chunks: Iterator[LoadedChunk]) -> Iterator[Any]:
        for filled in chunks:
            yield run_on(filled)
            self._reader.done_with(filled)

    def _side_by_side(self, run_on: Callable[[LoadedChunk], Any], chunks: Iterator[LoadedChunk]) -> Iterator[Any]:
        """Work on as many chunks at once as there are blocks; yield what they bring in their order."""
        running: list[tuple[LoadedChunk, Any]] = []
        while True:
            if len(running) >= self._most:
                yield self._ended(running)
            if (filled := next(chunks, None)) is None:
                break
            running.append((filled, self._threads.submit(run_on, filled)))
        while running:
            yield self._ended(running)

    def _ended(self, running: list[tuple[LoadedChunk, Any]]) -> Any:
        filled, result = running.pop(0)
        try:
            return result.result()
        finally:
            self._reader.done_with(filled)

    def close(self) -> None:
        """Stop reading, and let go of all blocks: whoever still holds this backend does not hold them."""
        self._threads.shutdown()
        self._reader.close()


class _Reader:
    """Chunks in the order in which rounds ask for them, read ahead; those that later rounds ask for again stay here."""

    def __init__(self, job: Job, executor: Executor, n_blocks: int) -> None:
        self.job, self._n_blocks = job, n_blocks
        self._stream = Stream(job.recipe, job.plan, executor, n_blocks=n_blocks)
        self._coming: Generator[LoadedChunk] | None = None
        self._next: Place | None = None
        """What the stream gives next."""
        self._kept: dict[Place, LoadedChunk] = {}
        self._distilled = DistilledChunks(job.distilled)
        self._keeps = False
        self._out: dict[int, tuple[Place, LoadedChunk]] = {}
        """Chunks that are worked on, by the identity of what was handed out."""

    def chunks(self, work: Round) -> Iterator[LoadedChunk]:
        """Yield the chunks of a round, each to be handed to `done_with`."""
        whole = self._n_chunks(work.epoch)
        self._keeps = 0 < work.again <= (self._n_blocks if work.again == whole else self._n_blocks - READ_AHEAD)
        keeps_all = self._keeps and work.again == whole
        # Of another epoch no chunk comes again, also where an epoch is as long as a step.
        for place in [place for place in self._kept if place not in work.places and not (keeps_all and place[0] == work.epoch)]:
            self._stream.give_back(self._kept.pop(place))
        # What stays here is not read again, so nothing is read ahead of the next pass.
        passes = 1 if keeps_all else work.passes
        for place in work.places:
            if place[0] == IN_ORDER and (small := self._distilled.get(place[1])) is not None:
                yield small
                continue
            known = self._kept.pop(place, None)
            filled = known or self._read(place, passes)
            # So that its reading is accounted for once; its pieces stay here, whose memory its rows may point to.
            handed = replace(filled, pieces=[], waited=0.0) if known else filled
            self._out[id(handed)] = place, filled
            yield handed

    def done_with(self, filled: LoadedChunk) -> None:
        """Keep a chunk for later rounds, or read the next one into its block."""
        if id(filled) not in self._out:
            return
        place, original = self._out.pop(id(filled))
        self._distilled.offer(original)
        if self._keeps:
            self._kept[place] = original
        else:
            self._stream.give_back(original)

    def _n_chunks(self, epoch: int) -> int:
        return self.job.plan_at(epoch).n_chunks(max(epoch, 0))

    def _read(self, place: Place, passes: int) -> LoadedChunk:
        filled = next(self._coming, None) if self._coming is not None and place == self._next else None
        if filled is None:  # another place, or the end of the passes that were expected
            self._coming = self._seek(place, passes)
            filled = next(self._coming)
        epoch, number = place
        last = number + 1 == self._n_chunks(epoch)
        self._next = (epoch if epoch == IN_ORDER else epoch + 1, 0) if last else (epoch, number + 1)
        return filled

    def _seek(self, place: Place, passes: int) -> Generator[LoadedChunk]:
        """Begin to read at a place; what was read ahead of another is dropped."""
        self._stop()
        epoch, number = max(place[0], 0), place[1]
        most = None
        if place[0] == IN_ORDER and self.job.distilled:  # what comes behind may be here
            most = self._distilled.missing_from(number, self._n_chunks(IN_ORDER))
        return self._stream.chunks(epoch, number, epoch + passes, kept=True, plan=self.job.plan_at(place[0]), most=most)

    def _stop(self) -> None:
        if self._coming is not None:
            self._coming.close()
        self._coming = None

    def close(self) -> None:
        """Stop reading, and let go of all blocks."""
        self._stop()
        self._kept.clear()
        self._out.clear()
        self._distilled.clear()
        self._stream.close()
