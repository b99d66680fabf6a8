"""Id columns: copied from the input to the output, every value as it was."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from streamsgd.data.normalise import plain_type, refusal, undictionaried
from streamsgd.data.timings import Timings
from streamsgd.data.types import is_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamsgd.data.dataset import Dataset
    from streamsgd.data.filters import RowFilter
    from streamsgd.data.reading import TypedReader
    from streamsgd.planning.chunks import Piece


def id_fields(dataset: Dataset, file: int, names: Sequence[str]) -> list[Any]:
    """Return the id columns as the output of one file has them: every value is the one that went in."""
    return [pa.field(name, id_type(dataset, file, name)) for name in names]


def read_ids(
    dataset: Dataset, reader: TypedReader, piece: Piece, names: tuple[str, ...], condition: RowFilter | None
) -> dict[str, Any]:
    """Return the id columns of the rows of a piece that fulfil a condition."""
    fields = id_fields(dataset, int(dataset.file[piece.first]), names)
    parts = list(reader.read_stored(piece, names))
    columns = {field.name: _id(dataset, piece, parts, k, field) for k, field in enumerate(fields)}
    for name in dataset.partition_names:
        if name in columns:
            columns[name] = _folder(dataset, int(dataset.file[piece.first]), name, columns[name])
    if condition is None:
        return columns
    needed = condition.columns or names
    parts = list(reader.read(piece, needed, Timings()))
    keep = condition.keep({name: _joined(parts, k) for k, name in enumerate(needed)}, dataset.source.where(piece))
    return {name: column.filter(pa.array(keep)) for name, column in columns.items()}


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
