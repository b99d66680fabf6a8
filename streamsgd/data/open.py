"""The door: what people give becomes a data set of a source, chosen here and never asked about again."""

from __future__ import annotations

import os
from importlib.util import find_spec
from posixpath import dirname
from typing import TYPE_CHECKING, Any, NamedTuple

from streamsgd.data import filters
from streamsgd.data.dataset import Dataset, require
from streamsgd.data.empty import settled
from streamsgd.data.source import Source
from streamsgd.data.sources import streams
from streamsgd.data.sources.arrow_datasets import dataset_of_arrow, is_arrow_dataset
from streamsgd.data.sources.dask_tables import is_lazy, lazily, lazy_dataset
from streamsgd.data.sources.delta import dataset_of_delta, is_delta
from streamsgd.data.sources.iceberg import dataset_of_iceberg, is_iceberg
from streamsgd.data.sources.parquet_files import open_files
from streamsgd.data.sources.tables import table_dataset
from streamsgd.data.stores.filesystems import locate
from streamsgd.data.stores.table_folders import TableFolderError
from streamsgd.data.types import arrow_type
from streamsgd.errors import DataError, SettingsError
from streamsgd.messages import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from streamsgd.data.types import ColumnType


def open_paths(data: Any, progress: Callable[[int, int], None] | None = None) -> Dataset:
    """Open files, or the table whose folder alone was named, where what reads its log is installed.

    Raises
    ------
    DataError
        The files are not there or damaged; or are a part of a table, or of one that nobody here can read.

    """
    try:
        return open_files(data, progress)
    except TableFolderError as error:
        root = dirname(error.mark)
        item = data[0] if isinstance(data, list | tuple) and len(data) == 1 else data
        whole = isinstance(item, str | os.PathLike) and locate(os.fspath(item)).path.rstrip("/") == root
        if error.kind != "Delta" or not whole or find_spec("deltalake") is None:
            raise
        return dataset_of_delta(os.fspath(item), progress)


class Opener(NamedTuple):
    """How one kind of data becomes a data set."""

    accepts: Callable[[Any], bool]
    open: Callable[[Any, Callable[[int, int], None] | None], Dataset]
    name: str
    """What messages call such data; '' for its own words."""
    by_file: bool = False
    """Whether it comes in files, each of which can be scored into one."""


OPENERS = (
    # First: of a LazyFrame others would ask for its schema, which is slow, and Polars warns of it.
    Opener(streams.is_stream, lambda data, _: streams.dataset_of_stream(data), "the stream"),
    Opener(lambda data: isinstance(data, Source), lambda data, _: Dataset(data), "the source", by_file=True),
    Opener(is_delta, dataset_of_delta, "the Delta table", by_file=True),
    Opener(is_iceberg, dataset_of_iceberg, "the Iceberg table", by_file=True),
    Opener(is_lazy, lambda data, progress: lazy_dataset(lazily(data), progress), "the partitions"),
    Opener(is_arrow_dataset, dataset_of_arrow, "the pyarrow.dataset"),
    Opener(lambda data: hasattr(data, "__arrow_c_stream__"), lambda data, _: table_dataset(data), "the table"),
    Opener(streams.is_rows, lambda data, _: table_dataset(streams.table_of_rows(data)), "the rows"),
    Opener(streams.is_tables, lambda data, _: streams.dataset_of_tables(data), "the tables"),
)
"""The one list of what data may be, tried in order ..."""

FILES = Opener(lambda _: True, open_paths, "", by_file=True)
"""... and the last resort: paths."""


def opener_of(data: Any) -> Opener:
    """Return how to open data."""
    found = next((opener for opener in OPENERS if opener.accepts(data)), None)
    if found is None:
        _check_nearly(data)
    return found or FILES


def is_by_file(data: Any) -> bool:
    """Whether data comes in files, each of which can be scored into one."""
    return opener_of(data).by_file


def _check_nearly(data: Any) -> None:
    """Refuse what was meant to be a source of its own and lacks something."""
    if not hasattr(data, "read_part") and not all(hasattr(data, name) for name in ("schema", "groups", "fingerprint")):
        return
    lacking = [name for name in dir(Source) if not name.startswith("_") and not hasattr(data, name)]
    raise SettingsError(
        f"{type(data).__name__} is no source of rows: it lacks {', '.join(lacking)}; derive it from "
        "streamsgd.data.source.BaseSource, which has all but schema, groups, fingerprint and read_part"
    )


def open_whole(data: Any, progress: Callable[[int, int], None] | None = None) -> Dataset:
    """Open data, whatever it is: of files the footers are read.

    Raises
    ------
    DataError
        It cannot be opened, or is files and not all of them are Parquet.

    """
    return settled(opener_of(data).open(data, progress))


def open_data(
    data: Any,
    filter_text: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    flag: str = "--filter",
    *,
    trained: Iterable[ColumnType] = (),
    nulls: bool = False,
    empty: bool = False,
) -> tuple[Dataset, Any, tuple[str, ...]]:
    """Open data, and prune it by a filter.

    Parameters
    ----------
    data, filter_text, progress
        Paths, tables or a source, a condition, and what is called with (footers read, footers in all).
    flag
        What messages call the condition.
    trained
        Logical types that a model knows: what the names of folders say is read as those.
    nulls
        Whether a column that a file lacks is null there.
    empty
        Whether there may be no row.

    Raises
    ------
    DataError
        There is no row.

    """
    trained = tuple(trained)
    data = streams.table_of_rows(data, trained) if streams.is_rows(data) else data
    opener = opener_of(data)
    dataset = settled(opener.open(data, progress))
    if not dataset.n_rows and not empty:
        n_files, n_groups = counted(dataset.n_files, "file"), counted(dataset.n_row_groups, "row group")
        raise DataError(f"{opener.name or data}: no row at all in {n_files} with {n_groups}")
    known = {column.name: arrow_type(column) for column in trained}
    dataset = dataset.retyped({name: known[name] for name in dataset.partition_names if name in known})
    if not filter_text:
        return dataset, None, ()
    condition = filters.row_filter(filter_text, dataset.schema, flag)
    require(dataset, condition.columns, nulls=condition.columns if nulls else ())
    keep = dataset.source.prune(condition)
    if keep is not None:
        dataset = dataset.select(keep)
    if not dataset.n_rows and not empty:
        raise DataError(f"{flag} {filter_text!r} leaves no row: no row group can hold a match")
    return dataset, condition, condition.columns
