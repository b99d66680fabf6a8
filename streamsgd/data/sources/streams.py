"""Tables as people hold them: rows as dicts, lists of tables, streams that can be read once, and data sets of pyarrow."""

from __future__ import annotations

import shutil
import sys
import tempfile
import weakref
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from streamsgd.data.dataset import Dataset, read_dataset
from streamsgd.data.notes import aside_of, noted
from streamsgd.data.schemas import bare, unify
from streamsgd.data.sources.dict_rows import column_of
from streamsgd.data.sources.joining import as_in, runs_of
from streamsgd.data.sources.parquet_files import ParquetFiles
from streamsgd.data.sources.spool import SPOOLED, SPOOLED_ROWS, spooled
from streamsgd.data.sources.tables import ArrowTable, ArrowTables, as_table, strange_to_arrow
from streamsgd.data.stores.filesystems import first_line
from streamsgd.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from streamsgd.data.types import ColumnType


# --- rows as dicts


def is_rows(data: Any) -> bool:
    """Whether data is a dict of columns, or of one row, or a list of dicts, a row each."""
    return isinstance(data, dict) or (isinstance(data, list | tuple) and bool(data) and all(isinstance(r, dict) for r in data))


def table_of_rows(data: Any, trained: Iterable[ColumnType] = (), wanted: Iterable[str] = ()) -> Any:
    """Return dicts as a table; what some rows do not have is null there.

    `trained` is what columns were in training: of maps and missing values one must know. `wanted` are all that need be there.

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
    made, known = {}, {column.name: column for column in trained}
    needed = {name: columns[name] for name in wanted if name in columns}
    for name, values in (needed or columns).items():
        try:
            made[str(name)] = column_of(values, known.get(str(name)))
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"column {name!r} of the rows cannot be one column: {first_line(error)}") from error
    try:
        return pa.table(made)
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"the columns of the dict are of several lengths: {first_line(error)}") from error


def _is_column(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, str | bytes | bytearray | memoryview | dict)


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
    """Return tables one after another: as one where every value stays what it is, else each run of them as files are.

    What they disagree about is refused where it is needed, as with files.
    """
    tables = [_one(value, f"table {k}") for k, value in enumerate(data)]
    if (whole := _as_one(tables)) is not None:
        return Dataset(ArrowTable(whole))
    runs = runs_of(tables)
    return Dataset(ArrowTables([table for _, table in runs], [f"table {number}" for number, _ in runs]))


def _as_one(tables: list[Any]) -> Any:
    """Return tables as one of a type that holds what all of them hold, or None where there is none."""
    written = [noted(table.schema) for table in tables]
    unified = unify([bare(table.schema) for table in tables], [f"table {k}" for k in range(len(tables))])
    apart = any(aside_of(schema) != aside_of(written[0]) for schema in written)
    if apart or unified.missing or unified.conflicts or unified.duplicates:
        return None
    schema = unified.schema.with_metadata(tables[0].schema.metadata)  # pandas says there which column is an index
    fitted = [as_in(table, schema) for table in tables]
    return None if any(table is None for table in fitted) else pa.concat_tables(fitted)


def _one(value: Any, what: str) -> Any:
    if isinstance(value, pa.RecordBatch):
        value = pa.Table.from_batches([value])
    return as_table(value, what)


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
    """Write a stream to temporary Parquet files, batch by batch, and return those: training reads it several times.

    They are removed when nothing refers to the data any more, or when the process ends.

    Raises
    ------
    DataError
        The stream is empty, or gives something else than tables.

    """
    folder = Path(tempfile.mkdtemp(prefix="streamsgd-stream-"))
    try:
        source = _of_lazy_frame(data, folder) if _is_lazy_frame(data) else spooled(_items(iter(_batches(data))), folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(source.inventory.source, shutil.rmtree, folder, ignore_errors=True)
    return Dataset(source)


def _of_lazy_frame(frame: Any, folder: Path) -> ParquetFiles:
    """Write a LazyFrame; what Polars says where it cannot be computed is what the data lacks."""
    import polars as pl  # noqa: PLC0415  whose frame this is

    try:
        if not strange_to_arrow(frame.collect_schema()):
            try:
                frame.sink_parquet(folder / SPOOLED, row_group_size=SPOOLED_ROWS)
                return ParquetFiles(read_dataset(folder / SPOOLED))
            except pl.exceptions.PolarsError:  # a type that Parquet does not know, perhaps
                if not hasattr(frame, "collect_batches"):
                    raise
        return spooled(_items(iter(frame.collect_batches(chunk_size=SPOOLED_ROWS))), folder)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"the LazyFrame cannot be computed: {type(error).__name__}: {first_line(error)}") from error


def _items(values: Iterator[Any]) -> Iterator[Any]:
    return map(_item, values, count())


def _batches(data: Any) -> Any:
    if _is_lance(data):
        return data.scanner().to_reader()
    return pa.RecordBatchReader.from_stream(data) if _is_relation(data) else data


def _item(value: Any, number: int) -> Any:
    if not is_table(value):
        raise DataError(f"item {number} of the stream is of type {type(value).__name__}, which is no table")
    return _one(value, f"table {number} of the stream")
