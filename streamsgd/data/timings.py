"""Where the time of reading goes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Timings:
    """Seconds of work and bytes of storage that reading took."""

    open: float = 0.0
    decode: float = 0.0
    encode: float = 0.0
    bytes: int = 0

    def add(self, other: Timings) -> None:
        """Add another account to this one."""
        self.open += other.open
        self.decode += other.decode
        self.encode += other.encode
        self.bytes += other.bytes
