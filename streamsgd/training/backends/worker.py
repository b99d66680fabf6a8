"""What a worker of a cluster does and keeps between tasks: blocks, readers, and the chunk that it reads ahead.

A task is a pure function of the job, the common model and the numbers of a chunk; what is kept saves time and changes nothing.
"""

from __future__ import annotations

import pickle
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.compute.context import versions, worker_address
from streamsgd.compute.executors import outcome
from streamsgd.kernels.learn.fit import fit
from streamsgd.kernels.structs.block import new_scratch
from streamsgd.kernels.structs.step import StepContext
from streamsgd.planning.budget import slots_per_worker
from streamsgd.planning.chunks import Chunk, Plan
from streamsgd.stream.chunk import without_rows
from streamsgd.stream.stream import read_chunk
from streamsgd.training.initial import empty_state
from streamsgd.training.learner import Learner, LearnerState, model_of
from streamsgd.training.tasks.base import ChunkReport, held_metrics
from streamsgd.training.tasks.gradient import Gradient, Step, add_up, join_gradients
from streamsgd.training.tasks.learn import learn_all, learn_apart
from streamsgd.training.tasks.merge import Delta, join_deltas
from streamsgd.training.tasks.objective import ObjectiveRequest, ObjectiveSums, join_sums, objective_sums

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.kernels.structs.block import Block
    from streamsgd.planning.chunks import Piece
    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.training.job import Job


Place = tuple[int, int]
"""Epoch and number of a chunk."""

MOST_KEPT = 2
"""Runs whose workshops a process keeps."""

_WORKSHOPS: OrderedDict[str, WorkerCache] = OrderedDict()

_LOCK = threading.Lock()


class WorkerCache:
    """What one process keeps for one run.

    Parameters
    ----------
    job
        As prepared by the driver.
    hands
        Tasks that may run at a time; each has a block in use and one that is read ahead.

    """

    def __init__(self, job: Job, slots_per_worker: int) -> None:
        self.job = job
        self._hands = threading.Semaphore(slots_per_worker)
        self._free: list[tuple[Block, np.ndarray]] = []
        self._unmade = max(2 * slots_per_worker, job.budget.n_blocks if job.lanes.combine == "sync" else 0)
        self._lock = threading.Lock()
        self._ahead: OrderedDict[Place, Future[LoadedChunk]] = OrderedDict()
        self._open: OrderedDict[Place, LoadedChunk] = OrderedDict()
        """Chunks that more steps will come for; the one used longest ago first."""
        self._readers = ThreadPoolExecutor(slots_per_worker, thread_name_prefix="streamsgd-ahead")

    def work(self, place: Place, ahead: Place | None, task: Callable[[LoadedChunk], Any], *, keep: bool = False) -> Any:
        """Do something with a chunk, and begin to read the one that probably comes next; keep it as long as there is room."""
        with self._hands:
            filled = self._take(place)
            try:
                self._look_ahead(ahead)
                return task(filled)
            finally:
                if keep:
                    with self._lock:
                        self._open[place] = filled
                else:
                    self._give_back(filled)

    def probe(self, place: Place, piece: Piece, task: Callable[[LoadedChunk], Any]) -> None:
        """Do something with a chunk of this piece alone."""
        with self._hands:
            filled = self._read(self.job.plan_at(place[0]), Chunk(max(place[0], 0), place[1], (piece,)), self._room())
            try:
                task(filled)
            finally:
                self._give_back(filled)

    def _take(self, place: Place) -> LoadedChunk:
        with self._lock:
            if (known := self._open.pop(place, None)) is not None:
                return known
            coming = self._ahead.pop(place, None)
        return self._read(*self._chunk(place), self._room()) if coming is None else coming.result()

    def _chunk(self, place: Place) -> tuple[Plan, Chunk]:
        return self.job.plan_at(place[0]), self.job.chunk_at(place)

    def _look_ahead(self, place: Place | None) -> None:
        with self._lock:
            if place is None or place in self._ahead or not (self._free or self._unmade):
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

    def close(self) -> None:
        """Read no more."""
        self._readers.shutdown(wait=False, cancel_futures=True)


class SharedTask:
    """The common model of a round, as it travels; in passes of polishing, what is wanted at which weights."""

    def __init__(self, packed: Any) -> None:
        self.packed = packed
        self._shared: tuple[str, Learner] | None = None

    def learner(self, job: Job) -> Learner:
        """Return a learner of its own that goes on from here."""
        learner = Learner(job, empty_state(job))
        learner.restore(self.packed)
        return learner

    def shared(self, run: str, job: Job) -> Learner:
        """Return the learner that lanes of this process start from, which none of them changes."""
        with _LOCK:
            if self._shared is None or self._shared[0] != run:
                self._shared = run, self.learner(job)
            return self._shared[1]

    def __getstate__(self) -> Any:
        return self.packed

    def __setstate__(self, packed: Any) -> None:
        self.packed, self._shared = packed, None


def cache_of(run: str, job: Job | bytes) -> WorkerCache:
    """Return this process's workshop of a run, whose job may come packed, and forget those of old ones."""
    with _LOCK:
        if (found := _WORKSHOPS.pop(run, None)) is None:
            job = pickle.loads(job) if isinstance(job, bytes) else job  # noqa: S301  as Dask does with all it is given
            found = WorkerCache(job, slots_per_worker(job.budget))
        _WORKSHOPS[run] = found
        while len(_WORKSHOPS) > MOST_KEPT:
            _WORKSHOPS.popitem(last=False)[1].close()
    return found


def forget(run: str) -> None:
    """Drop what this process keeps for a run."""
    with _LOCK:
        found = _WORKSHOPS.pop(run, None)
    if found:
        found.close()


def fed(task: Callable[..., Any], n_tables: int, run: str, job: Job | bytes, *sent: Any) -> Any:
    """Do a lane's task with the partitions that it was sent as well, the last of its inputs, if the data is made of such."""
    source = cache_of(run, job).job.recipe.dataset.source
    last = len(sent) - n_tables
    common, place, ahead, *more = sent[:last]
    with source.lending(sent[last:]):  # of the chunk that comes next none are here yet
        return task(run, job, common, place, None if n_tables else ahead, *more)


def learn_on_worker(run: str, job: Job | bytes, common: SharedTask, place: Place, ahead: Place | None) -> Any:
    """Let a lane learn a chunk; return (gain, brought) and None, or None and the error."""
    return outcome(lambda: _learn(run, job, common, place, ahead))


def _learn(
    run: str, job: Job | bytes, common: SharedTask, place: Place, ahead: Place | None
) -> tuple[Delta, list[ChunkReport]]:
    workshop = cache_of(run, job)
    before = common.shared(run, workshop.job)
    gain, brought = workshop.work(place, ahead, lambda filled: learn_apart(before.job, before.state, filled))
    brought.worker, brought.bytes_sent = worker_address(), gain.nbytes
    return gain, [brought]


def lead_on_worker(run: str, job: Job | bytes, common: SharedTask, place: Place, ahead: Place | None) -> Any:
    """Let the one lane there is learn a chunk; return the learner packed, and what it brought."""
    return outcome(lambda: _lead(run, job, common, place, ahead))


def _lead(
    run: str, job: Job | bytes, common: SharedTask, place: Place, ahead: Place | None
) -> tuple[LearnerState, list[ChunkReport]]:
    workshop = cache_of(run, job)
    learner = common.learner(workshop.job)
    brought = workshop.work(place, ahead, lambda filled: learn_all(learner, filled))
    learner.clear_tally()
    packed = learner.packed()
    brought.worker, brought.bytes_sent = worker_address(), packed.nbytes
    return packed, [brought]


def step_on_worker(run: str, job: Job | bytes, common: SharedTask, place: Place, ahead: Place | None, at: Step) -> Any:  # noqa: PLR0917
    """Let a lane add up its share of the gradient of a step; return (gradient, brought) and None, or None and the error."""
    workshop = cache_of(run, job)
    return outcome(lambda: _step(workshop, common.shared(run, workshop.job), place, ahead, at))


def _step(workshop: WorkerCache, learner: Learner, place: Place, ahead: Place | None, at: Step) -> Any:
    gradient, brought = workshop.work(place, ahead, lambda filled: add_up(learner, filled, at.number, at.batch_rows), keep=True)
    for one in brought:
        one.worker, one.bytes_sent = worker_address(), gradient.nbytes
    return gradient, brought


def share_on_worker(run: str, job: Job | bytes, common: SharedTask, place: Place, ahead: Place | None) -> Any:
    """Add up a chunk for a pass of polishing; return (share, brought) and None, or None and the error."""
    return outcome(lambda: _share(cache_of(run, job), common.packed, place, ahead))


def _share(
    workshop: WorkerCache, wanted: ObjectiveRequest, place: Place, ahead: Place | None
) -> tuple[ObjectiveSums, list[ChunkReport]]:
    job = workshop.job

    def add(filled: LoadedChunk) -> tuple[ObjectiveSums, list[ChunkReport]]:
        began = time.perf_counter()
        share = objective_sums(job, filled, wanted)
        held = held_metrics(job, filled, lambda: model_of(job, wanted.weights.astype(job.settings.precision)))
        pieces = [without_rows(piece) for piece in filled.pieces]
        brought = ChunkReport(filled.chunk, pieces, filled.spent, held, filled.waited, rows=len(filled.order))
        brought.fit_seconds = time.perf_counter() - began
        brought.worker, brought.bytes_sent = worker_address(), share.nbytes
        return share, [brought]

    # Kept, because the next pass comes for the same chunks: where they fit they are read once.
    found: tuple[ObjectiveSums, list[ChunkReport]] = workshop.work(place, ahead, add, keep=True)
    return found


def join_on_worker(found: list[Any]) -> Any:
    """Add up what some lanes brought, in their order; the first error wins."""
    for _, error in found:
        if error is not None:
            return None, error
    values = [value for value, _ in found]
    join_two: Callable[[Any, Any], Any] = JOINS[type(values[0][0])]
    total = reduce(join_two, [value[0] for value in values])
    return (total, [one for _, brought in values for one in brought]), None


JOINS: dict[type, Callable[[Any, Any], Any]] = {Delta: join_deltas, Gradient: join_gradients, ObjectiveSums: join_sums}
"""How what lanes bring is added up."""


def pass_on(value: Any) -> Any:
    """Return the value: so that it is with a worker, and can be sent again."""
    return value


def prepare_worker(run: str, job: Job | bytes) -> Any:
    """Load the job and its kernel, which may be compiled first, before a lane waits for it; return `versions`, or an error."""
    return outcome(lambda: _prepare(run, job))


def _prepare(run: str, packed: Job | bytes) -> dict[str, str]:
    job = cache_of(run, packed).job
    learner, layout = Learner(job, empty_state(job)), job.recipe.layout
    scratch = new_scratch(job.n_outputs, job.settings.precision, layout.entries)
    pace = StepContext(learner.batch_rows, learner.n_penalised, 0.0, 0.0, float(job.epochs), *job.clips)
    nothing, heads = np.zeros(0, np.int32), np.zeros(1, np.int64)
    fit(job.parts, job.recipe.allocate(1), nothing, heads, learner.state, pace, scratch)
    return versions()


def probe_on_worker(run: str, job: Job | bytes, common: SharedTask, place: Place, piece: Piece | None) -> Any:
    """Read and learn one piece of a chunk alone, to see whether it kills; without a piece, do all but that."""
    return outcome(lambda: _probe(run, job, common, place, piece))


def _probe(run: str, job: Job | bytes, common: SharedTask, place: Place, piece: Piece | None) -> None:
    workshop = cache_of(run, job)
    wanted: Any = common.packed
    task: Callable[[LoadedChunk], Any]
    if isinstance(wanted, ObjectiveRequest):
        task = partial(objective_sums, workshop.job, wanted=wanted)
    else:
        before = common.shared(run, workshop.job)
        task = partial(learn_apart, before.job, before.state)
    if piece is not None:
        workshop.probe(place, piece, task)
