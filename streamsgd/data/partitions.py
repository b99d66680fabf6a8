"""Partitions of Dask as a data set: each is computed when needed."""

from __future__ import annotations

import hashlib
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from streamsgd.data.dataset import Dataset
from streamsgd.data.files import FileRef
from streamsgd.data.schemas import bare, unify
from streamsgd.data.tables import TableSource, as_table
from streamsgd.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


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


class Part(NamedTuple):
    """Rows `start` to `stop` of a partition."""

    number: int
    start: int
    stop: int


def shape_of(value: Any, number: int) -> Shape:
    """Return the shape of partition `number`."""
    table = as_table(value, f"partition {number}")
    schema = bare(table.schema)
    ends = [table.slice(0, SHOWN_ROWS), table.slice(max(0, table.num_rows - SHOWN_ROWS))]
    nulls = [column.null_count for column in table.columns]
    text = f"{schema}\0{table.num_rows}\0{nulls}\0{[end.to_pylist() for end in ends]}"
    return Shape(schema, table.num_rows, table.nbytes, hashlib.sha256(text.encode()).hexdigest())


@dataclass
class Partitions:
    """Stands where a `Source` of files stands: tables that come when they are needed.

    Parameters
    ----------
    rows
        int64 (n_partitions,): as they were counted.
    fetch
        Gives rows of some columns of partitions, `fetch(parts, names)`; stays in its process. Without it there are the tables
        that a task was lent.

    """

    rows: np.ndarray
    files: tuple[FileRef, ...]
    fetch: Callable[[list[Part], tuple[str, ...]], list[Any]] | None = None
    is_local: bool = True
    _lent: dict[int, list[Any]] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.Lock)

    def __getstate__(self) -> dict[str, Any]:
        return {"rows": self.rows, "files": self.files, "is_local": self.is_local}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def columns(self, names: tuple[str, ...], groups: list[int], start: int, rows: int) -> list[Any]:
        """Return `rows` rows of columns from row `start` of neighbouring partitions on.

        Raises
        ------
        DataError
            A partition cannot be computed, or has other rows than before.

        """
        parts = []
        for number in groups:
            stop = min(int(self.rows[number]), start + rows)
            if stop > start:
                parts.append(Part(number, start, stop))
            start, rows = 0, rows - (stop - start)
        tables = [self._lent[part.number][0] for part in parts if part.number in self._lent]
        if len(tables) == len(parts):
            tables = [table.select(list(names)).slice(a, b - a) for table, (_, a, b) in zip(tables, parts, strict=True)]
        elif self.fetch is not None:
            tables = self.fetch(parts, names)
        else:
            raise DataError(f"partition {parts[0].number} was not sent to the worker that reads it")
        whole = tables[0] if len(tables) == 1 else pa.concat_tables(tables)
        return [whole.column(name) for name in names]

    def expect(self, groups: Sequence[int]) -> None:
        """Let partitions be computed side by side that will be asked for in this order."""
        if (expect := getattr(self.fetch, "expect", None)) is not None:
            expect(groups)

    def lend(self, number: int, table: Any) -> None:
        """Keep a partition for a task."""
        with self._lock:
            self._lent.setdefault(number, [table, 0])[1] += 1

    def take_back(self, number: int) -> None:
        """Keep it no longer, if no other task needs it."""
        with self._lock:
            self._lent[number][1] -= 1
            if not self._lent[number][1]:
                del self._lent[number]


Held = TableSource | Partitions
"""Sources that are no files."""


@contextmanager
def lending(source: Any, tables: Sequence[tuple[int, Any]]) -> Iterator[None]:
    """Lend partitions, each with its number, to a source for a while."""
    for number, table in tables:
        source.lend(number, table)
    try:
        yield
    finally:
        for number, _ in tables:
            source.take_back(number)


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
    physical = tuple(shapes[k].schema for k in firsts)
    unified = unify(physical, [f"partition {k}" for k in firsts])
    file = np.cumsum(np.diff(which, prepend=which[0]) != 0)
    sizes = np.array([shape.bytes for shape in shapes], np.int64)
    starts = np.unique(file, return_index=True)[1]
    _, places = np.unique(which, return_inverse=True)
    files = tuple(FileRef("", "partitions", int(size)) for size in np.add.reduceat(sizes, starts))
    return Dataset(
        source=Partitions(rows, files, fetch),  # type: ignore[arg-type]
        schema=unified.schema,
        partition_names=(),
        partition_values=((),) * len(files),
        file=file.astype(np.int32),
        index=np.arange(len(rows), dtype=np.int32),
        rows=rows,
        bytes=sizes,
        fingerprint=hashlib.sha256("".join(shape.mark for shape in shapes).encode()).hexdigest(),
        file_schemas=physical,
        file_schema=places[starts].astype(np.int32),
        missing=unified.missing,
        conflicts=unified.conflicts,
        duplicates=unified.duplicates,
    )
