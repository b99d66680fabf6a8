"""One decode for runs that leave out other rows each: rows are read in their own order, then placed as each run wants them.

Whoever reads alone puts the rows that it learns before those that it holds out, tile by tile, in an order that depends on how
many there are. So every run needs a block of its own: the rows are copied there from the block that was read, a tile at a time,
which is a small part of decoding them.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamsgd.features.target import join_target_sums, reweighed
from streamsgd.kernels.encode.rows import place_rows
from streamsgd.kernels.encode.shuffle import place
from streamsgd.stream.encoded import arrays_of, row_bytes
from streamsgd.stream.held import HeldFold
from streamsgd.stream.loader import Loader
from streamsgd.stream.stream import ordered

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streamsgd.kernels.structs.block import Block
    from streamsgd.planning.chunks import Piece, Plan
    from streamsgd.stream.chunk import LoadedChunk, LoadedPiece
    from streamsgd.stream.controls import RowFacts

ROW_BYTES = 2 + 8
"""Bytes that are noted of a row, at the most: whether it is kept, its fold, and its weight when it is held out."""


class Part(NamedTuple):
    """What is noted of neighbouring rows that were loaded at once."""

    first: int
    """Row of the block where they begin."""
    key: np.uint64
    """Of their shuffle."""
    keep: np.ndarray
    """bool (n,): which of them are in the block."""
    folds: np.ndarray
    """uint8 (n,): the fold of each."""
    targets: list[np.ndarray | None]
    """Sums of the targets of all, then of all but each fold."""
    held_weight: np.ndarray | None
    """float64 (n,): weights when they are held out, where these are others."""


@dataclass
class FoldsLoader(Loader):
    """A loader that reads all rows in the order of the data, and notes the fold of each."""

    cuts: HeldFold = HeldFold()  # noqa: RUF009  frozen

    def load(self, piece: Piece, block: Block, key: np.uint64, *, shuffled: bool) -> LoadedPiece:  # noqa: ARG002
        """Read one piece into its rows of the block, in the order of the data; `place_in` shuffles them."""
        return super().load(piece, block, key, shuffled=False)

    @property
    def controls(self) -> tuple[str, ...]:
        """Columns that decide which rows are learned."""
        return (*super().controls, *self.cuts.columns)

    def folds(self, piece: Piece, columns: dict[str, Any]) -> np.ndarray | None:
        """Return the fold of each row where a column decides it."""
        return self.cuts.numbers(self.dataset, piece, columns) if self.cuts.columns else None

    def note(self, loaded: LoadedPiece, piece: Piece, key: np.uint64, facts: RowFacts, keep: np.ndarray) -> None:
        """Note the fold of each row, and what runs need beside the rows."""
        y, weight, nobody = facts.y, facts.weight, np.zeros(piece.rows, np.bool_)
        numbers = self.cuts.numbers(self.dataset, piece, {}) if facts.folds is None else facts.folds
        mine = reweighed(y, weight, nobody, self.class_weights, self.held_class_weights)
        held = reweighed(y, weight, ~nobody, self.class_weights, self.held_class_weights) if self.class_weights else None
        if self.class_weights and held is None:
            held = np.ones(piece.rows)
        targets = [self.sums_of(y, mine, keep & (numbers != number)) for number in range(self.cuts.folds + 1)]
        loaded.parts = [Part(piece.rows_before, key, keep, numbers, targets, held)]


def folds_loader(loader: Loader) -> FoldsLoader:
    """Return what reads for all runs that leave out one of the folds of a loader."""
    assert isinstance(loader.held, HeldFold), "jobs of one stream leave out folds"  # noqa: S101  for the type checker
    known = {field.name: getattr(loader, field.name) for field in fields(Loader)}
    cuts = replace(loader.held, number=0)
    return FoldsLoader(**{**known, "held": replace(cuts, group=""), "cache": None, "cuts": cuts})


class FoldViews:
    """Makes of a chunk that was read what runs would have that leave out a fold each.

    Parameters
    ----------
    loader, plan
        That read it.
    numbers
        The fold that each run leaves out, 0 for none.
    n_blocks
        How many runs may look at a time; others wait.

    """

    def __init__(self, loader: Loader, plan: Plan, numbers: Sequence[int], n_blocks: int) -> None:
        self.loader, self.plan, self.numbers = loader, plan, numbers
        most = min(plan.chunk_rows, plan.n_rows)
        self._free: SimpleQueue[tuple[Block, np.ndarray]] = SimpleQueue()
        for _ in range(n_blocks):
            self._free.put((loader.allocate(most), np.empty(most, np.int32)))

    @contextmanager
    def seen(self, filled: LoadedChunk, run: int) -> Iterator[LoadedChunk]:
        """Give the chunk as a run would have read it."""
        block, order = room = self._free.get()
        try:
            pieces = [self._piece(filled.block, piece, block, self.numbers[run]) for piece in filled.pieces]
            yield ordered(self.plan, filled.chunk, room, pieces, filled.layout, waited=filled.waited)
        finally:
            self._free.put((block, order))

    def _piece(self, source: Block, piece: LoadedPiece, block: Block, number: int) -> LoadedPiece:
        placed = [self._place(source, part, block, number) for part in piece.parts]
        starts, counts, helds = np.concatenate([np.zeros((3, 0), np.int64), *placed], axis=1)
        targets, n_classes = None, len(self.loader.target.classes) if self.loader.target else 0
        for part in piece.parts:
            found = part.targets[number]
            targets = found if targets is None or found is None else join_target_sums(targets, found, n_classes)
        return replace(piece, starts=starts, counts=counts, helds=helds, targets=targets, parts=[])

    def _place(self, source: Block, part: Part, block: Block, number: int) -> np.ndarray:
        """Copy rows to where a run without the fold has them; return starts, counts and rows held out of its tiles."""
        n, size = len(part.keep), self.loader.tile_rows
        tiles, dest, held = np.zeros((3, -(-n // size)), np.int64), np.empty(n, np.int32), part.folds == number
        shuffled = bool(self.plan.sampler.mixes_rows)
        place(part.keep, held, size, part.first, part.key, shuffled, dest, *tiles, np.empty(size, np.int32))
        n_kept = int(np.count_nonzero(part.keep))
        for rows, target in zip(arrays_of(source), arrays_of(block), strict=True):
            if rows.nbytes:
                width = row_bytes(rows)
                place_rows(rows.ctypes.data + part.first * width, width, n_kept, dest, 0, target.ctypes.data, part.first)
        if part.held_weight is not None:
            out = held & part.keep
            block.weight[dest[out]] = part.held_weight[out]
        return tiles
