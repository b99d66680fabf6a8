"""The stream: chunks of the plan as blocks, in order, the next one read while this one trains.

Two blocks are allocated once and take turns. Each chunk's pieces are claimed one after another by as many tasks as there
are workers, so a slow piece holds up nobody else and a task is long enough (about a chunk's share of a worker) for the
scheduler's milliseconds not to matter. Where a row lands depends on the plan alone, never on who read it when.
"""

from __future__ import annotations

import itertools
import time
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.compute.deadlines import DEADLINE
from streamsgd.errors import BudgetError, DataError
from streamsgd.kernels.encode.shuffle import N_BUCKETS, merge
from streamsgd.planning.budget import tile_rows
from streamsgd.planning.chunks import Plan, make_plan
from streamsgd.planning.samplers import Sequential, has_strata, replaces
from streamsgd.stream.chunk import DRAWN_ROWS, LoadedChunk
from streamsgd.stream.strata import stratify

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from streamsgd.compute.executors import Executor
    from streamsgd.features.layout import Layout
    from streamsgd.kernels.structs.block import Block
    from streamsgd.planning.chunks import Chunk
    from streamsgd.stream.loader import Loader


MOST_SEQUENTIAL = 1 << 18
"""Rows of a block in the order of the data: what is kept of each beside it (ids, scores, values of `--by`) is none of
its bytes, and more rows at a time are no faster."""


def sequential_plan(recipe: Loader, block_bytes: int) -> Plan:
    """Return the plan of the whole data set in its own order, in blocks of about so many bytes."""
    recipe.tile_rows = tile_rows(recipe.row_bytes)
    # Of a large row group two slices: more cost more, for who reads one decodes what is before it.
    most = max(MOST_SEQUENTIAL, -(-int(recipe.dataset.rows.max(initial=0)) // 2))
    return make_plan(
        recipe.dataset.rows,
        recipe.dataset.file,
        row_bytes=recipe.row_bytes,
        chunk_rows=max(1, min(most, block_bytes // recipe.row_bytes)),
        tile_rows=recipe.tile_rows,
        sampler=Sequential(),  # type: ignore[call-arg]
        seed=0,
    )


def sequential_stream(recipe: Loader, executor: Executor, block_bytes: int) -> Stream:
    """Return a stream of the whole data set in its own order, in blocks of about so many bytes."""
    return Stream(recipe, sequential_plan(recipe, block_bytes), executor)


TAIL_FLOOR = 32 << 20
"""Bytes of texts and lists that any chunk may hold."""

GRACE = 60.0
"""Seconds that a stream that ends early waits for reads under way; one that hangs is left to its thread."""


class _Read:
    """One chunk being read into one block."""

    def __init__(self, recipe: Loader, plan: Plan, chunk: Chunk, block: Block, order: np.ndarray) -> None:
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

    def finish(self, waited: float) -> LoadedChunk:
        """Raise the first error in the order of the plan, or return the chunk."""
        for loaded in self.loaded:
            if isinstance(loaded, Exception):
                self.loaded = []  # an error that is kept where it was raised would keep the block with it
                try:
                    raise loaded
                finally:
                    del loaded
        self._check_account()
        self._check_tails()
        return ordered(self.plan, self.chunk, (self.block, self.room), self.loaded, self.recipe.layout, waited=waited)

    def _check_account(self) -> None:
        """Make sure that every row of a piece is to be learned, held out, filtered, of no known class, or left out on purpose.

        Raises
        ------
        AssertionError
            One is not, which is a bug.

        """
        for piece, loaded in zip(self.chunk.pieces, self.loaded, strict=True):
            found = int(loaded.counts.sum()) + int(loaded.helds.sum()) + loaded.filtered + loaded.skipped + loaded.unseen
            if found != piece.rows:
                raise AssertionError(f"{self.recipe.dataset.source.where(piece)}: {piece.rows:,} rows, {found:,} accounted for")

    def _check_tails(self) -> None:
        """Refuse a chunk whose texts and lists are so much longer than in the first look that the budget would not hold."""
        rows = max(self.plan.chunk_rows, 1)
        held = sum(pool.nbytes for piece in self.loaded for pool in piece.pools)
        if held > max(TAIL_FLOOR, rows * self.recipe.tail_bytes):
            raise BudgetError(
                f"epoch {self.chunk.epoch}, chunk {self.chunk.number}: its texts and lists take {held / 1e6:,.0f} MB, far more "
                f"per row than those of the first look; give more --memory, or train with chunk_rows={max(1, rows // 4)}"
            )


def ordered(
    plan: Plan, chunk: Chunk, room: tuple[Block, np.ndarray], loaded: list[Any], layout: Layout, *, waited: float
) -> LoadedChunk:
    """Return a chunk whose pieces are loaded, in the order in which its rows are to be learned.

    Parameters
    ----------
    plan, chunk
        Of which the order follows.
    room
        The block that holds the rows, and where their order is written, int32.
    loaded
        The pieces.
    layout
        Of the block.
    waited
        Seconds that were waited for it.

    """
    starts, counts, helds = (
        np.concatenate([getattr(piece, name) for piece in loaded]) for name in ("starts", "counts", "helds")
    )
    order, strata = room[1][: int(counts.sum())], plan.sampler if has_strata(plan.sampler) else None
    drawn, key = replaces(plan.sampler) or strata is not None, plan.key(chunk.epoch, chunk.number, stream=1)
    if strata is not None:
        order = stratify(room[0], starts, counts, key, share=strata.share, batch=strata.batch)
    elif drawn:
        draw(starts, counts, key, order)
    else:
        merge(counts, key, bool(plan.sampler.mixes_rows), order, *np.empty((2, N_BUCKETS + 1), np.int64))
    return LoadedChunk(chunk, room[0], starts, counts, helds, order, loaded, layout, room[1], waited, drawn)


def draw(starts: np.ndarray, counts: np.ndarray, key: np.uint64, order: np.ndarray) -> None:
    """Fill `order`, int32, with rows of tiles drawn with replacement."""
    generator, ends = np.random.Generator(np.random.PCG64(np.random.SeedSequence(int(key)))), np.cumsum(counts)
    for at in range(0, len(order), DRAWN_ROWS):
        numbers = generator.integers(0, len(order), min(DRAWN_ROWS, len(order) - at))
        tile = np.searchsorted(ends, numbers, side="right")
        order[at : at + len(numbers)] = starts[tile] + numbers - (ends - counts)[tile]


def read_chunk(recipe: Loader, plan: Plan, chunk: Chunk, block: Block, room: np.ndarray) -> LoadedChunk:
    """Read one chunk in the calling thread, into a block with room for its order, int32 (n_rows,).

    Raises
    ------
    DataError
        A piece cannot be read.

    """
    job = _Read(recipe, plan, chunk, block, room)
    job.work()
    return job.finish(0.0)


class Stream:
    """Blocks of a plan in order."""

    def __init__(self, recipe: Loader, plan: Plan, executor: Executor, *, n_blocks: int = 2) -> None:
        self.recipe, self.plan, self.executor = recipe, plan, executor
        self._free: list[tuple[Block, np.ndarray]] = []
        self._order = plan
        self._unmade = n_blocks
        self._waiting: Iterator[Chunk] = iter(())
        self._running: list[tuple[_Read, list[Any]]] = []
        self.deadline = DEADLINE

    def chunks(
        self,
        epoch: int = 0,
        number: int = 0,
        epochs: int = 1,
        *,
        kept: bool = False,
        plan: Plan | None = None,
        most: int | None = None,
    ) -> Generator[LoadedChunk]:
        """Yield every chunk from a position on; a block is reused once the next chunk is asked for.

        Parameters
        ----------
        epoch, number, epochs
            Where to begin, and the epoch to end before.
        kept
            Whether blocks are instead reused once they are given back; the next chunk must not be asked for while all are out.
        plan
            The stream's own, or one of the same chunks in another order.
        most
            Chunks to yield, at most; None for all.

        Raises
        ------
        DataError
            A piece cannot be read or does not arrive before the deadline.

        """
        self._order = plan = plan or self.plan
        chunks = (chunk for e in range(epoch, epochs) for chunk in plan.chunks(e, number if e == epoch else 0))
        self._waiting = itertools.islice(chunks, most)
        running: list[tuple[_Read, list[Any]]] = []
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

    def give_back(self, filled: LoadedChunk) -> None:
        """Take a kept block back, and read the next chunk into it."""
        self._free.append((filled.block, filled.room))
        self._start()

    def close(self) -> None:
        """Let go of all blocks; nothing can be read any more."""
        self._free.clear()
        self._unmade = 0

    def _start(self) -> None:
        while (self._free or self._unmade) and (chunk := next(self._waiting, None)) is not None:
            job = _Read(self.recipe, self._order, chunk, *self._room())
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

    def _wait(self, job: _Read, results: list[Any]) -> LoadedChunk:
        began = time.perf_counter()
        for result in results:
            try:
                result.result(self.deadline)
            except TimeoutError:
                late = next(p for p, loaded in zip(job.chunk.pieces, job.loaded, strict=True) if loaded is None)
                raise DataError(
                    f"{self.recipe.dataset.source.where(late)} did not arrive within {self.deadline:.0f} s; "
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
