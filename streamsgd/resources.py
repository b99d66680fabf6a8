"""Resident memory of this process and its children, as it is and at its peak."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


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
