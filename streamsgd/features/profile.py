"""What a sample says of every column."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamsgd.data.types import Kind, is_text
from streamsgd.errors import DataError
from streamsgd.features.arrow import as_bytes, as_dictionary, as_float, elements
from streamsgd.features.moments import Moments
from streamsgd.kernels.compile.maths import signed_log1p

if TYPE_CHECKING:
    from streamsgd.features.roles import Roles
    from streamsgd.features.sample import Sample
    from streamsgd.planning.chunks import Piece


MOST_DEVIATIONS = 10.0
"""Largest encoded value of a feature in the first look."""

QUANTILE_BYTES = 32 << 20
"""Bytes of values of all columns that are kept for medians, quartiles and bins ..."""

QUANTILE_VALUES = 1 << 13
"""... at most so many of each column and piece of the look, and at least ..."""

LEAST_VALUES = 16
"""... so many."""

CATEGORY_ROWS = 1 << 15
"""Rows per piece of the look in which values of categories are counted; all of them where the look sees all of the data."""

WORDS_OF_TEXT, DISTINCT_TEXT = 4.0, 0.5
"""A string column is text if its values have so many words on average and so large a share of the rows has its own."""


@dataclass
class Numbers:
    """What the look saw of a column of numbers."""

    raw: Moments = field(default_factory=Moments)
    logs: Moments = field(default_factory=Moments)
    """Of sign(x) log(1 + |x|)."""
    most: int = QUANTILE_VALUES
    """Values that are kept of each piece."""
    some: list[np.ndarray] = field(default_factory=list)
    """Finite values, evenly spread over the pieces."""

    def add(self, values: np.ndarray) -> None:
        """Take in float values, NaN where missing."""
        self.raw.add(values)
        logs = np.empty_like(values)
        signed_log1p(values, logs)
        self.logs.add(logs)
        finite = values[np.isfinite(values)]
        self.some.append(finite[:: max(1, -(-len(finite) // self.most))].astype(np.float64))

    def join(self, other: Numbers) -> None:
        """Take in what another one saw."""
        self.raw.join(other.raw)
        self.logs.join(other.logs)
        self.some += other.some

    def quantiles(self, at: Any, transform: str) -> np.ndarray:
        """Return quantiles of the values after a transform."""
        found: np.ndarray = np.quantile(self._values(transform), at)
        return found

    def usual(self, transform: str) -> tuple[float, float]:
        """Return the median after a transform, and the share of the values that are equal to it."""
        values = self._values(transform)
        if not len(values):
            return 0.0, 0.0
        middle = float(np.partition(values, len(values) // 2)[len(values) // 2])
        return middle, float(np.mean(values == middle))

    def _values(self, transform: str) -> np.ndarray:
        values = np.concatenate([np.zeros(0), *self.some])
        return np.sign(values) * np.log1p(np.abs(values)) if transform == "log1p" else values


@dataclass
class Values:
    """What the look saw of a column of categories, or of the tokens of a text."""

    rows: int = 0
    nulls: int = 0
    words: float = 0.0
    """Words in all."""
    entries: int = 0
    """Of a column with many values per cell, all of them."""
    tables: list[Any] = field(default_factory=list)
    """Arrow tables of `value` (bytes) and `count`; a value may be in several."""

    def add(self, values: Any, counts: np.ndarray) -> None:
        """Take in values, an Arrow array of bytes, and how often each came."""
        self.tables.append(pa.table({"value": values.cast(pa.large_binary()), "count": counts.astype(np.int64)}))

    def join(self, other: Values) -> None:
        """Take in what another one saw."""
        self.rows, self.nulls = self.rows + other.rows, self.nulls + other.nulls
        self.words, self.entries = self.words + other.words, self.entries + other.entries
        self.tables += other.tables

    @cached_property
    def counted(self) -> tuple[Any, np.ndarray]:
        """Every value once, an Arrow array of bytes, and how often it came, int64; the most frequent first, ties in order."""
        empty = pa.table({"value": pa.array([], pa.large_binary()), "count": pa.array([], pa.int64())})
        whole = pa.concat_tables([empty, *self.tables]).group_by("value").aggregate([("count", "sum")])
        whole = whole.sort_by([("count_sum", "descending"), ("value", "ascending")]).combine_chunks()
        return whole["value"], whole["count_sum"].to_numpy()

    @property
    def n_values(self) -> int:
        """Distinct values that were seen."""
        return len(self.counted[1])

    @property
    def distinct(self) -> int:
        """Distinct values in all the data, estimated from those seen once and twice (Chao 1984)."""
        return chao(self.counted[1])

    @property
    def unseen(self) -> float:
        """Share of further rows that will bring a value that was not seen, estimated."""
        counts = self.counted[1]
        return float(np.sum(counts == 1)) / max(1, int(counts.sum()))

    @property
    def is_prose(self) -> bool:
        """Whether values are sentences rather than names."""
        filled = self.rows - self.nulls
        return filled > 0 and self.words >= WORDS_OF_TEXT * filled and self.n_values >= DISTINCT_TEXT * filled


def chao(counts: np.ndarray) -> int:
    """Return about how many distinct values there are, from how often those seen came (Chao 1984)."""
    once, twice = int(np.sum(counts == 1)), int(np.sum(counts == 2))
    return len(counts) + once * once // max(1, 2 * twice)


def look_at(look: Sample, roles: Roles) -> dict[str, Any]:
    """Return `Numbers` or `Values` of every feature over the sample."""
    pieces = look.sample(roles.features)
    found: dict[str, Any] = {name: Numbers() if _is_numeric(kind) else Values() for name, kind in roles.kinds.items()}
    for name in _vectors(roles):
        both = [item for item in _items(look, name) if item in roles.kinds]
        if both:
            raise DataError(
                f"numbers of the lists {name!r} and the column {both[0]!r} would have one name; rename one, or leave "
                f"it out with --exclude '{both[0]}'"
            )
        found |= {item: Numbers() for item in _items(look, name)}
    for name in _vectors(roles):
        del found[name]
    n_numbers = sum(isinstance(one, Numbers) for one in found.values())
    values = max(LEAST_VALUES, min(QUANTILE_VALUES, QUANTILE_BYTES // (8 * max(1, n_numbers) * len(pieces))))
    most = None if look.sees_all(roles.features) else CATEGORY_ROWS
    with ThreadPoolExecutor(look.threads(roles.features)) as pool:
        for part in pool.map(partial(_look_at_piece, look, roles, most, values), pieces):
            for name, seen in part.items():
                found[name].join(seen)
    # What Arrow's allocator keeps of a sample of wide rows would count against the budget for the whole run.
    pa.default_memory_pool().release_unused()
    return found


def _is_numeric(kind: Kind) -> bool:
    return kind == "number"


def _vectors(roles: Roles) -> list[str]:
    return [name for name, kind in roles.kinds.items() if kind == "vector"]


def _items(look: Sample, name: str) -> list[str]:
    return [f"{name}[{k}]" for k in range(look.dataset.schema.field(name).type.list_size)]


def _look_at_piece(look: Sample, roles: Roles, most: int | None, values: int, piece: Piece) -> dict[str, Any]:
    found: dict[str, Any] = {}
    texts = frozenset(name for name, kind in roles.kinds.items() if kind in ("category", "text"))
    for name, column in look.columns(piece, roles.features, texts).items():
        kind = roles.kinds.get(name)
        if kind == "number":
            found[name] = Numbers(most=values)
            found[name].add(np.asarray(as_float(column)))
        elif kind == "vector":
            for k, item in enumerate(_items(look, name)):
                found[item] = Numbers(most=values)
                found[item].add(np.asarray(as_float(pc.list_element(column, k))))
        elif kind in ("category", "text"):
            found[name] = _count(column.slice(0, most))
        elif kind is not None:
            found[name] = _count_entries(column.slice(0, most), kind)
    return found


def _count(column: Any) -> Values:
    seen = Values(len(column), column.null_count)
    for chunk in as_dictionary(column):
        codes = np.asarray(chunk.indices.drop_null(), dtype=np.int64)
        used = np.bincount(codes, minlength=len(chunk.dictionary))
        some = np.flatnonzero(used)
        values = as_bytes(chunk.dictionary.take(pa.array(some)))
        if is_text(chunk.dictionary.type):
            spaces = pc.fill_null(pc.count_substring(values, " "), 0) if len(values) else pa.array([], pa.int32())
            seen.words += float((np.asarray(spaces) + 1) @ used[some])
        filled = values.is_valid()
        seen.add(values.filter(filled), used[some][np.asarray(filled)])  # a dictionary may hold a null
    return seen


def _count_entries(column: Any, kind: str) -> Values:
    if not len(column):
        return Values()
    values, _, _, _ = elements(column, kind)
    seen = _count(values)
    seen.rows, seen.nulls, seen.entries = len(column), column.null_count, len(values)
    return seen


def farthest(moments: Moments) -> float:
    """Return by how many deviations the farthest value is off the mean."""
    if not moments.n:
        return 0.0
    return max(moments.high - moments.mean, moments.mean - moments.low, 0.0) / moments.deviation
