"""Categories: how values that are no numbers, or not meant as such, become coordinates of weights.

A column with few distinct values in the first look gets a weight for each: exact. Others share a hashed space. In both null is
a value of its own.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamsgd.data.types import is_text
from streamsgd.errors import DataError
from streamsgd.features.arrow import as_bytes, as_dictionary, as_float
from streamsgd.features.hashing import NULL, hash_values, name_seed
from streamsgd.features.times import TIME_PARTS, part_of
from streamsgd.kernels.encode.categories import find_ranges

if TYPE_CHECKING:
    from streamsgd.features.hashing import Hashed


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


class CategoryEncoder:
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
