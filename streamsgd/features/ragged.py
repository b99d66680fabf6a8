"""Columns with any number of values per cell: text, lists, and maps from keys to numbers.

Their entries live in memory beside the block, and rows point to them. A text that many rows share is cut into tokens once. What
a cell holds several times is an entry each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamsgd.data.types import WHAT, fits
from streamsgd.features.arrow import as_bytes, as_dictionary, as_double, elements
from streamsgd.features.column import ColumnKind, KindEncoder, Label, Needs, Scattered, check_has_values
from streamsgd.features.exact_ids import exact_ids
from streamsgd.features.frequent import frequent_values, frequent_words
from streamsgd.features.hashing import NULL, Hashed, hash_values, name_seed
from streamsgd.features.texts import prepare_texts
from streamsgd.features.values import chao, count_entries, count_values, why_values
from streamsgd.kernels.encode.text import count_tokens, hash_tokens
from streamsgd.kernels.structs.rows import TAIL
from streamsgd.planning.sums import dot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamsgd.features.column import Candidate, Destination, Limits, Places
    from streamsgd.features.values import ValueProfile


WORDS_BYTES = 8 << 20
"""Bytes of texts that are cut into words at a time."""

MOST_TEXTS = 1 << 15
"""Texts of the sample whose entries are counted."""


class RaggedColumn(msgspec.Struct, frozen=True):
    """A column whose cells hold many values, all hashed."""

    name: str
    type: str
    kind: Literal["text", "list", "map"]
    longest: int = 1
    """Of text: tokens of the longest sequences."""
    fold: bool = True
    """Of text: whether capitals count as small letters."""
    distinct: int = 0
    """Distinct entries in all the data, estimated from the sample."""
    mean_entries: float = 0.0
    """Entries per row in the sample."""

    @property
    def column(self) -> str:
        """The column that it comes from."""
        return self.name


@dataclass
class RaggedValues:
    """What some rows of a ragged column hold."""

    pool: np.ndarray
    """int32 (n_entries, 2): coordinate and, as float32, factor."""
    starts: np.ndarray
    """int64 (n_rows,): the first entry of each row ..."""
    counts: np.ndarray
    """int64 (n_rows,): ... and how many there are."""
    infinite: np.ndarray
    """int64: rows with a number that was infinite, which count as 0."""

    @property
    def addresses(self) -> np.ndarray:
        """Where each row's entries begin, int64 (n_rows,)."""
        return self.starts * TAIL + np.int64(self.pool.ctypes.data)


class RaggedEncoder:
    """A ragged column made ready: Arrow columns in, entries out."""

    def __init__(self, column: RaggedColumn, space: Hashed) -> None:
        self.column, self.space, self.seed = column, space, name_seed(column.name)
        self.null = int(hash_values(pa.array([NULL], pa.binary()), self.seed, space)[0])

    def places(self, values: list[str]) -> np.ndarray:
        """Return the coordinates of single words or values, int64 (n,)."""
        return hash_values(pa.array([value.encode() for value in values], pa.binary()), self.seed, self.space).astype(np.int64)

    def tails(self, column: Any) -> RaggedValues:
        """Return the entries of a column's rows."""
        if self.column.kind == "text":
            return self._text(column)
        keys, numbers, starts, counts = elements(column, self.column.kind)
        pool = self._entries(keys, numbers)
        infinite = np.flatnonzero(~np.isfinite(factors_of(pool)))
        factors_of(pool)[infinite] = 0.0
        # Cells without entries begin where others do; the last that begins there is not without.
        return RaggedValues(pool, starts, counts, np.unique(np.searchsorted(starts, infinite, side="right") - 1))

    def _entries(self, values: Any, numbers: Any) -> np.ndarray:
        pool = np.empty((len(values), 2), np.int32)
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        texts = as_bytes(exact_ids(self.column.name, self.column.type, values))
        filled = pc.fill_null(texts, b"") if texts.null_count else texts
        pool[:, 0] = hash_values(filled, self.seed, self.space)
        if texts.null_count:
            pool[np.asarray(texts.is_null()), 0] = self.null
        if numbers is None:
            factors_of(pool)[:] = 1.0
            return pool
        with np.errstate(over="ignore"):
            given = as_double(numbers).astype(np.float32)
        factors_of(pool)[:] = np.where(np.isnan(given), np.float32(0.0), given)
        return pool

    def _text(self, column: Any) -> RaggedValues:
        parts = [self._of_chunk(chunk) for chunk in as_dictionary(column)]
        if len(parts) == 1:
            return parts[0]
        firsts = np.cumsum([0, *(len(part.pool) for part in parts)])[:-1]
        return RaggedValues(
            np.concatenate([np.zeros((0, 2), np.int32), *(part.pool for part in parts)]),
            np.concatenate([np.zeros(0, np.int64), *(part.starts + first for part, first in zip(parts, firsts, strict=True))]),
            np.concatenate([np.zeros(0, np.int64), *(part.counts for part in parts)]),
            np.zeros(0, np.int64),
        )

    def _of_chunk(self, chunk: Any) -> RaggedValues:
        pool, starts, counts = self.tokens(chunk.dictionary)
        codes = np.asarray(pc.fill_null(chunk.indices.cast(pa.int64()), len(starts)))
        return RaggedValues(pool, np.append(starts, 0)[codes], np.append(counts, 0)[codes], np.zeros(0, np.int64))

    def tokens(self, texts: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the entries of some texts, one per token, and for each text the first of them and their number."""
        texts = prepare_texts(texts, fold=self.column.fold)
        wide = pa.types.is_large_binary(texts.type)
        _, offsets, data = texts.buffers()
        place = offsets.address + texts.offset * (8 if wide else 4) if offsets is not None else 0
        where = data.address if data is not None else 0
        counts = np.zeros(len(texts), np.int64)
        longest, n = self.column.longest, len(texts)
        count_tokens(place, wide, where, n, longest, counts)
        starts = np.cumsum(counts) - counts
        pool = np.empty((int(counts.sum()), 2), np.int32)
        index, x, space = pool[:, 0], factors_of(pool), self.space
        hash_tokens(place, wide, where, n, longest, np.uint32(self.seed), space.first, space.mask, starts, index, x)
        return pool, starts, counts


def factors_of(pool: np.ndarray) -> np.ndarray:
    """Return the factors of entries, float32 (n_entries,), which share their memory."""
    factors: np.ndarray = pool[:, 1].view(np.float32)
    return factors


class RaggedGroup(KindEncoder):
    """Texts, lists and maps made ready."""

    def __init__(self, configs: Sequence[RaggedColumn], places: Places) -> None:
        self.columns = [RaggedEncoder(config, places.hashed) for config in configs]
        self.first = places.ragged
        self.sources = self.finite = tuple(config.name for config in configs)
        self.dictionaries = frozenset(config.name for config in configs if config.kind == "text")
        self.counted = frozenset(self.sources)

    def scatter(self, columns: Mapping[str, Any], rows: Destination) -> Scattered:
        """Point rows to their entries, which lie in pools."""
        kept = rows.dest >= 0
        places, pools, infinite = rows.dest[kept], [], np.zeros(len(self.columns), np.int64)
        for k, encoder in enumerate(self.columns):
            values = encoder.tails(columns[encoder.column.name])
            rows.block.rows.tails[places, self.first + k, 0] = values.addresses[kept]
            rows.block.rows.tails[places, self.first + k, 1] = values.counts[kept]
            infinite[k] = kept[values.infinite].sum()
            pools.append(values.pool)
        return Scattered(infinite=infinite, pools=pools)

    def count(self, columns: Mapping[str, list[Any]]) -> dict[str, list[tuple[str, int]]]:
        """Return the most frequent words, elements or keys."""
        return {encoder.column.name: _frequent(encoder.column, columns) for encoder in self.columns}

    def labels(self, frequent: Mapping[str, Sequence[tuple[str, int]]]) -> list[Label]:
        """Return the most frequent words, elements or keys."""
        labels: list[Label] = []
        for encoder in self.columns:
            name = encoder.column.name
            counts = frequent.get(name, ())
            places = encoder.places([value for value, _ in counts]).tolist()
            labels += [Label(name, value, place, rows) for (value, rows), place in zip(counts, places, strict=True)]
        return labels


def _frequent(column: RaggedColumn, columns: Mapping[str, list[Any]]) -> list[tuple[str, int]]:
    parts = columns.get(column.name, [])
    if column.kind == "text":
        return frequent_words(parts, fold=column.fold)
    return frequent_values([elements(part, column.kind)[0] for part in parts])


class Lists(ColumnKind):
    """Lists of strings or numbers: a category for every element."""

    name: Any = "list"
    config: type[Any] = RaggedColumn
    what = WHAT["list"]

    def accepts(self, kind: Any, asked: str | None) -> bool:
        """Take what is a list by its type, and lists of numbers as categories if asked."""
        return (asked in (None, self.name) or (self.name, asked) == ("list", "category")) and fits(self.name, kind)

    def profile(self, column: Any, limits: Limits) -> Any:
        """Return how often each element came."""
        some = column.slice(0, limits.rows)
        return count_entries(some, elements(some, self.name)[0])

    def choose(self, column: Candidate, profile: Any) -> list[Any]:
        """Return the column with how many entries there are."""
        check_has_values(column, profile)
        distinct = profile.n_values if column.whole else profile.distinct
        mean = profile.entries / max(1, profile.rows)
        return [RaggedColumn(column.name, str(column.type), self.name, distinct=distinct, mean_entries=mean)]

    def needs(self, configs: Sequence[Any]) -> Needs:
        """Return room for entries elsewhere."""
        return Needs(ragged=len(configs), entries=sum(config.mean_entries for config in configs))

    def distinct(self, configs: Sequence[Any], n_rows: int) -> int:
        """Return the distinct entries, all of which are hashed."""
        return sum(config.distinct for config in configs)

    def encoder(self, configs: Sequence[Any], places: Places) -> KindEncoder:
        """Return the encoder of texts, lists and maps."""
        return RaggedGroup(configs, places)

    def explain(self, config: Any) -> str:
        """Say how many entries a row has."""
        return f"{config.kind}, hashed, {config.mean_entries:.1f} entries per row"

    def why(self, profile: Any, *, whole: bool) -> str:
        """Say how many values were seen, and how many are unknown."""
        return why_values(profile, whole=whole)


class Maps(Lists):
    """Maps from keys to numbers, or lists of such pairs: a weight for every key, times its number."""

    name: Any = "map"
    what = WHAT["map"]


class Texts(Lists):
    """Strings of sentences: a category for every word."""

    name: Any = "text"
    what = WHAT["text"]
    dictionaries = True
    profile = staticmethod(count_values)

    def choose(self, column: Candidate, profile: Any) -> list[Any]:
        """Return the column if it is asked to be text, or its values are sentences, and count the words of some."""
        if column.asked != self.name and not profile.is_prose:
            return []
        check_has_values(column, profile)
        return [_with_words(column, profile)]


def _with_words(column: Candidate, seen: ValueProfile) -> RaggedColumn:
    config = RaggedColumn(column.name, str(column.type), "text", longest=column.settings.ngrams)
    texts, times = seen.counted
    texts = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    some = np.random.default_rng(column.settings.seed).permutation(len(texts))[:MOST_TEXTS]
    texts, times = texts.take(pa.array(some)), times[some]
    # What was sorted and taken from lies with the allocator, as large as the texts, until it finds time to give it back.
    pa.default_memory_pool().release_unused()
    step = max(1, len(texts) * WORDS_BYTES // max(1, texts.nbytes))
    encoder, words, sizes = RaggedEncoder(config, Hashed(0, 31)), [], []
    for start in range(0, len(texts), step):
        pool, _, counts = encoder.tokens(texts.slice(start, step))
        words.append(pool[:, 0].copy())
        sizes.append(counts)
    return msgspec.structs.replace(
        config,
        mean_entries=dot(np.concatenate([np.zeros(0, np.int64), *sizes]), times) / max(1, int(times.sum())),
        distinct=chao(_how_often(words)),
    )


def _how_often(words: list[np.ndarray]) -> np.ndarray:
    """Return how often each of some numbers came, and empty the list: `numpy.unique` would hold them three times."""
    joined = np.concatenate([np.zeros(0, np.int32), *words])
    words.clear()
    joined.sort()
    first = np.flatnonzero(joined[1:] != joined[:-1]) + 1
    return np.diff(first, prepend=0, append=len(joined)) if len(joined) else first
