"""What a sample says of values that are no numbers: how many there are, how often each came, how many words they have."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamsgd.data.types import is_text
from streamsgd.features.arrow import as_bytes, as_dictionary
from streamsgd.planning.sums import dot

if TYPE_CHECKING:
    from streamsgd.features.column import Limits


WORDS_OF_TEXT, DISTINCT_TEXT = 4.0, 0.5
"""A string column is text if its values have so many words on average and so large a share of the rows has its own."""

LONG_BYTES = 512
"""Bytes of values, on average, from which on they are told apart by digests."""

RARE = 2
"""Rows of a value up to which it is rare."""

MANY_RARE, LEAST_RARE = 0.01, 50
"""Share of the rows, and rows, from which on rare values share a weight."""

NEVER = 0.99
"""Share of the rows whose value is theirs alone, from which on a column names rows."""

WORTH_SAYING = 1.5
"""Words per value from which on they are mentioned."""


@dataclass
class ValueProfile:
    """What a sample says of a column of categories, or of the tokens of a text."""

    rows: int = 0
    nulls: int = 0
    words: float = 0.0
    """Words in all."""
    entries: int = 0
    """Of a column with many values per cell, all of them."""
    tables: list[Any] = field(default_factory=list)
    """Arrow tables of `value` (bytes) and `count`; a value may be in several."""

    @property
    def nbytes(self) -> int:
        """Bytes of the values that are kept."""
        return sum(table.nbytes for table in self.tables)

    def add(self, values: Any, counts: np.ndarray) -> None:
        """Take in values, an Arrow array of bytes, and how often each came."""
        self.tables.append(pa.table({"value": values.cast(pa.large_binary()), "count": counts.astype(np.int64)}))

    def join(self, other: ValueProfile) -> None:
        """Take in what another one saw."""
        self.rows, self.nulls = self.rows + other.rows, self.nulls + other.nulls
        self.words, self.entries = self.words + other.words, self.entries + other.entries
        self.tables += other.tables

    @cached_property
    def counted(self) -> tuple[Any, np.ndarray]:
        """Every value once, an Arrow array of bytes, and how often it came, int64; the most frequent first, ties in order."""
        empty = pa.table({"value": pa.array([], pa.large_binary()), "count": pa.array([], pa.int64())})
        whole, self.tables = pa.concat_tables([empty, *self.tables]), []
        whole = _once_by_digest(whole) if whole.nbytes > LONG_BYTES * max(1, whole.num_rows) else _once(whole)
        whole = whole.combine_chunks()  # or to take from it would, beside what it is made of
        whole = whole.take(pc.sort_indices(whole, [("count", "descending"), ("value", "ascending")])).combine_chunks()
        self.tables = [whole]
        return whole["value"], whole["count"].to_numpy()

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
    def n_common(self) -> int:
        """Distinct values that came more than twice."""
        return int(np.sum(self.counted[1] > RARE))

    @property
    def rare_share(self) -> float:
        """Share of the rows whose value came once or twice."""
        counts = self.counted[1]
        return float(counts[counts <= RARE].sum()) / max(1, int(counts.sum()))

    @property
    def many_rare(self) -> bool:
        """Whether rows whose value came once or twice are so many that a weight for all of them can be learned."""
        counts = self.counted[1]
        return self.rare_share >= MANY_RARE and int(counts[counts <= RARE].sum()) >= LEAST_RARE

    @property
    def comes_back(self) -> bool:
        """Whether there are values that come again."""
        counts = self.counted[1]
        return int(counts.sum()) < LEAST_RARE or float(np.sum(counts == 1)) < NEVER * float(counts.sum())

    @property
    def is_prose(self) -> bool:
        """Whether values are sentences rather than names."""
        filled = self.rows - self.nulls
        return filled > 0 and self.words >= WORDS_OF_TEXT * filled and self.n_values >= DISTINCT_TEXT * filled


def _once(seen: Any) -> Any:
    """Return a table of values and counts with every value once.

    Arrow's grouping would take 340 bytes beside each of millions, and ten times as long.
    """
    values = seen["value"].combine_chunks().dictionary_encode()
    counts = np.zeros(len(values.dictionary), np.int64)
    np.add.at(counts, np.asarray(values.indices), seen["count"].to_numpy())
    return pa.table({"value": values.dictionary, "count": counts})


def _once_by_digest(seen: Any) -> Any:
    """Do the same for long values: Arrow's grouping would copy them twice, and 16 bytes tell them apart."""
    first: dict[bytes, int] = {}
    which = np.array(
        [first.setdefault(_digest(value), len(first)) for chunk in seen["value"].chunks for value in chunk], np.int64
    )
    counts = np.zeros(len(first), np.int64)
    np.add.at(counts, which, seen["count"].to_numpy())
    values = seen["value"]
    if len(first) < len(which):
        values = values.take(pa.array(np.unique(which, return_index=True)[1]))
    return pa.table({"value": values, "count": counts})


def _digest(value: Any) -> bytes:
    return hashlib.blake2b(value.as_buffer(), digest_size=16).digest()


def chao(counts: np.ndarray) -> int:
    """Return about how many distinct values there are, from how often those seen came (Chao 1984)."""
    once, twice = int(np.sum(counts == 1)), int(np.sum(counts == 2))
    return len(counts) + once * once // max(1, 2 * twice)


def count_values(column: Any, limits: Limits) -> ValueProfile:
    """Return how often each value of an Arrow column came in its first rows."""
    return _count(column.slice(0, limits.rows))


def _count(column: Any) -> ValueProfile:
    seen = ValueProfile(len(column), column.null_count)
    for chunk in as_dictionary(column):
        codes = np.asarray(chunk.indices.drop_null(), dtype=np.int64)
        used = np.bincount(codes, minlength=len(chunk.dictionary))
        some = np.flatnonzero(used)
        values = as_bytes(chunk.dictionary.take(pa.array(some)))
        if is_text(chunk.dictionary.type):
            spaces = pc.fill_null(pc.count_substring(values, " "), 0) if len(values) else pa.array([], pa.int32())
            seen.words += dot(np.asarray(spaces) + 1, used[some])
        filled = values.is_valid()
        seen.add(values.filter(filled), used[some][np.asarray(filled)])  # a dictionary may hold a null
    return seen


def count_entries(column: Any, values: Any) -> ValueProfile:
    """Return how often each of the `values` came that the cells of a column hold."""
    seen = _count(values)
    seen.rows, seen.nulls, seen.entries = len(column), column.null_count, len(values)
    return seen


def why_values(seen: ValueProfile, *, whole: bool) -> str:
    """Return in what respects values decide how a column is taken."""
    told = f"{seen.n_values:,} values in {seen.rows:,} rows"
    told += ", all of them" if whole else f", of further rows {seen.unseen:.2%} would bring another"
    if seen.entries:
        return f"{told}; {seen.entries / max(1, seen.rows):.1f} per row"
    words = seen.words / max(1, seen.rows - seen.nulls)
    return f"{told}; {words:.1f} words each" if words >= WORTH_SAYING else told
