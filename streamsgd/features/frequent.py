"""The most frequent values of hashed columns, counted while training: a model knows slots, people want names.

Some rows of every piece are counted, and the most frequent values of each piece added up in the order of the plan, so that the
names are the same whoever read what when. Memory is bounded: beyond `MOST_KEPT` values of a column the rarest are forgotten.
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamsgd.data.types import is_text
from streamsgd.features.arrow import as_bytes, as_dictionary, entry_counts
from streamsgd.features.texts import prepare_texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


T = TypeVar("T", str, bytes)

MOST_NAMED = 100
"""Values of a column that a model names, and that a piece reports."""

LONGEST_NAME = 256
"""Bytes of the longest value that is named."""

MOST_KEPT = 1000
"""Values of a column that are kept while training."""

COUNTED_ROWS, COUNTED_TEXTS = 1 << 13, 1 << 10
"""Rows of a piece whose values are counted, and texts whose words are ..."""

COUNTED_BYTES = 4 << 20
"""... as long as they take no more than this."""

COUNTED_ENTRIES = COUNTED_BYTES // 8
"""Entries of lists and maps of a piece that are counted: a row before whose end there are more ends the counting."""

LONGEST_TEXT = 1 << 14
"""Bytes of the beginning of a text whose words are counted."""

WORD = re.compile(rb"[0-9A-Za-z_\x80-\xff]+")
"""A token, as `kernels.encode.text` cuts them."""


class ValueCounter:
    """Counts the values of every hashed column among the first rows of a piece, however it comes in batches.

    Parameters
    ----------
    encoder
        Whose hashed columns are meant.
    rows
        How many rows are counted.

    """

    def __init__(self, encoder: Any, rows: int) -> None:
        self.sources, self.kinds, self.rows = encoder.sources, encoder.kinds, rows
        self.counted = frozenset().union(*(kind.counted for kind in self.kinds))
        self.at = 0
        self.parts: dict[str, list[Any]] = {}
        self.left: dict[str, int] = {}

    def add(self, columns: list[Any]) -> None:
        """Take in the next rows: one Arrow column per source of the encoding."""
        if self.at >= self.rows:
            return
        for name, column in zip(self.sources, columns, strict=True):
            if name in self.counted:
                self.parts.setdefault(name, []).append(self._kept(self._within(name, column.slice(0, self.rows - self.at))))
        self.at += len(columns[0])

    def _within(self, name: str, column: Any) -> Any:
        """Return the first rows of a column, as many as have no more entries than may be counted."""
        entries = entry_counts(column)
        if entries is None:
            return column
        left, ends = self.left.get(name, COUNTED_ENTRIES), np.cumsum(entries)
        n_rows = int(np.searchsorted(ends, left, side="right"))
        self.left[name] = -1 if n_rows < len(entries) else left - int(ends[-1]) if n_rows else left
        return column.slice(0, n_rows)

    def _kept(self, column: Any) -> Any:
        """Return a column of texts with no more of each than is counted: a thousand of them may be cut into words."""
        return _shortened(column, LONGEST_TEXT if self.at < COUNTED_TEXTS else LONGEST_NAME + 1)

    def counts(self) -> dict[str, list[tuple[str, int]]]:
        """Return the most frequent values of each column, with how often they came."""
        return {name: counts for kind in self.kinds for name, counts in kind.count(self.parts).items()}


def _shortened(column: Any, most: int) -> Any:
    """Return long texts with so many bytes of each, which wait until the piece is read: of 300 kB they would be gigabytes."""
    if not is_text(column.type) or column.nbytes <= LONGEST_NAME * len(column):
        return column
    chunks = [_compact(chunk, most) for chunk in as_dictionary(column)]
    return pa.chunked_array(chunks, pa.dictionary(pa.int32(), pa.large_binary()))


def _compact(chunk: Any, most: int) -> Any:
    """Return a dictionary array with the values that its rows have, each cut behind what counts of it."""
    codes, places = np.unique(np.asarray(chunk.indices.drop_null()), return_inverse=True)
    values = as_bytes(chunk.dictionary.take(pa.array(codes))).cast(pa.large_binary())
    indices = np.zeros(len(chunk), np.int32)
    missing = np.asarray(chunk.indices.is_null())
    indices[~missing] = places
    return pa.DictionaryArray.from_arrays(pa.array(indices, mask=missing), pc.binary_slice(values, 0, most))


def frequent_values(parts: list[Any]) -> list[tuple[str, int]]:
    """Return the most frequent values of the parts of a column, with how often they came."""
    tables = [_counted(chunk) for part in parts for chunk in as_dictionary(part)]
    if not tables:
        return []
    table = tables[0]
    if len(tables) > 1:
        table = pa.concat_tables(tables).group_by("value").aggregate([("count", "sum")]).rename_columns(["value", "count"])
    counts = table["count"].to_numpy()
    if len(counts) > MOST_NAMED:  # to sort all values would cost more than to count them
        table = table.filter(pa.array(counts >= np.partition(counts, -MOST_NAMED)[-MOST_NAMED]))
    table = table.sort_by([("count", "descending"), ("value", "ascending")]).slice(0, MOST_NAMED)
    return _decoded(zip(table["value"].to_pylist(), table["count"].to_pylist(), strict=True))


def _counted(chunk: Any) -> Any:
    """Return the values of a dictionary array that are not null, as bytes, each with how often it is there."""
    codes = np.asarray(chunk.indices.drop_null())
    values, counts = np.unique(codes, return_counts=True)
    short = np.asarray(pc.fill_null(pc.less_equal(pc.binary_length(as_bytes(chunk.dictionary)), LONGEST_NAME), False))[values]
    named = as_bytes(chunk.dictionary.take(pa.array(values[short])))
    return pa.table({"value": named.cast(pa.large_binary()), "count": counts[short]})


def frequent_words(parts: list[Any], *, fold: bool) -> list[tuple[str, int]]:
    """Return the words that are in the most texts, with in how many."""
    total: Counter[bytes] = Counter()
    left = COUNTED_TEXTS
    for chunk in (chunk for part in parts for chunk in as_dictionary(part)):
        some = chunk.slice(0, left)
        for text in prepare_texts(_beginnings(some), fold=fold).to_pylist():
            total.update(set(WORD.findall(text or b"")))
        left -= len(some)
    return _decoded(_best(total))


def _beginnings(chunk: Any) -> Any:
    """Return the values of a dictionary array, as far as words are counted."""
    texts = as_bytes(chunk.dictionary.take(chunk.indices))
    longest = pc.max(pc.binary_length(texts)).as_py() or 0
    return pc.binary_slice(texts, 0, LONGEST_TEXT) if longest > LONGEST_TEXT else texts


def _decoded(counts: Iterable[tuple[bytes, int]]) -> list[tuple[str, int]]:
    """Return what is UTF-8 and no longer than a name; the rest has none."""
    named = []
    for value, count in counts:
        with suppress(UnicodeDecodeError):
            if len(value) > LONGEST_NAME:
                continue
            named.append((value.decode(), count))
    return named


def _best(counts: Mapping[T, int], most: int = MOST_NAMED) -> list[tuple[T, int]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:most]


class FrequentValues:
    """Counts of values by column."""

    def __init__(self, counts: Mapping[str, Iterable[tuple[str, int]]] | None = None) -> None:
        self.counts = {name: Counter(dict(pairs)) for name, pairs in (counts or {}).items()}

    def add(self, counted: Mapping[str, Iterable[tuple[str, int]]]) -> None:
        """Take in what a piece brought."""
        for name, pairs in counted.items():
            counts = self.counts.setdefault(name, Counter())
            counts.update(dict(pairs))
            if len(counts) > 2 * MOST_KEPT:
                self.counts[name] = Counter(dict(_best(counts, MOST_KEPT)))

    def best(self) -> dict[str, list[tuple[str, int]]]:
        """Return the most frequent values of each column."""
        return {name: _best(counts) for name, counts in self.counts.items()}

    def kept(self) -> dict[str, list[tuple[str, int]]]:
        """Return all counts, for a checkpoint."""
        return {name: list(counts.items()) for name, counts in self.counts.items()}
