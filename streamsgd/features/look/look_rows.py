"""Some rows of the first look, evenly spread, for quick comparisons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from streamsgd.data.types import is_text
from streamsgd.features.arrow import as_double
from streamsgd.features.target import encode_target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamsgd.features.sample import Sample
    from streamsgd.features.target import Target

MOST_PIECES = 16
"""Pieces of the look that they are taken from."""


def look_rows(look: Sample, target: Target, names: Sequence[str], most: int) -> tuple[dict[str, Any], np.ndarray]:
    """Return Arrow columns by name and the target, float64 (n,), of about so many usable rows, in a fixed random order."""
    wanted = tuple(dict.fromkeys([*names, target.name]))
    pieces = look.sample(wanted)
    pieces = pieces[:: -(-len(pieces) // MOST_PIECES)]
    tables, targets = [], [np.zeros(0)]
    for piece in pieces:
        columns = look.columns(piece, wanted, most=look.most_bytes(piece, pieces))
        y, usable = encode_target(target, columns[target.name])
        kept = np.flatnonzero(usable)
        each = min(-(-most // len(pieces)), len(kept))
        kept = kept[np.linspace(0, len(kept) - 1, each).astype(np.int64)] if len(kept) else kept
        tables.append({name: _plain(columns[name]).take(pa.array(kept)) for name in names})
        targets.append(y[kept])
    y = np.concatenate(targets)
    seeds = np.random.SeedSequence([look.settings.seed, 0x10C])
    order = np.random.Generator(np.random.PCG64(seeds)).permutation(len(y))
    joined = {name: _joined([table[name] for table in tables]) for name in names}
    return {name: column.take(pa.array(order)) for name, column in joined.items()}, y[order]


def _plain(column: Any) -> Any:
    """Return a column without its dictionaries, which may not fit into one."""
    if not pa.types.is_dictionary(column.type):
        return column
    kind = column.type.value_type
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return pa.chunked_array([chunk.dictionary.take(chunk.indices) for chunk in chunks], kind)


def _joined(columns: Sequence[Any]) -> Any:
    """Return the parts of a column as one array; numbers and moments of several widths and units as floats."""
    chunks = [chunk for column in columns for chunk in (column.chunks if isinstance(column, pa.ChunkedArray) else [column])]
    kinds = {chunk.type for chunk in chunks}
    if len(kinds) > 1 and all(map(is_text, kinds)):
        chunks = [chunk.cast(pa.large_binary()) for chunk in chunks]
    elif len(kinds) > 1:
        chunks = [pa.array(as_double(chunk)) for chunk in chunks]
    return pa.chunked_array(chunks, chunks[0].type if chunks else columns[0].type).combine_chunks()
