"""Pages that claim more bytes than their column chunk has, found before Arrow makes room for them.

Where a column chunk is read in parts, Arrow takes as much memory as the header of a page says, and fills it with zeros when
fewer bytes come: up to 2 GB for a flipped bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from streamsgd.data.watched import ReadOnly
from streamsgd.kernels.thrift import walk_pages

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST_HEADER = 16 << 20
"""Bytes of a page header beyond which Arrow gives up."""


@dataclass
class Chunk:
    """A column chunk that is read from its first byte on."""

    start: int
    stop: int
    header: int
    """Where the next page header begins, ..."""
    held: bytes = b""
    """... and the bytes of it that were read, if not all were."""

    def check(self, at: int, data: bytes) -> None:
        """Follow the page headers in bytes read at a place of the file; what is read out of order is not followed.

        Raises
        ------
        pyarrow.ArrowInvalid
            A page ends beyond its chunk.

        """
        if self.header >= at + len(data):
            return
        if at != self.header + len(self.held) if self.held else at > self.header:
            self.header = self.stop
            return
        some, first = (self.held + data, self.header) if self.held else (data, at)
        found, claimed = walk_pages(np.frombuffer(some, np.uint8), self.header - first, self.stop - self.header)
        self.header = first + int(found)
        if claimed:
            raise pa.ArrowInvalid(
                f"the page at byte {self.header:,} says it has {claimed:,} bytes, but its column chunk ends after "
                f"{self.stop - self.header:,}"
            )
        self.held = some[int(found) :]
        if len(self.held) > LONGEST_HEADER:
            self.header, self.held = self.stop, b""


class GuardedPages(ReadOnly):
    """A file that Arrow reads column chunks of in parts.

    Parameters
    ----------
    handle
        Of the file, for random reads.
    spans
        First byte and length of the column chunks that will be read.

    """

    def __init__(self, handle: Any, spans: Iterable[tuple[int, int]]) -> None:
        self.handle, self.at = handle, 0
        self.chunks = [Chunk(start, start + length, start) for start, length in spans]

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return bool(self.handle.closed)

    def read(self, n: int = -1) -> bytes:
        """Return the next bytes, their page headers checked."""
        size = self.handle.size()
        n = size - self.at if n < 0 else max(0, min(n, size - self.at))
        data = bytes(self.handle.read_at(n, self.at))
        for chunk in self.chunks:
            if chunk.start <= self.at < chunk.stop:
                chunk.check(self.at, data[: chunk.stop - self.at])
        self.at += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        self.at = offset + (0, self.at, self.handle.size() if whence == 2 else 0)[whence]
        return self.at

    def tell(self) -> int:
        """Return the place."""
        return self.at

    def close(self) -> None:
        """Close the file."""
        self.handle.close()
