"""Id columns: copied from the input to the output, every value as it was."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from streamsgd.data.normalise import plain_type, refusal, undictionaried
from streamsgd.data.timings import Timings
from streamsgd.data.types import is_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streamsgd.data.dataset import Dataset
    from streamsgd.data.filters import RowFilter
    from streamsgd.data.reading import TypedReader
    from streamsgd.planning.chunks import Piece


ID_BYTES = 16 << 20
"""Bytes of ids that are copied at a time: long ones make smaller row groups of the output."""


def id_fields(dataset: Dataset, file: int, names: Sequence[str]) -> list[Any]:
    """Return the id columns as the output of one file has them: every value is the one that went in."""
    return [pa.field(name, id_type(dataset, file, name)) for name in names]


def read_ids(
    dataset: Dataset, reader: TypedReader, piece: Piece, names: tuple[str, ...], condition: RowFilter | None
) -> Iterator[dict[str, Any]]:
    """Yield the id columns of the rows of a piece that fulfil a condition: all at once, or some rows at a time of long ids."""
    file = int(dataset.file[piece.first])
    fields = id_fields(dataset, file, names)
    keep = _kept(dataset, reader, piece, condition) if condition is not None else None
    for part, start, stop in _batched(reader.read_stored(piece, names)):
        columns = {field.name: _id(dataset, piece, part, k, field) for k, field in enumerate(fields)}
        for name in dataset.partition_names:
            if name in columns:
                columns[name] = _folder(dataset, file, name, columns[name])
        if keep is not None:
            some = pa.array(keep[start:stop])
            columns = {name: column.filter(some) for name, column in columns.items()}
        yield columns


def _batched(parts: Iterator[list[Any]]) -> Iterator[tuple[list[list[Any]], int, int]]:
    """Yield small parts together, up to `ID_BYTES`, each with its first row and the row after its last."""
    waiting: list[list[Any]] = []
    start = stop = n_bytes = 0
    for part in parts:
        waiting.append(part)
        stop += len(part[0])
        n_bytes += sum(column.nbytes for column in part)
        if n_bytes >= ID_BYTES:
            yield waiting, start, stop
            waiting, start, n_bytes = [], stop, 0
    if waiting:
        yield waiting, start, stop


def _kept(dataset: Dataset, reader: TypedReader, piece: Piece, condition: RowFilter) -> np.ndarray:
    """Return which rows of a piece fulfil a condition, bool (n,)."""
    where = dataset.source.where(piece)
    if not condition.columns:
        found: np.ndarray = condition.keep({"": np.zeros(piece.rows)}, where)
        return found
    parts = reader.read(piece, condition.columns, Timings())
    return np.concatenate([condition.keep(dict(zip(condition.columns, part, strict=True)), where) for part in parts])


def _id(dataset: Dataset, piece: Piece, parts: list[list[Any]], k: int, field: Any) -> Any:
    try:
        return _joined(parts, k, field.type)
    except pa.ArrowInvalid as error:
        raise refusal(field.name, dataset.source.where(piece), parts[0][k].type, field.type, error) from error


def _folder(dataset: Dataset, file: int, name: str, column: Any) -> Any:
    """Return a column of a folder, as its name says it where that is text."""
    told = getattr(dataset.source, "folder_text", None)
    if told is None or not is_text(column.type):
        return column
    return pa.chunked_array([pa.repeat(pa.scalar(told(file, name), column.type), len(column))])


def _joined(parts: list[list[Any]], k: int, kind: Any = None) -> Any:
    """Return the k-th column of batches as one, as an id of some type or as it is."""
    columns = [part[k] if kind is None else as_id(part[k], kind) for part in parts]
    chunks = [chunk for column in columns for chunk in (column.chunks if isinstance(column, pa.ChunkedArray) else [column])]
    return pa.chunked_array(chunks, columns[0].type if kind is None else kind)


def id_type(dataset: Dataset, file: int, name: str) -> Any:
    """Return the type that an id column has in the output of one file.

    That of the whole data set where it holds every value of the file's own, else the file's own.
    """
    wanted = plain_type(dataset.schema.field(name).type)
    stored = getattr(dataset.source, "stored_types", None)
    types = (dataset.source.schema.field(name).type,) * dataset.n_files if stored is None else stored(name)
    if (own := types[file]) is None:
        return _writable(wanted)
    exact = getattr(dataset.source, "exact_type", None)
    if exact is not None and (found := exact(file, name)) is not None:
        return _writable(found)
    return _writable(own if len(set(types)) == 1 or not _holds(plain_type(own), wanted) else wanted)


def _writable(kind: Any) -> Any:
    """Return a type as it is, or plain: categories of numbers are read as numbers, and of views Arrow cannot choose rows."""
    if pa.types.is_dictionary(kind) and not is_text(kind):
        return plain_type(kind.value_type)
    return kind if _can_choose(kind) else plain_type(kind)


@lru_cache(maxsize=1024)
def _can_choose(kind: Any) -> bool:
    """Whether Arrow can take some rows of a column of this type."""
    try:
        pa.nulls(2, kind).filter(pa.array([True, False]))
    except (pa.ArrowException, NotImplementedError, TypeError):
        return False
    return True


def _holds(own: Any, wanted: Any) -> bool:
    """Whether every value of one plain type is a value of another, and the same one."""
    if own == wanted or pa.types.is_null(own):
        return True
    if pa.types.is_integer(own) and pa.types.is_integer(wanted):
        unsigned = pa.types.is_unsigned_integer(own), pa.types.is_unsigned_integer(wanted)
        return bool(own.bit_width < wanted.bit_width if unsigned == (True, False) else unsigned[0] == unsigned[1])
    if pa.types.is_floating(own) and pa.types.is_floating(wanted):
        return bool(own.bit_width <= wanted.bit_width)
    texts = (pa.string(), pa.large_string()), (pa.binary(), pa.large_binary())
    return any(own in pair and wanted in pair for pair in texts)


def as_id(column: Any, kind: Any) -> Any:
    """Return a column as `id_type` says."""
    if column.type == kind:
        return column
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return pa.chunked_array([undictionaried(chunk).cast(kind) for chunk in chunks], kind)
