"""The stream: chunks of the plan as blocks, in order, the next one read while this one trains.

Two blocks are allocated once and take turns. Each chunk's pieces are claimed one after another by as many tasks as there
are workers, so a slow piece holds up nobody else and a task is long enough (about a chunk's share of a worker) for the
scheduler's milliseconds not to matter. Where a row lands depends on the plan alone, never on who read it when.
"""

from __future__ import annotations

import itertools
import logging
import time
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.errors import BudgetError, DataError
from streamsgd.kernels.mixing import N_BUCKETS, merge
from streamsgd.parquet import Spent

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from streamsgd.executors import Executor
    from streamsgd.kernels.loops import Block
    from streamsgd.layout import Layout
    from streamsgd.planning import Chunk, Plan
    from streamsgd.recipe import Loaded, Recipe

log = logging.getLogger("streamsgd")

HELD_ROWS = 1 << 16

TAIL_FLOOR = 32 << 20
"""Bytes of texts and lists that any chunk may hold."""

DEADLINE = 1800.0
"""Seconds that one chunk may take to arrive before the run gives up rather than hang."""

GRACE = 60.0
"""Seconds that a stream that ends early waits for reads under way; one that hangs is left to its thread."""


@dataclass
class Filled:
    """A chunk as numbers, with the order in which its rows are to be learned.

    `order` (int32, n rows to learn) names the tile of each next row; tile t begins at row `starts[t]` of the block with
    `counts[t]` rows to learn, then `helds[t]` held out.
    """

    chunk: Chunk
    block: Block
    starts: np.ndarray
    counts: np.ndarray
    helds: np.ndarray
    order: np.ndarray
    pieces: list[Loaded] = field(repr=False)
    layout: Layout = field(repr=False)
    room: np.ndarray = field(repr=False)
    """What `order` is the beginning of."""
    waited: float = 0.0
    """Seconds that the consumer waited for it."""

    @property
    def spent(self) -> Spent:
        """What reading this chunk took, added up over pieces."""
        total = Spent()
        for piece in self.pieces:
            total.add(piece.spent)
        return total

    def learned_runs(self) -> list[tuple[int, int]]:
        """Return the runs (start, stop) of rows to learn, tiles that touch taken together."""
        some = self.counts > 0
        starts, stops = self.starts[some], (self.starts + self.counts)[some]
        first = np.flatnonzero(np.append(True, starts[1:] != stops[:-1]))
        return list(zip(starts[first].tolist(), stops[np.append(first[1:], len(stops)) - 1].tolist(), strict=True))

    def held_blocks(self) -> Iterator[Block]:
        """Yield copies of the held-out rows, `HELD_ROWS` at a time: tile by tile they would be too few to score fast."""
        ends = np.cumsum(self.helds)
        first = np.repeat(self.starts + self.counts - (ends - self.helds), self.helds)
        rows = first + np.arange(len(first))
        for at in range(0, len(rows), HELD_ROWS):
            yield self.layout.choose(self.block, rows[at : at + HELD_ROWS])


class _Job:
    """One chunk being read into one block."""

    def __init__(self, recipe: Recipe, plan: Plan, chunk: Chunk, block: Block, order: np.ndarray) -> None:
        self.recipe, self.plan, self.chunk, self.block, self.room = recipe, plan, chunk, block, order
        self.shuffled = bool(plan.sampler.mixes_rows)
        self.loaded: list[Any] = [None] * len(chunk.pieces)
        self._next = itertools.count()
        self._lock = Lock()
        self.cancelled = False

    def work(self) -> None:
        """Read pieces until none is left, or one fails: those before it in the plan are then all under way."""
        while not self.cancelled:
            with self._lock:
                number = next(self._next)
            if number >= len(self.chunk.pieces):
                return
            piece = self.chunk.pieces[number]
            try:
                key = self.plan.key(self.chunk.epoch, self.chunk.number, stream=2 + number)
                self.loaded[number] = self.recipe.load(piece, self.block, key, shuffled=self.shuffled)
            except Exception as error:  # noqa: BLE001  raised in the order of the plan by `finish`
                self.loaded[number] = error
                self.cancelled = True

    def finish(self, waited: float) -> Filled:
        """Raise the first error in the order of the plan, or return the chunk."""
        for loaded in self.loaded:
            if isinstance(loaded, Exception):
                raise loaded
        self._check_tails()
        starts, counts, helds = (
            np.concatenate([getattr(piece, name) for piece in self.loaded]) for name in ("starts", "counts", "helds")
        )
        order = self.room[: int(counts.sum())]
        key = self.plan.key(self.chunk.epoch, self.chunk.number, stream=1)
        merge(counts, key, self.shuffled, order, *np.empty((2, N_BUCKETS + 1), np.int64))
        return Filled(self.chunk, self.block, starts, counts, helds, order, self.loaded, self.recipe.layout, self.room, waited)

    def _check_tails(self) -> None:
        """Refuse a chunk whose texts and lists are so much longer than in the first look that the budget would not hold."""
        rows = max(self.plan.chunk_rows, 1)
        held = sum(pool.nbytes for piece in self.loaded for pool in piece.pools)
        if held > max(TAIL_FLOOR, rows * self.recipe.layout.tail_bytes):
            raise BudgetError(
                f"epoch {self.chunk.epoch}, chunk {self.chunk.number}: its texts and lists take {held / 1e6:,.0f} MB, far more "
                f"per row than those of the first look; start anew with --chunk-rows {max(1, rows // 4)}, or more --memory"
            )


def read_chunk(recipe: Recipe, plan: Plan, chunk: Chunk, block: Block, room: np.ndarray) -> Filled:
    """Read one chunk in the calling thread, into a block with room for its order, int32 (n_rows,).

    Raises
    ------
    DataError
        A piece cannot be read.

    """
    job = _Job(recipe, plan, chunk, block, room)
    job.work()
    return job.finish(0.0)


class Stream:
    """Blocks of a plan in order."""

    def __init__(self, recipe: Recipe, plan: Plan, executor: Executor, *, n_blocks: int = 2) -> None:
        self.recipe, self.plan, self.executor = recipe, plan, executor
        self._free: list[tuple[Block, np.ndarray]] = []
        self._unmade = n_blocks
        self._waiting: Iterator[Chunk] = iter(())
        self._running: list[tuple[_Job, list[Any]]] = []
        self.deadline = DEADLINE

    def chunks(self, epoch: int = 0, number: int = 0, epochs: int = 1, *, kept: bool = False) -> Generator[Filled]:
        """Yield every chunk from a position on; a block is reused once the next chunk is asked for.

        Parameters
        ----------
        epoch, number, epochs
            Where to begin, and the epoch to end before.
        kept
            Whether blocks are instead reused once they are given back; the next chunk must not be asked for while all are out.

        Raises
        ------
        DataError
            A piece cannot be read or does not arrive before the deadline.

        """
        self._waiting = (chunk for e in range(epoch, epochs) for chunk in self.plan.chunks(e, number if e == epoch else 0))
        running: list[tuple[_Job, list[Any]]] = []
        self._running = running
        try:
            self._start()
            while running:
                job, results = running[0]
                filled = self._wait(job, results)
                if kept:
                    running.pop(0)
                    yield filled
                else:
                    yield filled
                    running.pop(0)
                    self._free.append((job.block, job.room))
                self._start()
        finally:
            for job, _results in running:
                job.cancelled = True
            until = time.monotonic() + min(GRACE, self.deadline)
            self._free += [(job.block, job.room) for job, results in running if _ended(results, until)]
            running.clear()
            self._waiting = iter(())  # it knows this object, which would keep files open until the collector comes by

    def give_back(self, filled: Filled) -> None:
        """Take a kept block back, and read the next chunk into it."""
        self._free.append((filled.block, filled.room))
        self._start()

    def _start(self) -> None:
        while (self._free or self._unmade) and (chunk := next(self._waiting, None)) is not None:
            job = _Job(self.recipe, self.plan, chunk, *self._room())
            name = f"streamsgd-read-epoch{chunk.epoch}-chunk{chunk.number}"
            n_tasks = min(self.executor.n_workers, len(chunk.pieces))
            self._running.append((job, [self.executor.submit(job.work, name) for _ in range(n_tasks)]))

    def _room(self) -> tuple[Block, np.ndarray]:
        """Return a free block and its order, made when first needed: the first one is being filled while the next is made."""
        if self._free:
            return self._free.pop()
        self._unmade -= 1
        most = min(self.plan.chunk_rows, self.plan.n_rows)
        return self.recipe.allocate(most), np.empty(most, np.int32)

    def _wait(self, job: _Job, results: list[Any]) -> Filled:
        began = time.perf_counter()
        for result in results:
            try:
                result.result(self.deadline)
            except TimeoutError:
                late = next(p for p, loaded in zip(job.chunk.pieces, job.loaded, strict=True) if loaded is None)
                raise DataError(
                    f"{self.recipe.reader.where(late)} did not arrive within {self.deadline:.0f} s; "
                    "check the storage, then resume"
                ) from None
        return job.finish(time.perf_counter() - began)


def _ended(results: list[Any], until: float) -> bool:
    """Wait for tasks, and say whether they all ended: only then may their block be used again."""
    try:
        for result in results:
            result.result(max(0.0, until - time.monotonic()))
    except TimeoutError:
        return False
    return True
