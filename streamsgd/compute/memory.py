"""Memory: what the machine has, what this process tree takes, and whose turn it is to take some."""

from __future__ import annotations

import ctypes
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self

from streamsgd.compute.context import task_memory
from streamsgd.messages import parse_memory
from streamsgd.planning.budget import INTERPRETER

if TYPE_CHECKING:
    from types import TracebackType


def give_back() -> None:
    """Return to the system what the C library keeps: 250 MB after a first look of millions of values."""
    with suppress(OSError, AttributeError):  # other systems have no such call
        ctypes.CDLL(None).malloc_trim(0)


def parse_limit(text: str | None) -> int:
    """Return the limit in bytes: as set, or half of what the machine or cgroup has.

    Raises
    ------
    SettingsError
        The text is not a size.

    """
    return machine_memory() // 2 if text is None else parse_memory(text)


def machine_memory() -> int:
    """Return the bytes that this process may use: the least limit of its cgroups or the machine's memory, whichever is less."""
    import psutil  # noqa: PLC0415  not needed where a budget is given

    return min([int(psutil.virtual_memory().total), *cgroup_limits()])


def cgroup_limits(own: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Return the limits in bytes of the cgroups, of either version, that this process is in, however deep.

    Parameters
    ----------
    own
        The file that names the cgroups of the process (cgroups(7)).
    mounted
        Where they are mounted; within a container its own may be at the top.

    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = []
    places = [mounted / "memory.max", mounted / "memory" / "memory.limit_in_bytes"]
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "memory" not in controllers.split(","):
            continue
        top, name = (mounted / "memory", "memory.limit_in_bytes") if controllers else (mounted, "memory.max")
        group = PurePosixPath(path.lstrip("/"))
        places += [top / above / name for above in (group, *group.parents)]
    return [limit for place in places if (limit := _limit(place)) is not None]


def _limit(place: Path) -> int | None:
    try:
        return int(place.read_text())
    except (OSError, ValueError):  # there is none, or it is "max"
        return None


class PeakMemory:
    """Watches the process tree from a light thread.

    The kernel remembers the peak of this process itself, so that one is exact; children are looked at every
    `interval` seconds, and their sum with this process's memory of the same moment counts.
    """

    def __init__(self, interval: float = 0.5) -> None:
        self.interval = interval
        self._peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="streamsgd-memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()

    @property
    def bytes(self) -> int:
        """The peak so far, in bytes."""
        return max(self._peak, own_peak())

    def _watch(self) -> None:
        while not self._done.wait(self.interval):
            self._peak = max(self._peak, tree_bytes())


def own_peak() -> int:
    """Return the peak resident bytes of this process since it started."""
    try:
        with open("/proc/self/status") as status:  # noqa: PTH123
            return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        import resource  # noqa: PLC0415  not on Windows

        unit = 1 if os.uname().sysname == "Darwin" else 1 << 10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def tree_bytes() -> int:
    """Return the resident bytes of this process and its children now; shared pages count twice."""
    import psutil  # noqa: PLC0415

    me = psutil.Process()
    total = me.memory_info().rss
    for child in me.children(recursive=True):
        try:
            total += child.memory_info().rss
        except psutil.Error:  # it ended meanwhile
            continue
    return int(total)


@dataclass
class MemorySlots:
    """Lets as many tasks of a process work at a time as fit into memory, at least one.

    Parameters
    ----------
    memory
        Limit of a process as text; None for half of what it may use.
    each
        Bytes that a task takes.

    """

    memory: str | None
    each: int

    @cached_property
    def _semaphore(self) -> threading.Semaphore:
        limit = parse_limit(self.memory or task_memory())
        return threading.Semaphore(max(1, (limit - INTERPRETER) // max(1, self.each)))

    def __enter__(self) -> None:
        self._semaphore.acquire()

    def __exit__(self, *_error: object) -> None:
        self._semaphore.release()

    def __getstate__(self) -> dict[str, Any]:
        return {"memory": self.memory, "each": self.each}
