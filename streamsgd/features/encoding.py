"""Encoding: what a column's values become in a block, frozen when training starts and kept in the model."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from streamsgd.data.types import WHAT, fits, zone_of
from streamsgd.errors import DataError
from streamsgd.features.categories import CategoryColumn
from streamsgd.features.crosses import Cross
from streamsgd.features.hashing import Hashed
from streamsgd.features.layout import Layout
from streamsgd.features.numbers import NumberColumn
from streamsgd.features.ragged import RaggedColumn
from streamsgd.kernels.structs.rows import TAIL


def check_columns(encoding: Encoding, schema: Any, what: str) -> None:
    """Refuse data that lacks a column of an encoding, or has one of another kind.

    Raises
    ------
    DataError
        It does; the message names the column.

    """
    wanted = [(column.column, "number" if column.item < 0 else "vector") for column in encoding.columns]
    wanted += [(c.column, "moment" if c.part else "number" if c.edges else "category") for c in encoding.categories]
    wanted += [(tail.name, tail.kind) for tail in encoding.tails]
    for name, kind in wanted:
        if name not in schema.names:
            raise DataError(f"{what} has no column {name!r}, which the model was trained with")
        found = schema.field(name).type
        if not fits(kind, found):
            raise DataError(f"column {name!r} of {what} is of type {found}; the model needs {WHAT[kind]} there")
    for name, size in _sizes(encoding).items():
        found = schema.field(name).type.list_size
        if found != size:
            raise DataError(f"column {name!r} of {what} has lists of {found} numbers; the model needs {size}")
    for category in encoding.categories:
        if category.part and bool(category.zone) != bool(zone_of(schema.field(category.column).type)):
            raise DataError(
                f"column {category.column!r} of {what} has {'no' if category.zone else 'a'} time zone; in training it had "
                f"{category.zone or 'none'}"
            )


def _sizes(encoding: Encoding) -> dict[str, int]:
    """Return how long the vectors of each column are that has some."""
    sizes: dict[str, int] = {}
    for column in encoding.columns:
        if column.item >= 0:
            sizes[column.column] = max(sizes.get(column.column, 0), column.item + 1)
    return sizes


TAIL_SLACK = 1.5
"""By how much rows may have more entries than in the first look before memory runs short."""

RARE = 8
"""If fewer than one row in 2 * `RARE` has two values of one hash, it is not looked for: n^2 / 2 pairs of n, per coordinate."""


class Encoding(msgspec.Struct, frozen=True):
    """How a table becomes a block: numbers, their indicators, categories, crosses, and columns of many values per cell."""

    columns: tuple[NumberColumn, ...] = ()
    categories: tuple[CategoryColumn, ...] = ()
    crosses: tuple[Cross, ...] = ()
    """Those with a number come last."""
    tails: tuple[RaggedColumn, ...] = ()
    hashed: Hashed | None = None

    @property
    def indicators(self) -> tuple[str, ...]:
        """Names of the columns that have an indicator, in the order of the block."""
        return tuple(column.name for column in self.columns if column.indicator)

    @property
    def width(self) -> int:
        """Numbers per row of a block."""
        return len(self.columns) + len(self.indicators)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the block's numbers."""
        return tuple(column.name for column in self.columns) + tuple(f"{name} is missing" for name in self.indicators)

    @property
    def n_coordinates(self) -> int:
        """Weights per output: of numbers, of categories, of the hashed space, and the intercept."""
        own = sum(category.own for category in self.categories)
        return self.width + own + (1 << self.hashed.bits if self.hashed else 0) + 1

    @property
    def sizes(self) -> str:
        """How many weights there are, and of what."""
        own = sum(category.own for category in self.categories)
        parts = [f"{own:,} values"] if own else []
        parts += [f"{1 << self.hashed.bits:,} hashed"] if self.hashed else []
        return ", ".join([f"{self.width:,} numbers", *parts])

    def taken_as(self) -> dict[str, list[str]]:
        """Say what every column of the data becomes."""
        found: dict[str, list[str]] = {name: [] for name in self.sources}
        for number in self.columns:
            transform = "" if number.transform == "none" else f"{number.transform}, "
            scaling = f"{transform}less {number.shift:.4g}, divided by {1.0 / number.scale:.4g}"
            found[number.column].append(f"number, {scaling}{', and whether missing' if number.indicator else ''}")
        for category in self.categories:
            found[category.column].append(category.taken_as)
        for tail in self.tails:
            found[tail.name].append(f"{tail.kind}, hashed, {tail.mean_entries:.1f} entries per row")
        return found

    @property
    def sources(self) -> tuple[str, ...]:
        """Columns of the data that are read, each once."""
        columns = [column.column for column in self.columns] + [column.column for column in self.categories]
        return tuple(dict.fromkeys([*columns, *(tail.name for tail in self.tails)]))

    @property
    def is_wide(self) -> bool:
        """Whether rows meet a few of many weights."""
        return bool(self.categories or self.crosses or self.tails)

    def layout(self, *, mixed: bool | None = None) -> Layout:
        """Return how rows lie in memory; as lists of entries if they must, or if asked."""
        places = {name: k for k, name in enumerate(self.names)}
        by = [-1] * len(self.categories) + [places[cross.number] if cross.number else -1 for cross in self.crosses]
        entries = sum(tail.mean_entries for tail in self.tails)
        n_hashed = len(self.crosses) + sum(not category.own for category in self.categories)
        return Layout(
            width=self.width,
            by=tuple(by),
            n_tails=len(self.tails),
            n_coordinates=self.n_coordinates,
            mixed=bool(mixed) or self.is_wide,
            tail_bytes=math.ceil(TAIL * TAIL_SLACK * entries),
            doubles=bool(self.tails) or n_hashed**2 * RARE > self.n_coordinates,
        )
