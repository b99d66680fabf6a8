"""Sizes of columns from the footers of a few files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamsgd.dataset import LARGE_FOOTER, footer_bytes
from streamsgd.errors import DataError
from streamsgd.footer_index import index_footer
from streamsgd.tables import Held

if TYPE_CHECKING:
    from streamsgd.dataset import Dataset

MOST_FILES = 8
MOST_GROUPS = 64
"""Footers that are read again, and row groups of each that are added up."""


def encoded_bytes(dataset: Dataset) -> dict[str, int]:
    """Return the compressed bytes of each top-level column in all files, estimated from some of them.

    Only `total_compressed_size` is asked for: other fields of a broken footer can abort the process.
    """
    if isinstance(dataset.source, Held) or not dataset.n_rows:
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


def _of_file(dataset: Dataset, file: int) -> tuple[dict[str, int], int] | None:
    """Return bytes by column and the rows they are of, or None where the footer cannot be read any more."""
    try:
        mine = dataset.index[(dataset.file == file) & (dataset.rows > 0)][:MOST_GROUPS].tolist()
        footer = footer_bytes(dataset.source, dataset.source.files[file])
        index = index_footer(footer) if len(footer) >= LARGE_FOOTER else None
        if index is not None:
            footer, mine = index.footer(mine, 0, footer), list(range(len(mine)))
        with pq.ParquetFile(pa.BufferReader(footer)) as opened:
            metadata, sizes, rows = opened.metadata, dict[str, int](), 0
            paths = [metadata.schema.column(j).path for j in range(metadata.num_columns)]
            names = [path if path in dataset.schema.names else path.split(".")[0] for path in paths]
            for i in mine:
                group = metadata.row_group(i)
                rows += group.num_rows
                for j in range(min(group.num_columns, len(names))):
                    size = min(max(0, group.column(j).total_compressed_size), 1 << 50)
                    sizes[names[j]] = sizes.get(names[j], 0) + size
    except (pa.ArrowException, OSError, DataError, UnicodeDecodeError):
        return None
    return sizes, rows
