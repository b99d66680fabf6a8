"""Who runs the reading: the calling thread (the specification), or Dask.

An executor has `n_workers` and `submit(work, name)`, which returns an object with `result(timeout)`. All state that work
shares lives in this process; what crosses Dask's scheduler is a token.
"""

from __future__ import annotations

import itertools
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from streamsgd.compute.context import this_worker, usual_threads, was_forked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def reading(executor: str, threads: int | None) -> Iterator[Executor]:
    """Give the executor of a name, with so many threads or the usual number; close it after."""
    reader = EXECUTORS[executor](usual_threads(threads))
    try:
        yield reader
    finally:
        reader.close()


_WORK: dict[str, Callable[[], Any]] = {}

_TOKENS = itertools.count()

LOOPBACK = "127.0.0.1:0"
"""Any free port that only this machine reaches."""


class Executor(Protocol):
    """Runs work somewhere else, or not."""

    n_workers: int

    def submit(self, work: Callable[[], Any], name: str) -> Any:
        """Start `work`; the returned object's `result(timeout)` gives its value or raises its exception."""

    def close(self) -> None:
        """Wait for nothing, release everything."""


class Done:
    """A result that is already there."""

    def __init__(self, value: Any, error: BaseException | None) -> None:
        self.value, self.error = value, error

    def result(self, timeout: float | None = None) -> Any:  # noqa: ARG002
        """Return the value or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value


class Inline:
    """Runs work at once in the calling thread: the specification of all executors."""

    n_workers = 1

    def submit(self, work: Callable[[], Any], name: str) -> Done:  # noqa: ARG002
        """Run `work`."""
        return Done(*outcome(work))

    def close(self) -> None:
        """Do nothing."""


def outcome(work: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """Return (value, None) or (None, error): an error that is a value is not logged by a scheduler."""
    try:
        return work(), None
    except Exception as error:  # noqa: BLE001
        return None, error


def _run(token: str) -> tuple[Any, BaseException | None]:
    return outcome(_WORK.pop(token))


class Dask:
    """Dask in this process: one worker with `n_workers` threads, no dashboard, no memory manager.

    Starts in 30 ms after an import of half a second. Memory is bounded by the plan, so Dask's own limit is off.
    """

    def __init__(self, n_workers: int) -> None:
        from distributed import Client, Worker  # noqa: PLC0415  half a second that --help must not pay

        class LocalWorker(Worker):  # type: ignore[misc]
            """A worker whose HTTP server, which Dask always starts, is not for other machines."""

            def start_http_server(self, routes: Any, *_address: Any) -> None:
                super().start_http_server(routes, LOOPBACK)

        self.n_workers = n_workers
        self._client = Client(
            processes=False,
            n_workers=1,
            threads_per_worker=n_workers,
            memory_limit=0,
            dashboard_address=None,
            # Else every job would bind port 8787 on all interfaces, and the second one warn.
            scheduler_kwargs={"dashboard": False, "dashboard_address": LOOPBACK},
            worker_class=LocalWorker,
            set_as_default=False,
            silence_logs=logging.ERROR,
        )

    def submit(self, work: Callable[[], Any], name: str) -> _DaskResult:
        """Queue `work` as a task of that name."""
        token = f"{name}-{next(_TOKENS)}"
        _WORK[token] = work
        return _DaskResult(self._client.submit(_run, token, key=token, pure=False))

    def close(self) -> None:
        """Stop the worker and the scheduler."""
        self._client.close()


class _DaskResult:
    def __init__(self, future: Any) -> None:
        self._future = future
        self._done: Done | None = None

    def result(self, timeout: float | None = None) -> Any:
        # Kept, because a future that was released can only say that it was cancelled.
        if self._done is None:
            self._done = Done(*self._future.result(timeout=timeout))
            self._future.release()
        return self._done.result()


class Threads:
    """Plain threads: what reads where somebody's Dask is at work already, within a task or beside a client.

    A second Dask would bind ports, start event loops and turn down the log of the first; it is also no faster (4 M rows of 28
    columns on two threads of a worker in 2.4 s, and in 2.3 s).
    """

    def __init__(self, n_workers: int) -> None:
        self.n_workers = n_workers
        self._pool = ThreadPoolExecutor(n_workers, thread_name_prefix="streamsgd-read")

    def submit(self, work: Callable[[], Any], name: str) -> Any:  # noqa: ARG002
        """Queue `work`."""
        return self._pool.submit(work)

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def embedded(n_workers: int) -> Executor:
    """Return Dask in this process, or threads: within a task of a Dask worker, and where fork has left Dask without its own."""
    return Dask(n_workers) if this_worker() is None and not was_forked() else Threads(n_workers)


EXECUTORS: dict[str, Callable[[int], Executor]] = {
    "dask": embedded,
    "inline": lambda _n: Inline(),
    "threads": Threads,
    "auto": Threads,
}
