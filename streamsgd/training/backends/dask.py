"""A crew of Dask workers: lanes are given out, what is late or lost is done again, and what was learned comes back.

A lane's task carries numbers, the common model travels to the workers once per round, what lanes gained is added up from worker
to worker, and the total comes back. A task is a pure function, so that one that was lost is merely done again and one that is
late is done twice, and the bits are those of `crews.Threads`.
"""

from __future__ import annotations

import logging
import pickle
import threading
import time
import uuid
import warnings
from collections import defaultdict
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from streamsgd.errors import ClusterError
from streamsgd.planning.budget import slots_per_worker
from streamsgd.planning.chunks import row_groups
from streamsgd.planning.tree import FAN
from streamsgd.training.backends.base import WorkerStats
from streamsgd.training.backends.poison import DEATHS, ROUNDS_OF_PROBES, find_poison, leave_out
from streamsgd.training.backends.pool import ANSWER, PAUSE, Assignment, WorkerPool
from streamsgd.training.backends.worker import (
    SharedTask,
    fed,
    forget,
    join_on_worker,
    lead_on_worker,
    learn_on_worker,
    pass_on,
    prepare_worker,
    share_on_worker,
    step_on_worker,
)
from streamsgd.training.job import IN_ORDER

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.planning.stragglers import Straggler
    from streamsgd.training.backends.pool import Worker
    from streamsgd.training.backends.worker import Place
    from streamsgd.training.job import Job
    from streamsgd.training.learner import Learner
    from streamsgd.training.tasks.base import ChunkReport
    from streamsgd.training.tasks.gradient import Gradient, Step
    from streamsgd.training.tasks.merge import Delta
    from streamsgd.training.tasks.objective import ObjectiveRequest, ObjectiveSums

log = logging.getLogger("streamsgd")


DEADLINE = 1800.0
"""Seconds without any task ending after which a run gives up rather than hang."""

FAREWELL = 5.0
"""Seconds that workers have to forget a run."""

DIRECT = 1 << 20
"""Bytes of a common model up to which it travels inside the tasks ..."""

SMALL_JOB = 1 << 16
"""... and of a packed job, which it does with every task; larger ones are sent once, and workers have them from each other."""

LOST = (OSError, TimeoutError, CancelledError)
"""How distributed says that something did not get through; of the last one it has a class of its own, derived from this."""

ATTEMPTS = 100
"""Times that what was lost is done again, before the cluster is called broken."""

COPIES = 3
"""Workers that do the same late lane."""

VERBS: dict[Any, str] = {
    lead_on_worker: "lead",
    learn_on_worker: "learn",
    step_on_worker: "step",
    share_on_worker: "polish",
}
"""What tasks are called."""


@dataclass(eq=False)
class Lane:
    """One lane of the round that is under way."""

    number: int
    place: Place
    rows: int
    tasks: list[Assignment] = field(default_factory=list)
    inputs: tuple[Any, ...] = ()
    """Partitions that it waits for."""
    tries: int = 0
    deaths: int = 0
    """Of workers that did it, since it was last acquitted."""
    acquitted: int = 0


@dataclass
class Round:
    """The lanes of a round: waiting, running, suspected of killing workers, done."""

    task: Callable[..., Any]
    packed: SharedTask
    more: tuple[Any, ...]
    """What else the tasks are told."""
    waiting: list[Lane]
    places: frozenset[Place]
    nexts: list[Place]
    """What the next round will probably ask for."""
    common: Any = None
    """The common model, or where it is ..."""
    sent_to: set[str] | None = None
    """... and to whom it was sent, if not to any."""
    running: list[Lane] = field(default_factory=list)
    suspected: list[Lane] = field(default_factory=list)
    done: dict[int, tuple[Lane, Assignment]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    began: float = field(default_factory=time.monotonic)

    @property
    def missing(self) -> list[Lane]:
        """Lanes that are not done."""
        return [*self.waiting, *self.running, *self.suspected]


def is_lost(future: Any) -> bool:
    """Say whether something was not sent, or was and is lost."""
    return future is None or future.status not in ("pending", "finished")


class Cluster:
    """Lanes on the workers of a Dask cluster.

    Parameters
    ----------
    job
        As prepared; sent to the workers once.
    client
        Of distributed; nothing of it is changed.
    straggler
        What is done about a lane that is late.

    """

    def __init__(self, job: Job, client: Any, straggler: Straggler) -> None:
        self.job, self.client, self.straggler = job, client, straggler
        self.work: dict[str, WorkerStats] = defaultdict(WorkerStats)
        self.run = ""
        self._runs: list[str] = []
        self._tokens = 0
        self._bell = threading.Event()
        """Rings when any task has ended."""
        self.force = WorkerPool(client, slots_per_worker(job.budget), self._greet, self._prepare)
        self._reserved: dict[str, Place] = {}
        self._feed = job.recipe.dataset.source.feed(job.recipe.columns, client)
        self._coming: dict[Place, tuple[Any, ...]] = {}
        """Partitions of chunks that come next, which are computed meanwhile."""
        self._packed_job = b""
        self._job: Any = None
        self._sent_to: set[str] | None = None
        """The workers that may have what is sent to any; None for all."""

    # --- what a run asks for

    def begin(self, epoch: int, chunk: int) -> None:  # noqa: ARG002  workers need no cursor
        """Make sure that there is somebody."""
        self.rename()
        self.wait(lambda: bool(self.force.fit), "a worker that can be used")

    def lead(self, learner: Learner, epoch: int, chunk: int) -> list[ChunkReport]:
        """Let one worker go on with the learner."""
        packed, brought = self._round(learner.packed(), epoch, chunk, 1, lead_on_worker)
        learner.restore(packed)
        return list(brought)

    def round(self, learner: Learner, epoch: int, chunk: int, n: int) -> tuple[Delta | None, list[ChunkReport]]:
        """Let n lanes learn a chunk each; those that the straggler policy gives up are not among what is brought."""
        found: tuple[Delta | None, list[ChunkReport]] = self._round(learner.packed(), epoch, chunk, n, learn_on_worker)
        return found

    def step(self, learner: Learner, at: Step) -> tuple[Gradient | None, list[ChunkReport]]:
        """Let lanes add up the gradient of a step."""
        found: tuple[Gradient | None, list[ChunkReport]] = self._round(
            learner.packed(), at.epoch, at.chunk, at.lanes, step_on_worker, at
        )
        return found

    def share(self, wanted: ObjectiveRequest, chunk: int, n: int) -> tuple[ObjectiveSums, list[ChunkReport]]:
        """Add up n chunks of a pass of polishing; nobody who is late is given up, for the gradient is to be exact."""
        patient, self.straggler = self.straggler, replace(self.straggler, drop=0, deadline=None)
        try:
            found: tuple[ObjectiveSums, list[ChunkReport]] = self._round(wanted, IN_ORDER, chunk, n, share_on_worker)
        finally:
            self.straggler = patient
        return found

    def close(self) -> None:
        """Let the workers forget the run."""
        self._coming.clear()
        try:
            told = [self.submit(forget, worker, run) for run in self._runs for worker in self.force.able]
            until = time.monotonic() + FAREWELL
            while any(future.status == "pending" for future in told) and time.monotonic() < until:
                self._bell.wait(0.1 * PAUSE)
        except Exception as error:  # noqa: BLE001  a cluster that is gone has nothing left to forget
            log.debug("the workers were not told that the run is over: %s", error)
        self._job = None
        self.force.workers.clear()

    # --- a round

    def _round(self, packed: Any, epoch: int, chunk: int, n: int, task: Callable[..., Any], *more: Any) -> Any:
        n_chunks = self.job.plan_at(epoch).n_chunks(max(epoch, 0))
        lanes = [Lane(k, (epoch, chunk + k), self.job.chunk_at((epoch, chunk + k)).rows) for k in range(n)]
        nexts = [(epoch, chunk + n + k) for k in range(n) if chunk + n + k < n_chunks]
        now = Round(task, SharedTask(packed), more, lanes, frozenset(lane.place for lane in lanes), nexts)
        for _ in range(ATTEMPTS):
            self._work_off(now)
            found = self._joined(now)
            if found is not None:
                self.force.end_round(now.used)
                return self._accounted(found)
        raise ClusterError(f"epoch {epoch}, chunk {chunk}: what the workers learned was lost {ATTEMPTS} times on its way here")

    def _work_off(self, now: Round) -> None:
        """Give lanes out until enough are done."""
        last = time.monotonic()
        while now.missing:
            self._look(now)
            if now.suspected and not now.running and not now.waiting:
                self._try_suspects(now)
            self._hand_out(now)
            if self._collect(now):
                last = time.monotonic()
            elif time.monotonic() - last > DEADLINE:
                where = self.where(now.missing[0])
                raise ClusterError(f"{where} did not come back within {DEADLINE:.0f} s; look at the workers, then resume")
            # What is not given out is not late, but the cluster small.
            late = len(now.running) + len(now.suspected)
            seconds = time.monotonic() - now.began
            if self.straggler.is_enough(len(now.done), late, seconds, waiting=len(now.waiting)):
                break
            self._do_again(now)
        # What still runs goes on to hold its worker's thread, and nobody waits for it.
        now.running.clear()
        now.waiting.clear()
        now.suspected.clear()

    def _look(self, now: Round) -> None:
        """See who has gone, and what was lost with them."""
        gone = self.force.look()
        for worker in gone:
            self._reserved.pop(worker, None)
        for lane in list(now.running):
            for task in [task for task in lane.tasks if task.worker in gone]:
                self._lost(lane, task, now, killed=True)
        if self._sent_to is not None and not self._sent_to & self.force.able:
            for one in list(now.running):
                for task in list(one.tasks):
                    self._lost(one, task, now, killed=False)  # the job cannot reach them any more
        for lane, task in list(now.done.values()):
            if task.worker in gone:
                del now.done[lane.number]
                now.waiting.append(lane)

    def _hand_out(self, now: Round) -> None:
        """Give free hands lanes: the one whose chunk a worker has read ahead, if there is one."""
        while now.waiting and (worker := self.force.choose([lane.rows for lane in now.waiting])) is not None:
            now.common = self._shared(now)
            if worker.address not in self.force.workers:
                continue  # it has gone meanwhile
            mine = self._reserved.pop(worker.address, None)
            lane = next((one for one in now.waiting if one.place == mine), None)
            lane = lane or next((one for one in now.waiting if one.place not in self._reserved.values()), now.waiting[0])
            now.waiting.remove(lane)
            now.running.append(lane)
            self._submit(lane, worker, now)

    def _submit(self, lane: Lane, worker: Worker, now: Round) -> None:
        lane.tries += 1
        if lane.tries > ATTEMPTS:
            raise ClusterError(f"{self.where(lane)}: lost {lane.tries - 1} times; look at the logs of the workers")
        if not lane.deaths:  # what is read ahead may be what killed
            self._reserve(worker, now)
        ahead = None if lane.deaths else self._reserved.get(worker.address)
        name = f"{VERBS.get(now.task, 'lane')}-epoch{lane.place[0]}-chunk{lane.place[1]}"
        lane.inputs = lane.inputs or self._coming.pop(lane.place, ()) or self._inputs(lane.place)
        if now.task is step_on_worker:  # more steps will come for its chunk
            self._coming[lane.place] = lane.inputs
        args = (self.run, self.shipped_job(), now.common, lane.place, ahead, *now.more, *lane.inputs)
        future = self.submit(fed, worker.address, now.task, len(lane.inputs), *args, name=name)
        task = Assignment(future, worker.address, lane.rows)
        lane.tasks.append(task)
        self.force.began(task)
        now.used.add(worker.address)

    def _reserve(self, worker: Worker, now: Round) -> None:
        taken = set(self._reserved.values())
        places = [lane.place for lane in now.waiting if not lane.deaths] + now.nexts
        if (place := next((place for place in places if place not in taken), None)) is not None:
            self._reserved[worker.address] = place
            if not self._feed.gives:
                return
            wanted = [*self._reserved.values(), *(place for place in self._coming if place in now.places)]
            self._coming = {one: self._coming.get(one) or self._inputs(one) for one in wanted}

    def _inputs(self, place: Place) -> tuple[Any, ...]:
        if not self._feed.gives:
            return ()
        return self._feed.inputs(row_groups(self.job.chunk_at(place).pieces))

    def _collect(self, now: Round) -> bool:
        """Wait a little for any task to end; take what has ended."""
        self.pause()
        ended = False
        for lane in list(now.running):
            for task in list(lane.tasks):
                status = task.future.status
                if status == "pending":
                    continue
                ended = True
                if status != "finished":
                    self._mend(lane, task, now)
                    continue
                self.force.note(task)
                self.force.ended(task)
                self.work[task.worker].seconds += time.monotonic() - task.since
                now.done[lane.number] = lane, task
                now.running.remove(lane)
                lane.tasks.clear()  # which the workforce still knows
                lane.inputs = ()
                break
        return ended

    def _mend(self, lane: Lane, task: Assignment, now: Round) -> None:
        """See to a task that will not end: its inputs or its workers were lost."""
        from distributed import KilledWorker  # noqa: PLC0415

        error = task.future.exception(timeout=ANSWER) if task.future.status == "error" else None
        sent_failed = self._job is not None and self._job.status == "error"
        sent_failed |= now.common is not now.packed and now.common.status == "error"
        if error is not None and (blamed := self._feed.blame(lane.inputs)) is not None:
            raise blamed
        if error is not None and not sent_failed and not isinstance(error, (KilledWorker, *LOST)):
            raise ClusterError(
                f"{self.where(lane)}: the worker failed before it began: {type(error).__name__}: {error}"
            ) from error
        self._lost(lane, task, now, killed=isinstance(error, KilledWorker) and not sent_failed)

    def _lost(self, lane: Lane, task: Assignment, now: Round, *, killed: bool) -> None:
        """Let a lane be done again, or suspect it."""
        self.force.ended(task)
        lane.tasks.remove(task)
        lane.deaths += killed
        if lane.tasks:
            return
        now.running.remove(lane)
        if lane.deaths < DEATHS:
            now.waiting.insert(0, lane)
        else:
            now.suspected.append(lane)

    def _do_again(self, now: Round) -> None:
        """Let idle workers do what is late elsewhere as well; the first answer counts."""
        if not self.straggler.again or not (usual := self.force.usual):
            return
        clock = time.monotonic()
        for lane in now.running:
            passed = clock - lane.tasks[-1].since
            if len(lane.tasks) >= COPIES or passed < max(self.straggler.times * usual * lane.rows, PAUSE):
                continue
            busy = {task.worker for task in lane.tasks}
            idle = [worker for worker in self.force.free if worker.address not in busy]
            idle = [worker for worker in idle if worker.slowness(usual, clock) * lane.rows < passed]
            if idle:
                worker = min(idle, key=lambda worker: worker.slowness(usual, clock))
                self._submit(lane, worker, now)
                self.work[worker.address].again += 1
                log.info("%s is late and is done again by %s", self.where(lane), worker.address)

    # --- suspects

    def _try_suspects(self, now: Round) -> None:
        """Find out whether a chunk kills those who read it, or was with workers that others killed."""
        for lane in now.suspected:
            if lane.inputs:
                raise ClusterError(f"{self.where(lane)} lost its worker {lane.deaths} times; look at the logs of the workers")
            log.warning("%s lost its worker %d times; its pieces are tried one by one", self.where(lane), lane.deaths)
            killers = find_poison(self, lane.place, lambda: self._shared(now))
            if killers:
                leave_out(self.job, killers)
                self.rename()
            elif lane.acquitted == ROUNDS_OF_PROBES:
                raise ClusterError(
                    f"{self.where(lane)} lost its worker {DEATHS * (lane.acquitted + 1)} times, though each of its pieces "
                    "alone does no harm: are the workers out of memory? Lower --memory, or look at their logs"
                )
            lane.deaths, lane.acquitted = 0, lane.acquitted + 1
        now.waiting, now.suspected = now.suspected, []

    # --- what comes back

    def _joined(self, now: Round) -> Any:
        """Add up along the tree and fetch the total, or None if some of it was lost, which then waits to be done again."""
        if not now.done:
            return None, []
        found = [now.done[number] for number in sorted(now.done)]
        holders = sorted({task.worker for _lane, task in found})
        futures = kept = [task.future for _lane, task in found]
        while len(futures) > 1:
            some = [futures[k : k + FAN] for k in range(0, len(futures), FAN)]
            futures = [self.submit(join_on_worker, holders, group, name="join") for group in some]
            kept = [*kept, *futures]
        until = time.monotonic() + DEADLINE
        while time.monotonic() < until:
            self._look(now)
            if now.waiting:
                log.info("%d lanes were lost with their workers before they were added up", len(now.waiting))
                return None
            if futures[0].status == "finished":
                try:
                    total, error = futures[0].result(timeout=ANSWER)
                except LOST as lost:
                    log.debug("the total did not arrive: %s", lost)
                    continue
                if error is not None:
                    raise error
                return total
            if futures[0].status != "pending":
                break
            self.pause()
        log.warning("what the lanes learned was lost on its way (%s); they learn it again", futures[0].status)
        now.waiting = [lane for lane, _task in found]
        now.done.clear()
        return None

    def _accounted(self, found: Any) -> Any:
        value, brought = found
        for one in brought:
            work = self.work[one.worker]
            work.rows += one.rows
            work.lanes += 1
            work.open, work.decode = work.open + one.spent.open, work.decode + one.spent.decode
            work.encode, work.fit = work.encode + one.spent.encode, work.fit + one.fit_seconds
            work.bytes_read, work.bytes_sent = work.bytes_read + one.spent.bytes, work.bytes_sent + one.bytes_sent
        return value, brought

    # --- what travels

    def submit(self, function: Callable[..., Any], workers: str | list[str] | None, *args: Any, name: str = "") -> Any:
        """Give a task to one worker, any of some, or any; the bell rings when it has ended."""
        self._tokens += 1
        key = f"streamsgd-{name or function.__name__.partition('_')[0]}-{self.run}-{self._tokens}"
        chosen = [workers] if isinstance(workers, str) else workers
        future = self.client.submit(function, *args, key=key, workers=chosen, pure=False)
        # Not distributed.wait, which knows the default client only.
        future.add_done_callback(lambda _future: self._bell.set())
        return future

    def _greet(self, worker: str) -> Any:
        # By name: a worker that has no such function would choke on the function itself, and drop its connection.
        return self.submit(resolve_name, worker, "streamsgd.training.backends.worker:prepare_worker", name="greet")

    def _prepare(self, worker: str) -> Any:
        return self.submit(prepare_worker, worker, self.run, self.shipped_job())

    def rename(self) -> None:
        """Let the job be sent anew, as another run's: it has changed, and workers keep it by name."""
        self.run = uuid.uuid4().hex[:12]
        self._runs.append(self.run)
        self._packed_job, self._job = pickle.dumps(self.job), None

    def shipped_job(self) -> Any:
        """Return the job, packed, or where it is, sent again if it was lost."""
        if len(self._packed_job) <= SMALL_JOB:
            return self._packed_job
        if is_lost(self._job) or (self._sent_to is not None and not self._sent_to & self.force.able):
            # To any worker, unless some cannot load it.
            some_cannot = any(worker.refused for worker in self.force.workers.values())
            self._sent_to = self.force.able if some_cannot else None
            self._job = self._send("job", pickle.loads, self._packed_job)
        return self._job

    def _shared(self, now: Round) -> Any:
        """Return the common model, or where it is, sent again if it was lost."""
        if now.packed.packed.nbytes <= DIRECT:
            return now.packed
        if is_lost(now.common) or now.sent_to != self._sent_to:
            now.common, now.sent_to = self._send("model", pass_on, now.packed), self._sent_to
        return now.common

    def _send(self, name: str, function: Callable[..., Any], value: Any) -> Any:
        """Have some worker make something of a value that is large; if it dies Dask has another one do it."""
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UserWarning
            )  # of large graphs, as Dask calls it: it is sent once, not with each task
            return self.submit(function, sorted(self._sent_to) if self._sent_to else None, value, name=name)

    def wait(self, ready: Callable[[], bool], what: str) -> None:
        """Wait until something is so.

        Raises
        ------
        ClusterError
            It is not within `DEADLINE`.

        """
        until = time.monotonic() + DEADLINE
        self.force.look()
        while not ready():
            if time.monotonic() > until:
                raise ClusterError(f"{what} did not come within {DEADLINE:.0f} s")
            self.pause()
            self.force.look()

    def pause(self) -> None:
        """Wait a little for any task to end."""
        self._bell.wait(PAUSE)
        self._bell.clear()

    def where(self, lane: Lane) -> str:
        """Name a lane's chunk."""
        chunk = self.job.chunk_at(lane.place)
        first = self.job.recipe.dataset.source.where(chunk.pieces[0])
        return f"epoch {chunk.epoch}, chunk {chunk.number} (which begins with {first})"
