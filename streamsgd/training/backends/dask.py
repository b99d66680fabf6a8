"""Workers of a Dask cluster: they are given chunks, what is late or lost is done again, and what they bring comes here.

An order carries numbers, the task of a round travels to the workers once, what chunks bring is merged from worker to worker,
and the total comes back. A task is a pure function, so that one that was lost is merely run again and one that is late is run
twice, and the bits are those of `inline.InlineBackend`.

Orders are pinned to workers, which Dask's own advice is against, since pinned tasks do not survive a death. Here the driver
gives out again what was lost; in return it knows which worker failed, and which has read the next chunk ahead.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from concurrent.futures import CancelledError
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from streamsgd.compute.deadlines import ATTEMPTS, DEADLINE
from streamsgd.errors import ClusterError
from streamsgd.messages import stage
from streamsgd.planning.budget import slots_per_worker
from streamsgd.planning.chunks import row_groups
from streamsgd.planning.tree import FAN
from streamsgd.training.backends.base import Abandoned, WorkerStats, never
from streamsgd.training.backends.poison import DEATHS, ROUNDS_OF_PROBES, find_poison, without_poison
from streamsgd.training.backends.pool import ANSWER, PAUSE, Assignment, WorkerPool
from streamsgd.training.backends.rounds import Lane, RoundState
from streamsgd.training.backends.shipping import Shipping
from streamsgd.training.backends.worker import Order, merge_on_worker, run_on_worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.planning.stragglers import Straggler
    from streamsgd.training.backends.pool import Worker
    from streamsgd.training.job import Job
    from streamsgd.training.tasks.base import ChunkReport, Place, Round

log = logging.getLogger("streamsgd")

LOST = (OSError, TimeoutError, CancelledError)
"""How distributed says that something did not get through; of the last one it has a class of its own, derived from this."""

COPIES = 3
"""Workers that do the same late chunk."""


class DaskBackend:
    """Runs rounds on the workers of a Dask cluster.

    Parameters
    ----------
    job
        As prepared; sent to the workers once.
    client
        Of distributed; nothing of it is changed.
    straggler
        What is done about a chunk that is late.

    """

    def __init__(self, job: Job, client: Any, straggler: Straggler) -> None:
        self.job, self.client, self.straggler = job, client, straggler
        self.workers: dict[str, WorkerStats] = defaultdict(WorkerStats)
        self.poisoned: frozenset[int] = job.recipe.poisoned
        self._shipping = Shipping(client)
        self.pool = WorkerPool(client, slots_per_worker(job.budget), self._shipping.greet, self._prepare)
        self._reserved: dict[str, Place] = {}
        """By worker, the chunk that it reads ahead."""
        self._feed = job.recipe.dataset.source.feed(job.recipe.columns, client)
        self._coming: dict[Place, tuple[Any, ...]] = {}
        """Partitions of chunks that come next, which are computed meanwhile."""

    def _prepare(self, worker: str) -> Any:
        return self._shipping.prepare(worker, self.pool)

    @property
    def run_name(self) -> str:
        """The name by which workers keep the job."""
        return self._shipping.run

    def close(self) -> None:
        """Let the workers forget the run."""
        self._coming.clear()
        self._shipping.say_goodbye(self.pool.able)
        self.pool.workers.clear()

    # --- a round

    def run(self, work: Round, stop: Callable[[], bool] = never) -> tuple[Any, list[ChunkReport]]:
        """Run a task over the chunks of a round; see `base.Backend`."""
        if not self._shipping.run:
            self._shipping.take(self.job)
            self.wait(lambda: bool(self.pool.fit), "a worker that can be used")
        now = RoundState.of(self.job, work)
        for _ in range(ATTEMPTS):
            self._work_off(now, stop)
            found = self._merged(now)
            if found is not None:
                self.pool.end_round(now.used)
                return self._accounted(found)
        where = f"epoch {work.epoch}, chunk {work.first}"
        raise ClusterError(f"{where}: what the workers brought was lost {ATTEMPTS} times on its way here")

    def _work_off(self, now: RoundState, stop: Callable[[], bool]) -> None:
        """Give chunks out until enough are done."""
        # What is to be exact waits for all.
        straggler = replace(self.straggler, drop=0, deadline=None) if now.exact else self.straggler
        last = time.monotonic()
        while now.missing:
            if now.exact and stop():
                now.forget_the_rest()
                raise Abandoned
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
            if straggler.is_enough(len(now.done), late, seconds, waiting=len(now.waiting)):
                break
            self._do_again(now)
        now.forget_the_rest()

    def _look(self, now: RoundState) -> None:
        """See who has gone, and what was lost with them."""
        gone = self.pool.look()
        for worker in gone:
            self._reserved.pop(worker, None)
        for lane in list(now.running):
            for task in [task for task in lane.tasks if task.worker in gone]:
                self._lost(lane, task, now, killed=True)
        if self._shipping.is_cut_off(self.pool):
            for one in list(now.running):
                for task in list(one.tasks):
                    self._lost(one, task, now, killed=False)  # the job cannot reach them any more
        for lane, task in list(now.done.values()):
            if task.worker in gone:
                del now.done[lane.number]
                now.waiting.append(lane)

    def _hand_out(self, now: RoundState) -> None:
        """Give free hands lanes: the one whose chunk a worker has read ahead, if there is one."""
        while now.waiting and (worker := self.pool.choose([lane.rows for lane in now.waiting])) is not None:
            now.shared = self._shipping.shared(now)
            if worker.address not in self.pool.workers:
                continue  # it has gone meanwhile
            mine = self._reserved.pop(worker.address, None)
            lane = next((one for one in now.waiting if one.place == mine), None)
            lane = lane or next((one for one in now.waiting if one.place not in self._reserved.values()), now.waiting[0])
            now.waiting.remove(lane)
            now.running.append(lane)
            self._submit(lane, worker, now)

    def _submit(self, lane: Lane, worker: Worker, now: RoundState) -> None:
        lane.tries += 1
        if lane.tries > ATTEMPTS:
            raise ClusterError(f"{self.where(lane)}: lost {lane.tries - 1} times; look at the logs of the workers")
        if not lane.deaths:  # what is read ahead may be what killed
            self._reserve(worker, now)
        ahead = None if lane.deaths else self._reserved.get(worker.address)
        lane.inputs = lane.inputs or self._coming.pop(lane.place, ()) or self._inputs(lane.place)
        if now.keep:  # later rounds will come for its chunk
            self._coming[lane.place] = lane.inputs
        order = Order(lane.place, ahead, now.keep)
        args = (self.run_name, self.shipped_job(), order, len(lane.inputs), now.shared, *lane.inputs)
        name = f"{now.name}-epoch{lane.place[0]}-chunk{lane.place[1]}"
        future = self.submit(run_on_worker, worker.address, *args, name=name)
        task = Assignment(future, worker.address, lane.rows)
        lane.tasks.append(task)
        self.pool.began(task)
        now.used.add(worker.address)

    def _reserve(self, worker: Worker, now: RoundState) -> None:
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

    def _collect(self, now: RoundState) -> bool:
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
                self.pool.note(task)
                self.pool.ended(task)
                self.workers[task.worker].seconds += time.monotonic() - task.since
                now.done[lane.number] = lane, task
                now.running.remove(lane)
                lane.tasks.clear()  # which the pool still knows
                lane.inputs = ()
                break
        return ended

    def _mend(self, lane: Lane, task: Assignment, now: RoundState) -> None:
        """See to a task that will not end: its inputs or its workers were lost."""
        from distributed import KilledWorker  # noqa: PLC0415

        error = task.future.exception(timeout=ANSWER) if task.future.status == "error" else None
        sent_failed = self._shipping.failed()
        sent_failed |= now.shared is not now.packed and now.shared.status == "error"
        if error is not None and (blamed := self._feed.blame(lane.inputs)) is not None:
            raise blamed
        if error is not None and not sent_failed and not isinstance(error, (KilledWorker, *LOST)):
            raise ClusterError(
                f"{self.where(lane)}: the worker failed before it began: {type(error).__name__}: {error}"
            ) from error
        self._lost(lane, task, now, killed=isinstance(error, KilledWorker) and not sent_failed)

    def _lost(self, lane: Lane, task: Assignment, now: RoundState, *, killed: bool) -> None:
        """Let a lane be done again, or suspect it."""
        self.pool.ended(task)
        lane.tasks.remove(task)
        lane.deaths += killed
        if lane.tasks:
            return
        now.running.remove(lane)
        if lane.deaths < DEATHS:
            now.waiting.insert(0, lane)
        else:
            now.suspected.append(lane)

    def _do_again(self, now: RoundState) -> None:
        """Let idle workers do what is late elsewhere as well; the first answer counts."""
        if not self.straggler.again or not (usual := self.pool.usual):
            return
        clock = time.monotonic()
        for lane in now.running:
            passed = clock - lane.tasks[-1].since
            if len(lane.tasks) >= COPIES or passed < max(self.straggler.times * usual * lane.rows, PAUSE):
                continue
            busy = {task.worker for task in lane.tasks}
            idle = [worker for worker in self.pool.free if worker.address not in busy]
            idle = [worker for worker in idle if worker.slowness(usual, clock) * lane.rows < passed]
            if idle:
                worker = min(idle, key=lambda worker: worker.slowness(usual, clock))
                self._submit(lane, worker, now)
                self.workers[worker.address].again += 1
                log.info("%s is late and is done again by %s", self.where(lane), worker.address)

    # --- suspects

    def _try_suspects(self, now: RoundState) -> None:
        """Find out whether a chunk kills those who read it, or was with workers that others killed."""
        for lane in now.suspected:
            if lane.inputs:
                raise ClusterError(f"{self.where(lane)} lost its worker {lane.deaths} times; look at the logs of the workers")
            log.warning("%s lost its worker %d times; its pieces are tried one by one", self.where(lane), lane.deaths)
            killers = find_poison(self, lane.place, lambda: self._shipping.shared(now))
            if killers:
                self.job = without_poison(self.job, killers)
                self.poisoned = self.job.recipe.poisoned
                self._shipping.take(self.job)
            elif lane.acquitted == ROUNDS_OF_PROBES:
                raise ClusterError(
                    f"{self.where(lane)} lost its worker {DEATHS * (lane.acquitted + 1)} times, though each of its pieces "
                    "alone does no harm: are the workers out of memory? Lower --memory, or look at their logs"
                )
            lane.deaths, lane.acquitted = 0, lane.acquitted + 1
        now.waiting, now.suspected = now.suspected, []

    # --- what comes back

    def _merged(self, now: RoundState) -> Any:
        """Add up along the tree and fetch the total, or None if some of it was lost, which then waits to be done again."""
        if not now.done:
            return None, []
        found = [now.done[number] for number in sorted(now.done)]
        holders = sorted({task.worker for _lane, task in found})
        futures = kept = [task.future for _lane, task in found]
        while len(futures) > 1:
            some = [futures[k : k + FAN] for k in range(0, len(futures), FAN)]
            futures = [self.submit(merge_on_worker, holders, group, name="merge") for group in some]
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

    def _accounted(self, found: Any) -> tuple[Any, list[ChunkReport]]:
        value, brought = found
        for one in brought:
            work = self.workers[one.worker]
            work.rows += one.rows
            work.lanes += 1
            work.open, work.decode = work.open + one.spent.open, work.decode + one.spent.decode
            work.encode, work.fit = work.encode + one.spent.encode, work.fit + one.fit_seconds
            work.bytes_read, work.bytes_sent = work.bytes_read + one.spent.bytes, work.bytes_sent + one.bytes_sent
        return value, brought

    # --- what probes need

    def shipped_job(self) -> Any:
        """Return the job as orders carry it."""
        return self._shipping.job(self.pool)

    def submit(self, function: Callable[..., Any], workers: str | list[str] | None, *args: Any, name: str = "") -> Any:
        """Give a task to one worker, any of some, or any."""
        return self._shipping.submit(function, workers, *args, name=name)

    def wait(self, ready: Callable[[], bool], what: str) -> None:
        """Wait until something is so.

        Raises
        ------
        ClusterError
            It is not within `DEADLINE`.

        """
        until = time.monotonic() + DEADLINE
        self.pool.look()
        with nullcontext() if ready() else stage(f"waiting for {what}"):
            while not ready():
                if time.monotonic() > until:
                    raise ClusterError(f"{what} did not come within {DEADLINE:.0f} s")
                self.pause()
                self.pool.look()

    def pause(self) -> None:
        """Wait a little for any task to end."""
        self._shipping.bell.wait(PAUSE)
        self._shipping.bell.clear()

    def where(self, lane: Lane) -> str:
        """Name a lane's chunk."""
        chunk = self.job.chunk_at(lane.place)
        first = self.job.recipe.dataset.source.where(chunk.pieces[0])
        return f"epoch {chunk.epoch}, chunk {chunk.number} (which begins with {first})"
