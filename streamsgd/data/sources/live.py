"""Parquet files of a table whose log says which files, and which of their rows, count, and what columns are called now."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import local
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from streamsgd.data.normalise import delivered
from streamsgd.data.notes import aside_of, noted
from streamsgd.data.source import WHOLE_BYTES, Feed, Groups, ReadCost

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from streamsgd.data.source import Reader
    from streamsgd.data.sources.parquet_files import ParquetFiles
    from streamsgd.data.stores.files import FileRef
    from streamsgd.data.timings import Timings
    from streamsgd.planning.chunks import Piece

NOWHERE = "\0"
"""The name of a column that a file has not, whatever its columns are called."""


@dataclass(frozen=True)
class LiveRows:
    """The rows of a table, as a `Source`: the files, of which some rows may be deleted and columns may have other names."""

    stored: ParquetFiles
    schema: Any
    """Arrow schema of the table, of the version that is read."""
    version: str
    """Which table format and version it is, in words: part of the fingerprint."""
    names: tuple[Mapping[str, str] | None, ...] = ()
    """By file: what each column of the table is called there; None where all have their own names."""
    deleted: Mapping[tuple[int, int], np.ndarray] = field(default_factory=dict)
    """By file and row group: the rows that are deleted, int64 (n,), rising, counted from the first of the row group."""
    dated: Mapping[str, str] = field(default_factory=dict)
    """Columns by which the table is partitioned and that new data does not repeat, where files hold them, with the reason."""

    @cached_property
    def groups(self) -> Groups:
        """Row groups, with the rows of them that count."""
        found = self.stored.groups
        gone = np.array([len(self._gone(group)) for group in range(len(found.rows))], np.int64)
        return replace(found, rows=found.rows - gone) if self.deleted else found

    def _gone(self, group: int) -> np.ndarray:
        found = self.stored.groups
        return self.deleted.get((int(found.file[group]), int(found.index[group])), np.zeros(0, np.int64))

    def gone(self, piece: Piece) -> np.ndarray:
        """Return the deleted rows of the row groups of a piece, int64 (n,), rising, counted from the first row of the first."""
        starts = np.concatenate([[0], np.cumsum(self.stored.groups.rows[piece.first : piece.last])])
        return np.concatenate([self._gone(piece.first + k) + starts[k] for k in range(piece.last - piece.first)])

    def as_stored(self, piece: Piece) -> Piece:
        """Return the rows of the files that hold the rows of a piece; slices that follow each other do so there too."""
        gone = self.gone(piece)
        if not len(gone):
            return piece
        live = int(self.groups.rows[piece.first : piece.last].sum())
        ends = [self._edge(gone, at, live) for at in (piece.start, piece.stop)]
        return replace(piece, start=ends[0], stop=ends[1])

    def _edge(self, gone: np.ndarray, at: int, live: int) -> int:
        if at == 0:
            return 0
        return live + len(gone) if at == live else place_of(gone, at)

    @property
    def files(self) -> tuple[FileRef, ...]:
        """The files, by name."""
        return self.stored.files

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the version, the files and the deleted rows."""
        digest = hashlib.sha256(f"{self.version}\0{self.stored.fingerprint}\0{self.schema}".encode())
        for key in sorted(self.deleted):
            digest.update(f"{key}".encode() + self.deleted[key].tobytes())
        return digest.hexdigest()

    @property
    def partition_names(self) -> tuple[str, ...]:
        """Columns that are one value per file, told by the log."""
        names = self.names[0] if self.names else None
        now = {} if names is None else {stored: name for name, stored in names.items()}
        return tuple(now.get(name, name) for name in self.stored.partition_names)

    @cached_property
    def aside(self) -> dict[str, str]:
        """Columns that are no features unless asked for, by the names of now: what files note, and partitions for dates."""
        names = next((names for names in self.names if names is not None), {})
        stored = self.stored.aside
        found = {name: stored[called] for name in self.schema.names if (called := names.get(name, name)) in stored}
        return {**aside_of(noted(self.schema)), **found, **self.dated}

    @property
    def uri(self) -> str:
        """Filesystem of the files."""
        return self.stored.uri

    @property
    def renamed(self) -> bool:
        """Whether a column has another name in some file."""
        return any(names is not None for names in self.names)

    def mark(self, file: int) -> bytes:
        """Return the footer and the deleted rows of a file."""
        mine = [self.deleted[key].tobytes() for key in sorted(self.deleted) if key[0] == file]
        return b"".join([self.stored.mark(file), *mine])

    def select(self, keep: np.ndarray) -> LiveRows:
        """Return the same table with some of its row groups."""
        return replace(self, stored=self.stored.select(keep))

    def reader(self, *, at_once: int = WHOLE_BYTES, keeps_open: bool = True) -> LiveReader:
        """Return the reader of this process."""
        return LiveReader(self, self.stored.reader(at_once=at_once, keeps_open=keeps_open))

    def called(self, file: int, columns: Sequence[str]) -> list[str]:
        """Return the names of columns in a file; of those that it has not one that no column has."""
        names = self.names[file] if self.names else None
        return list(columns) if names is None else [names.get(name, NOWHERE) for name in columns]

    def exact_type(self, file: int, column: str) -> Any | None:
        """Return the Arrow type that holds moments of 96 bits of a column in a file exactly; None of other columns.

        Raises `DataError` where there is none.
        """
        (called,) = self.called(file, [column])
        found = self.stored.exact_type(file, called)
        return None if found is None else delivered(found, self.schema.field(column).type)

    def where(self, piece: Piece) -> str:
        """Name the file and row groups of a piece."""
        return self.stored.where(piece)

    def where_row(self, piece: Piece, row: int) -> str:
        """Name a row of a piece by its row group and its number there, deleted ones counted, both from 0."""
        gone = self.gone(piece)
        return self.stored.where_row(replace(piece, start=0), place_of(gone, piece.start + row))

    def problem(self, column: str, *, nulls: bool = False) -> str:  # noqa: ARG002  what a file lacks is null
        """Say which files have a column twice, or disagree about its type."""
        return "" if self.renamed else self.stored.problem(column, nulls=True)

    def cost(self, columns: Sequence[str], at_once: int = WHOLE_BYTES) -> ReadCost:
        """Return the bytes of a read; of what has deleted rows, a copy without them."""
        there = frozenset(self.stored.schema.names)
        every = {name for file in range(len(self.files)) for name in self.called(file, columns)} if self.renamed else {*columns}
        cost = self.stored.cost(sorted(every & there), at_once)
        return cost._replace(per_thread=cost.per_thread + at_once) if self.deleted else cost

    def encoded_bytes(self) -> Mapping[str, int]:
        """Return the compressed bytes of columns, estimated from the footers of some files."""
        found = self.stored.encoded_bytes()
        kinds = {id(names): names for names in self.names if names is not None}.values()
        called = {name: {name, *(names.get(name, name) for names in kinds)} for name in self.schema.names}
        return {name: max(found.get(one, 0) for one in ones) for name, ones in called.items() if ones & found.keys()}

    def prune(self, condition: Any) -> np.ndarray | None:
        """Return which row groups may hold a match, by partitions and statistics."""
        if self.renamed or not {*condition.columns} <= {*self.stored.schema.names}:
            return None
        return self.stored.prune(condition)

    def prefetch(self, groups: Sequence[int]) -> None:
        """Do nothing: the system reads ahead in files."""

    def feed(self, columns: tuple[str, ...], client: Any) -> Feed:  # noqa: ARG002
        """Return nothing for tasks: they read files themselves."""
        return Feed()

    def lending(self, tables: Sequence[tuple[int, Any]]) -> AbstractContextManager[None]:  # noqa: ARG002
        """Take nothing."""
        return nullcontext()


def place_of(gone: np.ndarray, at: int) -> int:
    """Return the place among all rows of the row that is number `at` of those that are left, both from 0."""
    before = gone - np.arange(len(gone))  # rows that are left before each deleted one
    return at + int(np.searchsorted(before, at, side="right"))


class LiveReader:
    """Reads pieces of a table in one process: without deleted rows, by the names of the table."""

    def __init__(self, source: LiveRows, inner: Reader) -> None:
        self.source, self.inner = source, inner
        self._together = local()

    def read(
        self, piece: Piece, columns: tuple[str, ...], timings: Timings, dictionaries: frozenset[str] = frozenset()
    ) -> Iterator[list[Any]]:
        """Yield the columns of a piece as lists of equally long Arrow columns: one list, or several after each other."""
        stored, gone = self._stored(piece), self.source.gone(piece)
        called = dict(zip(columns, self._called(piece, columns), strict=True))
        texts = frozenset(called[name] for name in dictionaries if name in called)
        at = stored.start
        for part in self.inner.read(stored, tuple(called[name] for name in columns), timings, texts):
            n = len(part[0])
            some = gone[np.searchsorted(gone, at) : np.searchsorted(gone, at + n)] - at
            at += n
            if len(some) < n:
                yield without(part, some) if len(some) else part

    def _stored(self, piece: Piece) -> Piece:
        shared = getattr(self._together, "pieces", None)
        return shared[1] if shared is not None and shared[0] is piece else self.source.as_stored(piece)

    def _called(self, piece: Piece, columns: Sequence[str]) -> list[str]:
        return self.source.called(int(self.source.stored.groups.file[piece.first]), columns)

    @contextmanager
    def together(self, piece: Piece, columns: Sequence[str]) -> Iterator[None]:
        """Let all reads of a piece within this share what is fetched."""
        self._together.pieces = piece, (stored := self.source.as_stored(piece))
        try:
            with self.inner.together(stored, self._called(piece, columns)):
                yield
        finally:
            self._together.pieces = None

    def close(self) -> None:
        """Let go of open files. It reads on, if asked."""
        self.inner.close()


def without(columns: list[Any], gone: np.ndarray) -> list[Any]:
    """Return columns without some of their rows."""
    keep = np.ones(len(columns[0]), np.bool_)
    keep[gone] = False
    mask = pa.array(keep)
    return [column.filter(mask) for column in columns]
