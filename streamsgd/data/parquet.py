"""Bytes to Arrow columns: one piece of the plan at a time, within a bound of memory.

Small row groups are read at once with their neighbours, one of up to `whole_bytes` decoded alone, a larger one in batches of
rows through bounded buffers: a little slower to decode (100 against 80 ns per row of 28 float32), but whole rows stay together,
and writing those to their permuted places costs half of what writing parts of them does. What a footer cannot say, because
values are stored by what they share, is measured as reading goes; see `row_stream`. How it is cut changes no row and no order.

Plain reads, no memory maps: a mapped file that is truncated during the run would kill the process.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock, local
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamsgd.data.checks import checked_columns
from streamsgd.data.dataset import footer_bytes
from streamsgd.data.fetch import Fetched, probe
from streamsgd.data.filesystems import first_line, io_timeout_of, is_storage_error, retry
from streamsgd.data.footers import ChunkSizes, FooterIndex, group_chunks, index_footer
from streamsgd.data.int96 import by_unit
from streamsgd.data.row_stream import NotCoded, RowStream, coded, open_parquet
from streamsgd.data.sizes import (
    COLUMN_CHUNK_BYTES,
    FOOTERS_BYTES,
    RUN_BYTES,
    WHOLE_FOOTER_BYTES,
    WILD_ROWS,
    group_widths,
    is_wild,
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


CHUNKS_AHEAD = 64
"""Row groups whose sizes are found at once: the footer is read for them ..."""

MOST_CHUNKS = 4 * CHUNKS_AHEAD
"""... and remembered: those that are streamed now, and some more."""

MOST_SIZED = 256
"""Columns beyond which the sizes of each are not asked for, at 20 microseconds each and row group."""

COMPLAINTS = (pa.ArrowException, OSError, ValueError, KeyError)
"""What reading raises where bytes are damaged; an `OSError` may be the storage's too."""


class Footers:
    """A bounded cache of parsed footers, and indexes of those too large to parse, shared by the threads of a process."""

    def __init__(self) -> None:
        self._lock, self._indexing = Lock(), Lock()
        self._known: OrderedDict[str, Any] = OrderedDict()
        self._indexes: dict[str, FooterIndex | None] = {}
        self._chunks: OrderedDict[tuple[str, int], tuple[int, list[ChunkSizes]]] = OrderedDict()
        self._large: tuple[Any, np.ndarray] = (None, np.zeros(0, np.bool_))

    def open(
        self, dataset: Inventory, file: int, groups: list[int], texts: list[str], fetched: Fetched | None = None, **how: Any
    ) -> tuple[Any, list[int]]:
        """Open one file for reading columns of some row groups; return it, and their numbers in what was opened.

        Columns of `texts` will come as dictionaries. What was `fetched` of the file is not read again. The rest goes to
        `open_parquet`.
        """
        ref = dataset.source.files[file]
        handle = dataset.source.open(ref) if fetched is None else pa.PythonFile(fetched, mode="r")
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

    def chunks(self, dataset: Inventory, group: int) -> tuple[int, dict[str, int]]:
        """Return the rows of a row group, and bytes of its columns before compression by name, as the footer says them."""
        n_rows, chunks = self._sizes(dataset, group)
        return n_rows, {chunk.path: chunk.uncompressed for chunk in chunks}

    def decoded(self, dataset: Inventory, group: int, names: Collection[str]) -> int | None:
        """Return the bytes that columns of a row group take in memory, None where its footer does not say."""
        if len(dataset.schema.names) > MOST_SIZED:
            return None
        total = 0
        for chunk in self._sizes(dataset, group)[1]:
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
    _open: dict[tuple[int, tuple[str, ...], tuple[str, ...]], RowStream] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)
    _plain: set[int] = field(default_factory=set)
    """Files with strings that Arrow cannot make a dictionary of (delta encodings)."""
    _widest: dict[tuple[str, ...], float] = field(default_factory=dict)
    """Bytes of a row of these columns in memory, at the most so far, where they are wild."""

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
        own = self.dataset.physical_schema(file)
        there = frozenset(own.names) - frozenset(self.dataset.partition_names)
        stored = [name for name in names if name in there]
        if not stored:
            yield [self._constant(file, name, piece.rows) for name in names]
            return
        as_dictionaries = [name for name in stored if name in texts and is_text(own.field(name).type)]
        source = self._parts(piece, stored, as_dictionaries, spent)
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

    def _parts(self, piece: Piece, names: list[str], texts: list[str], spent: Timings) -> Iterator[list[Any]]:
        """Yield the columns of a piece: of row groups as long as they are small together, of a large one in batches of rows."""
        if self.is_slice(piece):
            yield from self._streamed(piece, names, texts)
            return
        for first, last in self._runs(piece, names, self._codable(piece, texts)):
            run = replace(piece, first=first, last=last, start=0, stop=int(self.dataset.rows[first:last].sum()))
            if not run.rows:
                continue
            if not self._is_large(run, names, self._codable(piece, texts)):
                try:
                    yield self._whole(piece, run, names, self._codable(piece, texts), spent)
                    continue
                except NotCoded:  # known from now on, and values may be long
                    self._plain.add(int(self.dataset.file[piece.first]))
            for group in range(first, last):
                rows = int(self.dataset.rows[group])
                if rows:
                    alone = replace(run, first=group, last=group + 1, stop=rows)
                    yield from self._streamed(alone, names, self._codable(piece, texts))

    def _codable(self, piece: Piece, texts: list[str]) -> list[str]:
        return [] if int(self.dataset.file[piece.first]) in self._plain else texts

    def _runs(self, piece: Piece, names: list[str], texts: list[str]) -> Iterator[tuple[int, int]]:
        """Yield neighbours that are read at once: by bytes as the footer says them, or as those before were measured."""
        sizes, rows = self._sizes(piece, names, texts), self.dataset.rows[piece.first : piece.last]
        most_rows = WILD_ROWS if is_wild(self.dataset.schema, names, texts) else int(rows.sum())
        first, n_bytes, n_rows = 0, 0.0, 0
        for k in range(len(rows)):
            if k > first and (n_bytes + sizes[k] > RUN_BYTES or n_rows + rows[k] > most_rows):
                yield piece.first + first, piece.first + k
                first, n_bytes, n_rows = k, 0.0, 0
            n_bytes, n_rows = n_bytes + float(sizes[k]), n_rows + int(rows[k])
        yield piece.first + first, piece.last

    def _sizes(self, piece: Piece, names: list[str], texts: list[str]) -> np.ndarray:
        """Return the decoded bytes of row groups, infinite where nobody knows yet."""
        some = slice(piece.first, piece.last)
        sizes: np.ndarray = self.dataset.rows[some] * group_widths(self.dataset, names, some)
        if not is_wild(self.dataset.schema, names, texts):
            return sizes
        widest = self._widest.get(tuple(names), math.inf)
        known = [self.footers.decoded(self.dataset, group, names) for group in range(piece.first, piece.last)]
        rows = self.dataset.rows[some].tolist()
        return np.array([n and (n * widest if size is None else size) for n, size in zip(rows, known, strict=True)], np.float64)

    def _is_large(self, run: Piece, names: list[str], texts: list[str]) -> bool:
        """Whether a run, which is one row group then, is read in batches of rows."""
        if run.last > run.first + 1:
            return False
        size = float(self._sizes(run, names, texts).sum())
        if not is_wild(self.dataset.schema, names, texts):
            return size > self.at_once
        known = run.rows <= WILD_ROWS or self.footers.decoded(self.dataset, run.first, names) is not None
        return size > RUN_BYTES or not known

    def _whole(self, piece: Piece, run: Piece, names: list[str], texts: list[str], spent: Timings) -> list[Any]:
        groups, file = self.dataset.index[run.first : run.last].tolist(), int(self.dataset.file[run.first])
        by_unit = self.by_unit(file, names)

        def read() -> list[Any]:
            began = time.perf_counter()
            fetched, found = self._fetched(piece, names), dict[str, Any]()
            for unit, some in by_unit.items():
                as_codes = [name for name in texts if name in some]
                opened, numbers = self.footers.open(self.dataset, file, groups, as_codes, fetched, unit=unit)
                with opened:
                    spent.open += time.perf_counter() - began
                    with coded(as_codes):
                        table = opened.read_row_groups(numbers, columns=some, use_threads=False)
                    began = time.perf_counter()
                if table.num_rows != run.rows:
                    raise ValueError(f"the footer promises {run.rows:,} rows but {table.num_rows:,} were read")
                found |= zip(some, checked_columns(table, some), strict=True)
            if self.dataset.source.is_local:  # written while it was read?
                self.dataset.source.check(self.dataset.source.files[file], None)
            if is_wild(self.dataset.schema, names, texts):
                self._measured(names, sum(column.nbytes for column in found.values()) / max(1, run.rows))
            return [found[name] for name in names]

        columns: list[Any] = self._guard(run, names, read)
        return columns

    def _streamed(self, piece: Piece, names: list[str], texts: list[str]) -> Iterator[list[Any]]:
        key = (piece.first, tuple(names), tuple(texts))
        with self._lock:
            stream = self._open.pop(key, None)
        if stream is None or stream.at != piece.start:
            by_unit = self.by_unit(int(self.dataset.file[piece.first]), names)
            stream = RowStream(
                self.dataset, piece.first, tuple(names), piece.start, texts, opener=self.footers, by_unit=by_unit
            )
        left = piece.rows
        while left:
            columns = self._guard(piece, names, partial(stream.next, left))
            if stream.wild and stream.widest:
                self._measured(names, stream.widest)
            left -= len(columns[0])
            yield columns
        if self.keeps_open and piece.stop < int(self.dataset.rows[piece.first]):
            with self._lock:
                self._open[key] = stream

    def by_unit(self, file: int, names: list[str]) -> dict[str, list[str]]:
        """Return columns of a file by the unit as which their moments of 96 bits are read, which is looked for once."""
        return by_unit(self.dataset.int96_units, self.dataset, file, names, self.footers)

    def _measured(self, names: list[str], width: float) -> None:
        with self._lock:
            self._widest[tuple(names)] = max(width, self._widest.get(tuple(names), 0.0))

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
                    f"{self.where(piece)}: columns {shown} cannot be read: {first_line(error)}; the file is damaged",
                    ": write it again, or pass --unreadable skip to leave its rows out",
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
