"""Memory that is filled once and kept, in small pages that are asked for ahead of writing.

Where memory was never touched every page costs a call of the system, and on a virtual machine perhaps one of its host. NumPy
asks for large pages, of 2 MB: measured 0.1 s of processor a gigabyte where they are at hand, but 2.3 in a guest whose free
memory went back to its host, where small pages took 0.5, and 0.33 asked for together. What is read from end to end has no use
for large ones. It is for memory that grows: what is made once is warm the next time.
"""

from __future__ import annotations

import mmap
from contextlib import suppress
from typing import Any

import numpy as np

LEAST_BYTES = 1 << 20
"""From so many on; less comes from memory that the process has."""

STEP = 1 << 20
"""Bytes asked for at a time: it takes a third of a millisecond, in which no other thread runs Python."""

_POPULATE = 23
"""MADV_POPULATE_WRITE of Linux 5.14 and later; others answer that they do not know it."""


def filled_once(shape: tuple[int, ...], kind: Any) -> np.ndarray:
    """Return an array to be filled from one end to the other, and then read so; its numbers are of no meaning."""
    kind = np.dtype(kind)
    n_bytes = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    if n_bytes < LEAST_BYTES or not hasattr(mmap, "MADV_NOHUGEPAGE"):
        return np.empty(shape, kind)
    memory = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # pages then come one by one, of whatever size
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for first in range(0, n_bytes, STEP):
            memory.madvise(_POPULATE, first, min(STEP, n_bytes - first))
    return np.frombuffer(memory, kind).reshape(shape)
