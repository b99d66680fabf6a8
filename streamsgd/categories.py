"""Categories: how values that are no numbers, or not meant as such, become coordinates of weights.

A column with few distinct values in the first look gets a weight for each: exact. Others share a hashed space. In both null is
a value of its own.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamsgd.errors import DataError
from streamsgd.floats import as_float
from streamsgd.kernels.hashing import hash_strings
from streamsgd.kernels.slots import find_ranges

TIME_PARTS = {"hour": 24, "weekday": 7, "month": 12}
"""Parts of a moment, and how many values each has."""

NULL = b"\0null"
"""What stands for null in the hashed space."""


class CategoryColumn(msgspec.Struct, frozen=True):
    """A column whose every value has a weight: own ones for `values` or for ranges between `edges`, else hashed."""

    name: str
    column: str
    """Where it comes from; `name` but for parts of a moment."""
    type: str
    first: int = 0
    """Coordinate of its first own weight; then come those of null and, with `values`, of any other value."""
    values: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()
    """Ascending: a number is in range k if k edges are at or below it."""
    part: str = ""
    """Which part of a moment is taken, a key of `TIME_PARTS` ..."""
    zone: str = ""
    """... in which time zone; none if its moments have none."""
    distinct: int = 0
    """Distinct values in the first look."""

    @property
    def own(self) -> int:
        """Weights of its own; none if hashed."""
        if self.part:
            return TIME_PARTS[self.part] + 1
        return len(self.values) + 2 if self.values else (len(self.edges) + 2 if self.edges else 0)

    @property
    def taken_as(self) -> str:
        """What the column becomes, in words."""
        if self.part:
            return f"its {self.part}, a category"
        if self.edges:
            return f"{len(self.edges) + 1} ranges"
        if self.values:
            return f"category, {len(self.values):,} values of their own"
        return f"category, hashed, about {self.distinct:,} values"

    @property
    def own_names(self) -> tuple[str, ...]:
        """What its own weights stand for, in their order."""
        if self.part:
            first = 1 if self.part == "month" else 0
            return (*(str(first + k) for k in range(TIME_PARTS[self.part])), "is missing")
        if self.values:
            return (*self.values, "is missing", "any other")
        if self.edges:
            bounds = [f"{edge:g}" for edge in self.edges]
            middle = (f"{a} to {b}" for a, b in pairwise(bounds))
            return (f"below {bounds[0]}", *middle, f"from {bounds[-1]}", "is missing")
        return ()


class Hashed(msgspec.Struct, frozen=True):
    """The space of weights that hashed values share: `2 ** bits` coordinates from `first` on."""

    first: int
    bits: int

    @property
    def mask(self) -> int:
        """What of a hash is used."""
        return (1 << self.bits) - 1


def name_seed(name: str) -> int:
    """Return the seed for a column's values: the hash of its name."""
    out = np.empty(1, np.int64)
    _hash(pa.array([name.encode()], pa.binary()), 0, 0, 0xFFFFFFFF, out)
    return int(out[0])


def hash_values(values: Any, seed: int, space: Hashed) -> np.ndarray:
    """Return the coordinates, int32 (n,), of an Arrow array of strings or bytes without nulls."""
    out = np.empty(len(values), np.int32)
    _hash(values, seed, space.first, space.mask, out)
    return out


def _hash(values: Any, seed: int, first: int, mask: int, out: np.ndarray) -> None:
    wide = pa.types.is_large_string(values.type) or pa.types.is_large_binary(values.type)
    _, offsets, data = values.buffers()
    start = offsets.address + values.offset * (8 if wide else 4)
    hash_strings(start, wide, data.address if data is not None else 0, len(values), np.uint32(seed), first, mask, out)


def is_text(kind: Any) -> bool:
    """Whether values of this Arrow type are strings or bytes, dictionary-encoded or not."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(kind) for test in tests) or is_bytes(kind)


def is_bytes(kind: Any) -> bool:
    """Whether values are bytes that need not be text."""
    tests = (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_fixed_size_binary,
        pa.types.is_binary_view,
    )
    return any(test(kind) for test in tests) and not pa.types.is_decimal(kind)


def is_category(kind: Any) -> bool:
    """Whether values of this Arrow type can be a category."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    simple = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal, pa.types.is_temporal)
    known = is_text(kind) or pa.types.is_null(kind) or any(test(kind) for test in simple)
    return bool(known and not pa.types.is_interval(kind))


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
        return pc.add(values.cast(pa.float64()), 0.0).cast(pa.string())  # -0 is 0
    if pa.types.is_duration(kind):
        return as_float(values).cast(pa.string())
    if pa.types.is_timestamp(kind) and kind.tz:
        values = values.cast(pa.timestamp(kind.unit, "UTC"))
    said = values.cast(pa.string())
    if pa.types.is_decimal(kind) or pa.types.is_timestamp(kind) or pa.types.is_time(kind):
        for pattern, short in _SHORTER:
            said = pc.replace_substring_regex(said, pattern, short)
    return said


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


class Coder:
    """A category column made ready: Arrow columns in, coordinates out."""

    def __init__(self, column: CategoryColumn, space: Hashed | None) -> None:
        self.column, self.space = column, space
        self.seed = name_seed(column.name) if space else 0
        self.edges = np.array(column.edges)
        self.values = pa.array([value.encode() for value in column.values], pa.binary())
        if column.own:
            self.null = column.first + column.own - (2 if column.values else 1)
        else:
            self.null = int(hash_values(pa.array([NULL], pa.binary()), self.seed, self._space)[0])

    @property
    def _space(self) -> Hashed:
        if self.space is None:
            raise DataError(f"category {self.column.name!r} is hashed but the model has no hashed space")
        return self.space

    def places(self, values: list[str]) -> np.ndarray:
        """Return the coordinates of hashed values, int64 (n,)."""
        return hash_values(pa.array([value.encode() for value in values], pa.binary()), self.seed, self._space).astype(np.int64)

    def table(self, dictionary: Any) -> np.ndarray:
        """Return the coordinate of each entry of a dictionary, int32 (n,); null entries are nulls."""
        entries = as_bytes(dictionary)
        filled = pc.fill_null(entries, b"") if entries.null_count else entries
        if self.column.values:
            found = pc.fill_null(pc.index_in(filled.cast(pa.binary()), value_set=self.values), len(self.values) + 1)
            table: np.ndarray = found.to_numpy(zero_copy_only=False).astype(np.int32) + np.int32(self.column.first)
        else:
            table = hash_values(filled, self.seed, self._space)
        if entries.null_count:
            table[np.asarray(entries.is_null())] = self.null
        return table

    def codes(self, column: Any) -> np.ndarray | tuple[Any, np.ndarray]:
        """Return coordinates of rows, int32 (n,), or int32 codes (an Arrow array that may have nulls) and their coordinates."""
        if self.column.part:
            return self._parts(column)
        if self.column.edges:
            return self._ranges(column)
        if not self.column.own and is_text(column.type) and not pa.types.is_dictionary(column.type):
            return self._hash_rows(column)
        chunks = as_dictionary(column)
        if len(chunks) == 1 and chunks[0].indices.type == pa.int32():
            return chunks[0].indices, self.table(chunks[0].dictionary)
        return np.concatenate([np.zeros(0, np.int32), *(self._of_chunk(chunk) for chunk in chunks)])

    def _hash_rows(self, column: Any) -> np.ndarray:
        """Return the coordinates of strings that come as they are: to find equal ones first would cost more."""
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        return np.concatenate([np.zeros(0, np.int32), *(self.table(chunk) for chunk in chunks)])

    def _of_chunk(self, chunk: Any) -> np.ndarray:
        table, indices = np.append(self.table(chunk.dictionary), np.int32(self.null)), chunk.indices
        coordinates: np.ndarray = table[np.asarray(pc.fill_null(indices.cast(pa.int64()), len(table) - 1))]
        return coordinates

    def _ranges(self, column: Any) -> np.ndarray:
        numbers = np.asarray(as_float(column))
        found = np.empty(len(numbers), np.int32)
        find_ranges(numbers, self.edges, self.column.first, self.null, found)
        return found

    def _parts(self, column: Any) -> np.ndarray:
        found = pc.fill_null(part_of(column, self.column.part, self.column.zone), TIME_PARTS[self.column.part])
        found = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
        coordinates: np.ndarray = found.to_numpy(zero_copy_only=False).astype(np.int32) + np.int32(self.column.first)
        return coordinates


def part_of(column: Any, part: str, zone: str = "") -> Any:
    """Return the hour, the weekday (Monday is 0) or the month (January is 0) of moments in a time zone, or as they are.

    Raises
    ------
    DataError
        The time zone is not known to this system.

    """
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s" if pa.types.is_date32(column.type) else "ms"))
    try:
        if zone and column.type.tz != zone:
            column = column.cast(pa.timestamp(column.type.unit, zone))
        if part == "hour":
            return pc.hour(column)
        return pc.day_of_week(column) if part == "weekday" else pc.subtract(pc.month(column), 1)
    except pa.ArrowInvalid as error:
        raise DataError(f"parts of a moment of type {column.type} cannot be taken: {error}; is tzdata installed?") from error


def zone_of(kind: Any) -> str:
    """Return the time zone of moments of this Arrow type, or ''."""
    return (kind.tz or "") if pa.types.is_timestamp(kind) else ""


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
