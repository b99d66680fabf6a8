"""A crew of Dask workers: who gets which lane, what is done about the slow and the dead, and what travels.

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
from collections import defaultdict
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from streamsgd.crews import Work
from streamsgd.delayed import feed_of
from streamsgd.errors import ClusterError, DataError
from streamsgd.merging import FAN
from streamsgd.planning import row_groups
from streamsgd.workshop import (
    Common,
    fed,
    forget,
    join_on_worker,
    lead_on_worker,
    learn_on_worker,
    probe_on_worker,
    step_on_worker,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.crews import Brought, Step
    from streamsgd.job import Job
    from streamsgd.learner import Learner
    from streamsgd.merging import Gain
    from streamsgd.stragglers import Straggler
    from streamsgd.syncing import Gradient
    from streamsgd.workshop import Place

log = logging.getLogger("streamsgd")

DEADLINE = 1800.0
"""Seconds without any task ending after which a run gives up rather than hang."""

NO_WORKER = 600.0
"""Seconds without any worker after which it does."""

PAUSE = 0.5
"""Seconds between looks at who is there."""

DIRECT = 1 << 20
"""Bytes of a common model up to which it travels inside the tasks."""

ATTEMPTS = 100
"""Times that what was lost is done again, before the cluster is called broken."""


VERBS: dict[Any, str] = {lead_on_worker: "lead", learn_on_worker: "learn", step_on_worker: "step"}
"""What tasks are called."""


@dataclass
class Lane:
    """One lane of the round that is under way."""

    number: int
    place: Place
    rows: int
    futures: dict[str, Any] = field(default_factory=dict)
    """By worker."""
    inputs: tuple[Any, ...] = ()
    """Partitions that it waits for."""
    since: float = 0.0
    tries: int = 0


@dataclass
class Round:
    """The lanes of a round: waiting, running, done."""

    packed: Common
    common: Any
    """The same, or where it is."""
    more: tuple[Any, ...]
    """What else the tasks are told."""
    places: frozenset[Place]
    waiting: list[Lane]
    running: dict[int, Lane] = field(default_factory=dict)
    done: dict[int, Any] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)


class Cluster:
    """Lanes on the workers of a Dask cluster.

    Parameters
    ----------
    job
        As prepared; sent to each worker once.
    client
        Of distributed; nothing of it is changed.
    straggler
        What is done about a lane that is late.

    """

    def __init__(self, job: Job, client: Any, straggler: Straggler) -> None:
        self.job, self.client, self.straggler = job, client, straggler
        self.run = uuid.uuid4().hex[:12]
        self.work: dict[str, Work] = defaultdict(Work)
        self.lost_rows = 0
        self.condemned: list[str] = []
        self._tokens = 0
        self._bell = threading.Event()
        """Rings when any task has ended."""
        self._reserved: dict[str, Place] = {}
        self._feed = feed_of(job.recipe, client)
        self._coming: dict[Place, tuple[Any, ...]] = {}
        """Partitions of chunks that come next, which are computed meanwhile."""
        self._slots: dict[str, int] = {}
        self._looked = -PAUSE
        self._seen = time.monotonic()
        self._job = client.submit(pickle.loads, pickle.dumps(job), key=f"streamsgd-job-{self.run}", pure=False)

    # --- what a run asks for

    def begin(self, epoch: int, chunk: int) -> None:  # noqa: ARG002  workers need no cursor
        """Make sure that there is somebody."""
        self._wait_for_workers()

    def lead(self, learner: Learner, epoch: int, chunk: int) -> list[Brought]:
        """Let one worker go on with the learner."""
        packed, brought = self._round(learner, epoch, chunk, 1, lead_on_worker)[0]
        learner.restore(packed)
        return list(brought)

    def round(self, learner: Learner, epoch: int, chunk: int, n: int) -> tuple[Gain | None, list[Brought]]:
        """Let n lanes learn a chunk each."""
        found, lost = self._round(learner, epoch, chunk, n, learn_on_worker)
        self.lost_rows += lost
        return found or (None, [])

    def step(self, learner: Learner, at: Step) -> tuple[Gradient | None, list[Brought]]:
        """Let lanes add up the gradient of a step."""
        found, lost = self._round(learner, at.epoch, at.chunk, at.lanes, step_on_worker, at)
        self.lost_rows += lost
        return found or (None, [])

    def close(self) -> None:
        """Let the workers forget the run."""
        del self._job
        self._coming.clear()
        try:
            self.client.run(forget, self.run, on_error="ignore")
        except Exception as error:  # noqa: BLE001  a cluster that is gone has nothing left to forget
            log.debug("the workers were not told that the run is over: %s", error)

    # --- a round

    def _round(self, learner: Learner, epoch: int, chunk: int, n: int, task: Callable[..., Any], *more: Any) -> tuple[Any, int]:
        plan = self.job.plan
        lanes = [Lane(k, (epoch, chunk + k), plan.chunk(epoch, chunk + k).rows) for k in range(n)]
        nexts = [(epoch, chunk + n + k) for k in range(n) if chunk + n + k < plan.n_chunks(epoch)]
        now = Round(Common(learner.packed()), None, more, frozenset(lane.place for lane in lanes), lanes[:])
        for _ in range(ATTEMPTS):
            now.common = self._share(now.packed)
            self._work_off(now, task, nexts)
            found = self._joined(now)
            if found is not None:
                lost = sum(lane.rows for lane in lanes if lane.number not in now.done)
                return self._accounted(found), lost
        raise ClusterError(f"epoch {epoch}, chunk {chunk}: what the workers learned was lost {ATTEMPTS} times on its way here")

    def _share(self, common: Common) -> Any:
        if common.packed.nbytes <= DIRECT:
            return common
        return self.client.scatter(common, hash=False, broadcast=False)

    def _work_off(self, now: Round, task: Callable[..., Any], nexts: list[Place]) -> None:
        """Hand out lanes until enough are done."""
        last = time.monotonic()
        while now.waiting or now.running:
            self._look()
            self._hand_out(now, task, nexts)
            if self._collect(now):
                last = time.monotonic()
            elif time.monotonic() - last > DEADLINE:
                where = self._where(next(iter(now.running.values()), None) or now.waiting[0])
                raise ClusterError(f"{where} did not come back within {DEADLINE:.0f} s; look at the workers, then resume")
            if self.straggler.is_enough(len(now.done), len(now.running) + len(now.waiting), time.monotonic() - now.began):
                break
            self._do_again(now, task)
        for lane in now.running.values():
            self._cancel(lane)
        now.running.clear()
        now.waiting.clear()

    def _hand_out(self, now: Round, task: Callable[..., Any], nexts: list[Place]) -> None:
        """Give every free hand a lane: the one whose chunk it has read ahead, if there is one."""
        for worker, hands in self._slots.items():
            while now.waiting and sum(worker in lane.futures for lane in now.running.values()) < hands:
                mine = self._reserved.pop(worker, None)
                lane = next((one for one in now.waiting if one.place == mine), None)
                lane = lane or next((one for one in now.waiting if one.place not in self._reserved.values()), now.waiting[0])
                now.waiting.remove(lane)
                self._reserve(worker, now, nexts)
                now.running[lane.number] = lane
                self._submit(lane, worker, now, task)

    def _reserve(self, worker: str, now: Round, nexts: list[Place]) -> None:
        taken = set(self._reserved.values())
        places = [lane.place for lane in now.waiting] + nexts
        if (place := next((place for place in places if place not in taken), None)) is not None:
            self._reserved[worker] = place
            wanted = [*self._reserved.values(), *(place for place in self._coming if place in now.places)]
            self._coming = {one: self._coming.get(one) or self._inputs(one) for one in wanted}

    def _inputs(self, place: Place) -> tuple[Any, ...]:
        return self._feed.inputs(row_groups(self.job.plan.chunk(*place).pieces))

    def _submit(self, lane: Lane, worker: str, now: Round, task: Callable[..., Any]) -> None:
        self._tokens += 1
        verb = VERBS.get(task, "lane")
        epoch, chunk = lane.place
        lane.since, lane.tries = time.monotonic(), lane.tries + 1
        lane.inputs = lane.inputs or self._coming.pop(lane.place, ()) or self._inputs(lane.place)
        if task is step_on_worker:  # more steps will come for its chunk
            self._coming[lane.place] = lane.inputs
        lane.futures[worker] = self.client.submit(
            fed,
            task,
            len(lane.inputs),
            self.run,
            self._job,
            now.common,
            lane.place,
            self._reserved.get(worker),
            *now.more,
            *lane.inputs,
            key=f"streamsgd-{verb}-epoch{epoch}-chunk{chunk}-{self.run}-{self._tokens}",
            workers=[worker],
            allow_other_workers=True,
            pure=False,
        )
        # Not distributed.wait, which knows the default client only.
        lane.futures[worker].add_done_callback(lambda _future: self._bell.set())

    def _collect(self, now: Round) -> bool:
        """Wait a little for any lane to end; take what has ended."""
        self._bell.wait(PAUSE)
        self._bell.clear()
        ended = False
        for lane in list(now.running.values()):
            for worker, future in list(lane.futures.items()):
                if future.status == "finished":
                    now.done[lane.number] = lane, worker, future
                    now.seconds.append(time.monotonic() - lane.since)
                    self.work[worker].seconds += now.seconds[-1]
                    del lane.futures[worker], now.running[lane.number]
                    self._cancel(lane)
                    ended = True
                    break
                if future.status != "pending":
                    self._mend(lane, worker, future, now)
                    ended = True
        return ended

    def _mend(self, lane: Lane, worker: str, future: Any, now: Round) -> None:
        """See to a task that will not end: its inputs or its workers were lost."""
        from distributed import KilledWorker  # noqa: PLC0415

        del lane.futures[worker]
        error = future.exception() if future.status == "error" else None
        if error is not None and (blamed := self._feed.blame(lane.inputs)) is not None:
            raise blamed
        if error is not None and not isinstance(error, KilledWorker):
            raise ClusterError(f"{self._where(lane)}: the worker failed before it began: {error}") from error
        if lane.tries > ATTEMPTS:
            raise ClusterError(f"{self._where(lane)}: lost {lane.tries} times; look at the logs of the workers")
        if error is not None and lane.inputs:
            raise ClusterError(
                f"{self._where(lane)}: it killed its worker three times; look at the logs of the workers"
            ) from error
        if error is not None:
            self._probe(lane)
        if not lane.futures:
            del now.running[lane.number]
            now.waiting.insert(0, lane)
            if future.status in ("cancelled", "lost"):
                now.common = self._share(now.packed)

    def _probe(self, lane: Lane) -> None:
        """Find out which piece of a chunk kills the workers that read it."""
        from distributed import KilledWorker  # noqa: PLC0415

        chunk = self.job.plan.chunk(*lane.place)
        log.warning("%s killed its worker three times; its pieces are read one by one", self._where(lane))
        for piece in chunk.pieces:
            self._tokens += 1
            key = f"streamsgd-probe-epoch{chunk.epoch}-chunk{chunk.number}-piece{piece.number}-{self.run}-{self._tokens}"
            future = self.client.submit(probe_on_worker, self.run, self._job, lane.place, piece.number, key=key, pure=False)
            try:
                future.result(timeout=DEADLINE)
            except KilledWorker:
                where = self.job.recipe.reader.where(piece)
                raise DataError(
                    f"{where}: reading it killed a worker three times, twice over; leave the file out, or look at the logs of "
                    "the workers: out of memory, or a crash of a codec"
                ) from None

    def _do_again(self, now: Round, task: Callable[..., Any]) -> None:
        """Let idle workers do what is late elsewhere as well; the first answer counts."""
        if now.waiting or not self.straggler.again or not now.seconds:
            return
        late = self.straggler.times * median(now.seconds)
        for lane in now.running.values():
            if len(lane.futures) > 1 or time.monotonic() - lane.since < max(late, PAUSE):
                continue
            busy = {worker for one in now.running.values() for worker in one.futures}
            idle = next((worker for worker in self._slots if worker not in busy), None)
            if idle is not None:
                since = lane.since
                self._submit(lane, idle, now, task)
                lane.since = since
                self.work[idle].again += 1
                log.info("%s is late and is done again by %s", self._where(lane), idle)

    def _cancel(self, lane: Lane) -> None:
        if lane.futures:
            self.client.cancel(list(lane.futures.values()), force=True)
            lane.futures.clear()
        lane.inputs = ()

    # --- what comes back

    def _joined(self, now: Round) -> Any:
        """Add up along the tree and fetch the total, or None if some of it was lost, which is then to be done again."""
        from distributed import CancelledError, KilledWorker  # noqa: PLC0415

        futures = [now.done[number][2] for number in sorted(now.done)]
        if not futures:
            return ()
        kept = futures
        while len(futures) > 1:
            futures = [
                self.client.submit(
                    join_on_worker, futures[k : k + FAN], key=f"streamsgd-join-{self.run}-{self._next()}", pure=False
                )
                for k in range(0, len(futures), FAN)
            ]
            kept = [*kept, *futures]
        try:
            found, error = futures[0].result(timeout=DEADLINE)
        except (CancelledError, KilledWorker, OSError, TimeoutError) as lost:
            log.warning("what the lanes learned was lost on its way (%s); they learn it again", lost)
            now.waiting = [lane for lane, _worker, _future in now.done.values()]
            now.done.clear()
            return None
        if error is not None:
            raise error
        return found

    def _accounted(self, found: Any) -> Any:
        if not found:
            return None
        value, brought = found
        for one in brought:
            work = self.work[one.worker]
            work.rows += one.rows
            work.lanes += 1
            work.open, work.decode = work.open + one.spent.open, work.decode + one.spent.decode
            work.encode, work.fit = work.encode + one.spent.encode, work.fit + one.fit_seconds
            work.bytes_read, work.bytes_sent = work.bytes_read + one.spent.bytes, work.bytes_sent + one.bytes_sent
        return value, brought

    # --- who is there

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked < PAUSE:
            return
        self._looked = now
        self._slots = dict(sorted(self.client.nthreads().items()))
        for worker in set(self._reserved) - set(self._slots):
            del self._reserved[worker]
        if self._slots:
            self._seen = now
        elif now - self._seen > NO_WORKER:
            raise ClusterError(
                f"no worker for {NO_WORKER:.0f} s at {self.client.scheduler.address}: start some, then the same command resumes"
            )

    def _wait_for_workers(self) -> None:
        self._seen, self._looked = time.monotonic(), -PAUSE
        self._look()
        while not self._slots:
            time.sleep(PAUSE)
            self._look()

    def _next(self) -> int:
        self._tokens += 1
        return self._tokens

    def _where(self, lane: Lane) -> str:
        chunk = self.job.plan.chunk(*lane.place)
        first = self.job.recipe.reader.where(chunk.pieces[0])
        return f"epoch {chunk.epoch}, chunk {chunk.number} (which begins with {first})"
