"""The memory of a block's rows: numbers, target, weight, then coordinates of categories; where further entries are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from streamsgd.kernels.structs.block import Block
from streamsgd.kernels.structs.rows import OWN, Dense, Mixed


@dataclass(frozen=True)
class Layout:
    """How rows of one encoding lie in memory.

    Attributes
    ----------
    width
        Numbers per row.
    by
        For every slot the number that multiplies it, or -1; those with a number come last.
    n_tails
        Columns with entries elsewhere.
    n_coordinates
        Weights per output, the intercept's last.
    mixed
        Whether rows are read as lists of entries even if they hold numbers only.
    tail_bytes
        Bytes per row to reckon with for entries elsewhere.
    doubles
        Whether rows may well have two entries of one coordinate.

    """

    width: int
    by: tuple[int, ...] = ()
    n_tails: int = 0
    n_coordinates: int = 0
    mixed: bool = False
    tail_bytes: int = 0
    doubles: bool = False

    @property
    def numbers_per_row(self) -> int:
        """Numbers that a row takes in a block."""
        return self.width + OWN + len(self.by)

    def row_bytes(self, precision: str) -> int:
        """Return the bytes that a row takes in a block, and elsewhere."""
        return self.numbers_per_row * np.dtype(precision).itemsize + 16 * self.n_tails + self.tail_bytes

    @property
    def entries(self) -> int:
        """Entries of a row that are in the row itself, and the intercept's."""
        return self.width + len(self.by) + 1

    def allocate(self, n_rows: int, precision: str) -> Block:
        """Return a block of so many rows with weights of 1; the rest of it is not initialised."""
        values = np.empty((n_rows, self.numbers_per_row), np.dtype(precision))
        values[:, self.width : self.width + OWN] = 0.0, 1.0
        return self.wrap(values, np.zeros((n_rows, self.n_tails, 2), np.int64))

    def wrap(self, values: np.ndarray, tails: np.ndarray) -> Block:
        """Return rows as a block that shares their memory."""
        y, weight = values[:, self.width], values[:, self.width + 1]
        if not self.mixed:
            return Block(Dense(values), y, weight)
        ids = values.view(np.int32 if values.itemsize == 4 else np.int64)
        n_plain = sum(number < 0 for number in self.by)
        by = np.array(self.by, np.int32)
        mixed = Mixed(values, ids, by, tails, self.width, n_plain, self.n_coordinates - 1, self.doubles)
        return Block(mixed, y, weight)

    def choose(self, block: Block, rows: Any) -> Block:
        """Return some rows of a block: shared memory for a slice, copies for numbers of rows."""
        tails = block.rows.tails[rows] if self.mixed else np.zeros((0, 0, 2), np.int64)
        return self.wrap(block.rows.values[rows], tails)


def most_entries(block: Block, layout: Layout) -> int:
    """Return the most entries that a row of the block has."""
    further = block.rows.tails[:, :, 1].sum(axis=1).max(initial=0) if layout.n_tails else 0
    return layout.entries + int(further)
