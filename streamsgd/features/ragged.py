"""Columns with any number of values per cell: text, lists, and maps from keys to numbers.

Their entries live in memory beside the block, and rows point to them. A text that many rows share is cut into tokens once. What
a cell holds several times is an entry each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamsgd.data.types import is_text
from streamsgd.features.arrow import as_bytes, as_dictionary, as_double, elements
from streamsgd.features.hashing import NULL, Hashed, hash_values, name_seed
from streamsgd.kernels.encode.text import count_tokens, hash_tokens
from streamsgd.kernels.structs.rows import TAIL


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
    """Distinct entries in all the data, estimated from the first look."""
    mean_entries: float = 0.0
    """Entries per row in the first look."""


@dataclass
class RaggedValues:
    """What some rows of a tail column hold."""

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
    """A tail column made ready: Arrow columns in, entries out."""

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
        texts = as_bytes(values)
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


def prepare_texts(texts: Any, *, fold: bool) -> Any:
    """Return an Arrow array of texts as bytes, null as no text, in small letters if `fold`."""
    texts = as_bytes(pc.fill_null(texts, "") if is_text(texts.type) and texts.null_count else texts)
    if not fold:
        return texts
    wide = pa.types.is_large_binary(texts.type)
    kind = pa.large_string() if wide else pa.string()
    try:
        folded = pc.utf8_lower(texts.cast(kind))
    except pa.ArrowInvalid:
        folded = _folded_apart(texts, kind)
    return folded.cast(pa.large_binary() if wide else pa.binary())


def _folded_apart(texts: Any, kind: Any) -> Any:
    """Fold texts of which some are not UTF-8: of those only what is ASCII."""
    valid = np.array([_is_utf8(text) for text in texts.to_pylist()], np.bool_)
    order = np.argsort(np.concatenate([np.flatnonzero(valid), np.flatnonzero(~valid)]), kind="stable")
    good = pc.utf8_lower(texts.filter(pa.array(valid)).cast(kind))
    bad = texts.filter(pa.array(~valid))
    bad = pa.array([text.lower() for text in bad.to_pylist()], texts.type)
    return pa.concat_arrays([good.cast(texts.type), bad]).take(pa.array(order))


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
