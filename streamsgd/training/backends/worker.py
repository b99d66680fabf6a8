"""What a worker of a cluster does and keeps between tasks: blocks, readers, and the chunk that it reads ahead.

A task is a pure function of the job, the common model and the numbers of a chunk; what is kept saves time and changes nothing.
"""

from __future__ import annotations

import pickle
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamsgd.compute.context import versions, worker_address, worker_memory, worker_threads
from streamsgd.compute.executors import outcome
from streamsgd.planning.budget import share_of_worker, slots_per_worker
from streamsgd.planning.chunks import Chunk, Plan
from streamsgd.stream.distilled import DistilledChunks
from streamsgd.stream.stream import read_chunk
from streamsgd.training.job import IN_ORDER
from streamsgd.training.tasks.base import ChunkReport, merge
from streamsgd.training.tasks.learn import compile_for

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from streamsgd.kernels.structs.block import Block
    from streamsgd.planning.chunks import Piece
    from streamsgd.stream.cache import RowCache
    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.training.job import Job
    from streamsgd.training.tasks.base import Place, Task

MOST_KEPT = 2
"""Runs whose caches a process keeps."""

SPILLS = 0.7
"""Share of its memory limit beyond which a Dask worker begins to spill."""

_CACHES: OrderedDict[str, WorkerCache] = OrderedDict()

_LOCK = threading.Lock()


class Order(NamedTuple):
    """What a worker is asked to do."""

    place: Place
    ahead: Place | None
    """The chunk that it will probably be given next, to be read meanwhile."""
    keep: bool
    """Whether the chunk will be asked for again."""


class WorkerCache:
    """What one process keeps for one run.

    Parameters
    ----------
    job
        As prepared by the driver.
    slots
        Tasks that may run at a time; each has a block in use and one that is read ahead.

    """

    def __init__(self, job: Job, slots: int) -> None:
        self.job = job
        n_blocks, self._distilled = 2 * slots, DistilledChunks(0)
        if job.recipe.cache is not None:
            n_blocks = self._share_with(job.recipe.cache, slots)
        elif job.distilled:
            n_blocks, most = self._share(slots, job.distilled)
            self._distilled = DistilledChunks(most)
        self._slots = threading.Semaphore(slots)
        self._free: list[tuple[Block, np.ndarray]] = []
        self._unmade = max(n_blocks, job.budget.n_blocks if job.lanes.combine == "sync" else 0)
        self._lock = threading.Lock()
        self._ahead: OrderedDict[Place, Future[LoadedChunk]] = OrderedDict()
        self._open: OrderedDict[Place, LoadedChunk] = OrderedDict()
        """Chunks that more steps will come for; the one used longest ago first."""
        self._readers = ThreadPoolExecutor(slots, thread_name_prefix="streamsgd-ahead")

    def _share_with(self, cache: RowCache, slots: int) -> int:
        """Bound what a worker keeps of encoded rows; return how many blocks that leaves."""
        n_blocks, bound = self._share(slots, cache.spec.wanted)
        cache.bound(bound)
        return n_blocks

    def _share(self, slots: int, wanted: int) -> tuple[int, int]:
        """Return how many blocks a worker may have, and how many of the bytes wanted for rows of later passes."""
        budget, threads, limit = self.job.budget, worker_threads(), worker_memory()
        most = budget.limit if limit is None else min(budget.limit, int(limit * SPILLS))
        n_blocks, bound = share_of_worker(budget, min(slots, threads or slots), most, wanted)
        return min(n_blocks, 2 * slots), bound

    def work(self, place: Place, ahead: Place | None, task: Callable[[LoadedChunk], Any], *, keep: bool = False) -> Any:
        """Do something with a chunk, and begin to read the one that probably comes next; keep it as long as there is room."""
        with self._slots:
            if (small := self._small(place)) is not None:
                return task(small)
            filled, again = self._take(place)
            try:
                self._look_ahead(ahead)
                # So that its reading is accounted for once; its pieces stay here, whose memory its rows may point to.
                return task(replace(filled, pieces=[], waited=0.0) if again else filled)
            finally:
                self._distilled.offer(filled)
                if keep:
                    with self._lock:
                        self._open[place] = filled
                else:
                    self._give_back(filled)

    def probe(self, place: Place, piece: Piece, task: Callable[[LoadedChunk], Any]) -> None:
        """Do something with a chunk of this piece alone."""
        with self._slots:
            filled = self._read(self.job.plan_at(place[0]), Chunk(max(place[0], 0), place[1], (piece,)), self._room())
            try:
                task(filled)
            finally:
                self._give_back(filled)

    def _small(self, place: Place) -> LoadedChunk | None:
        """Return what thinning left of a chunk, if it is here; the pass that thins has no use for it."""
        return self._distilled.get(place[1]) if place[0] == IN_ORDER else None

    def _take(self, place: Place) -> tuple[LoadedChunk, bool]:
        """Return a chunk, and whether it was here before."""
        with self._lock:
            if (known := self._open.pop(place, None)) is not None:
                return known, True
            coming = self._ahead.pop(place, None)
        return self._read(*self._chunk(place), self._room()) if coming is None else coming.result(), False

    def _chunk(self, place: Place) -> tuple[Plan, Chunk]:
        return self.job.plan_at(place[0]), self.job.chunk_at(place)

    def _look_ahead(self, place: Place | None) -> None:
        with self._lock:
            if place is None or place in self._ahead or self._small(place) or not (self._free or self._unmade):
                return
            self._ahead[place] = self._readers.submit(self._read, *self._chunk(place), self._spare())

    def _read(self, plan: Plan, chunk: Chunk, room: tuple[Block, np.ndarray]) -> LoadedChunk:
        try:
            return read_chunk(self.job.recipe, plan, chunk, *room)
        except BaseException:
            with self._lock:
                self._free.append(room)
            raise

    def _room(self) -> tuple[Block, np.ndarray]:
        while True:
            with self._lock:
                if self._free or self._unmade:
                    return self._spare()
                if self._open:
                    _, filled = self._open.popitem(last=False)
                    return filled.block, filled.room
                _place, coming = self._ahead.popitem(last=False)  # read in vain: another worker has that chunk
            if coming.exception() is None:
                self._give_back(coming.result())

    def _spare(self) -> tuple[Block, np.ndarray]:
        if self._free:
            return self._free.pop()
        self._unmade -= 1
        most = min(self.job.plan.chunk_rows, self.job.plan.n_rows)
        return self.job.recipe.allocate(most), np.empty(most, np.int32)

    def _give_back(self, filled: LoadedChunk) -> None:
        with self._lock:
            self._free.append((filled.block, filled.room))

    def close(self, others: Collection[WorkerCache] = ()) -> None:
        """Read no more; let go of encoded rows unless others have them too."""
        self._readers.shutdown(wait=False, cancel_futures=True)
        rows = self.job.recipe.cache
        if rows is not None and all(other.job.recipe.cache is not rows for other in others):
            rows.close()


class SharedTask:
    """The task of a round as it travels: with the state that it carries, and opened once per process."""

    def __init__(self, task: Task) -> None:
        # Without what it has of this process, where a worker may be a thread: a learner in place must not learn there.
        self.task = copy(task)
        self._opened: tuple[str, Callable[[LoadedChunk], Any]] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        return self.task.nbytes

    def opened(self, run: str, job: Job) -> Callable[[LoadedChunk], Any]:
        """Return what is called with each chunk of a run."""
        with _LOCK:
            if self._opened is None or self._opened[0] != run:
                self._opened = run, self.task.open(job)
            return self._opened[1]

    def __getstate__(self) -> Task:
        return self.task

    def __setstate__(self, task: Task) -> None:
        self.task, self._opened = task, None


def cache_of(run: str, job: Job | bytes) -> WorkerCache:
    """Return this process's cache of a run, whose job may come packed, and forget those of old ones."""
    with _LOCK:
        if (found := _CACHES.pop(run, None)) is None:
            job = pickle.loads(job) if isinstance(job, bytes) else job  # noqa: S301  as Dask does with all it is given
            found = WorkerCache(job, slots_per_worker(job.budget))
        _CACHES[run] = found
        while len(_CACHES) > MOST_KEPT:
            _CACHES.popitem(last=False)[1].close(_CACHES.values())
    return found


def forget(run: str) -> None:
    """Drop what this process keeps for a run."""
    with _LOCK:
        if found := _CACHES.pop(run, None):
            found.close(_CACHES.values())


def run_on_worker(run: str, job: Job | bytes, order: Order, n_tables: int, *sent: Any) -> Any:
    """Run the task of a round on a chunk; return (share, reports) and None, or None and the error.

    Parameters
    ----------
    run, job
        Of the driver; the job may come packed.
    order
        What to do.
    n_tables
        How many of the last of `sent` are partitions that the chunk is made of, if the data is.
    sent
        The `SharedTask`, and those partitions.

    """
    cache = cache_of(run, job)
    shared, tables = sent[0], sent[1:]
    with cache.job.recipe.dataset.source.lending(tables):
        # Of the chunk that comes next no partitions are here yet.
        ahead = None if n_tables else order.ahead
        return outcome(lambda: _run(cache, shared.opened(run, cache.job), order._replace(ahead=ahead)))


def _run(cache: WorkerCache, run_on: Callable[[LoadedChunk], Any], order: Order) -> tuple[Any, list[ChunkReport]]:
    share, report = cache.work(order.place, order.ahead, run_on, keep=order.keep)
    if report is None:
        return share, []
    report.worker, report.bytes_sent = worker_address(), share.nbytes
    return share, [report]


def merge_on_worker(found: list[Any]) -> Any:
    """Merge what some chunks brought, in their order; the first error wins."""
    for _, error in found:
        if error is not None:
            return None, error
    values = [value for value, _ in found]
    total = reduce(merge, [share for share, _ in values])
    return (total, [report for _, reports in values for report in reports]), None


def pass_on(value: Any) -> Any:
    """Return the value: so that it is with a worker, and can be sent again."""
    return value


def prepare_worker(run: str, job: Job | bytes) -> Any:
    """Load the job and its kernel, which may be compiled first, before a chunk waits for it; return `versions`, or an error."""
    return outcome(lambda: _prepare(run, job))


def _prepare(run: str, packed: Job | bytes) -> dict[str, str]:
    compile_for(cache_of(run, packed).job)
    return versions()


def probe_on_worker(run: str, job: Job | bytes, shared: SharedTask, place: Place, piece: Piece | None) -> Any:
    """Read and learn one piece of a chunk alone, to see whether it kills; without a piece, do all but that."""
    return outcome(lambda: _probe(run, job, shared, place, piece))


def _probe(run: str, job: Job | bytes, shared: SharedTask, place: Place, piece: Piece | None) -> None:
    cache = cache_of(run, job)
    run_on = shared.opened(run, cache.job)
    if piece is not None:
        cache.probe(place, piece, run_on)
