"""Turns: as many tasks of a process at a time as its memory allows."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from streamsgd.budget import INTERPRETER, parse_limit
from streamsgd.executors import task_memory


@dataclass
class Turns:
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


def writer_name() -> str:
    """Return a name that no other thread of any machine has now."""
    return f"{os.uname().nodename}-{os.getpid()}-{threading.get_ident()}"
