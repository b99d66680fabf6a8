"""The plan: which rows are read together, in which order. Integers in, integers out; no file is opened here.

Row groups that are tiny are read several at a time (a *unit*). Units larger than a chunk are streamed in
slices: two units side by side, so that a chunk still mixes and both readers stay busy, or, where the sampler
keeps the order of the data, one slice after another in its place.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


UNIT_BYTES = 4 << 20
"""Neighbouring row groups are merged into one read up to this many bytes of block ..."""

UNITS_PER_CHUNK = 16
"""... or this share of a chunk, whichever is less, so that merging does not cost the shuffle its mixing."""

SLICED_SIDE_BY_SIDE = 2
"""How many oversized units are streamed at the same time. Fixed: it is part of the order of the rows."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows `start` to `stop` of a run of neighbouring row groups: what one read brings."""

    number: int
    """Position in the chunk."""
    first: int
    """First row group, an index into the dataset's arrays."""
    last: int
    """One past the last row group."""
    start: int
    stop: int
    rows_before: int
    """Rows of the chunk's earlier pieces: where this one begins in the block."""

    @property
    def rows(self) -> int:
        """Rows that the footer promises."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Chunk:
    """Pieces read and mixed together: the unit of memory and of shuffling."""

    epoch: int
    number: int
    pieces: tuple[Piece, ...]

    @property
    def rows(self) -> int:
        """Rows that the footers promise."""
        return sum(piece.rows for piece in self.pieces)


@dataclass(frozen=True)
class Plan:
    """A pure function of (row-group sizes, settings, seed) that gives every chunk of every epoch.

    Attributes
    ----------
    first, last
        int64 (n_units,): the run of row groups of each unit.
    rows
        int64 (n_units,): rows of each unit.
    chunk_rows
        The most rows that a chunk may hold: the size of a block.
    tile_rows
        Rows that are shuffled in cache; see `kernels.encode.shuffle`.
    sampler, seed
        As set.

    """

    first: np.ndarray
    last: np.ndarray
    rows: np.ndarray
    chunk_rows: int
    tile_rows: int
    sampler: Any
    seed: int
    _epochs: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Not a method of it, which would hold it until the collector of circles comes by.
        plan_epoch = partial(_plan_epoch, self.rows, self.chunk_rows, self.sampler, self.seed)
        object.__setattr__(self, "_epochs", lru_cache(maxsize=2)(plan_epoch))

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_epochs"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    @property
    def n_rows(self) -> int:
        """Rows of one epoch."""
        return int(self.rows.sum())

    @property
    def sliced(self) -> np.ndarray:
        """Units too large for their share of a chunk, bool (n_units,)."""
        return self.rows > self.chunk_rows

    def n_chunks(self, epoch: int) -> int:
        """Return the number of chunks of an epoch."""
        return len(self._epochs(epoch).bounds)

    def n_pieces(self, epoch: int) -> int:
        """Return the number of pieces of an epoch's chunks."""
        return int(self._epochs(epoch).bounds[-1][1])

    def rows_before(self, epoch: int, number: int) -> int:
        """Return the rows of the epoch's chunks before this one."""
        parts = self._epochs(epoch)
        return int(parts.before[parts.bounds[number][0]])

    def chunk(self, epoch: int, number: int) -> Chunk:
        """Return one chunk; any chunk of any epoch can be asked for alone."""
        parts = self._epochs(epoch)
        first, last = parts.bounds[number]
        pieces = []
        for position, k in enumerate(range(first, last)):
            unit, at = int(parts.unit[k]), int(parts.before[k] - parts.before[first])
            start, stop = int(parts.start[k]), int(parts.stop[k])
            pieces.append(Piece(position, int(self.first[unit]), int(self.last[unit]), start, stop, at))
        return Chunk(epoch, number, tuple(pieces))

    def chunks(self, epoch: int, first: int = 0) -> Iterator[Chunk]:
        """Yield the chunks of an epoch, from number `first` on."""
        for number in range(first, self.n_chunks(epoch)):
            yield self.chunk(epoch, number)

    def key(self, epoch: int, number: int, stream: int = 0) -> np.uint64:
        """Return the 64-bit address of a chunk's randomness."""
        seeds = np.random.SeedSequence([self.seed, epoch, number, stream])
        return np.uint64(seeds.generate_state(1, np.uint64)[0])


class _Epoch(NamedTuple):
    """The order of one epoch: rows `start` to `stop` of units, and which of these make each chunk."""

    unit: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    before: np.ndarray
    """Rows of the epoch before each."""
    bounds: list[tuple[int, int]]


def _plan_epoch(rows: np.ndarray, chunk_rows: int, sampler: Any, seed: int, epoch: int) -> _Epoch:
    order = sampler.order(len(rows), np.random.SeedSequence([seed, epoch]))
    large = (rows > chunk_rows)[order] & sampler.side_by_side
    whole = _cut(order[~large], rows, chunk_rows)
    bounds = _fill(whole[:, 2] - whole[:, 1], chunk_rows)
    slices, ends = _slice(order[large], rows, chunk_rows)
    bounds += pairwise([len(whole), *(len(whole) + end for end in ends)])
    unit, start, stop = np.concatenate([whole, slices]).T
    return _Epoch(unit, start, stop, np.cumsum(stop - start) - (stop - start), bounds)


def make_plan(
    rows: np.ndarray,
    file: np.ndarray,
    *,
    row_bytes: int,
    chunk_rows: int,
    tile_rows: int,
    sampler: Any,
    seed: int,
) -> Plan:
    """Plan the reading of a data set.

    Parameters
    ----------
    rows, file
        int64 (n_row_groups,): rows of each row group, and the file it is in.
    row_bytes
        Bytes of one row in a block.
    chunk_rows
        The most rows that a chunk may hold.
    tile_rows
        Rows that are shuffled in cache.
    sampler
        A part of `samplers`.
    seed
        Of all randomness.

    """
    target = max(1, min(chunk_rows // UNITS_PER_CHUNK, UNIT_BYTES // row_bytes))
    first, last = merge_neighbours(rows, file, target)
    total = np.concatenate([[0], np.cumsum(rows)])
    sizes = total[last] - total[first]
    some = sizes > 0
    return Plan(first[some], last[some], sizes[some], chunk_rows, tile_rows, sampler, seed)


def row_groups(pieces: Iterable[Piece]) -> list[int]:
    """Return the row groups of some pieces, ascending."""
    return sorted({group for piece in pieces for group in range(piece.first, piece.last)})


def merge_neighbours(rows: np.ndarray, file: np.ndarray, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut the row groups into runs of one file with about `target` rows; a larger row group stays alone."""
    if not len(rows):
        empty = np.zeros(0, np.int64)
        return empty, empty
    large = rows >= target
    section = np.cumsum((np.diff(file, prepend=file[0]) != 0) | large | np.concatenate([[False], large[:-1]]))
    before = np.cumsum(rows) - rows
    starts = np.flatnonzero(np.diff(section, prepend=section[0] - 1))
    base = np.repeat(before[starts], np.diff(np.append(starts, len(rows))))
    run = (before - base) // target
    cut = (np.diff(section, prepend=section[0] - 1) != 0) | (np.diff(run, prepend=run[0]) != 0)
    first = np.flatnonzero(cut)
    return first, np.append(first[1:], len(rows))


def _fill(rows: np.ndarray, capacity: int) -> list[tuple[int, int]]:
    """Cut a sequence of unit sizes into runs whose sums stay within the capacity."""
    ends = np.cumsum(rows)
    bounds, first, used = [], 0, 0
    while first < len(rows):
        last = int(np.searchsorted(ends, used + capacity, side="right"))
        bounds.append((first, last))
        first, used = last, int(ends[last - 1])
    return bounds


def _cut(order: np.ndarray, rows: np.ndarray, capacity: int) -> np.ndarray:
    """Return (unit, start, stop) of units one after another, in slices of at most the capacity, (n, 3)."""
    n_slices = -(-rows[order] // capacity)
    unit = np.repeat(order, n_slices)
    start = (np.arange(len(unit)) - np.repeat(np.cumsum(n_slices) - n_slices, n_slices)) * capacity
    return np.stack([unit, start, np.minimum(start + capacity, rows[unit])], axis=1).astype(np.int64)


def _slice(units: np.ndarray, rows: np.ndarray, capacity: int) -> tuple[np.ndarray, array[int]]:
    """Stream oversized units side by side: each chunk takes the next slice of every open unit.

    Returns (unit, start, stop), int64 (n, 3), and where each chunk ends in it.
    """
    n_open = min(SLICED_SIDE_BY_SIDE, capacity)
    share = capacity // n_open
    waiting = iter(zip(units.tolist(), rows[units].tolist(), strict=True))
    parts, ends = array("q"), array("q")
    streams = [(unit, size, 0) for unit, size in islice(waiting, n_open)]
    while streams:
        going_on = []
        for unit, size, at in streams:
            stop = min(at + share, size)
            parts.extend((unit, at, stop))
            if stop < size:
                going_on.append((unit, size, stop))
            else:
                going_on += [(*new, 0) for new in islice(waiting, 1)]
        streams = going_on
        ends.append(len(parts) // 3)
    return np.array(parts, np.int64).reshape(-1, 3), ends
