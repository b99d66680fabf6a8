"""The survey: footers read, filter applied to them, nothing decided yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamsgd.data import filters, pruning
from streamsgd.data.dask_feed import DaskTables
from streamsgd.data.dask_tables import lazily, lazy_dataset
from streamsgd.data.dataset import Dataset, read_dataset, require
from streamsgd.data.partitions import Held
from streamsgd.data.tables import table_dataset
from streamsgd.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable


def open_data(
    data: Any, filter_text: str | None = None, progress: Callable[[int, int], None] | None = None
) -> tuple[Dataset, Any, tuple[str, ...]]:
    """Read the footers and prune by a filter.

    Raises
    ------
    DataError
        There is no row.

    """
    data = lazily(data)
    if isinstance(data, DaskTables):
        dataset, data = lazy_dataset(data, progress), "the partitions"
    elif hasattr(data, "__arrow_c_stream__"):
        dataset, data = table_dataset(data), "the table"
    else:
        dataset = read_dataset(data, progress=progress)
    if not dataset.n_rows:
        raise DataError(f"{data}: {dataset.n_files} files with {dataset.n_row_groups} row groups hold no row at all")
    if not filter_text:
        return dataset, None, ()
    expression = filters.parse_filter(filter_text, dataset.schema)
    columns = filters.filter_columns(filter_text, dataset.schema)
    require(dataset, columns)
    if not isinstance(dataset.source, Held):
        dataset = dataset.select(pruning.prune(dataset, expression))
    if not dataset.n_rows:
        raise DataError(f"--filter {filter_text!r} leaves no row: no row group can hold a match")
    return dataset, expression, columns
