"""Large footers in parts: a footer of any of a file's row groups, made without parsing the others.

A parsed footer takes ten times its length in memory: 256 MB for ten thousand row groups of 29 columns, and a third of a
second. The index of one takes 8 bytes per row group, and the footer of a few row groups some microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from streamsgd.kernels.thrift import STRUCT, find_row_groups, row_group_bounds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


END = 8
"""Bytes after the footer: its length and the magic."""


@dataclass(frozen=True)
class FooterIndex:
    """Where the parts of a footer are.

    `before` and `after` are its bytes around the list of row groups, `bounds`, int64 (n_row_groups + 1,), says where each
    begins, counted from the footer's start.
    """

    before: bytes
    after: bytes
    bounds: np.ndarray
    length: int
    """Bytes of the footer with its length and magic: it begins so many before the end of the file."""

    def span(self, groups: Sequence[int]) -> tuple[int, int]:
        """Return the bytes of the footer that hold these row groups, and others between them."""
        return int(self.bounds[min(groups)]), int(self.bounds[max(groups) + 1])

    def footer(self, groups: Sequence[int], start: int, data: bytes) -> bytes:
        """Return a footer, with its length and magic, of these row groups alone; `data` is the footer from `start` on."""
        parts = [data[int(self.bounds[g]) - start : int(self.bounds[g + 1]) - start] for g in groups]
        size = bytes([len(parts) << 4 | STRUCT]) if len(parts) < 15 else bytes([0xF0 | STRUCT]) + _varint(len(parts))
        whole = b"".join([self.before, size, *parts, self.after])
        return whole + len(whole).to_bytes(4, "little") + b"PAR1"


def split_footer(footer: bytes, most: int) -> Iterator[bytes]:
    """Yield footers of at most so many row groups each, or the footer itself where it cannot be split."""
    index = index_footer(footer)
    n = len(index.bounds) - 1 if index is not None else 0
    if index is None or n <= most:
        yield footer
        return
    for first in range(0, n, most):
        yield index.footer(range(first, min(first + most, n)), 0, footer)


def index_footer(footer: bytes) -> FooterIndex | None:
    """Return the index of a footer (with its length and magic), or None where it is not as footers are."""
    data = np.frombuffer(footer, np.uint8)[:-END].copy()
    at, first, size = find_row_groups(data)
    if at < 0 or not 0 <= size <= len(data):
        return None
    bounds = np.empty(size + 1, np.int64)
    if not row_group_bounds(data, first, bounds):
        return None
    return FooterIndex(footer[:at], footer[int(bounds[-1]) : -END], bounds, len(footer))


def _varint(n: int) -> bytes:
    parts = []
    while n > 127:
        parts.append(n & 127 | 128)
        n >>= 7
    return bytes([*parts, n])
