"""The bytes of column chunks from object stores, in few requests: fetched first, decoded from memory then.

A request takes tens of milliseconds before its first byte, in which a megabyte could have come; so column chunks that lie
within `HOLE` of each other are one request. And where fetching and decoding are apart, what fails while fetching is the
storage's doing, and what fails while decoding the file's.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from streamsgd.data.stores.watched import ReadOnly
from streamsgd.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HOLE = 1 << 20
"""Bytes between two ranges up to which they are read as one."""

MOST = 32 << 20
"""Bytes of one request."""

PROBE_BYTES = 1 << 20
"""Bytes that are read at a time to see whether a storage gives them."""

Span = tuple[int, int]
"""Where bytes begin, and how many there are."""


def coalesce(spans: Iterable[Span], hole: int = HOLE, most: int = MOST) -> list[Span]:
    """Return ranges that hold all the given ones, those nearer than `hole` together unless that takes more than `most`."""
    found: list[Span] = []
    for start, length in sorted(spans):
        if found:
            first, n = found[-1]
            stop = max(first + n, start + length)
            if start <= first + n or (start - (first + n) <= hole and stop - first <= most):
                found[-1] = (first, stop - first)
                continue
        found.append((start, length))
    return found


def check_answer(data: bytes, n: int, name: str) -> bytes:
    """Return the bytes of a range if they are as many as asked for, and none of a page of HTML.

    Raises
    ------
    OSError
        The connection ended early.
    DataError
        Something between here and the storage answered in its place.

    """
    if looks_like_markup(data):
        raise DataError(
            f"{name}: the endpoint answers with a page of HTML or XML instead of the file's bytes; is there a proxy or a login "
            f"page before it? It begins {data[:60]!r}"
        )
    if len(data) != n:
        raise ConnectionError(f"the connection was closed after {len(data):,} of {n:,} bytes")
    return data


def looks_like_markup(data: bytes) -> bool:
    """Whether bytes are the beginning of HTML or XML, which no column chunk and no footer begins with."""
    start = data[:256].lstrip().lower()
    return start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body", b"<error"))


def probe(handle: Any, name: str, spans: Iterable[Span]) -> None:
    """Read ranges of a file and drop them.

    Raises
    ------
    OSError, DataError
        The storage does not give them.

    """
    for start, length in coalesce(spans):
        for at in range(start, start + length, PROBE_BYTES):
            n = min(PROBE_BYTES, start + length - at)
            check_answer(handle.read_at(n, at), n, name)


@dataclass
class Fetched(ReadOnly):
    """Some ranges of a file in memory, as a file: what else is asked for is read from the storage.

    Parameters
    ----------
    handle
        Of the whole file, for random reads.
    size, name
        Of it.

    """

    handle: Any
    size: int
    name: str
    parts: OrderedDict[int, Any] = field(default_factory=OrderedDict)
    """By where each begins: pyarrow buffers."""
    at: int = 0
    closed: bool = False

    def fetch(self, spans: Sequence[Span]) -> None:
        """Read what of some ranges is not here yet."""
        for start, length in coalesce(span for span in spans if self._here(*span) is None):
            data = check_answer(self.handle.read_at(length, start), length, self.name)
            self.parts[start] = pa.py_buffer(data)

    def _here(self, start: int, length: int) -> Any:
        for first, part in self.parts.items():
            if first <= start and start + length <= first + part.size:
                return part.slice(start - first, length)
        return None

    def read_buffer(self, n: int = -1) -> Any:
        """Return the next bytes without a copy."""
        n = self.size - self.at if n < 0 else max(0, min(n, self.size - self.at))
        found = self._here(self.at, n)
        if found is None:
            found = pa.py_buffer(check_answer(self.handle.read_at(n, self.at), n, self.name))
        self.at += n
        return found

    def read(self, n: int = -1) -> bytes:
        """Return the next bytes."""
        return bytes(self.read_buffer(n).to_pybytes())

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        self.at = offset + (0, self.at, self.size)[whence]
        return self.at

    def tell(self) -> int:
        """Return the place."""
        return self.at

    def close(self) -> None:
        """Let go of the bytes; the handle is its owner's."""
        self.closed = True
        self.parts.clear()
