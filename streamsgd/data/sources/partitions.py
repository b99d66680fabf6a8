"""Partitions of Dask as a data set: each is computed when needed."""

from __future__ import annotations

import hashlib
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from streamsgd.data.dataset import Dataset
from streamsgd.data.notes import aside_of, noted
from streamsgd.data.schemas import Unified, bare, column_problem, unify
from streamsgd.data.sizes import group_widths
from streamsgd.data.source import SPARE_BYTES, WHOLE_BYTES, BaseSource, Feed, Groups, Part, ReadCost
from streamsgd.data.sources.tables import as_table
from streamsgd.data.stores.files import FileRef
from streamsgd.errors import DataError, SettingsError
from streamsgd.planning.sums import dot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streamsgd.planning.chunks import Piece


NEEDS_CLIENT = (
    "what Dask computes goes to the workers of the client that it is passed with: pass client=, or leave --workers and "
    "--scheduler out"
)

KEPT_BYTES = 64 << 20
"""Bytes of small partitions that a process keeps because the next read may want them again."""

SHOWN_ROWS = 16
"""Rows at each end of a partition by which it is known again."""


class Shape(NamedTuple):
    """What is known of a partition before it is read."""

    schema: Any
    rows: int
    bytes: int
    mark: str
    """Of its schema, rows, nulls and both ends: by which it is known again."""


def shape_of(value: Any, number: int) -> Shape:
    """Return the shape of partition `number`."""
    table = as_table(value, f"partition {number}")
    schema = noted(table.schema)
    ends = [table.slice(0, SHOWN_ROWS), table.slice(max(0, table.num_rows - SHOWN_ROWS))]
    nulls = [column.null_count for column in table.columns]
    text = f"{schema}\0{table.num_rows}\0{nulls}\0{[end.to_pylist() for end in ends]}"
    return Shape(schema, table.num_rows, table.nbytes, hashlib.sha256(text.encode()).hexdigest())


class Fetch(Protocol):
    """Gives rows of some columns of partitions; stays in its process."""

    def __call__(self, parts: list[Part], names: tuple[str, ...]) -> list[Any]:
        """Return a table for each part."""
        ...

    def expect(self, numbers: Sequence[int]) -> None:
        """Say that these partitions will be asked for in this order."""
        ...

    def feed(self, rows: Sequence[int], names: tuple[str, ...], client: Any) -> Feed:
        """Return what feeds tasks on a client's workers."""
        ...


class DaskPartitions(BaseSource):
    """Tables that come when they are needed, as a `Source`.

    Without `fetch`, which stays in its process, there are the tables that a task was lent.
    """

    what = "partition"
    computes = True
    """Whether a column costs as much as all: it is computed."""

    def __init__(
        self,
        unified: Unified,
        groups: Groups,
        files: tuple[FileRef, ...],
        fingerprint: str,
        fetch: Fetch | None,
    ) -> None:
        self.aside = unified.aside
        self.unified, self.groups, self.fetch = unified, groups, fetch
        self.schema, self.fingerprint, self._files = unified.schema, fingerprint, files
        self._begin()

    def _begin(self) -> None:
        self._lent: dict[int, list[Any]] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("fetch", "_lent", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.fetch = None
        self._begin()

    @property
    def files(self) -> tuple[FileRef, ...]:
        """One for each run of partitions of one schema."""
        return self._files

    def arrays(self, piece: Piece, columns: tuple[str, ...]) -> list[Any]:
        """Return the columns of a piece.

        Raises
        ------
        DataError
            A partition cannot be computed, or has other rows than before.

        """
        tables = self._tables(list(self.parts(piece)), columns)
        whole = tables[0] if len(tables) == 1 else pa.concat_tables(tables)
        return [whole.column(name) if name in whole.column_names else pa.nulls(whole.num_rows) for name in columns]

    def _tables(self, parts: list[Part], names: tuple[str, ...]) -> list[Any]:
        tables = [self._lent[part.number][0] for part in parts if part.number in self._lent]
        if len(tables) == len(parts):
            return [_some(table, names).slice(a, b - a) for table, (_, a, b) in zip(tables, parts, strict=True)]
        if self.fetch is not None:
            return self.fetch(parts, names)
        raise DataError(f"partition {parts[0].number} was not sent to the worker that reads it")

    def problem(self, column: str, *, nulls: bool = False) -> str:
        """Say which partitions lack a column (unless `nulls`), have it twice, or disagree about its type."""
        return column_problem(self.unified, column, nulls=nulls)

    def cost(self, columns: Sequence[str], at_once: int = WHOLE_BYTES) -> ReadCost:  # noqa: ARG002  computed whole
        """Return what a partition takes and what it is computed from, those that are kept, and what a task is sent whole."""
        largest = int(self.groups.bytes.max(initial=0))
        rows = self.groups.rows
        held = int(-(-dot(rows, group_widths(Dataset(self), columns)) // max(1, int(rows.sum()))))
        return ReadCost(3 * largest + SPARE_BYTES, KEPT_BYTES + 2 * largest, held)

    def prefetch(self, groups: Sequence[int]) -> None:
        """Let partitions be computed side by side that will be asked for in this order."""
        if self.fetch is not None:
            self.fetch.expect(self.groups.index[list(groups)].tolist())

    def feed(self, columns: tuple[str, ...], client: Any) -> Feed:
        """Return what feeds tasks on a client's workers with these columns of partitions.

        Raises
        ------
        SettingsError
            The partitions are in this process, or another client's.

        """
        if self.fetch is None:
            raise SettingsError(NEEDS_CLIENT)
        return self.fetch.feed(self.groups.rows.tolist(), columns, client)

    @contextmanager
    def lending(self, tables: Sequence[tuple[int, Any]]) -> Iterator[None]:
        """Lend partitions, each with its number, for a while."""
        with self._lock:
            for number, table in tables:
                self._lent.setdefault(number, [table, 0])[1] += 1
        try:
            yield
        finally:
            with self._lock:
                for number, _ in tables:
                    self._lent[number][1] -= 1
                    if not self._lent[number][1]:
                        del self._lent[number]


def _some(table: Any, names: tuple[str, ...]) -> Any:
    """Return those of some columns that a partition has."""
    return table.select([name for name in names if name in table.column_names])


def check_rows(table: Any, number: int, rows: int) -> Any:
    """Return a partition that has as many rows as when it was counted.

    Raises
    ------
    DataError
        It has others.

    """
    if table.num_rows != rows:
        raise DataError(
            f"partition {number} has {table.num_rows:,} rows now and had {rows:,} when it was counted: what computes it does "
            "not give the same table each time; persist it, or write it to Parquet"
        )
    return table


def partition_dataset(shapes: Sequence[Shape], fetch: Any) -> Dataset:
    """Return partitions as a data set: each is a row group, those of one schema that follow each other are as one file.

    The name of these files is `partitions`, so that a file of that name with the same row groups gives the same model.
    """
    rows = np.array([shape.rows for shape in shapes], np.int64)
    some = rows > 0
    schemas: dict[bytes, int] = {}
    which = np.array([schemas.setdefault(shape.schema.serialize().to_pybytes(), len(schemas)) for shape in shapes], np.int64)
    # A table without rows often has other types, or no columns: it counts as one of those before it.
    like = np.where(some, np.arange(len(rows)), int(some.argmax()))
    like = np.maximum.accumulate(like)
    which = which[like]
    firsts = like[np.unique(which, return_index=True)[1]].tolist()
    physical = tuple(bare(shapes[k].schema) for k in firsts)
    aside = {name: why for k in firsts for name, why in aside_of(shapes[k].schema).items()}
    unified = unify(physical, [f"partition {k}" for k in firsts])._replace(aside=aside)
    file = np.cumsum(np.diff(which, prepend=which[0]) != 0)
    sizes = np.array([shape.bytes for shape in shapes], np.int64)
    starts = np.unique(file, return_index=True)[1]
    files = tuple(FileRef("", "partitions", int(size)) for size in np.add.reduceat(sizes, starts))
    groups = Groups(file.astype(np.int32), np.arange(len(rows), dtype=np.int32), rows, sizes)
    mark = hashlib.sha256("".join(shape.mark for shape in shapes).encode()).hexdigest()
    return Dataset(DaskPartitions(unified, groups, files, mark, fetch))
