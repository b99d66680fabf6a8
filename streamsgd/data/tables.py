"""Arrow tables as a data set, in memory or computed when needed, so that an ETL job's tables take the same road as files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from streamsgd.data.dataset import Dataset
from streamsgd.data.files import FileRef
from streamsgd.errors import DataError

GROUP_ROWS = 1 << 16
"""Rows of the pieces into which a table is cut, as a file is into row groups."""


@dataclass(frozen=True)
class TableSource:
    """Stands where a `Source` of files stands."""

    table: Any
    files: tuple[FileRef, ...]
    is_local: bool = True

    def columns(self, names: tuple[str, ...], groups: list[int], start: int, rows: int) -> list[Any]:
        """Return `rows` rows of columns from row `start` of neighbouring groups on, without a copy."""
        at = groups[0] * GROUP_ROWS + start
        return [self.table.column(name).slice(at, rows) for name in names]


def table_dataset(stream: Any) -> Dataset:
    """Return the data set of anything with `__arrow_c_stream__` (pyarrow, pandas, Polars, DuckDB, ...).

    Raises
    ------
    DataError
        Two columns have one name.

    """
    table = as_table(stream, "the table")
    n_groups = -(-table.num_rows // GROUP_ROWS)
    rows = np.full(n_groups, GROUP_ROWS, np.int64)
    if n_groups:
        rows[-1] = table.num_rows - GROUP_ROWS * (n_groups - 1)
    mark = hashlib.sha256(f"{table.schema}{table.num_rows}".encode()).hexdigest()
    return Dataset(
        source=TableSource(table, (FileRef("", "table", table.nbytes),)),  # type: ignore[arg-type]
        schema=table.schema,
        partition_names=(),
        partition_values=((),),
        file=np.zeros(n_groups, np.int32),
        index=np.arange(n_groups, dtype=np.int32),
        rows=rows,
        bytes=rows * max(1, table.nbytes // max(1, table.num_rows)),
        fingerprint=mark,
        file_schemas=(table.schema,),
        file_schema=np.zeros(1, np.int32),
        missing={},
        conflicts={},
        duplicates={},
    )


def as_table(value: Any, what: str) -> Any:
    """Return anything with `__arrow_c_stream__` as an Arrow table; of pandas, an index without a name is no column.

    Raises
    ------
    DataError
        It is no table, or two of its columns have one name.

    """
    if type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "columns"):
        named = any(name is not None for name in value.index.names)
        table = pa.Table.from_pandas(value, preserve_index=None if named else False)
    elif hasattr(type(value), "__arrow_c_stream__"):
        table = pa.table(value)
    else:
        kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        raise DataError(f"{what} is of type {kind}, which is no table: give pyarrow, pandas, Polars or DuckDB tables")
    twice = {name for name in table.column_names if table.column_names.count(name) > 1}
    if twice:
        raise DataError(f"{what} has two columns named {min(twice)!r}; rename one")
    # Arrow cannot join imported chunks without rows to others.
    return pa.table(
        [pa.chunked_array([chunk for chunk in column.chunks if len(chunk)], column.type) for column in table.columns],
        schema=table.schema,
    )
