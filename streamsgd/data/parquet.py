"""Bytes to Arrow columns: one piece of the plan at a time, within a bound of memory.

A row group of up to `whole_bytes` decoded is read at once, a larger one in batches of rows through bounded buffers: a
little slower to decode (100 against 80 ns per row of 28 float32), but whole rows stay together, and writing those to their
permuted places costs half of what writing parts of them does.

Plain reads, no memory maps: a mapped file that is truncated during the run would kill the process.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import Lock, local
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamsgd.data.checks import checked_columns
from streamsgd.data.dataset import INT96_UNIT, footer_bytes
from streamsgd.data.fetch import Fetched, probe
from streamsgd.data.filesystems import first_line, io_timeout_of, is_storage_error, retry
from streamsgd.data.footers import FooterIndex, group_chunks, index_footer
from streamsgd.data.sizes import (
    BUFFER_BYTES,
    COLUMN_CHUNK_BYTES,
    FOOTERS_BYTES,
    WHOLE_FOOTER_BYTES,
    group_widths,
    parsed_footers,
)
from streamsgd.data.source import WHOLE_BYTES
from streamsgd.data.spans import ChunkPlaces
from streamsgd.data.types import is_text
from streamsgd.errors import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from streamsgd.data.dataset import Inventory
    from streamsgd.data.files import FileRef
    from streamsgd.data.timings import Timings
    from streamsgd.planning.chunks import Piece


BATCH_BYTES = 8 << 20
"""Decoded bytes of a batch of rows of a larger one."""

LEAST_BATCH = 64
"""Rows of the smallest batch, however long they are."""

CODED_BYTES = 2.0
"""Bytes per value in the file up to which a column is taken for a dictionary of a few values."""


def open_parquet(handle: Any, metadata: Any, texts: list[str], **how: Any) -> Any:
    """Open a file whose pages are checked against their checksums, where it has some; `texts` come as dictionaries."""
    return pq.ParquetFile(
        handle,
        metadata=metadata,
        read_dictionary=texts,
        pre_buffer=False,
        page_checksum_verification=True,
        coerce_int96_timestamp_unit=INT96_UNIT,
        **how,
    )


COMPLAINTS = (pa.ArrowException, OSError, ValueError, KeyError)
"""What reading raises where bytes are damaged; an `OSError` may be the storage's too."""


class Footers:
    """A bounded cache of parsed footers, and indexes of those too large to parse, shared by the threads of a process."""

    def __init__(self) -> None:
        self._lock, self._indexing = Lock(), Lock()
        self._known: OrderedDict[str, Any] = OrderedDict()
        self._indexes: dict[str, FooterIndex | None] = {}
        self._large: tuple[Any, np.ndarray] = (None, np.zeros(0, np.bool_))

    def open(
        self, dataset: Inventory, file: int, groups: list[int], texts: list[str], fetched: Fetched | None = None
    ) -> tuple[Any, list[int]]:
        """Open one file for reading columns of some row groups; return it, and their numbers in what was opened.

        Columns of `texts` will come as dictionaries. What was `fetched` of the file is not read again.
        """
        ref = dataset.source.files[file]
        handle = dataset.source.open(ref) if fetched is None else pa.PythonFile(fetched, mode="r")
        index = self._index(dataset, ref) if self._is_large(dataset, file) else None
        if index is not None:
            return self._open_part(handle, ref, index, groups, texts), list(range(len(groups)))
        with self._lock:
            metadata = self._known.get(ref.path)
        opened = open_parquet(handle, metadata, texts)
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

    def _open_part(self, handle: Any, ref: FileRef, index: FooterIndex, groups: list[int], texts: list[str]) -> Any:
        start, stop = index.span(groups)
        data = bytes(handle.read_at(stop - start, ref.size - index.length + start))
        metadata = pq.read_metadata(pa.BufferReader(index.footer(groups, start, data)))
        return open_parquet(handle, metadata, texts)

    def _keep(self, ref: FileRef, opened: Any) -> None:
        with self._lock:
            self._known[ref.path] = opened.metadata
            self._known.move_to_end(ref.path)
            while sum(map(_parsed_bytes, self._known.values())) > FOOTERS_BYTES:
                self._known.popitem(last=False)


def _parsed_bytes(metadata: Any) -> int:
    return int(metadata.num_row_groups * metadata.num_columns * COLUMN_CHUNK_BYTES)


def where(dataset: Inventory, piece: Piece) -> str:
    """Name the file and row groups of a piece."""
    first, last = int(dataset.index[piece.first]), int(dataset.index[piece.last - 1])
    name = dataset.source.files[int(dataset.file[piece.first])].name
    groups = f"row group {first}" if first == last else f"row groups {first} to {last}"
    return f"{name}, {groups}"


@dataclass
class PieceReader:
    """Reads the columns of pieces of one data set; one per process, used by many threads."""

    dataset: Inventory
    footers: Footers = field(default_factory=Footers)
    at_once: int = WHOLE_BYTES
    """Decoded bytes up to which a piece is read at once."""
    keeps_open: bool = True
    """Whether a row group read in part is kept open, because the next slice of it will be asked for."""
    places: ChunkPlaces = field(default_factory=ChunkPlaces)
    _together: local = field(default_factory=local)
    _open: dict[tuple[int, tuple[str, ...], tuple[str, ...]], _RowStream] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def where(self, piece: Piece) -> str:
        """Name the file and row groups of a piece."""
        return where(self.dataset, piece)

    def close(self) -> None:
        """Let go of open files; footers are kept."""
        with self._lock:
            self._open.clear()

    @contextmanager
    def together(self, piece: Piece, names: Collection[str]) -> Iterator[None]:
        """Let the reads of a piece that come within this, of any of these columns, share what is fetched from a store."""
        mine = self._together
        mine.piece, mine.names, mine.fetched = piece, names, None
        try:
            yield
        finally:
            mine.piece = mine.fetched = None

    def _fetched(self, piece: Piece, names: list[str]) -> Fetched | None:
        """Return the bytes of columns of a piece, fetched; None of local files, which are read where they are."""
        source = self.dataset.source
        if source.is_local:
            return None
        mine, ref = self._together, source.files[int(self.dataset.file[piece.first])]
        shared = getattr(mine, "piece", None) is piece
        fetched = mine.fetched if shared else None
        if fetched is None:
            fetched = Fetched(source.open(ref), ref.size, ref.name)
        fetched.fetch(self._spans(piece, {*names, *mine.names} if shared else {*names}))
        if shared:
            mine.fetched = fetched
        return fetched

    def _spans(self, piece: Piece, names: Collection[str]) -> list[tuple[int, int]]:
        ref = self.dataset.source.files[int(self.dataset.file[piece.first])]
        groups = self.dataset.index[piece.first : piece.last].tolist()
        return self.places.spans(ref, lambda: footer_bytes(self.dataset.source, ref), groups, names)

    def is_slice(self, piece: Piece) -> bool:
        """Whether the piece is part of a row group that is streamed."""
        return piece.rows < int(self.dataset.rows[piece.first : piece.last].sum())

    def read(
        self, piece: Piece, names: tuple[str, ...], spent: Timings, texts: frozenset[str] = frozenset()
    ) -> Iterator[list[Any]]:
        """Yield the columns of the piece as lists of equally long Arrow columns: one list, or one per batch of rows.

        Strings of `texts` come as dictionaries. A column that the file lacks is a column of nulls.

        Raises
        ------
        UnreadableError
            The bytes are damaged; the message names file, row group and columns.
        DataError
            The file changed or vanished, or the storage keeps failing.

        """
        file = int(self.dataset.file[piece.first])
        there = frozenset(self.dataset.physical_schema(file).names) - frozenset(self.dataset.partition_names)
        stored = [name for name in names if name in there]
        if not stored:
            yield [self._constant(file, name, piece.rows) for name in names]
            return
        widths = group_widths(self.dataset, stored, slice(piece.first, piece.last))
        large = float(self.dataset.rows[piece.first : piece.last] @ widths) > self.at_once
        streamed = self.is_slice(piece) or (large and piece.last == piece.first + 1)
        as_dictionaries = [name for name in stored if name in texts and is_text(self.dataset.schema.field(name).type)]
        reading = (piece, stored, as_dictionaries)
        source = self._streamed(*reading) if streamed else self._whole(*reading, spent)
        while True:
            began = time.perf_counter()
            try:
                columns = next(source, None)
            finally:
                spent.decode += time.perf_counter() - began
            if columns is None:
                return
            n_rows = len(columns[0])
            by_name = dict(zip(stored, columns, strict=True))
            yield [by_name[n] if n in by_name else self._constant(file, n, n_rows) for n in names]

    def _constant(self, file: int, name: str, n_rows: int) -> Any:
        if name not in self.dataset.partition_names:  # the file has no such column
            return pa.nulls(n_rows)
        value = self.dataset.partition_values[file][self.dataset.partition_names.index(name)]
        return pa.repeat(pa.scalar(value, self.dataset.schema.field(name).type), n_rows)

    def _whole(self, piece: Piece, names: list[str], texts: list[str], spent: Timings) -> Iterator[list[Any]]:
        groups = self.dataset.index[piece.first : piece.last].tolist()

        def read(as_dictionaries: list[str]) -> list[Any]:
            began = time.perf_counter()
            file = int(self.dataset.file[piece.first])
            fetched = self._fetched(piece, names)
            opened, numbers = self.footers.open(self.dataset, file, groups, as_dictionaries, fetched)
            with opened:
                spent.open += time.perf_counter() - began
                table = opened.read_row_groups(numbers, columns=names, use_threads=False)
            if self.dataset.source.is_local:  # written while it was read?
                self.dataset.source.check(self.dataset.source.files[file], None)
            if table.num_rows != piece.rows:
                raise ValueError(f"the footer promises {piece.rows:,} rows but {table.num_rows:,} were read")
            return checked_columns(table, names)

        yield self._guard(piece, names, partial(_or_plainly, read, texts))

    def _streamed(self, piece: Piece, names: list[str], texts: list[str]) -> Iterator[list[Any]]:
        key = (piece.first, tuple(names), tuple(texts))
        with self._lock:
            stream = self._open.pop(key, None)
        if stream is None or stream.at != piece.start:
            stream = _RowStream(self.dataset, piece.first, tuple(names), piece.start, texts)
        left = piece.rows
        while left:
            columns = self._guard(piece, names, partial(stream.next, left))
            left -= len(columns[0])
            yield columns
        if self.keeps_open and piece.stop < int(self.dataset.rows[piece.first]):
            with self._lock:
                self._open[key] = stream

    def _guard(self, piece: Piece, names: list[str], read: Any) -> Any:
        """Read, again if the storage fails; what Arrow says of bytes that the storage gives is damage, and nothing else is."""

        def checked() -> Any:
            try:
                return read()
            except COMPLAINTS as error:
                if is_storage_error(error):
                    raise
                self._prove_readable(piece, names)
            try:
                return read()  # what the network garbled comes whole the second time
            except COMPLAINTS as error:
                if is_storage_error(error):
                    raise
                shown = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
                raise UnreadableError(
                    f"{self.where(piece)}: columns {shown} cannot be read: {first_line(error)}; "
                    "the file is damaged: write it again, or pass --unreadable skip to leave its rows out"
                ) from error

        return retry(checked, self.where(piece), within=io_timeout_of(self.dataset.source.uri))

    def _prove_readable(self, piece: Piece, names: list[str]) -> None:
        """Raise what keeps the storage from giving the bytes of a piece, if anything does: no decoder is to blame then."""
        source = self.dataset.source
        ref = source.files[int(self.dataset.file[piece.first])]
        self._together.fetched = None
        with source.open(ref) as handle:
            if not source.is_local:
                probe(handle, ref.name, self._spans(piece, names))


def _or_plainly(read: Any, texts: list[str]) -> Any:
    """Read columns as dictionaries, or as they are if Arrow cannot make any of their encoding (delta strings)."""
    try:
        return read(texts)
    except OSError as error:
        if not texts or "DictAccumulator" not in str(error):
            raise
        return read([])


def _repetitive(sizes: dict[str, int], n_rows: int, texts: list[str]) -> list[str]:
    """Return the columns whose values repeat so much that a batch of them is best taken as a dictionary.

    Arrow gives every batch the dictionary of the whole row group, built up to it. Many different values would be held and
    hashed again and again; a few may be so long that only the dictionary bounds them.
    """
    return [name for name in texts if sizes.get(name, 0) <= CODED_BYTES * max(1, n_rows)]


class _RowStream:
    """A row group that gives its rows in order, some at a time, from row `at` on."""

    def __init__(self, dataset: Inventory, group: int, names: tuple[str, ...], at: int, texts: list[str]) -> None:
        self.dataset, self.group, self.names, self.at, self.texts = dataset, group, names, at, texts
        self.batches: Iterator[Any] | None = None
        self.held: Any = None

    def next(self, most: int) -> list[Any]:
        """Return columns of the next rows, at most that many; after a failed read, from the file opened anew."""
        try:
            columns: list[Any] = _or_plainly(partial(self._next, most), self.texts)
        except BaseException:
            self.batches = None  # an iterator that failed says no more than that it has ended
            raise
        self.at += len(columns[0])
        return columns

    def _next(self, most: int, texts: list[str]) -> list[Any]:
        if texts != self.texts:
            self.texts, self.batches = texts, None
        if self.batches is None:
            self._open()
        return self._take(most)

    def _open(self) -> None:
        dataset = self.dataset
        handle = dataset.source.open(dataset.source.files[int(dataset.file[self.group])])
        width = float(group_widths(dataset, self.names, slice(self.group, self.group + 1))[0])
        number, metadata = int(dataset.index[self.group]), pq.read_metadata(handle)
        texts = self._repetitive(number) if self.texts else []
        opened = open_parquet(handle, metadata, texts, buffer_size=BUFFER_BYTES)
        self.held = None
        self.batches = opened.iter_batches(
            batch_size=max(LEAST_BATCH, round(BATCH_BYTES / max(1.0, width))),
            row_groups=[number],
            columns=list(self.names),
            use_threads=False,
        )
        done = 0
        while done < self.at:  # decoded and dropped: what a resumed run pays once
            done += len(self._take(self.at - done)[0])

    def _repetitive(self, number: int) -> list[str]:
        dataset = self.dataset
        footer = footer_bytes(dataset.source, dataset.source.files[int(dataset.file[self.group])])
        ((n_rows, chunks),) = group_chunks(footer, [number])
        return _repetitive({chunk.path: chunk.uncompressed for chunk in chunks}, n_rows, self.texts)

    def _take(self, most: int) -> list[Any]:
        columns = self.held if self.held is not None else self._batch()
        self.held = [column.slice(most) for column in columns] if len(columns[0]) > most else None
        return [column.slice(0, most) for column in columns]

    def _batch(self) -> list[Any]:
        batch = next(self.batches, None)  # type: ignore[arg-type]
        if batch is None:
            raise ValueError(f"the row group ends after {self.at:,} rows, before its footer says")
        return checked_columns(batch, self.names)
