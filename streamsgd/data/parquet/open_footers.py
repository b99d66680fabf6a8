"""Parsed footers, kept within a bound of memory: what files are opened with, and what those too large to parse say."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamsgd.data.dataset import footer_bytes
from streamsgd.data.parquet.footers import ChunkSizes, FooterIndex, group_chunks, index_footer
from streamsgd.data.parquet.page_guard import GuardedPages
from streamsgd.data.parquet.row_stream import open_parquet
from streamsgd.data.parquet.spans import ChunkPlaces
from streamsgd.data.sizes import (
    COLUMN_CHUNK_BYTES,
    FOOTERS_BYTES,
    WHOLE_FOOTER_BYTES,
    parsed_footers,
)
from streamsgd.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection

    from streamsgd.data.dataset import Inventory
    from streamsgd.data.parquet.fetch import Fetched
    from streamsgd.data.stores.files import FileRef


CHUNKS_AHEAD = 64
"""Row groups whose sizes are found at once: the footer is read for them ..."""

MOST_CHUNKS = 4 * CHUNKS_AHEAD
"""... and remembered: those that are streamed now, and some more."""

MOST_SIZED = 256
"""Columns beyond which the sizes of each are not asked for, at 20 microseconds each and row group."""


class Footers:
    """A bounded cache of parsed footers, and indexes of those too large to parse, shared by the threads of a process."""

    def __init__(self) -> None:
        self._lock, self._indexing = Lock(), Lock()
        self._known: OrderedDict[str, Any] = OrderedDict()
        self._indexes: dict[str, FooterIndex | None] = {}
        self._chunks: OrderedDict[tuple[str, int], tuple[int, list[ChunkSizes]]] = OrderedDict()
        self._places = ChunkPlaces()
        self._large: tuple[Any, np.ndarray] = (None, np.zeros(0, np.bool_))

    def open(
        self,
        dataset: Inventory,
        file: int,
        groups: list[int],
        texts: list[str],
        fetched: Fetched | None = None,
        *,
        in_parts: Collection[str] = (),
        **how: Any,
    ) -> tuple[Any, list[int]]:
        """Open one file for reading columns of some row groups; return it, and their numbers in what was opened.

        Columns of `texts` will come as dictionaries. What was `fetched` of the file is not read again. Pages of columns that
        are read `in_parts` are guarded. The rest goes to `open_parquet`.
        """
        ref = dataset.source.files[file]
        handle = dataset.source.open(ref) if fetched is None else pa.PythonFile(fetched, mode="r")
        if in_parts:
            handle = pa.PythonFile(GuardedPages(handle, partial(self.spans, dataset, file, groups, in_parts)), mode="r")
        index = self._index(dataset, ref) if self._is_large(dataset, file) else None
        if index is not None:
            return self._open_part(handle, ref, index, groups, texts, **how), list(range(len(groups)))
        with self._lock:
            metadata = self._known.get(ref.path)
        opened = open_parquet(handle, metadata, texts, **how)
        self._keep(ref, opened)
        return opened, groups

    def _is_large(self, dataset: Inventory, file: int) -> bool:
        if self._large[0] is not dataset:
            self._large = dataset, parsed_footers(dataset) > WHOLE_FOOTER_BYTES
        return bool(self._large[1][file])

    def _index(self, dataset: Inventory, ref: FileRef) -> FooterIndex | None:
        with self._indexing:  # one unparsed footer at a time
            if ref.path not in self._indexes:
                self._indexes[ref.path] = index_footer(footer_bytes(dataset.source, ref))
            return self._indexes[ref.path]

    def _open_part(self, handle: Any, ref: FileRef, index: FooterIndex, groups: list[int], texts: list[str], **how: Any) -> Any:
        start, stop = index.span(groups)
        data = bytes(handle.read_at(stop - start, ref.size - index.length + start))
        metadata = pq.read_metadata(pa.BufferReader(index.footer(groups, start, data)))
        return open_parquet(handle, metadata, texts, **how)

    def spans(self, dataset: Inventory, file: int, groups: list[int], names: Collection[str]) -> list[tuple[int, int]]:
        """Return first byte and length of columns of some row groups of a file; none where its footer is unclear."""
        ref = dataset.source.files[file]
        return self._places.spans(ref, lambda: footer_bytes(dataset.source, ref), groups, names)

    def chunks(self, dataset: Inventory, group: int) -> tuple[int, dict[str, int]]:
        """Return the rows of a row group, and bytes of its columns before compression by name, as the footer says them."""
        n_rows, chunks = self._sizes(dataset, group)
        return n_rows, {chunk.path: chunk.uncompressed for chunk in chunks}

    def decoded(self, dataset: Inventory, group: int, names: Collection[str]) -> int | None:
        """Return the bytes that columns of a row group take in memory, None where its footer does not say."""
        if len(dataset.schema.names) > MOST_SIZED:
            return None
        try:
            chunks = self._sizes(dataset, group)[1]
        except (OSError, DataError, ValueError):  # whoever reads the row group says what is wrong
            return None
        total = 0
        for chunk in chunks:
            if chunk.path in names or chunk.path.split(".")[0] in names:
                if chunk.decoded is None:
                    return None
                total += chunk.decoded
        return total

    def _sizes(self, dataset: Inventory, group: int) -> tuple[int, list[ChunkSizes]]:
        """Return what a footer says of a row group, and find out the same of those after it."""
        file = int(dataset.file[group])
        path, number = dataset.source.files[file].path, int(dataset.index[group])
        with self._lock:
            found = self._chunks.get((path, number))
        if found is not None:
            return found
        some = slice(group, group + CHUNKS_AHEAD)
        numbers = dataset.index[some][dataset.file[some] == file].tolist()
        parts = [*group_chunks(footer_bytes(dataset.source, dataset.source.files[file]), numbers)]
        with self._lock:
            self._chunks.update({(path, n): part for n, part in zip(numbers, parts, strict=True)})
            while len(self._chunks) > MOST_CHUNKS:
                self._chunks.popitem(last=False)
        return parts[0]

    def _keep(self, ref: FileRef, opened: Any) -> None:
        with self._lock:
            self._known[ref.path] = opened.metadata
            self._known.move_to_end(ref.path)
            while sum(map(_parsed_bytes, self._known.values())) > FOOTERS_BYTES:
                self._known.popitem(last=False)


def _parsed_bytes(metadata: Any) -> int:
    return int(metadata.num_row_groups * metadata.num_columns * COLUMN_CHUNK_BYTES)
