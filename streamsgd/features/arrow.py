"""Arrow columns as floats: what counts as a number, and which number it is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamsgd.data.types import is_text


def as_bytes(values: Any) -> Any:
    """Return an Arrow array as bytes: text as it is in memory, other values as text that says the value, not the type.

    So files, tables and runs may differ in the width of numbers, the scale of decimals and the unit of times.
    """
    kind = values.type
    if pa.types.is_null(kind):
        return pa.nulls(len(values), pa.binary())
    if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        return values.cast(pa.large_binary())
    if is_text(kind):
        return values.cast(pa.binary())
    return _said(values, kind).cast(pa.binary())


def _said(values: Any, kind: Any) -> Any:
    if pa.types.is_floating(kind):
        return _said_floats(values.cast(pa.float64()))
    if pa.types.is_duration(kind):
        return as_float(values).cast(pa.string())
    if pa.types.is_timestamp(kind) and kind.tz:
        values = values.cast(pa.timestamp(kind.unit, "UTC"))
    said = values.cast(pa.string())
    if pa.types.is_decimal(kind) or pa.types.is_timestamp(kind) or pa.types.is_time(kind):
        for pattern, short in _SHORTER:
            said = pc.replace_substring_regex(said, pattern, short)
    return said


def _said_floats(values: Any) -> Any:
    """Return floats as text, whole ones as integers are: Arrow would say 1e+10, and the same id another file 10000000000."""
    said = pc.add(values, 0.0).cast(pa.string())  # -0 is 0
    whole = pc.and_(pc.equal(pc.floor(values), values), pc.is_finite(values))
    whole = pc.and_(whole, pc.greater_equal(pc.abs(values), PLAINLY_SAID))
    if not whole.true_count:
        return said
    large = pa.array([str(int(value)) for value in values.filter(whole).to_pylist()], pa.string())
    return pc.replace_with_mask(said, pc.fill_null(whole, False), large)


PLAINLY_SAID = 1e9
"""Whole numbers below this are said without an exponent by Arrow."""

_SHORTER = (
    (r"^0E.*$", "0"),
    (r"\.0+(Z|E.*)?$", r"\1"),
    (r"(\.[0-9]*[1-9])0+(Z|E.*)?$", r"\1\2"),
    (r"^([^ ]+) 00:00:00$", r"\1"),
)
"""Zeros of a decimal or a time that its type adds, and a moment that is a date."""


def as_dictionary(column: Any) -> list[Any]:
    """Return dictionary arrays that hold a column's values one after another."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return [chunk if pa.types.is_dictionary(chunk.type) else _encoded(chunk) for chunk in chunks]


def _encoded(chunk: Any) -> Any:
    if pa.types.is_null(chunk.type):
        return pa.DictionaryArray.from_arrays(pa.nulls(len(chunk), pa.int32()), pa.array([], pa.string()))
    if pa.types.is_string_view(chunk.type):
        chunk = chunk.cast(pa.large_string())
    if pa.types.is_binary_view(chunk.type):
        chunk = chunk.cast(pa.large_binary())
    return pc.dictionary_encode(chunk)


def address(array: Any) -> int:
    """Return where an Arrow array's values, or a NumPy array's, begin."""
    if isinstance(array, np.ndarray):
        return int(array.ctypes.data)
    return int(array.buffers()[1].address + array.offset * array.type.bit_width // 8)


def bitmap(array: Any) -> tuple[int, int]:
    """Return where the bits of values that are not null begin, and how many to skip; 0 where no value is null."""
    if isinstance(array, np.ndarray) or not array.null_count:
        return 0, 0
    return int(array.buffers()[0].address), int(array.offset)


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


def beyond_float32(column: Any) -> float | None:
    """Return the value of a column of numbers, or of vectors or maps of those, that is farthest beyond what float32 holds.

    None where there is none, or one is infinite.
    """
    farthest = 0.0
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        inner = chunk.items if pa.types.is_map(chunk.type) else chunk
        inner = inner.flatten() if pa.types.is_fixed_size_list(inner.type) else inner
        if not (pa.types.is_floating(inner.type) or pa.types.is_integer(inner.type) or pa.types.is_decimal(inner.type)):
            return None
        values = as_double(inner)
        if np.isinf(values).any():
            return None
        values = values[~np.isnan(values)]
        farthest = max((farthest, *values[[values.argmin(), values.argmax()]].tolist()), key=abs) if len(values) else farthest
    return farthest if abs(farthest) > float(np.finfo(np.float32).max) else None


def _number(column: Any, kind: Any) -> Any:
    if pa.types.is_float32(kind) or pa.types.is_float64(kind):
        return column
    if pa.types.is_boolean(kind) or pa.types.is_float16(kind) or (pa.types.is_integer(kind) and kind.bit_width < 32):
        return column.cast(pa.float32())
    if pa.types.is_null(kind):
        return pa.nulls(len(column), pa.float64())
    if pa.types.is_temporal(kind):
        return pc.divide(_rounded(_ticks(column, kind)), _ticks_per_unit(kind))
    return _rounded(column) if pa.types.is_integer(kind) else column.cast(pa.float64())


def _rounded(column: Any) -> Any:
    """Return integers as float64, those beyond 2^53 rounded to the nearest: features and targets are floats."""
    return column.cast(options=pc.CastOptions(pa.float64(), allow_float_truncate=True))


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


def elements(column: Any, kind: str) -> tuple[Any, Any, np.ndarray, np.ndarray]:
    """Return what the cells of a list or map column hold one after another, and where each cell's part begins.

    Returns
    -------
    keys, numbers
        Arrow arrays of equal length; None for the numbers of a list.
    starts, counts
        int64 (n_rows,): of each cell its first element, and how many there are.

    """
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(column, pa.ChunkedArray):  # of no chunk
        column = pa.array([], column.type)
    offsets = np.asarray(column.offsets, dtype=np.int64) if len(column) else np.zeros(1, np.int64)
    # Cells that are null may span values that are not there.
    counts = np.where(np.asarray(column.is_valid()), np.diff(offsets), 0)
    first, n = int(offsets[0]), int(offsets[-1] - offsets[0])
    numbers = None
    if pa.types.is_map(column.type):
        keys, numbers = column.keys, column.items
    elif kind == "map":
        # Where a pair is null, so are its parts.
        keys, numbers = column.values.flatten()
    else:
        keys = column.values
    keys, numbers = keys.slice(first, n), None if numbers is None else numbers.slice(first, n)
    starts = offsets[:-1] - first
    if counts.sum() == n:
        return keys, numbers, starts, counts
    seen = pa.array(np.repeat(np.asarray(column.is_valid()), np.diff(offsets)))
    return keys.filter(seen), None if numbers is None else numbers.filter(seen), np.cumsum(counts) - counts, counts


def entry_counts(column: Any) -> np.ndarray | None:
    """Return how many entries each cell of lists or of a map has, int64 (n_rows,); None of any other column."""
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind)):
        return None
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return np.concatenate([np.zeros(0, np.int64), *(np.diff(np.asarray(chunk.offsets)) for chunk in chunks if len(chunk))])


def nested(kind: Any) -> Any:
    """Return the type of lists of lists of an Arrow type, which no column of ours can be."""
    return pa.list_(pa.list_(kind))
