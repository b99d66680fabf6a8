"""Rows told apart by a value of their own: which one each has, and how many may be told apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from streamsgd.errors import DataError
from streamsgd.features.arrow import as_bytes

MOST_GROUPS = 4096
"""Values that are told apart in whatever memory."""

CONTINUOUS = ("float", "double", "halffloat", "decimal", "timestamp", "time")
"""How types begin in the words of Arrow whose values are hardly ever the same."""


def codes_of(name: str, column: Any, wanted: np.ndarray, labels: dict[str, int]) -> np.ndarray:
    """Return which label each row has, int32 (n,), 0 of rows that are not wanted; `labels` takes in those that are new.

    Raises
    ------
    DataError
        There are more values than are told apart: before each becomes an object, which of ids takes more than all else.

    """
    codes = np.zeros(len(column), np.int32)
    if wanted.any():
        codes[wanted] = np.concatenate([_codes(name, chunk, labels) for chunk in _chunks(column, wanted)])
    return codes


def _chunks(column: Any, wanted: np.ndarray) -> list[Any]:
    some = column if wanted.all() else column.filter(pa.array(wanted))
    return some.chunks if isinstance(some, pa.ChunkedArray) else [some]


def _codes(name: str, chunk: Any, labels: dict[str, int]) -> np.ndarray:
    """Return the labels of an Arrow array: its values as texts, `(null)` for null. A text may stand for several values."""
    plain = chunk.cast(chunk.type.value_type) if pa.types.is_dictionary(chunk.type) else chunk
    encoded = as_bytes(plain).dictionary_encode(null_encoding="encode")
    if len(encoded.dictionary) > MOST_GROUPS:
        raise too_many(name, str(plain.type))
    texts = ["(null)" if value is None else value.decode(errors="replace") for value in encoded.dictionary.to_pylist()]
    places = np.array([labels.setdefault(text, len(labels)) for text in texts], np.int32)
    if len(labels) > MOST_GROUPS:
        raise too_many(name, str(plain.type))
    codes: np.ndarray = places[encoded.indices.to_numpy(zero_copy_only=False)]
    return codes


def too_many(name: str, kind: str, told: int = MOST_GROUPS) -> DataError:
    """Return the complaint that a column has more values than the `told` ones; `kind` is its type in the words of Arrow."""
    remedy = (
        f"as it is a continuous one ({kind}): name a column of few values, such as a category, an integer or a date, or "
        "--filter a range of it"
        if kind.startswith(CONTINUOUS)
        else "which is the most that are told apart: --filter some of them"
    )
    return DataError(f"--by {name}: the column has more than {told:,} values, {remedy}")
