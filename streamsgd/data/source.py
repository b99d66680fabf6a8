"""Where rows come from: what any source answers, and a base class for a source of your own.

A source is chosen once, in `data.open`; afterwards everybody asks the source, and nobody asks what it is.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
import pyarrow as pa

from streamsgd.data.checks import check_codes
from streamsgd.data.stores.files import FileRef
from streamsgd.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from streamsgd.data.timings import Timings
    from streamsgd.errors import StreamSGDError
    from streamsgd.planning.chunks import Piece


WHOLE_BYTES = 32 << 20
"""Decoded bytes up to which a piece is read at once, unless somebody says otherwise."""

SPARE_BYTES = 8 << 20
"""Bytes that a read may take beside its rows."""


@dataclass(frozen=True)
class Groups:
    """Runs of rows that are read as a whole, in order: row groups of files, parts of a table, partitions.

    `file`, int32 (n_groups,), says which of `Source.files` a group belongs to, and never falls; `index`, int32 (n_groups,), is
    its number there; `rows`, int64 (n_groups,), its rows; `bytes`, int64 (n_groups,), about what its rows take.
    """

    file: np.ndarray
    index: np.ndarray
    rows: np.ndarray
    bytes: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[int] | np.ndarray, row_bytes: int = 64) -> Groups:
        """Return groups of so many rows each, of about `row_bytes` bytes a row, numbered from 0, all in one file."""
        counts = np.asarray(rows, np.int64)
        return cls(np.zeros(len(counts), np.int32), np.arange(len(counts), dtype=np.int32), counts, counts * row_bytes)

    def select(self, keep: np.ndarray) -> Groups:
        """Return some of the groups; `keep` is bool (n_groups,)."""
        return Groups(self.file[keep], self.index[keep], self.rows[keep], self.bytes[keep])


class ReadCost(NamedTuple):
    """Bytes of memory that reading takes."""

    per_thread: int
    """What one thread holds while it reads."""
    kept: int = 0
    """What a process keeps because it may be wanted again."""
    held_per_row: int = 0
    """What waits in memory for each row of a chunk, beside its block."""


class Part(NamedTuple):
    """Rows `start` to `stop` of the group that its file numbers `number`."""

    number: int
    start: int
    stop: int


class Reader(Protocol):
    """Reads pieces in one process, from many threads."""

    def read(
        self, piece: Piece, columns: tuple[str, ...], timings: Timings, dictionaries: frozenset[str] = frozenset()
    ) -> Iterator[list[Any]]:
        """Yield the columns of a piece as lists of equally long Arrow columns: one list, or several after each other.

        Strings of `dictionaries` may come as dictionaries.
        """
        ...

    def together(self, piece: Piece, columns: Sequence[str]) -> AbstractContextManager[None]:
        """Say that all reads of a piece within this are of some of these columns, so that they may share what is fetched."""
        ...

    def close(self) -> None:
        """Let go of open files. It reads on, if asked."""
        ...


class Feed:
    """What tasks on a cluster must be given to read their rows: nothing, where they can read for themselves."""

    gives = False
    """Whether tasks have inputs."""

    def inputs(self, groups: Sequence[int]) -> tuple[Any, ...]:  # noqa: ARG002
        """Return futures of what a task needs that reads these groups; they live as long as they are held."""
        return ()

    def blame(self, inputs: tuple[Any, ...]) -> StreamSGDError | None:  # noqa: ARG002
        """Say which of these futures failed, and how."""
        return None


@runtime_checkable
class Source(Protocol):
    """Where rows come from. It pickles to any worker and holds no open file.

    Groups are named by their place in `groups`. `testing.check_source` holds any source to this.
    """

    @property
    def schema(self) -> Any:
        """Arrow schema of all rows."""
        ...

    @property
    def groups(self) -> Groups:
        """What a plan needs to know."""
        ...

    @property
    def files(self) -> tuple[FileRef, ...]:
        """What the groups belong to; held-out rows are chosen by the names of these, so they should not change."""
        ...

    @property
    def fingerprint(self) -> str:
        """What changes when the rows change; a run goes on from a checkpoint only where it is the same."""
        ...

    @property
    def partition_names(self) -> tuple[str, ...]:
        """Columns that are one value per file, told by its folder."""
        ...

    @property
    def uri(self) -> str:
        """Filesystem of the files, or '' where there is none."""
        ...

    def mark(self, file: int) -> bytes:
        """Return what changes when the rows of a file do: a finished output of the same input is not made again."""
        ...

    def select(self, keep: np.ndarray) -> Self:
        """Return the source with some of its groups; `keep` is bool (n_groups,)."""
        ...

    def reader(self, *, at_once: int = WHOLE_BYTES, keeps_open: bool = True) -> Reader:
        """Return what reads in this process: pieces of up to `at_once` bytes at once.

        `keeps_open` says that the slices of a group are asked for one after another.
        """
        ...

    def where(self, piece: Piece) -> str:
        """Name a piece, for messages."""
        ...

    def where_row(self, piece: Piece, row: int) -> str:
        """Name a row of a piece, for messages; both are counted from 0."""
        ...

    def problem(self, column: str, *, nulls: bool = False) -> str:
        """Return why a column of the schema cannot be used, or ''; with `nulls`, files without it are no reason."""
        ...

    def cost(self, columns: Sequence[str], at_once: int = WHOLE_BYTES) -> ReadCost:
        """Return what reading these columns takes."""
        ...

    def encoded_bytes(self) -> Mapping[str, int]:
        """Return the stored bytes of columns, as far as they are known."""
        ...

    def prune(self, condition: Any) -> np.ndarray | None:
        """Return which groups may hold rows that fulfil a `filters.RowFilter`, bool (n_groups,); None if nobody knows."""
        ...

    def prefetch(self, groups: Sequence[int]) -> None:
        """Say that these groups will be asked for soon, in this order."""
        ...

    def feed(self, columns: tuple[str, ...], client: Any) -> Feed:
        """Return what feeds tasks on a client's workers with these columns."""
        ...

    def lending(self, tables: Sequence[tuple[int, Any]]) -> AbstractContextManager[None]:
        """Lend the source what a task was given by `feed`, for a while."""
        ...


class BaseSource:
    """A source of your own: subclass it, set three attributes, and write `read_part`.

    Attributes
    ----------
    schema
        Arrow schema of all rows.
    groups
        `Groups.of([rows, rows, ...])`: runs of rows that are read as a whole, each small beside memory.
    fingerprint
        A string that changes when the rows change.

    Examples
    --------
    >>> class Squares(BaseSource):
    ...     schema = pa.schema({"x": pa.float64(), "y": pa.float64()})
    ...     groups = Groups.of([1000] * 50)
    ...     fingerprint = "squares, 1"
    ...
    ...     def read_part(self, number, columns):
    ...         x = np.random.default_rng(number).uniform(-1, 1, 1000)
    ...         return pa.table({"x": x, "y": x * x}).select(columns)
    >>> model = streamsgd.train(Squares(), target="y")  # doctest: +SKIP

    """

    schema: Any
    groups: Groups
    fingerprint: str
    partition_names: tuple[str, ...] = ()
    uri = ""
    what = "group"
    """What a group is called in messages."""

    def read_part(self, number: int, columns: list[str]) -> Any:
        """Return these columns of a group as an Arrow table of `schema`; the same whenever, and wherever, it is asked for."""
        raise NotImplementedError

    @property
    def files(self) -> tuple[FileRef, ...]:
        """One, of all groups."""
        return (FileRef("", type(self).__name__, int(self.groups.bytes.sum())),)

    def mark(self, file: int) -> bytes:  # noqa: ARG002
        """Return the fingerprint."""
        return self.fingerprint.encode()

    def select(self, keep: np.ndarray) -> Self:
        """Return the source with some of its groups."""
        some = object.__new__(type(self))
        some.__dict__.update(self.__dict__)  # not what a copy to another process would leave behind
        some.groups = self.groups.select(keep)
        return some

    def parts(self, piece: Piece) -> Iterator[Part]:
        """Yield the parts of groups that a piece is made of."""
        start, left = piece.start, piece.rows
        numbers, rows = self.groups.index[piece.first : piece.last], self.groups.rows[piece.first : piece.last]
        for number, n in zip(numbers.tolist(), rows.tolist(), strict=True):
            stop = min(n, start + left)
            if stop > start:
                yield Part(number, start, stop)
                left -= stop - start
            start = max(0, start - n)

    def reader(self, *, at_once: int = WHOLE_BYTES, keeps_open: bool = True) -> Reader:  # noqa: ARG002
        """Return what reads in this process."""
        return self

    def read(
        self,
        piece: Piece,
        columns: tuple[str, ...],
        timings: Timings,
        dictionaries: frozenset[str] = frozenset(),  # noqa: ARG002  only a wish
    ) -> Iterator[list[Any]]:
        """Yield the columns of a piece as lists of equally long Arrow columns: one list, or several after each other.

        Strings of `dictionaries` may come as dictionaries.

        Raises
        ------
        DataError
            The rows cannot be read, or are others than promised.

        """
        with timings.decoding():
            arrays = self.arrays(piece, columns)
            try:
                for name, array in zip(columns, arrays, strict=True):
                    check_codes(name, array)
            except ValueError as error:
                raise DataError(f"{self.where(piece)}: {error}; encode it anew") from error
        yield arrays

    def arrays(self, piece: Piece, columns: tuple[str, ...]) -> list[Any]:
        """Return the columns of a piece as equally long Arrow arrays."""
        tables = [self._part(part, columns) for part in self.parts(piece)]
        whole = tables[0] if len(tables) == 1 else pa.concat_tables(tables)
        return [whole.column(name) for name in columns]

    def together(self, piece: Piece, columns: Sequence[str]) -> AbstractContextManager[None]:  # noqa: ARG002
        """Share nothing: rows are at hand."""
        return nullcontext()

    def close(self) -> None:
        """Let go of nothing: it holds nothing open."""

    def _part(self, part: Part, columns: tuple[str, ...]) -> Any:
        table = pa.table(self.read_part(part.number, list(columns)))
        rows = int(self.groups.rows[np.flatnonzero(self.groups.index == part.number)[0]])
        if table.num_rows != rows:
            raise DataError(f"{self._name(part.number)} gave {table.num_rows:,} rows and promised {rows:,}")
        wanted = pa.schema([self.schema.field(name) for name in columns])
        if table.column_names != list(columns) or table.schema.types != wanted.types:
            raise DataError(
                f"{self._name(part.number)} gave columns {_columns(table.schema)} and was to give {_columns(wanted)}"
            )
        return table.slice(part.start, part.stop - part.start)

    def _name(self, number: int) -> str:
        return f"{type(self).__name__}, {self.what} {number}"

    def where(self, piece: Piece) -> str:
        """Name the groups of a piece."""
        first, last = int(self.groups.index[piece.first]), int(self.groups.index[piece.last - 1])
        return f"{self.what} {first}" if first == last else f"{self.what}s {first} to {last}"

    def where_row(self, piece: Piece, row: int) -> str:
        """Name a row of a piece by its group and its number there, both from 0."""
        return where_row(self.groups, piece, row, self.what)

    def problem(self, column: str, *, nulls: bool = False) -> str:  # noqa: ARG002
        """Find no fault with any column."""
        return ""

    def cost(self, columns: Sequence[str], at_once: int = WHOLE_BYTES) -> ReadCost:  # noqa: ARG002
        """Return what a group takes, and what it is made of."""
        return ReadCost(3 * int(self.groups.bytes.max(initial=0)) + SPARE_BYTES)

    def encoded_bytes(self) -> Mapping[str, int]:
        """Return nothing: there are no stored bytes."""
        return {}

    def prune(self, condition: Any) -> np.ndarray | None:  # noqa: ARG002
        """Return None: only reading tells."""
        return None

    def prefetch(self, groups: Sequence[int]) -> None:
        """Do nothing ahead."""

    def feed(self, columns: tuple[str, ...], client: Any) -> Feed:  # noqa: ARG002
        """Return nothing for tasks: they read for themselves."""
        return Feed()

    def lending(self, tables: Sequence[tuple[int, Any]]) -> AbstractContextManager[None]:  # noqa: ARG002
        """Take nothing."""
        return nullcontext()


def _columns(schema: Any) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


def where_row(groups: Groups, piece: Piece, row: int, what: str) -> str:
    """Name a row of a piece by its group and its number there, both from 0."""
    ends = np.cumsum(groups.rows[piece.first : piece.last])
    group = int(np.searchsorted(ends, piece.start + row, side="right"))
    number = piece.start + row - (int(ends[group - 1]) if group else 0)
    return f"row {number:,} of {what} {int(groups.index[piece.first + group])}"
