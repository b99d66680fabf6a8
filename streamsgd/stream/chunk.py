"""Rows that were read: a piece, and a chunk of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.data.timings import Timings
from streamsgd.features.frequent import FrequentValues
from streamsgd.features.target import join_target_sums

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamsgd.features.layout import Layout
    from streamsgd.kernels.structs.block import Block
    from streamsgd.planning.chunks import Chunk


def without_rows(piece: LoadedPiece) -> LoadedPiece:
    """Return the account of a piece alone, for messages; how many rows it held out goes with it."""
    nothing = np.zeros(0, np.int64)
    return replace(piece, starts=nothing, counts=nothing, helds=np.array([piece.helds.sum()]), pools=[])


@dataclass
class LoadedPiece:
    """What one piece brought: its tiles in the block, and the account of its rows."""

    starts: np.ndarray
    counts: np.ndarray
    helds: np.ndarray
    filtered: int = 0
    """Rows that the filter dropped."""
    skipped: int = 0
    """Rows left out because target or weight is unusable, or the piece unreadable, as the user allowed."""
    unseen: int = 0
    """Rows left out because training did not see their class."""
    missing: int = 0
    """Missing feature values that were imputed."""
    targets: np.ndarray | None = None
    """Sums of the targets to learn from; see `baseline`."""
    problem: str = ""
    """Why the piece was left out, if it was."""
    spent: Timings = field(default_factory=Timings)
    pools: list[np.ndarray] = field(default_factory=list, repr=False)
    """Memory that its rows point to."""
    common: dict[str, list[tuple[str, int]]] = field(default_factory=dict, repr=False)
    """Its most frequent values, by hashed column."""
    labels: list[str] = field(default_factory=list, repr=False)
    """Values of the column by which rows are told apart, if they are, ..."""
    codes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32), repr=False)
    """... and which of them each row of the block has, int32."""
    parts: list[Any] = field(default_factory=list, repr=False)
    """What `stream.folds` notes of its row groups."""


def join_pieces(parts: list[LoadedPiece], n_classes: int) -> LoadedPiece:
    """Return the row groups of a piece that were loaded apart as the piece."""
    whole = LoadedPiece(
        np.concatenate([part.starts for part in parts]),
        np.concatenate([part.counts for part in parts]),
        np.concatenate([part.helds for part in parts]),
        filtered=sum(part.filtered for part in parts),
        skipped=sum(part.skipped for part in parts),
        unseen=sum(part.unseen for part in parts),
        missing=sum(part.missing for part in parts),
        problem="; ".join(part.problem for part in parts if part.problem),
    )
    total = FrequentValues()
    for part in parts:
        whole.spent.add(part.spent)
        whole.codes = np.append(whole.codes, part.codes + np.int32(len(whole.labels)))
        whole.labels += part.labels
        whole.pools += part.pools
        whole.parts += part.parts
        total.add(part.common)
        if part.targets is not None:
            whole.targets = part.targets if whole.targets is None else join_target_sums(whole.targets, part.targets, n_classes)
    whole.common = total.best()
    return whole


HELD_ROWS = DRAWN_ROWS = 1 << 16


@dataclass
class LoadedChunk:
    """A chunk as numbers, with the order in which its rows are to be learned.

    `order` (int32, n rows to learn) names the tile of each next row; tile t begins at row `starts[t]` of the block with
    `counts[t]` rows to learn, then `helds[t]` held out. Where rows are `drawn` with replacement it names rows of the block.
    """

    chunk: Chunk
    block: Block
    starts: np.ndarray
    counts: np.ndarray
    helds: np.ndarray
    order: np.ndarray
    pieces: list[LoadedPiece] = field(repr=False)
    layout: Layout = field(repr=False)
    room: np.ndarray = field(repr=False)
    """What `order` is the beginning of."""
    waited: float = 0.0
    """Seconds that the consumer waited for it."""
    drawn: bool = False
    thinned: bool = False
    """Whether rows were left out by their class; see `training.tasks.thinned`."""
    cut: bool = False
    """Whether rows were taken from the beginning of the order."""

    @property
    def at_once(self) -> int:
        """The most rows that `turn` gives at a time."""
        return DRAWN_ROWS if self.drawn else max(1, len(self.order))

    def heads(self, first: int = 0) -> np.ndarray:
        """Return the next row of each tile once `first` rows are taken, int64; nothing where rows are drawn."""
        if self.drawn:
            return np.zeros(0, np.int64)
        return self.starts + np.bincount(self.order[:first], minlength=len(self.starts)) if first else self.starts.copy()

    def turn(self, first: int, last: int, heads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return order and heads of rows `first` to `last`, as `kernels.learn.fit.fit` takes them.

        A row that is drawn is a tile of its own.
        """
        if not self.drawn:
            return self.order[first:last], heads
        return np.arange(last - first, dtype=np.int32), self.order[first:last].astype(np.int64)

    def head(self, n: int) -> LoadedChunk:
        """Return the first n rows of the order, of the same block."""
        return replace(self, order=self.order[:n])

    def drop(self, n: int) -> None:
        """Leave out the first n rows of the order, which were learned."""
        taken = np.bincount(self.order[:n], minlength=len(self.starts))
        self.starts, self.counts, self.order = self.starts + taken, self.counts - taken, self.order[n:]
        self.cut = self.cut or n > 0

    def compact(self) -> LoadedChunk:
        """Return a copy of the rows that are to be learned, and of those held out, in memory of its own."""
        sizes = self.counts + self.helds
        first = np.cumsum(sizes) - sizes
        rows = np.repeat(self.starts - first, sizes) + np.arange(int(sizes.sum()))
        order = self.order.copy()
        # Two at least: columns of one row or none are contiguous, which is another type to kernels.
        block = self.layout.choose(self.block, np.append(rows, np.zeros(max(0, 2 - len(rows)), np.int64)))
        return replace(self, block=block, starts=first, order=order, room=order, pieces=[], waited=0.0)

    @property
    def spent(self) -> Timings:
        """What reading this chunk took, added up over pieces."""
        total = Timings()
        for piece in self.pieces:
            total.add(piece.spent)
        return total

    def learned_runs(self) -> list[tuple[int, int]]:
        """Return the runs (start, stop) of rows to learn, tiles that touch taken together."""
        some = self.counts > 0
        if not some.any():
            return []
        starts, stops = self.starts[some], (self.starts + self.counts)[some]
        first = np.flatnonzero(np.append(True, starts[1:] != stops[:-1]))
        return list(zip(starts[first].tolist(), stops[np.append(first[1:], len(stops)) - 1].tolist(), strict=True))

    def held_blocks(self) -> Iterator[Block]:
        """Yield copies of the held-out rows, `HELD_ROWS` at a time: tile by tile they would be too few to score fast."""
        ends = np.cumsum(self.helds)
        first = np.repeat(self.starts + self.counts - (ends - self.helds), self.helds)
        rows = first + np.arange(len(first))
        for at in range(0, len(rows), HELD_ROWS):
            yield self.layout.choose(self.block, rows[at : at + HELD_ROWS])
