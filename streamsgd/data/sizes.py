"""What columns, row groups and footers weigh in memory."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from streamsgd.data.dataset import footer_bytes
from streamsgd.data.parquet.footers import group_chunks
from streamsgd.data.source import SPARE_BYTES, WHOLE_BYTES, ReadCost
from streamsgd.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamsgd.data.dataset import Inventory


MOST_FILES = 8

MOST_GROUPS = 64
"""Footers that are read again, and row groups of each that are added up ..."""

MOST_CHUNKS = 1 << 12
"""... as long as they have no more than about so many column chunks, at 20 microseconds each."""


def decoded_bytes(dataset: Inventory) -> dict[str, float]:
    """Return the bytes in memory of each top-level column as footers tell; infinite where they do not, or are too many."""
    names, files = dataset.schema.names, np.unique(dataset.file[dataset.rows > 0]).tolist()
    if len(files) > MOST_FILES or dataset.n_row_groups * len(names) > MOST_CHUNKS:
        return dict.fromkeys(names, math.inf)
    total = dict.fromkeys(names, 0.0)
    try:
        for file in files:
            footer = footer_bytes(dataset.source, dataset.source.files[file])
            for _, chunks in group_chunks(footer, dataset.index[dataset.file == file].tolist()):
                for chunk in chunks:
                    name = chunk.path if chunk.path in total else chunk.path.split(".")[0]
                    if name in total:
                        total[name] += math.inf if chunk.decoded is None else chunk.decoded
    except (OSError, DataError, ValueError):
        return dict.fromkeys(names, math.inf)
    return total


def encoded_bytes(dataset: Inventory) -> dict[str, int]:
    """Return the compressed bytes of each top-level column in all files, estimated from some of them."""
    if not dataset.n_rows:
        return {}
    files = np.unique(dataset.file[dataset.rows > 0])
    chosen = files[np.linspace(0, len(files) - 1, min(MOST_FILES, len(files))).astype(int)]
    sizes: dict[str, int] = {}
    rows = 0
    for file in chosen.tolist():
        found = _of_file(dataset, file)
        if found is None:
            continue
        rows += found[1]
        for name, size in found[0].items():
            sizes[name] = sizes.get(name, 0) + size
    return {name: round(size * dataset.n_rows / rows) for name, size in sizes.items()} if rows else {}


def _of_file(dataset: Inventory, file: int) -> tuple[dict[str, int], int] | None:
    """Return bytes by column and the rows they are of, or None where the footer cannot be read any more."""
    mine = dataset.index[(dataset.file == file) & (dataset.rows > 0)]
    most = min(MOST_GROUPS, max(1, MOST_CHUNKS // max(1, len(dataset.schema.names))))
    sizes, rows = dict[str, int](), 0
    try:
        footer = footer_bytes(dataset.source, dataset.source.files[file])
        for n_rows, chunks in group_chunks(footer, mine[:most].tolist()):
            rows += max(0, n_rows)
            for chunk in chunks:
                name = chunk.path if chunk.path in dataset.schema.names else chunk.path.split(".")[0]
                sizes[name] = sizes.get(name, 0) + chunk.compressed
    except (OSError, DataError, ValueError):
        return None
    return sizes, rows


MOST_WHOLE_BYTES = 256 << 20
"""Decoded bytes up to which a piece is read at once in the largest budget:
batches of dictionary-encoded rows come with the whole dictionary each, to be hashed anew."""

WHOLE_SHARE = 32
"""One part in so many of the budget may be read at once."""

RUN_BYTES = 16 << 20
"""Decoded bytes of small row groups that are read at once with their neighbours."""

BATCH_BYTES = 8 << 20
"""Decoded bytes of a batch of rows of a row group that is too large to be read at once."""

WILD_ROWS = 1 << 13
"""Rows that are read at once of columns whose footer does not say how long they are in memory."""

BUFFER_BYTES = 1 << 18
"""Compressed bytes held per column while batches are read; without a bound Arrow keeps the whole row group."""

CODE_BYTES = 12
"""Bytes that a value of a column read as a dictionary takes beside the value itself: its code, and its part of an index."""

READER_BYTES = 1 << 17
"""What Arrow's reader of a column takes beside them: 2,000 columns of 40 kB took 215 MB, 80 MB of them batches."""

PAGE_BYTES = 1 << 20
"""What writers make a data page, uncompressed: one per column is held while batches are read."""

FOOTERS_BYTES = 64 << 20
"""Bytes of parsed footers that a process keeps."""

WHOLE_FOOTER_BYTES = 16 << 20
"""Bytes of a parsed footer above which only the row groups that are read are parsed, at each read."""

COLUMN_CHUNK_BYTES = 920
"""Bytes that a parsed footer takes per column and row group; ten times its length in the file."""


class Sized(Protocol):
    """What has a schema and groups of known rows and bytes."""

    @property
    def schema(self) -> Any:
        """Arrow schema."""
        ...

    @property
    def rows(self) -> np.ndarray:
        """Rows of each group."""
        ...

    @property
    def bytes(self) -> np.ndarray:
        """Bytes of each group."""
        ...


def has_fixed_width(kind: Any) -> bool:
    """Whether every value of a type takes the same bytes, so that they are known without reading."""
    return bool(pa.types.is_primitive(kind))


def column_bytes(kind: Any) -> int:
    """Return the decoded bytes per value of a fixed-width type (16 for others, a guess)."""
    return max(1, kind.bit_width // 8) if has_fixed_width(kind) else 16


def row_width(dataset: Sized, names: Sequence[str]) -> int:
    """Return the decoded bytes of one row of these columns, guessing at those without a fixed width."""
    return sum(column_bytes(dataset.schema.field(name).type) for name in names)


def group_widths(dataset: Sized, names: Sequence[str], groups: slice = slice(None)) -> np.ndarray:
    """Return about the decoded bytes of a row of these columns, float64 (n_row_groups,).

    Exact for types of fixed width. Others come as dictionaries: a code per row, and values that take no more than they do in
    the file, of which only the size of all columns together is known.
    """
    there = frozenset(dataset.schema.names)
    kinds = [dataset.schema.field(name).type for name in names if name in there]
    fixed = sum(column_bytes(kind) for kind in kinds if has_fixed_width(kind))
    n_varying = sum(not has_fixed_width(kind) for kind in kinds)
    rows = dataset.rows[groups]
    if not n_varying:
        return np.full(len(rows), float(fixed))
    widths: np.ndarray = fixed + n_varying * CODE_BYTES + dataset.bytes[groups] / np.maximum(rows, 1)
    return widths


def is_wild(schema: Any, names: Sequence[str], texts: Sequence[str]) -> bool:
    """Whether a column may be much longer in memory than in the file: of no fixed width, and not read as a dictionary."""
    return any(name not in texts and not _is_bounded(schema.field(name).type) for name in names)


def _is_bounded(kind: Any) -> bool:
    if pa.types.is_fixed_size_list(kind):
        return _is_bounded(kind.value_type)
    return has_fixed_width(kind) or bool(pa.types.is_null(kind) or pa.types.is_fixed_size_binary(kind))


def whole_bytes(limit: int) -> int:
    """Return the decoded bytes up to which a piece is read at once in a memory budget."""
    return max(WHOLE_BYTES, min(MOST_WHOLE_BYTES, limit // WHOLE_SHARE))


def _reading_bytes(dataset: Inventory, names: Sequence[str], at_once: int, decoded: float) -> int:
    """Return the bytes that one thread may hold while it reads: compressed, decoded, converted to floats, and a footer.

    Pieces of up to `at_once` bytes are read at once; what is wild takes `decoded` bytes in all.
    """
    sizes = dataset.rows * group_widths(dataset, names)
    footer = int(footers_bytes(dataset).max(initial=0))
    whole = int(max(sizes[sizes <= at_once].max(initial=0), min(RUN_BYTES, sizes.sum())))
    if is_wild(dataset.schema, names, ()):
        whole = int(max(whole, min(RUN_BYTES, decoded)))
    large = sizes > at_once
    if not large.any():
        return 3 * whole + footer + SPARE_BYTES
    pages = min(len(names) * (BUFFER_BYTES + PAGE_BYTES), 2 * int(dataset.bytes[large].max()))
    pages += len(names) * READER_BYTES
    return max(3 * whole, 3 * BATCH_BYTES + pages) + footer + SPARE_BYTES


def footers_bytes(dataset: Inventory) -> np.ndarray:
    """Return about how many bytes each file's footer takes, int64 (n_files,): parsed, or unparsed while it is indexed."""
    parsed = parsed_footers(dataset)
    return np.where(parsed > WHOLE_FOOTER_BYTES, parsed // 10, parsed)


def parquet_cost(dataset: Inventory, names: Sequence[str], at_once: int, decoded: Mapping[str, float]) -> ReadCost:
    """Return what reading these columns of files takes: a thread's bytes, and the footers that a process keeps."""
    there = [name for name in names if name in dataset.schema.names]
    total = sum(decoded.get(name, 0.0) for name in there)
    return ReadCost(_reading_bytes(dataset, there, at_once, total), min(FOOTERS_BYTES, int(footers_bytes(dataset).sum())))


def parsed_footers(dataset: Inventory) -> np.ndarray:
    """Return about how many bytes each file's parsed footer takes, int64 (n_files,)."""
    n_groups = np.zeros(len(dataset.source.files), np.int64)
    np.maximum.at(n_groups, dataset.file, dataset.index.astype(np.int64) + 1)
    return n_groups * len(dataset.schema.names) * COLUMN_CHUNK_BYTES
