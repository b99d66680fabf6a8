"""Arrow tables as a data set, in memory or computed when needed, so that an ETL job's tables take the same road as files."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from streamsgd.data.dataset import Dataset
from streamsgd.data.notes import aside_of, noted
from streamsgd.data.schemas import bare, column_problem, unify
from streamsgd.data.source import BaseSource, Groups
from streamsgd.data.stores.files import FileRef
from streamsgd.data.stores.filesystems import first_line
from streamsgd.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamsgd.data.source import Source
    from streamsgd.planning.chunks import Piece


GROUP_ROWS = 1 << 16
"""Rows of the pieces into which a table is cut, as a file is into row groups."""


class ArrowTable(BaseSource):
    """A table in memory, as a `Source`; no row is copied."""

    def __init__(self, table: Any) -> None:
        written = noted(table.schema)
        self.table, self.schema, self.aside = table, bare(written), aside_of(written)
        self.groups = Groups.of(_cut(table.num_rows), max(1, table.nbytes // max(1, table.num_rows)))
        self.fingerprint = hashlib.sha256(f"{table.schema}{table.num_rows}".encode()).hexdigest()
        self._files: tuple[FileRef, ...] = (FileRef("", "table", table.nbytes),)

    @property
    def files(self) -> tuple[FileRef, ...]:
        """One."""
        return self._files

    def arrays(self, piece: Piece, columns: tuple[str, ...]) -> list[Any]:
        """Return the columns of a piece without a copy."""
        spans = self._spans(piece)
        return [_some_rows(self.table.column(name), spans) for name in columns]

    def _spans(self, piece: Piece) -> list[tuple[int, int]]:
        """Return the rows of a piece, as few spans of them as there are."""
        joined: list[tuple[int, int]] = []
        for part in self.parts(piece):
            start, stop = part.number * GROUP_ROWS + part.start, part.number * GROUP_ROWS + part.stop
            if joined and start == joined[-1][1]:
                joined[-1] = joined[-1][0], stop
            else:
                joined.append((start, stop))
        return joined

    def where(self, piece: Piece) -> str:
        """Name the rows of a piece."""
        first = int(self.groups.index[piece.first]) * GROUP_ROWS + piece.start
        return f"{self.files[int(self.groups.file[piece.first])].name}, rows {first:,} to {first + piece.rows - 1:,}"

    def where_row(self, piece: Piece, row: int) -> str:
        """Name a row of a piece by its number in the table."""
        numbers = [number for part in self.parts(piece) for number in (part.number * GROUP_ROWS + part.start,)]
        ends = np.cumsum([part.stop - part.start for part in self.parts(piece)])
        k = int(np.searchsorted(ends, row, side="right"))
        return f"row {numbers[k] + row - (int(ends[k - 1]) if k else 0):,}"


def _cut(n_rows: int) -> np.ndarray:
    """Return the rows of each group of a table, int64."""
    starts = np.arange(0, n_rows, GROUP_ROWS, dtype=np.int64)
    return np.minimum(GROUP_ROWS, n_rows - starts)


def _some_rows(column: Any, spans: list[tuple[int, int]]) -> Any:
    slices = [column.slice(start, stop - start) for start, stop in spans]
    if len(slices) == 1:
        return slices[0]
    return pa.chunked_array([chunk for some in slices for chunk in some.chunks], type=column.type)


class ArrowTables(ArrowTable):
    """Tables in memory whose columns differ in type, as a `Source`: each is as a file, and what it holds is compared as there.

    Parameters
    ----------
    tables
        At least one.
    names
        What messages call each.

    """

    def __init__(self, tables: Sequence[Any], names: Sequence[str]) -> None:
        written = [noted(table.schema) for table in tables]
        self.tables, self.unified = tuple(tables), unify([bare(schema) for schema in written], names)
        self.schema = self.unified.schema
        self.aside = {name: why for schema in written for name, why in aside_of(schema).items()}
        self._files = tuple(FileRef("", name, table.nbytes) for name, table in zip(names, tables, strict=True))
        cuts = [_cut(table.num_rows) for table in tables]
        rows = np.concatenate(cuts)
        widths = [max(1, table.nbytes // max(1, table.num_rows)) for table in tables]
        file = np.repeat(np.arange(len(cuts), dtype=np.int32), list(map(len, cuts)))
        index = np.concatenate([np.arange(len(cut), dtype=np.int32) for cut in cuts])
        self.groups = Groups(file, index, rows, rows * np.array(widths, np.int64)[file])
        told = [f"{table.schema}{table.num_rows}" for table in tables]
        self.fingerprint = hashlib.sha256("\0".join(told).encode()).hexdigest()

    def arrays(self, piece: Piece, columns: tuple[str, ...]) -> list[Any]:
        """Return the columns of a piece without a copy; one that its table lacks is null there."""
        table, spans = self.tables[int(self.groups.file[piece.first])], self._spans(piece)
        there = set(table.column_names)
        return [_some_rows(table.column(name), spans) if name in there else pa.nulls(piece.rows) for name in columns]

    def where_row(self, piece: Piece, row: int) -> str:
        """Name a row of a piece by its number in its table."""
        return f"{super().where_row(piece, row)} of {self.files[int(self.groups.file[piece.first])].name}"

    def problem(self, column: str, *, nulls: bool = False) -> str:
        """Say which tables lack a column (unless `nulls`), or disagree about its type."""
        return column_problem(self.unified, column, nulls=nulls)

    def stored_types(self, column: str) -> list[Any]:
        """Return the Arrow type of a column in each table, None where it is not."""
        return [t.schema.field(column).type if column in t.column_names else None for t in self.tables]

    def whose(self, column: str) -> str:
        """Name the first table that has a column, to be put into a sentence."""
        pairs = zip(self.tables, self._files, strict=True)
        return next((f" ({ref.name})" for table, ref in pairs if column in table.column_names), "")


class KnownTable(BaseSource):
    """What is known of a table whose rows are not kept: its schema, its size and its fingerprint."""

    def __init__(self, source: Source) -> None:
        self.schema, self.groups, self.fingerprint = source.schema, source.groups, source.fingerprint
        self._files = source.files

    @property
    def files(self) -> tuple[FileRef, ...]:
        """As they were."""
        return self._files


def table_dataset(stream: Any) -> Dataset:
    """Return the data set of anything with `__arrow_c_stream__` (pyarrow, pandas, Polars, DuckDB, ...).

    Raises
    ------
    DataError
        Two columns have one name.

    """
    return Dataset(ArrowTable(as_table(stream, "the table")))


def as_table(value: Any, what: str) -> Any:
    """Return anything with `__arrow_c_stream__` as an Arrow table; of pandas, an index without a name is no column.

    Raises
    ------
    DataError
        It is no table, or two of its columns have one name.

    """
    if type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "columns"):
        names = [str(name) for name in value.columns]
        _check_names(names, what)
        table = _from_pandas(value, what)
    elif hasattr(type(value), "__arrow_c_stream__"):
        table = _from_stream(value, what)
    else:
        raise DataError(
            f"{what} is of type {type_name(value)}, which is no table: give pyarrow, pandas, Polars or DuckDB tables"
        )
    _check_names(table.column_names, what)
    # Arrow cannot join imported chunks without rows to others.
    return pa.table(
        [pa.chunked_array([chunk for chunk in column.chunks if len(chunk)], column.type) for column in table.columns],
        schema=table.schema,
    )


def _from_pandas(frame: Any, what: str) -> Any:
    named = any(name is not None for name in frame.index.names)
    try:
        return pa.Table.from_pandas(frame, preserve_index=None if named else False)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        place = f"column {column!r} of {what}" if (column := _of_no_type(frame)) is not None else what
        raise DataError(
            f"{place} is nothing that Arrow can hold: {first_line(error)}; make it numbers, strings, dates or lists, each of "
            "one type, or drop it"
        ) from error


def _of_no_type(frame: Any) -> Any:
    """Return the name of the first column that is no Arrow column by itself; None if each is one."""
    for k, name in enumerate(frame.columns):
        try:
            pa.Table.from_pandas(frame.iloc[:, [k]], preserve_index=False)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            return name
    return None


def _from_stream(value: Any, what: str) -> Any:
    if type(value).__module__.partition(".")[0] == "polars" and (strange := strange_to_arrow(getattr(value, "schema", {}))):
        name, kind = strange
        raise DataError(f"column {name!r} of {what} is of type {kind} of Polars, which Arrow cannot hold: cast it, or drop it")
    try:
        return pa.table(value)
    except (pa.ArrowException, TypeError, ValueError) as error:
        whole = f"{what}, of type {type_name(value)}, is no table that Arrow can read: {first_line(error)}"
        raise DataError(_of_polars(value, what) or whole) from error


def _of_polars(value: Any, what: str) -> str:
    """Return which columns of a frame of Polars Arrow has no type for, and what to do about it, or ''."""
    if type(value).__module__.partition(".")[0] != "polars" or not hasattr(value, "get_columns"):
        return ""
    strange = []
    for column in value.get_columns():
        try:
            pa.table(column.to_frame())
        except (pa.ArrowException, TypeError, ValueError):
            strange.append(column)
    told = ", ".join(f"{column.name!r} ({column.dtype})" for column in strange)
    return f"{what} has columns of types that Arrow does not know: {told}; cast or drop them first" if strange else ""


def strange_to_arrow(schema: Any) -> tuple[str, Any] | None:
    """Return the first column of a Polars schema, and its type, that Arrow does not know, or of which it sees addresses."""
    return next(((name, kind) for name, kind in schema.items() if _is_strange(kind)), None)


def _is_strange(kind: Any) -> bool:
    inside = [kind.inner] if hasattr(kind, "inner") else [field.dtype for field in getattr(kind, "fields", ())]
    return str(kind) in ("Object", "Int128", "UInt128") or any(map(_is_strange, inside))


def type_name(value: Any) -> str:
    """Return the type of a value as messages call it."""
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def with_columns(table: Any, columns: dict[str, np.ndarray]) -> Any:
    """Return a table with further columns, of arrays."""
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    return table


def of_numbers_only(table: Any) -> bool:
    """Whether every column of a table holds integers, floats or booleans, and no nulls."""
    kinds = [field.type for field in table.schema]
    plain = all(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) for kind in kinds)
    return plain and not any(column.null_count for column in table.columns)


def _check_names(names: list[str], what: str) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise DataError(
            f"{what} has {Counter(names)[min(twice)]} columns named {min(twice)!r}; rename them, or drop all but one"
        )
