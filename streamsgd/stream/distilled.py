"""What thinning leaves of chunks, kept in memory for later passes: those need neither reading nor thinning."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from streamsgd.stream.chunk import LoadedChunk

OVERHEAD = 4096
"""Bytes of a chunk beside its rows."""


class DistilledChunks:
    """Thinned chunks by number, as many as there is room for; many threads may use it. It decides no bit.

    Parameters
    ----------
    most
        Bytes.

    """

    def __init__(self, most: int) -> None:
        self._most, self.nbytes = most, 0
        self._chunks: dict[int, LoadedChunk] = {}
        self._lock = Lock()

    def get(self, number: int) -> LoadedChunk | None:
        """Return a chunk, which nobody may change, if it is there."""
        return self._chunks.get(number)

    def missing_from(self, number: int, n_chunks: int) -> int:
        """Return how many chunks in a row, from this number on, are not there."""
        last = number
        while last < n_chunks and last not in self._chunks:
            last += 1
        return last - number

    def offer(self, filled: LoadedChunk) -> None:
        """Keep a copy of a chunk, if it was thinned as a whole and there is room."""
        number = filled.chunk.number
        if not filled.thinned or filled.cut or number in self._chunks:
            return
        nbytes = bytes_of(filled)
        with self._lock:
            if self.nbytes + nbytes > self._most or number in self._chunks:
                return
            self.nbytes += nbytes
            self._chunks[number] = filled.compact()

    def clear(self) -> None:
        """Let go of all chunks."""
        with self._lock:
            self._chunks.clear()
            self.nbytes = 0


def bytes_of(filled: LoadedChunk) -> int:
    """Return the bytes of a copy of the rows of a chunk."""
    n_rows = int(filled.counts.sum() + filled.helds.sum())
    values: np.ndarray = filled.block.rows.values
    row_bytes = int(values.shape[1]) * values.itemsize
    return n_rows * row_bytes + 4 * len(filled.order) + 24 * len(filled.counts) + OVERHEAD
