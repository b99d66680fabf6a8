"""Which row groups a filter can skip, by partition folders and the statistics of the footers."""

from collections.abc import Sequence
from functools import partial, reduce
from operator import and_
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streamsgd.data.dataset import Inventory, footer_bytes, over_files

ARROW_ERRORS = (pa.ArrowException, TypeError, ValueError, KeyError, OverflowError)


def prune(dataset: Inventory, expression: Any, *, threads: int = 8) -> npt.NDArray[np.bool_]:
    """Return which row groups may hold rows that fulfil `expression`, shape (n_row_groups,).

    A row group without usable statistics is kept.
    """
    by_folder = _by_partition(dataset, expression)
    if by_folder is not None:
        return by_folder[dataset.file]
    keep = np.ones(dataset.n_row_groups, bool)
    if _is_blind_to_nan(dataset, expression):
        return keep
    files = np.unique(dataset.file).tolist()
    matching = over_files(partial(_matching, dataset, expression), files, threads)
    for file, groups in zip(files, matching, strict=True):
        if groups is not None:
            here = slice(*np.searchsorted(dataset.file, [file, file + 1]))
            keep[here] = np.isin(dataset.index[here], groups)
    return keep


def _by_partition(dataset: Inventory, expression: Any) -> npt.NDArray[np.bool_] | None:
    """Return which files match, shape (n_files,), or None if partition folders alone do not tell."""
    if not dataset.partition_names:
        return None
    columns = zip(*dataset.partition_values, strict=True)
    types = [dataset.schema.field(name).type for name in dataset.partition_names]
    arrays = [pa.array(values, kind) for values, kind in zip(columns, types, strict=True)]
    table = pa.table([*arrays, np.arange(dataset.n_files)], [*dataset.partition_names, "\0file"])
    try:
        matching = table.filter(expression).column("\0file").to_numpy()
    except ARROW_ERRORS:
        return None
    return np.isin(np.arange(dataset.n_files), matching)


def _is_blind_to_nan(dataset: Inventory, expression: Any) -> bool:
    """Whether statistics, which leave out NaN, could prune a NaN that fulfils the condition (NaN != 5)."""
    text = str(expression)
    if "!=" not in text and "invert" not in text:
        return False
    return any(pa.types.is_floating(field.type) and field.name in text for field in dataset.schema)


def _matching(dataset: Inventory, expression: Any, file: int) -> list[int] | None:
    physical = dataset.physical_schema(file)
    names = dataset.partition_names
    if set(names) & set(physical.names):  # the file's own column, which the folder's overrides, would decide
        return None
    schema = pa.schema([*physical, *(dataset.schema.field(name) for name in names)])
    footer = pa.BufferReader(footer_bytes(dataset.source, dataset.source.files[file]))
    where = _folder_expression(names, dataset.partition_values[file])
    try:
        import pyarrow.dataset as pads  # noqa: PLC0415  it loads pandas where there is one, a quarter of a second

        fragment = pads.ParquetFileFormat().make_fragment(footer, partition_expression=where)
        return [group.id for group in fragment.subset(expression, schema=schema).row_groups]
    except (*ARROW_ERRORS, OSError):
        return None


def _folder_expression(names: Sequence[str], values: Sequence[Any]) -> Any:
    parts = [
        pc.field(name).is_null() if value is None else pc.field(name) == value
        for name, value in zip(names, values, strict=True)
    ]
    return reduce(and_, parts) if parts else None
