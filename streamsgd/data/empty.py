"""Columns that hold no value: those are columns of nulls, whatever type their writer gave them.

A writer that saw no value had to guess a type: pandas takes doubles that are all NaN, others strings or integers. So where
types disagree, the values are asked, up to the first one.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from streamsgd.data.normalise import plain, plain_type
from streamsgd.data.schemas import THE_SCHEMA, widen
from streamsgd.data.timings import Timings
from streamsgd.errors import DataError
from streamsgd.messages import few
from streamsgd.planning.chunks import Piece

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from streamsgd.data.dataset import Dataset

log = logging.getLogger("streamsgd")


def holds_no_value(column: Any) -> bool:
    """Whether every value of an Arrow column is null, or NaN."""
    if column.null_count == len(column):
        return True
    parts = [plain(chunk) for chunk in (column.chunks if isinstance(column, pa.ChunkedArray) else [column])]
    return all(part.null_count == len(part) or _is_nan(part) for part in parts)


def _is_nan(array: Any) -> bool:
    return bool(pa.types.is_floating(array.type) and pc.all(pc.is_nan(array), min_count=0).as_py())


def is_empty(dataset: Dataset, name: str) -> bool:
    """Whether a column of a data set holds no value; it is read up to the first one."""
    groups = [k for k, rows in enumerate(dataset.rows.tolist()) if rows]
    return all(holds_no_value(part) for group in groups for part in _parts(dataset, group, name))


def _parts(dataset: Dataset, group: int, name: str) -> Iterator[Any]:
    """Yield a column of a group as its file holds it, in parts."""
    piece = Piece(0, group, group + 1, 0, int(dataset.rows[group]), 0)
    for (column,) in dataset.source.reader(keeps_open=False).read(piece, (name,), Timings()):
        yield column


def settled(dataset: Dataset) -> Dataset:
    """Return data whose files disagree about the type of a column only where two of them hold values; say which hold none."""
    source: Any = dataset.source
    if not hasattr(source, "stored_types"):
        return dataset
    conflicts = getattr(source, "conflicts", None) or getattr(getattr(source, "unified", None), "conflicts", {})
    open_ = [name for name, one in conflicts.items() if THE_SCHEMA not in (one.file, one.other_file)]
    found = {name: kind for name in open_ if (kind := _type_if_read(dataset, name)) is not None}
    if not found:
        return dataset
    some = source.settled(found) if hasattr(source, "settled") else _with_types(source, found)
    return type(dataset)(some, dataset.types)


def _with_types(source: Any, types: Mapping[str, Any]) -> Any:
    """Return a source that keeps what its parts say in `unified`, with columns of other types, which end a conflict."""
    some = object.__new__(type(source))
    some.__dict__.update(source.__dict__)
    some.schema = retyped(source.schema, types)
    left = {name: conflict for name, conflict in source.unified.conflicts.items() if name not in types}
    some.unified = source.unified._replace(schema=retyped(source.unified.schema, types), conflicts=left)
    return some


def retyped(schema: Any, types: Mapping[str, Any]) -> Any:
    """Return a schema in which some columns are of other types."""
    return pa.schema([each.with_type(types.get(each.name, each.type)) for each in schema])


def _type_if_read(dataset: Dataset, name: str) -> Any:
    """Return the type of a column, None where it cannot be read either: whoever wants it says so then."""
    try:
        return _type_of_values(dataset, name)
    except DataError:
        return None


def _type_of_values(dataset: Dataset, name: str) -> Any:
    """Return the type of a column in those files that hold values of it; None if there are several, which do not agree."""
    stored = [None if kind is None else plain_type(kind) for kind in dataset.source.stored_types(name)]  # type: ignore[attr-defined]
    known, others = None, dict[int, Any]()
    for group, file in enumerate(dataset.file.tolist()):
        kind = stored[file]
        if kind is None or (known is not None and widen(known, kind) is not None) or not dataset.rows[group]:
            continue
        if all(holds_no_value(part) for part in _parts(dataset, group, name)):
            others[file] = kind
        elif known is None:
            known = kind
        else:
            return None
    kinds = [kind for file, kind in enumerate(stored) if kind is not None and file not in others]
    whole = pa.null() if known is None else known
    for kind in kinds:
        whole = widen(whole, kind) if widen(whole, kind) is not None else whole
    others = {file: kind for file, kind in others.items() if widen(whole, kind) is None}
    names = [f"{dataset.source.files[file].name} ({kind})" for file, kind in others.items()]
    if names:
        log.warning("column %r holds no value in %s: it is null there, and of type %s elsewhere", name, few(names, 3), whole)
    return whole
