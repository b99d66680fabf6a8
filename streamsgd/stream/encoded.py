"""The encoded rows of a piece, apart from where they are learned: what a cache keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamsgd.compute.pages import filled_once
from streamsgd.kernels.encode.rows import place_rows, take_rows

if TYPE_CHECKING:
    from streamsgd.kernels.structs.block import Block
    from streamsgd.stream.chunk import LoadedPiece

ENTRY_BYTES, NAMED_BYTES = 4096, 160
"""What a piece takes beside its rows, and for each of its most frequent values."""


class Facts(NamedTuple):
    """The account of a piece, as far as it is the same in every pass; see `LoadedPiece`."""

    filtered: int
    skipped: int
    unseen: int
    missing: int
    targets: np.ndarray | None
    common: dict[str, list[tuple[str, int]]]


class RowsInMemory(NamedTuple):
    """The rows of a piece as they are kept in memory."""

    facts: Facts
    keep: np.ndarray | None
    """bool (n_rows,): rows that are neither filtered nor left out; None for all ..."""
    held: np.ndarray | None
    """... and those that are held out; None for none."""
    values: np.ndarray
    """(n_kept, numbers per row), of the block's type."""
    tails: np.ndarray
    """int64 (n_kept, n_tails, 2), pointing into ..."""
    pools: list[np.ndarray]

    def place(self, dest: np.ndarray, first: int, block: Block) -> list[np.ndarray]:
        """Write the rows to their places in a block, the first of which is `first`; return the memory that they point to."""
        for rows, target in zip((self.values, self.tails), arrays_of(block), strict=False):
            if rows.nbytes:
                place_rows(rows.ctypes.data, row_bytes(rows), len(rows), dest, 0, target.ctypes.data, first)
        return self.pools


class Encoded(NamedTuple):
    """A piece that was just read and encoded."""

    loaded: LoadedPiece
    block: Block
    dest: np.ndarray
    """int32 (n_rows,): where its rows are in the block."""
    keep: np.ndarray
    """bool (n_rows,): rows that are neither filtered nor left out ..."""
    held: np.ndarray
    """... and those that are held out."""

    @property
    def facts(self) -> Facts:
        """Its account, as far as it is the same in every pass."""
        one = self.loaded
        return Facts(one.filtered, one.skipped, one.unseen, one.missing, one.targets, one.common)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in memory."""
        n_kept = int(np.count_nonzero(self.keep))
        rows = sum(row_bytes(array) for array in arrays_of(self.block)) * n_kept
        named = sum(map(len, self.loaded.common.values()))
        pools = sum(pool.nbytes for pool in self.loaded.pools)
        return rows + pools + 2 * len(self.keep) + NAMED_BYTES * named + ENTRY_BYTES

    def in_memory(self) -> RowsInMemory:
        """Return a copy of the rows."""
        n_kept = int(np.count_nonzero(self.keep))
        copies = [filled_once((n_kept, *array.shape[1:]), array.dtype) for array in arrays_of(self.block)]
        for rows, source in zip(copies, arrays_of(self.block), strict=True):
            if rows.nbytes:
                take_rows(source.ctypes.data, row_bytes(rows), n_kept, self.dest, 0, rows.ctypes.data)
        tails = copies[1] if len(copies) > 1 else np.zeros((n_kept, 0, 2), np.int64)
        return RowsInMemory(
            self.facts,
            None if n_kept == len(self.keep) else self.keep,
            self.held if self.held.any() else None,
            copies[0],
            tails,
            list(self.loaded.pools),
        )


def arrays_of(block: Block) -> list[np.ndarray]:
    """Return the memory of a block's rows: numbers, and where further entries are, if rows may have some."""
    tails = getattr(block.rows, "tails", None)
    return [block.rows.values] if tails is None else [block.rows.values, tails]


def row_bytes(rows: np.ndarray) -> int:
    """Return the bytes of a row."""
    return int(rows.strides[0]) if rows.size else rows.itemsize * int(np.prod(rows.shape[1:]))
