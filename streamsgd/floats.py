"""Arrow columns as floats: what counts as a number, and which number it is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


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
    """Return where the values of a float array, Arrow's or NumPy's, begin in memory."""
    if isinstance(numbers, np.ndarray):
        return int(numbers.ctypes.data)
    return int(numbers.buffers()[1].address + numbers.offset * numbers.type.bit_width // 8)


def has_nulls(column: Any) -> bool:
    """Whether an Arrow column has nulls."""
    return bool(column.null_count)


def is_double(numbers: Any) -> bool:
    """Whether a float array, Arrow's or NumPy's, is of float64."""
    return numbers.dtype == np.float64 if isinstance(numbers, np.ndarray) else bool(pa.types.is_float64(numbers.type))


def nth_item(column: Any, item: int) -> Any:
    """Return one number of every fixed-size list, or the column itself."""
    if item < 0:
        return column
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return pc.list_element(column, item) if len(column) else pa.array([], column.type.value_type)


def unit_of(kind: Any) -> str:
    """Return the unit that a column of this Arrow type is turned into, or ''."""
    if pa.types.is_date(kind):
        return "days"
    return "seconds" if pa.types.is_temporal(kind) else ""
