"""Pages that claim more bytes than their column chunk has, found before Arrow makes room for them.

Where a column chunk is read in parts, Arrow takes as much memory as the header of a page says, and fills it with zeros when
fewer bytes come: up to 2 GB for a flipped bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from streamsgd.data.stores.watched import ReadOnly
from streamsgd.kernels.thrift import walk_pages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LARGE_PAGE = 4 << 20
"""Bytes from which on a page is looked at: writers make pages of a megabyte, and less does no harm."""

ANY = 1 << 62
"""Beyond every file."""

LONGEST_HEADER = 16 << 20
"""Bytes of a page header beyond which Arrow gives up."""


@dataclass
class PageHeaders:
    """The page headers of a column chunk that is read on from its first byte."""

    header: int
    """Where in the file the next one begins, ..."""
    held: bytes = b""
    """... and the bytes of it that were read, if not all were."""
    most: int = LARGE_PAGE
    """Bytes that a page may have."""
    begins: set[int] = field(default_factory=set)
    """Where reads began with a header: of these one is the chunk's first byte, and what ends there may be another chunk."""

    def follow(self, at: int, data: bytes, span: Callable[[int], tuple[int, int]]) -> None:
        """Go over the page headers in the next bytes of the chunk, which are from a place of the file on.

        `span` returns first and last byte, exclusive, of the column chunk with a byte; twice that byte where there is none.

        Raises
        ------
        pyarrow.ArrowInvalid
            A page ends beyond its chunk.

        """
        if self.header >= at + len(data):
            return
        if self.header == at and not self.held:
            self.begins.add(at)
        some, first = (self.held + data, self.header) if self.held else (data, at)
        found, size = self._walk(some, first)
        if size:
            begin, end = span(self.header)
            self.most = end - self.header if begin in self.begins and end > self.header else ANY
            found, size = self._walk(some, first)
        if size:
            raise pa.ArrowInvalid(
                f"the page at byte {self.header:,} says that it has {size:,} bytes, but its chunk ends after {self.most:,}"
            )
        self.held = some[found:]
        if len(self.held) > LONGEST_HEADER:
            self.header, self.held = ANY, b""

    def _walk(self, some: bytes, first: int) -> tuple[int, int]:
        found, size = walk_pages(np.frombuffer(some, np.uint8), self.header - first, self.most)
        self.header = first + int(found)
        return int(found), int(size)


class GuardedPages(ReadOnly):
    """A file that Arrow reads column chunks of in parts: each from its first byte on, several in turn.

    Parameters
    ----------
    handle
        Of the file, for random reads.
    spans
        Returns first byte and length of the column chunks that are read.

    """

    def __init__(self, handle: Any, spans: Callable[[], Sequence[tuple[int, int]]]) -> None:
        self.handle, self.at, self._spans = handle, 0, spans
        self.chunks: dict[int, PageHeaders] = {}
        """By the place from which each is read on."""

    @cached_property
    def spans(self) -> Sequence[tuple[int, int]]:
        """First byte and length of the column chunks; found when a page is large, for parsing footers takes a while."""
        return self._spans()

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return bool(self.handle.closed)

    def read(self, n: int = -1) -> bytes:
        """Return the next bytes, their page headers checked."""
        size = self.handle.size()
        n = size - self.at if n < 0 else max(0, min(n, size - self.at))
        data = bytes(self.handle.read_at(n, self.at))
        if data:
            chunk = self.chunks.pop(self.at, None) or PageHeaders(self.at)
            chunk.follow(self.at, data, self._span)
            self.chunks[self.at + len(data)] = chunk
        self.at += len(data)
        return data

    def _span(self, at: int) -> tuple[int, int]:
        return next(((start, start + length) for start, length in self.spans if start <= at < start + length), (at, at))

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
