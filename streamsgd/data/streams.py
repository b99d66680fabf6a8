"""Tables as people hold them: rows as dicts, lists of tables, streams that can be read once, and data sets of pyarrow."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
import weakref
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamsgd.data.dataset import Dataset, read_dataset
from streamsgd.data.filesystems import first_line
from streamsgd.data.parquet_files import ParquetFiles
from streamsgd.data.schemas import bare, column_problem, unify
from streamsgd.data.source import BaseSource, Groups
from streamsgd.data.tables import ArrowTable, as_table
from streamsgd.errors import DataError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

SPOOLED_ROWS = 1 << 17
"""Rows of the row groups in which a stream is kept on disk ..."""

SPOOLED_BYTES = 32 << 20
"""... or so many bytes, whichever is less."""


# --- rows as dicts


def is_rows(data: Any) -> bool:
    """Whether data is a dict of columns, or of one row, or a list of dicts, a row each."""
    return isinstance(data, dict) or (isinstance(data, list | tuple) and bool(data) and all(isinstance(r, dict) for r in data))


def table_of_rows(data: Any) -> Any:
    """Return dicts as a table; what some rows do not have is null there.

    Raises
    ------
    DataError
        There is no column, or one holds values of several types.

    """
    if isinstance(data, dict):
        columns = dict(data) if any(map(_is_column, data.values())) else {name: [value] for name, value in data.items()}
    else:
        names = dict.fromkeys(name for row in data for name in row)
        columns = {name: [row.get(name) for row in data] for name in names}
    if not columns:
        raise DataError("the rows have no columns: each must be a dict from a column's name to its value")
    made = {}
    for name, values in columns.items():
        try:
            made[str(name)] = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise DataError(f"column {name!r} of the rows cannot be one column: {first_line(error)}") from error
    try:
        return pa.table(made)
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"the columns of the dict are of several lengths: {first_line(error)}") from error


def _is_column(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, str | bytes | dict)


# --- lists of tables


def is_table(value: Any) -> bool:
    """Whether a value is a table or a batch of one."""
    return hasattr(value, "__arrow_c_stream__") or hasattr(value, "__arrow_c_array__") or _is_pandas(value)


def _is_pandas(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "columns")


def is_tables(data: Any) -> bool:
    """Whether data is a list of tables."""
    return isinstance(data, list | tuple) and bool(data) and any(map(is_table, data))


def dataset_of_tables(data: Sequence[Any]) -> Dataset:
    """Return tables one after another as one; a type that differs is widened where that is exact.

    Raises
    ------
    DataError
        One lacks a column, or has it of a type that does not fit the others'.

    """
    tables = [_one(value, f"table {k}") for k, value in enumerate(data)]
    unified = unify([bare(table.schema) for table in tables], [f"table {k}" for k in range(len(tables))])
    for name in unified.schema.names:
        if problem := column_problem(unified, name):
            raise DataError(problem)
    schema = unified.schema.with_metadata(tables[0].schema.metadata)  # pandas says there which column is an index
    fitted = [_fitted(table, schema, f"table {k}") for k, table in enumerate(tables)]
    return Dataset(ArrowTable(pa.concat_tables(fitted)))


def _one(value: Any, what: str) -> Any:
    if isinstance(value, pa.RecordBatch):
        value = pa.Table.from_batches([value])
    return as_table(value, what)


def _fitted(table: Any, schema: Any, what: str) -> Any:
    if table.schema.names != schema.names and sorted(table.schema.names) == sorted(schema.names):
        table = table.select(schema.names)
    try:
        return table.cast(schema)
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"{what} does not fit those before it: {first_line(error)}") from error


# --- streams


def is_stream(data: Any) -> bool:
    """Whether data comes batch by batch: a reader of batches, generator of tables, LazyFrame, relation of DuckDB, or Lance."""
    if isinstance(data, pa.RecordBatchReader) or _is_lazy_frame(data) or _is_relation(data) or _is_lance(data):
        return True
    return hasattr(data, "__next__") and iter(data) is data


def _is_relation(data: Any) -> bool:
    duckdb = sys.modules.get("duckdb")
    return duckdb is not None and isinstance(data, duckdb.DuckDBPyRelation)


def _is_lance(data: Any) -> bool:
    lance = sys.modules.get("lance")
    return lance is not None and isinstance(data, lance.LanceDataset)


def _is_lazy_frame(data: Any) -> bool:
    polars = sys.modules.get("polars")
    return polars is not None and isinstance(data, polars.LazyFrame)


def dataset_of_stream(data: Any) -> Dataset:
    """Write a stream to a temporary Parquet file, batch by batch, and return that: training reads it several times.

    The file is removed when nothing refers to the data any more, or when the process ends.

    Raises
    ------
    DataError
        The stream is empty, or gives something else than tables of one schema.

    """
    folder = Path(tempfile.mkdtemp(prefix="streamsgd-stream-"))
    try:
        path = folder / "stream.parquet"
        if _is_lazy_frame(data):
            _sink(data, path)
        else:
            _write(iter(_batches(data)), path)
        inventory = read_dataset(path)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(inventory.source, shutil.rmtree, folder, ignore_errors=True)
    return Dataset(ParquetFiles(inventory))


def _sink(frame: Any, path: Path) -> None:
    """Write a LazyFrame; what Polars says where it cannot be computed is what the data lacks."""
    import polars as pl  # noqa: PLC0415  whose frame this is

    try:
        frame.sink_parquet(path, row_group_size=SPOOLED_ROWS)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"the LazyFrame cannot be computed: {type(error).__name__}: {first_line(error)}") from error


def _batches(data: Any) -> Any:
    if _is_lance(data):
        return data.scanner().to_reader()
    return pa.RecordBatchReader.from_stream(data) if _is_relation(data) else data


def _write(values: Iterator[Any], path: Path) -> None:
    first = next(values, None)
    if first is None:
        raise DataError("the stream gave no table")
    table = _item(first, 0)
    schema = table.schema
    with pq.ParquetWriter(path, schema) as writer:
        for run in _runs(_fitted_item(v, k, schema) for k, v in enumerate(chain([table], values))):
            writer.write_table(run, row_group_size=SPOOLED_ROWS)


def _item(value: Any, number: int) -> Any:
    if not is_table(value):
        raise DataError(f"item {number} of the stream is of type {type(value).__name__}, which is no table")
    return _one(value, f"table {number} of the stream")


def _fitted_item(value: Any, number: int, schema: Any) -> Any:
    """Return a table of a stream in the types of the first one, which say the same, or refuse it.

    Raises
    ------
    DataError
        A column means something else: Arrow would read numbers from text, and make text of numbers.

    """
    table, what = _item(value, number), f"table {number} of the stream"
    unified = unify([bare(schema), bare(table.schema)], ["table 0 of the stream", what])
    for name in set(schema.names) & set(table.schema.names):
        if problem := column_problem(unified, name):
            raise DataError(problem)
    return _fitted(table, schema, what)


def _runs(tables: Iterable[Any]) -> Iterator[Any]:
    """Yield small neighbours together, so that row groups do not depend on how a stream is cut, but at the end."""
    waiting: list[Any] = []
    for table in tables:
        waiting.append(table)
        if sum(t.num_rows for t in waiting) >= SPOOLED_ROWS or sum(t.nbytes for t in waiting) >= SPOOLED_BYTES:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


# --- data sets of pyarrow


def is_arrow_dataset(data: Any) -> bool:
    """Whether data is a `pyarrow.dataset.Dataset`."""
    pads = sys.modules.get("pyarrow.dataset")
    return pads is not None and isinstance(data, pads.Dataset)


def dataset_of_arrow(data: Any) -> Dataset:
    """Return a data set of pyarrow, in whatever format, with its partition columns.

    Raises
    ------
    SettingsError
        It is filtered or projected.

    """
    try:
        fragments = list(data.get_fragments())
    except ValueError as error:
        raise SettingsError(
            "a pyarrow.dataset that is filtered or projected cannot be cut into pieces: give the whole of it, with filter= and "
            "features="
        ) from error
    pieces: list[Any] = []
    for fragment in fragments:
        pieces += fragment.split_by_row_group() if hasattr(fragment, "split_by_row_group") else [fragment]
    return Dataset(ArrowFragments(data.schema, pieces))


class ArrowFragments(BaseSource):
    """Fragments of a `pyarrow.dataset`, each read as a whole."""

    what = "fragment"

    def __init__(self, schema: Any, fragments: Sequence[Any]) -> None:
        self.schema, self.fragments = bare(schema), tuple(fragments)
        sizes = [_size_of(fragment) for fragment in fragments]
        row_bytes = np.array([bytes_ for _, bytes_ in sizes], np.int64)
        rows = np.array([rows for rows, _ in sizes], np.int64)
        groups = Groups.of(rows)
        self.groups = Groups(groups.file, groups.index, rows, row_bytes)
        marks = [f"{getattr(f, 'path', '')}\0{rows}\0{size}" for f, (rows, size) in zip(fragments, sizes, strict=True)]
        self.fingerprint = hashlib.sha256("\0".join([str(self.schema), *marks]).encode()).hexdigest()

    def read_part(self, number: int, columns: list[str]) -> Any:
        """Read a fragment, with the columns that its folder tells."""
        wanted = pa.schema([self.schema.field(name) for name in columns])
        try:
            return self.fragments[number].to_table(schema=self.schema, columns=columns).cast(wanted)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self._name(number)}: cannot be read: {first_line(error)}") from error


def _size_of(fragment: Any) -> tuple[int, int]:
    """Return rows and about the bytes of a fragment."""
    groups = getattr(fragment, "row_groups", None)
    if groups is not None:
        return sum(g.num_rows for g in groups), sum(max(0, g.total_byte_size) for g in groups)
    rows = fragment.count_rows()
    return rows, rows * 8 * max(1, len(fragment.physical_schema.names))
