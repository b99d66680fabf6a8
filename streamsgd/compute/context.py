"""Where this code runs: in a Dask worker's task or not, with how many threads, and of which versions."""

from __future__ import annotations

import math
import os
import platform
import sys
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamsgd.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator


PROCESSOR = "code for processor"
"""What versions call the processor that kernels are compiled for."""

CPU_FOLDERS = ("cpuacct,cpu", "cpu,cpuacct")
"""Where distributions put the processor quota of cgroups of version 1."""


def this_worker() -> Any:
    """Return the Dask worker that runs the calling task; None elsewhere."""
    if "distributed" not in sys.modules:  # whoever runs in a task has imported it
        return None
    from distributed import get_worker  # noqa: PLC0415

    try:
        return get_worker()
    except ValueError:
        return None


_FORKED: list[int] = []


def _note_fork() -> None:
    if "distributed" in sys.modules:
        _FORKED.append(os.getpid())


os.register_at_fork(after_in_child=_note_fork)


def was_forked() -> bool:
    """Whether this process was forked from one that had loaded Dask, whose event loops did not come along."""
    return bool(_FORKED)


def worker_address() -> str:
    """Return the address of the Dask worker that runs the calling task; empty elsewhere."""
    worker = this_worker()
    return "" if worker is None else str(worker.address)


def worker_threads() -> int | None:
    """Return how many tasks the Dask worker of the calling task runs at a time; None elsewhere."""
    worker = this_worker()
    return None if worker is None else int(worker.state.nthreads)


def worker_memory() -> int | None:
    """Return the bytes that the Dask worker of the calling task may take; None elsewhere, and where nothing bounds it."""
    worker = this_worker()
    manager = getattr(worker, "memory_manager", None)
    return getattr(manager, "memory_limit", None) or None


def usual_threads(asked: int | None) -> int:
    """Return how many threads read: as asked, or those of the worker whose task this is, or the CPU quota."""
    if asked:
        return asked
    worker = this_worker()
    return cpu_quota() if worker is None else int(worker.state.nthreads)


def cpu_quota() -> int:
    """Return how many processors this process may use at once: as `dask.system` counts, which takes 0.1 s to load."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, period = next(filter(None, map(_cpu_limit, _cpu_files())), (0, 0))
    return max(1, min(count, math.ceil(quota / period))) if quota > 0 and period > 0 else count


def _cpu_files() -> list[tuple[str, ...]]:
    """Return the files that may hold a quota and its period: of cgroups of version 1, and of version 2."""
    found = [tuple(f"/sys/fs/cgroup/{name}/cpu.cfs_{what}_us" for what in ("quota", "period")) for name in CPU_FOLDERS]
    with suppress(OSError):
        found.append((f"/sys/fs/cgroup{Path('/proc/self/cgroup').read_text().strip().split(':')[-1].rstrip('/')}/cpu.max",))
    return found


def _cpu_limit(paths: tuple[str, ...]) -> tuple[int, int] | None:
    try:
        quota, period = (int(word) for path in paths for word in Path(path).read_text().split())
    except (OSError, ValueError):  # there is none, or it is "max"
        return None
    return quota, period


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
    from streamsgd.kernels.compile.jit import cpu_target  # noqa: PLC0415  it loads Numba

    found = {"Python": platform.python_version(), **{name: metadata.version(name) for name in names}}
    return {**found, PROCESSOR: cpu_target()}
