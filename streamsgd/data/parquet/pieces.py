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
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock, local
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from streamsgd.data.checks import checked_columns
from streamsgd.data.parquet.fetch import Fetched, probe
from streamsgd.data.parquet.int96 import by_unit
from streamsgd.data.parquet.open_footers import Footers
from streamsgd.data.parquet.row_stream import NotCoded, RowStream, coded
from streamsgd.data.sizes import (
    RUN_BYTES,
    WILD_ROWS,
    group_widths,
    is_wild,
)
from streamsgd.data.source import WHOLE_BYTES
from streamsgd.data.stores.filesystems import first_line, io_timeout_of, is_storage_error, retry
from streamsgd.data.types import is_text
from streamsgd.errors import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from streamsgd.data.dataset import Inventory
    from streamsgd.data.timings import Timings
    from streamsgd.planning.chunks import Piece


StreamKey = tuple[int, tuple[str, ...], tuple[str, ...]]
"""Row group, columns, and those of them that come as dictionaries."""

COMPLAINTS = (pa.ArrowException, OSError, ValueError, KeyError)
"""What reading raises where bytes are damaged; an `OSError` may be the storage's too."""


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
    _together: local = field(default_factory=local)
    _open: dict[StreamKey, RowStream] = field(default_factory=dict)
    _reading: dict[tuple[StreamKey, int], bool] = field(default_factory=dict)
    """Slices that are read, by the row that they end before, and whether the next one was begun meanwhile."""
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
        groups = self.dataset.index[piece.first : piece.last].tolist()
        return self.footers.spans(self.dataset, int(self.dataset.file[piece.first]), groups, names)

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
        stream = self._begun(key, piece)
        if stream is None:
            by_unit = self.by_unit(int(self.dataset.file[piece.first]), names)
            stream = RowStream(
                self.dataset, piece.first, tuple(names), piece.start, texts, opener=self.footers, by_unit=by_unit
            )
        left = piece.rows
        try:
            while left:
                columns = self._guard(piece, names, partial(stream.next, left))
                if stream.wild and stream.widest:
                    self._measured(names, stream.widest)
                left -= len(columns[0])
                yield columns
        finally:
            self._ended(key, piece, None if left else stream)

    def _begun(self, key: StreamKey, piece: Piece) -> RowStream | None:
        """Take down that a slice is read; return what the one before it left open, if that has ended."""
        with self._lock:
            stream = self._open.pop(key, None)
            if stream is not None and stream.at != piece.start:
                stream = None
            if stream is None and (key, piece.start) in self._reading:
                self._reading[key, piece.start] = True
            self._reading[key, piece.stop] = False
            return stream

    def _ended(self, key: StreamKey, piece: Piece, stream: RowStream | None) -> None:
        """Keep a row group open for the next slice, unless another thread began that one and has opened it anew."""
        with self._lock:
            overtaken = self._reading.pop((key, piece.stop), False)
            if stream is not None and self.keeps_open and not overtaken and piece.stop < int(self.dataset.rows[piece.first]):
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
