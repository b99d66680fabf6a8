"""Encoding: what a column's values become in a block, frozen when training starts and kept in the model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamsgd.categories import CategoryColumn, Coder, Hashed, address, bitmap, name_seed
from streamsgd.errors import DataError
from streamsgd.floats import as_double, as_float, float_address, has_nulls, is_double, nth_item
from streamsgd.kernels.maths import signed_log1p
from streamsgd.kernels.rows import OWN, TAIL
from streamsgd.kernels.scatter import Columns, scatter
from streamsgd.kernels.slots import Codes, Crosses, scatter_slots
from streamsgd.layout import Layout
from streamsgd.tails import TailColumn, Tailer

if TYPE_CHECKING:
    from streamsgd.kernels.loops import Block


TAIL_SLACK = 1.5
"""By how much rows may have more entries than in the first look before memory runs short."""


RARE = 8
"""If fewer than one row in 2 * `RARE` has two values of one hash, it is not looked for: n^2 / 2 pairs of n, per coordinate."""


class NumberColumn(msgspec.Struct, frozen=True):
    """A feature as (value - shift) * scale, with a missing value as `fill` in these units."""

    name: str
    type: str
    shift: float = 0.0
    scale: float = 1.0
    fill: float = 0.0
    indicator: bool = False
    """Whether a second column of the block is 1 where the value is missing."""
    transform: Literal["none", "log1p"] = "none"
    """What is done first: nothing, or sign(value) * log(1 + |value|)."""
    item: int = -1
    """Which number of a fixed-size list it is, or -1."""
    source: str = ""
    """The column that it comes from, if that is not its name."""

    @property
    def column(self) -> str:
        """The column that it comes from."""
        return self.source or self.name


class Cross(msgspec.Struct, frozen=True):
    """A value for every combination of some categories, hashed; times a number, if one is named."""

    name: str
    members: tuple[str, ...]
    """Names of categories."""
    number: str = ""


class Target(msgspec.Struct, frozen=True):
    """What is predicted."""

    name: str
    task: Literal["regression", "binary", "multiclass", "poisson"]
    classes: tuple[str | int | float | bool, ...] = ()
    """Sorted; for a binary target the second is the positive one."""
    shift: float = 0.0
    scale: float = 1.0
    """A regression target is learned as (y - shift) * scale and predicted in its own units."""

    @property
    def of_text(self) -> bool:
        """Whether its classes are strings."""
        return bool(self.classes) and isinstance(self.classes[0], str)


class Encoding(msgspec.Struct, frozen=True):
    """How a table becomes a block: numbers, their indicators, categories, crosses, and columns of many values per cell."""

    columns: tuple[NumberColumn, ...] = ()
    categories: tuple[CategoryColumn, ...] = ()
    crosses: tuple[Cross, ...] = ()
    """Those with a number come last."""
    tails: tuple[TailColumn, ...] = ()
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


def _number(column: NumberColumn, values: Any) -> Any:
    """Return a column's values as a float array, transformed; NaN where missing."""
    numbers = as_float(nth_item(values, column.item))
    if column.transform == "none":
        return numbers
    out = np.empty(len(numbers), np.float64 if is_double(numbers) else np.float32)
    signed_log1p(np.asarray(numbers), out)
    return out


@dataclass
class Scattered:
    """What writing rows into a block found."""

    missing: np.ndarray
    """int64 (n_numbers,): missing values among the rows kept."""
    infinite: np.ndarray
    """int64 (n_numbers + n_tails,): infinite ones, or rows that have one."""
    pools: list[np.ndarray]
    """Memory that rows point to: to be kept as long as they are."""


class Encoder:
    """An encoding made ready for the kernels: decoded columns in, rows of a block out."""

    def __init__(self, encoding: Encoding) -> None:
        columns, width = encoding.columns, encoding.width
        flags = {name: len(columns) + k for k, name in enumerate(encoding.indicators)}
        self.encoding, self.sources = encoding, encoding.sources
        self.place = np.array([*range(len(columns)), width, width + 1], np.int64)
        self.flag = np.array([*(flags.get(column.name, -1) for column in columns), -1, -1], np.int64)
        self.shift = np.array([*(column.shift for column in columns), 0.0, 0.0])
        self.scale = np.array([*(column.scale for column in columns), 1.0, 1.0])
        self.fill = np.array([*(column.fill for column in columns), 0.0, 1.0])
        space = encoding.hashed
        self.coders = [Coder(category, None if category.own else space) for category in encoding.categories]
        self.tailers = [Tailer(tail, space) for tail in encoding.tails] if space else []
        self.crosses = self._crosses()

    def _crosses(self) -> Crosses:
        crosses, space = self.encoding.crosses, self.encoding.hashed
        number = {category.name: k for k, category in enumerate(self.encoding.categories)}
        most = max((len(cross.members) for cross in crosses), default=0)
        members = np.full((len(crosses), most), -1, np.int32)
        for k, cross in enumerate(crosses):
            members[k, : len(cross.members)] = [number[name] for name in cross.members]
        seeds = np.array([name_seed(cross.name) for cross in crosses], np.uint32)
        return Crosses(members, seeds, space.first if space else 0, space.mask if space else 0)

    @property
    def texts(self) -> frozenset[str]:
        """Columns to read as dictionaries, so that each distinct value is looked at once."""
        tails = (tail.name for tail in self.encoding.tails if tail.kind == "text")
        return frozenset([*tails, *(c.column for c in self.encoding.categories if not (c.edges or c.part))])

    def scatter(
        self,
        columns: list[Any],
        dest: np.ndarray,
        block: Block,
        y: np.ndarray | None = None,
        weight: np.ndarray | None = None,
    ) -> Scattered:
        """Write rows to their places in a block.

        Parameters
        ----------
        columns
            One Arrow column of n_rows values per source.
        dest
            int32 (n_rows,): the row of the block for each row, -1 for a dropped one.
        block
            As of the encoding's layout.
        y, weight
            float64 (n_rows,), or None to leave targets 0 and weights 1.

        """
        named = dict(zip(self.sources, columns, strict=True))
        missing, infinite = self._scatter_numbers(named, dest, block, y, weight)
        if self.encoding.categories:
            self._scatter_slots(named, dest, block)
        pools, infinite_rows = self._scatter_tails(named, dest, block)
        return Scattered(missing, np.concatenate([infinite, infinite_rows]), pools)

    def _scatter_numbers(
        self, named: dict[str, Any], dest: np.ndarray, block: Block, y: np.ndarray | None, weight: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        numbers = [_number(column, named[column.column]) for column in self.encoding.columns]
        where = [float_address(column) for column in numbers]
        wide = [is_double(column) for column in numbers]
        own = [y is not None, weight is not None]
        chosen = np.array([True] * len(numbers) + own)
        # Contiguous copies, kept alive in `extra` until the kernel is done.
        extra = [np.ascontiguousarray(values, np.float64) for values in (y, weight) if values is not None]
        where += [values.ctypes.data for values in extra]
        bound = Columns(
            np.array(where, np.int64),
            np.array(wide + [True] * len(extra), np.bool_),
            self.place[chosen],
            self.flag[chosen],
            self.shift[chosen],
            self.scale[chosen],
            self.fill[chosen],
            np.array([has_nulls(named[column.column]) for column in self.encoding.columns] + [False] * len(extra), np.bool_),
        )
        missing, infinite = np.zeros(len(where), np.int64), np.zeros(len(where), np.int64)
        scatter(bound, dest, block.rows.values, missing, infinite)
        return missing[: len(numbers)], infinite[: len(numbers)]

    def _scatter_slots(self, named: dict[str, Any], dest: np.ndarray, block: Block) -> None:
        codes = [coder.codes(named[coder.column.column]) for coder in self.coders]
        arrays = [found if isinstance(found, np.ndarray) else found[0] for found in codes]
        tables = [None if isinstance(found, np.ndarray) else np.append(found[1], np.int32(0)) for found in codes]
        bits = [bitmap(array) for array in arrays]
        bound = Codes(
            np.array([address(array) for array in arrays], np.int64),
            np.array([where for where, _ in bits], np.int64),
            np.array([skip for _, skip in bits], np.int64),
            np.array([0 if table is None else address(table) for table in tables], np.int64),
            np.array([coder.null for coder in self.coders], np.int64),
        )
        scatter_slots(bound, self.crosses, dest, self.encoding.width + OWN, block.rows.ids)

    def _scatter_tails(self, named: dict[str, Any], dest: np.ndarray, block: Block) -> tuple[list[np.ndarray], np.ndarray]:
        kept = dest >= 0
        places, pools, infinite = dest[kept], [], np.zeros(len(self.tailers), np.int64)
        for k, tailer in enumerate(self.tailers):
            tails = tailer.tails(named[tailer.column.name])
            block.rows.tails[places, k, 0] = tails.addresses[kept]
            block.rows.tails[places, k, 1] = tails.counts[kept]
            infinite[k] = kept[tails.infinite].sum()
            pools.append(tails.pool)
        return pools, infinite

    def check_infinite(self, infinite: np.ndarray, where: str) -> None:
        """Refuse infinite feature values by name.

        Raises
        ------
        DataError
            A kept row holds one.

        """
        if infinite.any():
            worst = int(np.flatnonzero(infinite)[0])
            names = [column.column for column in self.encoding.columns] + [tail.name for tail in self.encoding.tails]
            name = names[worst]
            raise DataError(
                f"{where}: feature {name!r} is infinite in {int(infinite[worst]):,} rows; clean it, or leave it out with "
                f"--exclude '{name}', or take infinite values as missing with --infinite missing"
            )


def encode_target(target: Target, column: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the targets as float64 (n,) and which of them are usable, bool (n,)."""
    if target.classes:
        return _class_index(target, column)
    y = as_double(column)
    usable = np.isfinite(y)
    with np.errstate(invalid="ignore"):
        if target.task == "poisson":
            usable &= (y >= 0) & (np.floor(y) == y)
        return (y - target.shift) * target.scale, usable


def _class_index(target: Target, column: Any) -> tuple[np.ndarray, np.ndarray]:
    if target.of_text:
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        values = column.cast(pa.string())
        index = pc.fill_null(pc.index_in(values, value_set=pa.array(target.classes, pa.string())), -1)
        found = index.to_numpy(zero_copy_only=False)
        return found.astype(np.float64), found >= 0
    y = as_double(column)
    classes = np.array(target.classes, np.float64)
    if len(classes) == 2:
        second = y == classes[1]
        return second.astype(np.float64), second | (y == classes[0])
    found = np.searchsorted(classes, y).clip(0, len(classes) - 1)
    return found.astype(np.float64), classes[found] == y


def encode_weight(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return row weights as float64 (n,) and which of them are finite and not negative."""
    weight = as_double(column)
    with np.errstate(invalid="ignore"):
        return weight, np.isfinite(weight) & (weight >= 0)


def describe_bad_target(target: Target) -> str:
    """Return what a usable value of this target is."""
    if target.task == "poisson":
        return "counts must be whole numbers of at least 0"
    if target.classes:
        return f"the classes are {', '.join(map(repr, target.classes[:10]))}"
    return "it must be a finite number"
