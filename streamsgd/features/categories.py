"""Categories: how values that are no numbers, or not meant as such, become coordinates of weights.

A column with few distinct values in the sample is one-hot: a weight for each value. Others share a hashed space. In both null
is a value of its own. Where many rows have values that came once or twice in all of the data, these share the weight of values
not seen, which is all that a new value has.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamsgd.data.types import WHAT, fits, is_text
from streamsgd.errors import DataError
from streamsgd.features.arrow import as_bytes, as_dictionary, as_float
from streamsgd.features.calendar import TIME_PARTS, part_of
from streamsgd.features.column import ColumnKind, KindEncoder, Label, Needs, Scattered, check_has_values
from streamsgd.features.exact_ids import exact_ids
from streamsgd.features.frequent import frequent_values
from streamsgd.features.hashing import NULL, hash_values, name_seed
from streamsgd.features.unset import knows_all_values
from streamsgd.features.values import count_values, why_values
from streamsgd.features.write import write_slots
from streamsgd.kernels.encode.categories import Crosses, find_ranges
from streamsgd.messages import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamsgd.features.column import Candidate, Destination, Places
    from streamsgd.features.hashing import Hashed
    from streamsgd.features.values import ValueProfile


MOST_EXACT = 1024
"""Distinct values of a column up to which each has a weight of its own ..."""

LONGEST_NAME = 256
"""Bytes of the longest value that gets a weight of its own, for which a model must store it."""

UNSEEN = 1e-3
"""... if no larger a share of further rows will bring an unknown value: values seen once, by rows of the sample (Good 1953)."""


class CategoryColumn(msgspec.Struct, frozen=True):
    """A column whose every value has a weight: one-hot for `values` or for the bins between `edges`, else hashed."""

    name: str
    column: str
    """Where it comes from; `name` but for parts of a moment."""
    type: str
    first: int = 0
    """Coordinate of its first own weight; then come those of null and, with `values`, of any other value."""
    values: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()
    """Ascending: a number is in bin k if k edges are at or below it."""
    part: str = ""
    """Which part of a moment is taken, a key of `TIME_PARTS` ..."""
    zone: str = ""
    """... in which time zone; none if its moments have none."""
    distinct: int = 0
    """Distinct values in the sample."""

    @property
    def kind(self) -> str:
        """The name of its `ColumnKind`; bins are of numbers."""
        return "moment" if self.part else "number" if self.edges else "category"

    @property
    def own(self) -> int:
        """Weights of its own; none if hashed."""
        if self.part:
            return TIME_PARTS.get(self.part, 0) + 1  # files may name any; see `faults`
        return len(self.values) + 2 if self.values else (len(self.edges) + 2 if self.edges else 0)

    @property
    def taken_as(self) -> str:
        """What the column becomes, in words."""
        if self.part:
            return f"its {self.part}, a category"
        if self.edges:
            return f"{len(self.edges) + 1} quantile bins, one-hot"
        if self.values:
            return f"category, one-hot, {counted(len(self.values), 'value')}"
        return f"category, hashed, about {counted(self.distinct, 'value')}"

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
        entries = as_bytes(exact_ids(self.column.name, self.column.type, dictionary))
        filled = pc.fill_null(entries, b"") if entries.null_count else entries
        if self.column.values:
            index = pc.fill_null(pc.index_in(filled.cast(pa.binary()), value_set=self.values), len(self.values) + 1)
            table: np.ndarray = index.to_numpy(zero_copy_only=False).astype(np.int32) + np.int32(self.column.first)
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
            return self._bins(column)
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

    def _bins(self, column: Any) -> np.ndarray:
        numbers = np.asarray(as_float(column))
        coordinates = np.empty(len(numbers), np.int32)
        find_ranges(numbers, self.edges, self.column.first, self.null, coordinates)
        return coordinates

    def _parts(self, column: Any) -> np.ndarray:
        parts = pc.fill_null(part_of(column, self.column.part, self.column.zone), TIME_PARTS[self.column.part])
        parts = parts.combine_chunks() if isinstance(parts, pa.ChunkedArray) else parts
        coordinates: np.ndarray = parts.to_numpy(zero_copy_only=False).astype(np.int32) + np.int32(self.column.first)
        return coordinates


class SlotEncoder(KindEncoder):
    """Categories, bins and parts of moments made ready, and the crosses of them, all written by one call."""

    def __init__(self, configs: Sequence[Any], places: Places) -> None:
        columns = [config for config in configs if isinstance(config, CategoryColumn)]
        self.coders = [CategoryEncoder(column, None if column.own else places.space) for column in columns]
        self.crosses = _crosses([config for config in configs if not isinstance(config, CategoryColumn)], columns, places.space)
        self.slot = places.slot
        self.sources = tuple(dict.fromkeys(column.column for column in columns))
        self.dictionaries = frozenset(column.column for column in columns if not (column.edges or column.part))
        self.counted = frozenset(column.column for column in columns if not column.own)

    def scatter(self, columns: Mapping[str, Any], rows: Destination) -> Scattered:
        """Write coordinates to their slots in a block."""
        if self.coders:
            codes = [coder.codes(columns[coder.column.column]) for coder in self.coders]
            write_slots(codes, [coder.null for coder in self.coders], self.slot, rows, self.crosses)
        return Scattered()

    def count(self, columns: Mapping[str, list[Any]]) -> dict[str, list[tuple[str, int]]]:
        """Return the most frequent values of hashed columns."""
        hashed = [coder.column for coder in self.coders if not coder.column.own]
        return {column.name: frequent_values(columns.get(column.column, [])) for column in hashed}

    def labels(self, frequent: Mapping[str, Sequence[tuple[str, int]]]) -> list[Label]:
        """Return every value of one-hot columns, the most frequent ones of hashed columns, and null of both."""
        return [label for coder in self.coders for label in _labels(coder, frequent.get(coder.column.name, ()))]


def _labels(coder: CategoryEncoder, frequent: Sequence[tuple[str, int]]) -> list[Label]:
    column = coder.column
    if column.own:
        return [Label(column.name, value, column.first + k) for k, value in enumerate(column.own_names)]
    places = coder.places([value for value, _ in frequent]).tolist()
    named = [Label(column.name, value, place, rows) for (value, rows), place in zip(frequent, places, strict=True)]
    return [*named, Label(column.name, "is missing", coder.null)]


def _crosses(crosses: Sequence[Any], columns: Sequence[CategoryColumn], space: Hashed | None) -> Crosses:
    number = {column.name: k for k, column in enumerate(columns)}
    most = max((len(cross.members) for cross in crosses), default=0)
    members = np.full((len(crosses), most), -1, np.int32)
    for k, cross in enumerate(crosses):
        members[k, : len(cross.members)] = [number[name] for name in cross.members]
    seeds = np.array([name_seed(cross.name) for cross in crosses], np.uint32)
    return Crosses(members, seeds, space.first if space else 0, space.mask if space else 0)


class Categories(ColumnKind):
    """Strings, bytes and what `--categorical` names: one-hot where the values are few and known, else hashed."""

    name = "category"
    config: type[Any] = CategoryColumn
    what = WHAT["category"]
    dictionaries = True
    profile = staticmethod(count_values)

    def accepts(self, kind: Any, asked: str | None) -> bool:
        """Take what can be a category, and is no number unless asked for."""
        return fits("category", kind) and (asked == self.name or (asked is None and not fits("number", kind)))

    def choose(self, column: Candidate, profile: Any) -> list[Any]:
        """Return the column with its values if they are few and known, else as hashed."""
        check_has_values(column, profile)
        known = column.settings.values and (column.whole or profile.unseen <= UNSEEN)
        free = column.whole and column.asked is None and knows_all_values(column.settings)
        shares = free and profile.many_rare and 0 < profile.n_common <= MOST_EXACT
        n_values = profile.n_common if shares else profile.n_values
        values = _one_hot(profile, n_values) if known and 0 < n_values <= MOST_EXACT else ()
        distinct = len(values) or (profile.n_values if column.whole else profile.distinct)
        return [CategoryColumn(column.name, column.name, str(column.type), values=values, distinct=distinct)]

    def place(self, configs: Sequence[Any], first: int) -> tuple[Any, ...]:
        """Return the columns with the coordinates of their own weights."""
        placed = []
        for config in configs:
            is_column = isinstance(config, CategoryColumn)
            placed.append(msgspec.structs.replace(config, first=first) if is_column else config)
            first += config.own if is_column else 0
        return tuple(placed)

    def needs(self, configs: Sequence[Any]) -> Needs:
        """Return a slot for each column, then one for each cross, and the weights of one-hot columns."""
        columns = [config for config in configs if isinstance(config, CategoryColumn)]
        crosses = [config for config in configs if not isinstance(config, CategoryColumn)]
        slots = (*("" for _ in columns), *(cross.number for cross in crosses))
        hashed = len(crosses) + sum(not column.own for column in columns)
        return Needs(slots=slots, n_hashed=hashed, weights=sum(column.own for column in columns))

    def distinct(self, configs: Sequence[Any], n_rows: int) -> int:
        """Return the values of hashed columns and the combinations of crosses, at most one per row."""
        columns = [config for config in configs if isinstance(config, CategoryColumn)]
        sizes = {column.name: column.own or max(1, column.distinct) for column in columns}
        hashed = sum(sizes[column.name] for column in columns if not column.own)
        crosses = [config for config in configs if not isinstance(config, CategoryColumn)]
        return hashed + sum(min(n_rows, math.prod(sizes[name] for name in cross.members)) for cross in crosses)

    def encoder(self, configs: Sequence[Any], places: Places) -> KindEncoder:
        """Return the encoder of categories, bins, parts of moments and crosses."""
        return SlotEncoder(configs, places)

    def explain(self, config: Any) -> str:
        """Say how many values there are, and whether they are hashed."""
        return str(config.taken_as)

    def why(self, profile: Any, *, whole: bool) -> str:
        """Say how many values were seen, and how many are unknown."""
        return why_values(profile, whole=whole)


def _one_hot(seen: ValueProfile, n: int) -> tuple[str, ...]:
    """Return the n most frequent values in their order; none if one is not UTF-8, or too long to be stored in a model."""
    values = sorted(seen.counted[0].slice(0, n).to_pylist())
    if max(map(len, values)) > LONGEST_NAME:
        return ()
    try:
        return tuple(value.decode() for value in values)
    except UnicodeDecodeError:
        return ()
