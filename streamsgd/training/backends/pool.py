"""The workers of a cluster: who is there and fit for work, what each is busy with, how fast it is, and who gets the next lane.

Every task is given to one worker by name, so that the driver, not the scheduler, knows what a worker that died was doing and
decides what becomes of it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from streamsgd.compute.context import PROCESSOR, versions
from streamsgd.compute.deadlines import NO_WORKER
from streamsgd.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("streamsgd")


PAUSE = 0.25
"""Seconds between looks at who is there."""

ANSWER = 30.0
"""Seconds that a scheduler has to answer; what it owes by then is asked for again ..."""

SILENCE = 120.0
"""... until it has been silent for so long."""

REMEMBERED = 64
"""Lanes whose pace is remembered for the median."""

FORGIVEN = 8
"""Rounds without a lane after which a slow worker is taken to be half as slow, on a scale of logarithms."""

SLOW = 3.0
"""Times the usual pace beyond which a worker is slow, if it took more than `PAUSE`. Below, paces tell who found a chunk read
ahead: at their word one of two equal workers got nearly everything."""

OVERDUE = 1.5
"""Times its estimate beyond which a task is taken to last as long again as it has."""


@dataclass(eq=False)
class Assignment:
    """Something that a worker does."""

    future: Any
    worker: str
    rows: int
    since: float = field(default_factory=time.monotonic)


@dataclass(eq=False)
class Worker:
    """What is known of one worker."""

    address: str
    hands: int
    question: Any
    """A task that shows whether it can be used: first whether it has what it takes, then that it is ready."""
    able: bool = False
    """Whether it can load the program."""
    fit: bool = False
    """Whether it is ready for lanes."""
    refused: str = ""
    """Why it cannot be used."""
    tasks: list[Assignment] = field(default_factory=list)
    """Also those that nobody waits for any more: a thread cannot be interrupted."""
    pace: float | None = None
    """Seconds per row, as of late."""
    lanes: int = 0
    """That it has done."""
    unused: int = 0
    """Rounds in a row without a lane."""

    def expected(self, usual: float) -> float:
        """Return its seconds per row: the usual ones unless it is slow."""
        return usual if self.pace is None or self.pace <= SLOW * usual else self.pace

    def slowness(self, usual: float, now: float) -> float:
        """Return the seconds per row to reckon with: of its tasks under way, what has passed is a lower bound."""
        return max(self.expected(usual), *((now - task.since) / max(1, task.rows) for task in self.tasks), 0.0)

    def free_at(self, usual: float, now: float) -> list[float]:
        """Return in how many seconds each of its hands will be free, [hands]."""
        pace, left = self.expected(usual), []
        for task in self.tasks:
            passed, whole = now - task.since, pace * task.rows
            left.append(max(0.0, whole - passed) if passed < OVERDUE * whole else passed)
        left.sort()
        return [0.0] * (self.hands - len(left)) + left[: self.hands]


class WorkerPool:
    """The workers of a client.

    Parameters
    ----------
    client
        Of distributed.
    hands
        Lanes that a worker can learn side by side within its budget, whatever its threads.
    greet, prepare
        Called with an address, start the tasks that show that a worker is able, and get it ready.

    """

    def __init__(self, client: Any, hands: int, greet: Callable[[str], Any], prepare: Callable[[str], Any]) -> None:
        self.client, self._hands, self._greet, self._prepare = client, hands, greet, prepare
        self.workers: dict[str, Worker] = {}
        self._paces: deque[float] = deque(maxlen=REMEMBERED)
        self._looked = -PAUSE
        self._seen = self._answered = time.monotonic()
        self._warned: set[str] = set()

    # --- who is there

    def look(self) -> set[str]:
        """Look who is there; return those that have gone.

        Raises
        ------
        ClusterError
            There has been no worker for `NO_WORKER` seconds, or no scheduler for `SILENCE`, or none that can be used.

        """
        now = time.monotonic()
        if now - self._looked < PAUSE:
            return set()
        there = self._ask()
        self._looked = now = time.monotonic()
        if there is None:
            return set()
        gone = set(self.workers) - set(there)
        for address in gone:
            self.workers.pop(address).tasks.clear()
        for address, threads in sorted(there.items()):
            if address not in self.workers:
                self.workers[address] = Worker(address, max(1, min(threads, self._hands)), self._greet(address))
        for worker in self.workers.values():
            self._hear(worker)
            for task in [task for task in worker.tasks if task.future.status != "pending"]:
                self.ended(task)
        self._check(now)
        return gone

    def _ask(self) -> dict[str, int] | None:
        try:
            there: dict[str, int] = self.client.nthreads(callback_timeout=ANSWER)
        except (OSError, RuntimeError, TimeoutError, AttributeError) as error:  # the last one is how a closed client says so
            closed = self.client.status in ("closed", "closing")
            if closed or time.monotonic() - self._answered > SILENCE:
                raise ClusterError(
                    "the scheduler does not answer any more; once there is one, the same command goes on from the last "
                    f"checkpoint, if there is any ({type(error).__name__}: {error})"
                ) from error
            log.debug("the scheduler does not answer: %s", error)
            time.sleep(PAUSE)
            return None
        self._answered = time.monotonic()
        return there

    def _hear(self, worker: Worker) -> None:
        """Take a worker's answer, once it is there."""
        if worker.fit or worker.refused or (status := worker.question.status) == "pending":
            return
        error = worker.question.exception(timeout=ANSWER) if status == "error" else None
        if status == "finished" and worker.able:
            error = self._answer(worker)
        if isinstance(error, (ImportError, AttributeError)):
            self._refuse(worker, error)
        elif status == "finished":
            worker.fit = worker.able
            worker.able, worker.question = True, None if worker.fit else self._prepare(worker.address)
        else:
            worker.question = self._prepare(worker.address) if worker.able else self._greet(worker.address)

    def _answer(self, worker: Worker) -> BaseException | None:
        """Return what went wrong while a worker got ready; a lane will say it, unless something cannot be loaded there."""
        try:
            theirs, error = worker.question.result(timeout=ANSWER)
        except Exception:  # noqa: BLE001  it has just died
            return None
        refusal = self._compare(worker, theirs or {})
        return error if isinstance(error, BaseException) else refusal

    def _compare(self, worker: Worker, theirs: dict[str, str]) -> ClusterError | None:
        """Warn once of every difference in what may change bits; return why a worker is of no use."""
        ours = versions()
        if theirs.get(PROCESSOR, ours[PROCESSOR]) != ours[PROCESSOR]:
            return ClusterError(
                f"its kernels are compiled for {theirs.get(PROCESSOR)}, here for {ours[PROCESSOR]}, which give other bits; "
                "take workers of one kind, or start all, this process too, by --cpu portable or its environment"
            )
        for name in [name for name in theirs if theirs[name] != ours.get(name)]:
            what = f"{name} {theirs[name]} there, {ours.get(name)} here"
            if what not in self._warned:
                self._warned.add(what)
                log.warning("worker %s has another version: %s; the model may differ in its last bits", worker.address, what)
        return None

    def _refuse(self, worker: Worker, error: BaseException) -> None:
        worker.refused = (
            f"worker {worker.address}: {error}"
            if isinstance(error, ClusterError)
            else (
                f"worker {worker.address} cannot load what it needs ({type(error).__name__}: {error}): install there what is "
                "installed here, Python and modules of your own included"
            )
        )
        if str(error) not in self._warned:
            self._warned.add(str(error))
            log.warning("%s; until then it gets no work", worker.refused)

    def _check(self, now: float) -> None:
        if any(not worker.refused for worker in self.workers.values()):
            if self.fit:
                self._seen = now
        elif self.workers:
            raise ClusterError(next(worker.refused for worker in self.workers.values()))
        if now - self._seen > NO_WORKER:
            raise ClusterError(
                f"no worker for {NO_WORKER:.0f} s at {self.client.scheduler.address}: start some, then the same command resumes"
            )

    @property
    def able(self) -> set[str]:
        """Addresses of those that can load the program."""
        return {worker.address for worker in self.workers.values() if worker.able}

    @property
    def fit(self) -> list[Worker]:
        """Those that can be given work."""
        return [worker for worker in self.workers.values() if worker.fit]

    @property
    def free(self) -> list[Worker]:
        """Those that have a hand free."""
        return [worker for worker in self.workers.values() if worker.fit and len(worker.tasks) < worker.hands]

    # --- what they do

    def began(self, task: Assignment) -> None:
        """Note that a task was given out."""
        self.workers[task.worker].tasks.append(task)

    def ended(self, task: Assignment) -> None:
        """Note that a task has ended, however it did."""
        worker = self.workers.get(task.worker)
        if worker is None or task not in worker.tasks:
            return
        worker.tasks.remove(task)
        if task.rows and task.future.status == "finished":
            seconds = time.monotonic() - task.since
            pace = min(seconds / task.rows, self.usual) if seconds <= PAUSE else seconds / task.rows
            if worker.lanes:  # the first one also loads what a process needs
                worker.pace = pace if worker.pace is None else 0.5 * (worker.pace + pace)
            worker.lanes += 1
            worker.unused = 0

    def note(self, task: Assignment) -> None:
        """Count the pace of a lane's first answer towards what is usual."""
        self._paces.append((time.monotonic() - task.since) / max(1, task.rows))

    @property
    def usual(self) -> float:
        """Seconds per row of the median lane; 0 before there is any."""
        return median(self._paces) if self._paces else 0.0

    def end_round(self, used: set[str]) -> None:
        """Begin to forget how slow those were that got nothing to do."""
        for worker in self.fit:
            worker.unused = 0 if worker.address in used or worker.tasks else worker.unused + 1
            if worker.unused and worker.unused % FORGIVEN == 0 and worker.pace and worker.pace > self.usual > 0.0:
                worker.pace = (worker.pace * self.usual) ** 0.5

    # --- who gets the next lane

    def choose(self, rows: list[int]) -> Worker | None:
        """Return who of those free is to do the first of these lanes (rows each); None if it is done sooner by waiting."""
        free, usual, now = self.free, self.usual, time.monotonic()
        if not free:
            return None
        best = min(free, key=lambda worker: (worker.slowness(usual, now), len(worker.tasks) / worker.hands))
        if best.slowness(usual, now) <= SLOW * usual:  # nobody would end it sooner, and to ask takes long where there are many
            return best
        mine = best.slowness(usual, now) * rows[0]
        others = [worker for worker in self.fit if worker is not best]
        if not others or not usual or mine <= self._without(others, rows, usual, now):
            return best
        return None

    def _without(self, others: list[Worker], rows: list[int], usual: float, now: float) -> float:
        """Return in how many seconds others would have done all of some lanes."""
        queue = [(at, worker.slowness(usual, now)) for worker in others for at in worker.free_at(usual, now)]
        last = 0.0
        for n in rows:
            # By who ends first: a free hand that is slow takes nothing from one that will be free.
            at, pace = min(queue, key=lambda hand: hand[0] + hand[1] * n)
            queue.remove((at, pace))
            queue.append((at + pace * n, pace))
            last = max(last, at + pace * n)
        return last
