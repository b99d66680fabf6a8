"""Encoding: what a column's values become in a block, frozen when training starts and kept in the model."""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamsgd.errors import DataError
from streamsgd.kernels.loops import Block
from streamsgd.kernels.rows import OWN, Dense
from streamsgd.kernels.scatter import Columns, scatter

_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


class NumberColumn(msgspec.Struct, frozen=True):
    """A feature as (value - shift) * scale, with a missing value as `fill` in these units."""

    name: str
    type: str
    shift: float = 0.0
    scale: float = 1.0
    fill: float = 0.0
    indicator: bool = False
    """Whether a second column of the block is 1 where the value is missing."""


class Target(msgspec.Struct, frozen=True):
    """What is predicted."""

    name: str
    task: Literal["regression", "binary", "multiclass", "poisson"]
    classes: tuple[str | int | float | bool, ...] = ()
    """Sorted; for a binary target the second is the positive one."""
    shift: float = 0.0
    scale: float = 1.0
    """A regression target is learned as (y - shift) * scale and predicted in its own units."""


class Encoding(msgspec.Struct, frozen=True):
    """How a table becomes a block: the columns in the order of the block, then the indicators."""

    columns: tuple[NumberColumn, ...]

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
        """Names of the block's columns."""
        return tuple(column.name for column in self.columns) + tuple(f"{name} is missing" for name in self.indicators)


def as_float(column: Any) -> Any:
    """Return an Arrow float32 or float64 array without nulls (NaN instead), copying only where it must.

    Booleans become 0 and 1, dates days, times and timestamps seconds, decimals their value.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    numbers = _number(column, column.type)
    return numbers if not numbers.null_count else pc.fill_null(numbers, math.nan)


def as_double(column: Any) -> np.ndarray:
    """Return a float64 array of its own memory, NaN where a value is missing; see `as_float`."""
    with np.errstate(invalid="ignore"):  # a signalling NaN is no reason for a warning
        return np.array(as_float(column), dtype=np.float64)


def _number(column: Any, kind: Any) -> Any:
    if pa.types.is_float32(kind) or pa.types.is_float64(kind):
        return column
    if pa.types.is_boolean(kind) or pa.types.is_float16(kind) or (pa.types.is_integer(kind) and kind.bit_width < 32):
        return column.cast(pa.float32())
    if pa.types.is_null(kind):
        return pa.nulls(len(column), pa.float64())
    if pa.types.is_temporal(kind):
        return pc.divide(_ticks(column, kind).cast(pa.float64(), safe=False), _ticks_per_unit(kind))
    return column.cast(pa.float64(), safe=False)


def _ticks(column: Any, kind: Any) -> Any:
    return column.view(pa.int32() if kind.bit_width == 32 else pa.int64())


def _ticks_per_unit(kind: Any) -> float:
    if pa.types.is_date32(kind):
        return 1.0
    return 86_400_000.0 if pa.types.is_date64(kind) else _PER_SECOND[str(kind.unit)]


def float_address(numbers: Any) -> int:
    """Return where the values of a float array begin in memory."""
    return int(numbers.buffers()[1].address + numbers.offset * numbers.type.bit_width // 8)


def allocate(width: int, n_rows: int, precision: Any) -> Block:
    """Return a block for that many rows of that many features, with weights of 1; its features are not initialised."""
    values = np.empty((n_rows, width + OWN), np.dtype(precision))
    values[:, width:] = 0.0, 1.0
    return as_block(values)


def as_block(values: np.ndarray) -> Block:
    """Return rows that end in target and weight, (n_rows, width + 2), as a block that shares their memory."""
    return Block(Dense(values), values[:, -2], values[:, -1])


class Encoder:
    """An encoding made ready for the kernel: decoded columns in, rows of a block out."""

    def __init__(self, encoding: Encoding) -> None:
        columns, width = encoding.columns, encoding.width
        flags = {name: len(columns) + k for k, name in enumerate(encoding.indicators)}
        self.names = tuple(column.name for column in columns)
        self.place = np.array([*range(len(columns)), width, width + 1], np.int64)
        self.flag = np.array([*(flags.get(name, -1) for name in self.names), -1, -1], np.int64)
        self.shift = np.array([*(column.shift for column in columns), 0.0, 0.0])
        self.scale = np.array([*(column.scale for column in columns), 1.0, 1.0])
        self.fill = np.array([*(column.fill for column in columns), 0.0, 1.0])

    def scatter(
        self,
        columns: list[Any],
        dest: np.ndarray,
        block: Block,
        y: np.ndarray | None = None,
        weight: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Write rows to their places in a block.

        Parameters
        ----------
        columns
            One Arrow column of n_rows values per feature.
        dest
            int32 (n_rows,): the row of the block for each row, -1 for a dropped one.
        block
            As of `allocate`.
        y, weight
            float64 (n_rows,), or None to leave targets 0 and weights 1.

        Returns
        -------
        missing, infinite
            int64 (n_features,): counts among the rows kept.

        """
        numbers = [as_float(column) for column in columns]
        address = [float_address(column) for column in numbers]
        wide = [pa.types.is_float64(column.type) for column in numbers]
        own = [y is not None, weight is not None]
        chosen = np.array([True] * len(numbers) + own)
        # Contiguous copies, kept alive in `extra` until the kernel is done.
        extra = [np.ascontiguousarray(values, np.float64) for values in (y, weight) if values is not None]
        address += [values.ctypes.data for values in extra]
        bound = Columns(
            np.array(address, np.int64),
            np.array(wide + [True] * len(extra), np.bool_),
            self.place[chosen],
            self.flag[chosen],
            self.shift[chosen],
            self.scale[chosen],
            self.fill[chosen],
        )
        missing, infinite = np.zeros(len(address), np.int64), np.zeros(len(address), np.int64)
        scatter(bound, dest, block.rows.values, missing, infinite)
        return missing[: len(numbers)], infinite[: len(numbers)]

    def check_infinite(self, infinite: np.ndarray, where: str) -> None:
        """Refuse infinite feature values by name.

        Raises
        ------
        DataError
            A kept row holds one.

        """
        if infinite.any():
            worst = int(np.flatnonzero(infinite)[0])
            raise DataError(
                f"{where}: feature {self.names[worst]!r} is infinite in {int(infinite[worst]):,} rows; clean it, or leave it "
                f"out with --exclude '{self.names[worst]}', or take infinite values as missing with --infinite missing"
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
    if isinstance(target.classes[0], str):
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


def unit_of(kind: Any) -> str:
    """Return the unit that a column of this Arrow type is turned into, or ''."""
    if pa.types.is_date(kind):
        return "days"
    return "seconds" if pa.types.is_temporal(kind) else ""
