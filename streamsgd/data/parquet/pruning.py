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
from streamsgd.data.filters import ARROW_ERRORS, RowFilter
from streamsgd.data.normalise import delivered
from streamsgd.data.parquet.footers import is_sound
from streamsgd.errors import StreamSGDError


def prune(dataset: Inventory, condition: RowFilter, *, threads: int = 8) -> npt.NDArray[np.bool_]:
    """Return which row groups may hold rows that fulfil a condition, shape (n_row_groups,).

    A row group without usable statistics is kept.
    """
    by_folder = _by_partition(dataset, condition)
    if by_folder is not None:
        return by_folder[dataset.file]
    keep = np.ones(dataset.n_row_groups, bool)
    if _is_blind_to_nan(dataset, condition):
        return keep
    files = np.unique(dataset.file).tolist()
    matching = over_files(partial(_matching, dataset, condition), files, threads)
    for file, groups in zip(files, matching, strict=True):
        if groups is not None:
            here = slice(*np.searchsorted(dataset.file, [file, file + 1]))
            keep[here] = np.isin(dataset.index[here], groups)
    return keep


def _by_partition(dataset: Inventory, condition: RowFilter) -> npt.NDArray[np.bool_] | None:
    """Return which files match, shape (n_files,), or None if partition folders alone do not tell."""
    if not set(condition.columns) <= set(dataset.partition_names) or not condition.columns:
        return None
    columns = zip(*dataset.partition_values, strict=True)
    types = [dataset.schema.field(name).type for name in dataset.partition_names]
    arrays = [pa.array(values, kind) for values, kind in zip(columns, types, strict=True)]
    try:
        keep: npt.NDArray[np.bool_] = condition.keep(dict(zip(dataset.partition_names, arrays, strict=True)), "folders")
    except StreamSGDError:
        return None
    return keep


def _is_blind_to_nan(dataset: Inventory, condition: RowFilter) -> bool:
    """Whether statistics, which leave out NaN, could prune a NaN that fulfils the condition (NaN != 5)."""
    text = str(condition.expression(dataset.schema))
    if "!=" not in text and "invert" not in text:
        return False
    return any(pa.types.is_floating(field.type) and field.name in text for field in dataset.schema)


def _matching(dataset: Inventory, condition: RowFilter, file: int) -> list[int] | None:
    physical = dataset.physical_schema(file)
    names = dataset.partition_names
    if any(_is_converted(dataset, physical, name) for name in set(condition.columns) - set(names)):
        return None
    if set(names) & set(physical.names):  # the file's own column, which the folder's overrides, would decide
        return None
    schema = pa.schema([*physical, *(dataset.schema.field(name) for name in names)])
    footer = footer_bytes(dataset.source, dataset.source.files[file])
    where = _folder_expression(names, dataset.partition_values[file])
    try:
        if not is_sound(footer):  # reading says what is wrong
            return None
        import pyarrow.dataset as pads  # noqa: PLC0415  it loads pandas where there is one, a quarter of a second

        fragment = pads.ParquetFileFormat().make_fragment(pa.BufferReader(footer), partition_expression=where)
        return [group.id for group in fragment.subset(condition.expression(schema), schema=schema).row_groups]
    except (*ARROW_ERRORS, OSError, StreamSGDError):
        return None


def _is_converted(dataset: Inventory, physical: Any, name: str) -> bool:
    """Whether a column is not handed on as a file holds it: then the file's statistics say nothing of it."""
    if name not in physical.names:
        return True
    own = physical.field(name).type
    return bool(delivered(own, dataset.schema.field(name).type) != own)


def _folder_expression(names: Sequence[str], values: Sequence[Any]) -> Any:
    parts = [
        pc.field(name).is_null() if value is None else pc.field(name) == value
        for name, value in zip(names, values, strict=True)
    ]
    return reduce(and_, parts) if parts else None
