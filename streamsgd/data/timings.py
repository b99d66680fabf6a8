"""Where the time of reading goes."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Timings:
    """Seconds of work and bytes of storage that reading took."""

    open: float = 0.0
    decode: float = 0.0
    encode: float = 0.0
    cache: float = 0.0
    """Of keeping encoded rows, and of taking them back ..."""
    cached_rows: int = 0
    """... so many, which were not read."""
    bytes: int = 0

    def add(self, other: Timings) -> None:
        """Add another account to this one."""
        self.open += other.open
        self.decode += other.decode
        self.encode += other.encode
        self.cache += other.cache
        self.cached_rows += other.cached_rows
        self.bytes += other.bytes

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Count the time of what is done within as decoding."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.decode += time.perf_counter() - began
