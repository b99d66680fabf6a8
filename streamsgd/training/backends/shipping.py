"""What travels to workers: the job once, the task of a round once where it is large, and small orders."""

from __future__ import annotations

import logging
import pickle
import threading
import time
import uuid
import warnings
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from streamsgd.training.backends.worker import forget, pass_on, prepare_worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.training.backends.pool import WorkerPool
    from streamsgd.training.backends.rounds import RoundState
    from streamsgd.training.job import Job

log = logging.getLogger("streamsgd")

FAREWELL = 5.0
"""Seconds that workers have to forget a run."""

DIRECT = 1 << 20
"""Bytes of a shared task up to which it travels inside the orders ..."""

SMALL_JOB = 1 << 16
"""... and of a packed job, which it does with every order; larger ones are sent once, and workers have them from each other."""

PAUSE = 0.05
"""Seconds between looks at the futures of a farewell."""


def is_lost(future: Any) -> bool:
    """Say whether something was not sent, or was and is lost."""
    return future is None or future.status not in ("pending", "finished")


class Shipping:
    """Submits functions to workers of a client.

    Parameters
    ----------
    client
        Of distributed; nothing of it is changed.

    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self.run = ""
        """The name of the job as it was last sent: workers keep it by that."""
        self.bell = threading.Event()
        """Rings when any task has ended."""
        self._runs: list[str] = []
        self._tokens = 0
        self._packed_job = b""
        self._job: Any = None
        self.sent_to: set[str] | None = None
        """The workers that may have what is sent to any; None for all."""

    def submit(self, function: Callable[..., Any], workers: str | list[str] | None, *args: Any, name: str = "") -> Any:
        """Give a task to one worker, any of some, or any; the bell rings when it has ended."""
        self._tokens += 1
        key = f"streamsgd-{name or function.__name__.partition('_')[0]}-{self.run}-{self._tokens}"
        chosen = [workers] if isinstance(workers, str) else workers
        future = self.client.submit(function, *args, key=key, workers=chosen, pure=False)
        # Not distributed.wait, which knows the default client only.
        future.add_done_callback(lambda _future: self.bell.set())
        return future

    def greet(self, worker: str) -> Any:
        """Ask a worker to load what it needs."""
        # By name: a worker that has no such function would choke on the function itself, and drop its connection.
        return self.submit(resolve_name, worker, "streamsgd.training.backends.worker:prepare_worker", name="greet")

    def prepare(self, worker: str, pool: WorkerPool) -> Any:
        """Let a worker load the job and its kernel."""
        return self.submit(prepare_worker, worker, self.run, self.job(pool))

    def take(self, job: Job) -> None:
        """Let this job be sent from now on, as another run's: workers keep jobs by their run."""
        self.run = uuid.uuid4().hex[:12]
        self._runs.append(self.run)
        self._packed_job, self._job = pickle.dumps(job), None

    def job(self, pool: WorkerPool) -> Any:
        """Return the job, packed, or where it is, sent again if it was lost."""
        if len(self._packed_job) <= SMALL_JOB:
            return self._packed_job
        if is_lost(self._job) or self.is_cut_off(pool):
            # To any worker, unless some cannot load it.
            some_cannot = any(worker.refused for worker in pool.workers.values())
            self.sent_to = pool.able if some_cannot else None
            self._job = self._send("job", pickle.loads, self._packed_job)
        return self._job

    def is_cut_off(self, pool: WorkerPool) -> bool:
        """Whether no worker is left that may have what was sent to some."""
        return self.sent_to is not None and not self.sent_to & pool.able

    def failed(self) -> bool:
        """Whether sending the job failed."""
        return self._job is not None and self._job.status == "error"

    def shared(self, state: RoundState) -> Any:
        """Return the task of a round, or where it is, sent again if it was lost."""
        if state.packed.nbytes <= DIRECT:
            return state.packed
        if is_lost(state.shared) or state.sent_to != self.sent_to:
            state.shared, state.sent_to = self._send("model", pass_on, state.packed), self.sent_to
        return state.shared

    def _send(self, name: str, function: Callable[..., Any], value: Any) -> Any:
        """Have some worker make something of a value that is large; if it dies Dask has another one do it."""
        with warnings.catch_warnings():
            # Of large graphs, as Dask calls it: it is sent once, not with each task.
            warnings.simplefilter("ignore", UserWarning)
            return self.submit(function, sorted(self.sent_to) if self.sent_to else None, value, name=name)

    def say_goodbye(self, workers: set[str]) -> None:
        """Let workers forget the runs, if they are still there."""
        try:
            told = [self.submit(forget, worker, run) for run in self._runs for worker in workers]
            until = time.monotonic() + FAREWELL
            while any(future.status == "pending" for future in told) and time.monotonic() < until:
                self.bell.wait(PAUSE)
        except Exception as error:  # noqa: BLE001  a cluster that is gone has nothing left to forget
            log.debug("the workers were not told that the run is over: %s", error)
        self._job = None
