"""Where this code runs: in a Dask worker's task or not, with how many threads, and of which versions."""

from __future__ import annotations

import platform
import sys
from contextlib import contextmanager
from importlib import metadata
from typing import TYPE_CHECKING, Any

from streamsgd.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator


def this_worker() -> Any:
    """Return the Dask worker that runs the calling task; None elsewhere."""
    if "distributed" not in sys.modules:  # whoever runs in a task has imported it
        return None
    from distributed import get_worker  # noqa: PLC0415

    try:
        return get_worker()
    except ValueError:
        return None


def worker_address() -> str:
    """Return the address of the Dask worker that runs the calling task; empty elsewhere."""
    worker = this_worker()
    return "" if worker is None else str(worker.address)


def usual_threads(asked: int | None) -> int:
    """Return how many threads read: as asked, or those of the worker whose task this is, or the CPU quota."""
    if asked:
        return asked
    from dask.system import CPU_COUNT  # noqa: PLC0415  cgroup-aware

    worker = this_worker()
    return int(CPU_COUNT if worker is None else worker.state.nthreads)


def task_memory() -> str | None:
    """Return half of what Dask allows the worker whose task this is; None elsewhere, or if it allows anything."""
    worker = this_worker()
    limit = None if worker is None else worker.memory_manager.memory_limit
    return f"{int(limit) // (2 * 10**6)}MB" if limit else None


def check_client(client: Any) -> Any:
    """Return a client that can be used.

    Raises
    ------
    SettingsError
        It is none, or works in a coroutine.

    """
    if not hasattr(client, "submit") or getattr(client, "asynchronous", True):
        raise SettingsError(f"client={client!r} is no synchronous dask.distributed.Client")
    return client


@contextmanager
def seceded() -> Iterator[None]:
    """Leave the threads of the worker whose task this is, which the tasks that it waits for may need; elsewhere nothing."""
    from distributed import rejoin, secede  # noqa: PLC0415
    from distributed.threadpoolexecutor import thread_state  # noqa: PLC0415

    if this_worker() is None or not getattr(thread_state, "proceed", False):  # no task, or one that did so itself
        yield
        return
    secede()
    try:
        yield
    finally:
        rejoin()


def versions() -> dict[str, str]:
    """Return the versions of what may change bits."""
    names = ("numpy", "numba", "pyarrow")
    return {"Python": platform.python_version(), **{name: metadata.version(name) for name in names}}
