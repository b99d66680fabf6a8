"""Tables of a stream on disk, as Parquet: what comes once can be read several times, and not all of it is in memory.

A table that can be one with those before it goes into their file, any other begins the next one: so types are compared as those
of files are, and no value is cast to a type that happened to come first.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from streamsgd.data.dataset import Inventory, read_dataset
from streamsgd.data.normalise import plain, plain_type, undictionaried
from streamsgd.data.schemas import bare, unify
from streamsgd.data.sources.joining import First
from streamsgd.data.sources.parquet_files import ParquetFiles, unified_as
from streamsgd.data.stores.files import Files, open_source
from streamsgd.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

SPOOLED_ROWS = 1 << 17
"""Rows of the row groups in which a stream is kept on disk ..."""

SPOOLED_BYTES = 32 << 20
"""... or so many bytes, whichever is less."""

SPOOLED = "stream.parquet"
"""The file of a stream whose tables are all alike."""


def spooled(tables: Iterable[Any], folder: Path) -> ParquetFiles:
    """Write tables to files in a folder as they come, and return those.

    Raises
    ------
    DataError
        There is no table.

    """
    files: list[_File] = []
    try:
        for number, table in enumerate(tables):
            stored, kept = storable(table)
            if not (files and files[-1].take(stored, kept)):
                for file in files[-1:]:
                    file.close()
                files.append(_File(folder / (f"{number:012d}.parquet" if files else SPOOLED), number, stored, kept))
    finally:
        for file in files[-1:]:
            file.close()
    if not files:
        raise DataError("the stream gave no table")
    return _opened(files)


def _stored(field: Any) -> Any:
    """Return a field with room for the categories of many tables together, each of which may have few."""
    kind = field.type
    if not pa.types.is_dictionary(kind):
        return field
    return field.with_type(pa.dictionary(pa.int32(), kind.value_type, kind.ordered))


def _coded(column: Any, field: Any) -> Any:
    """Return a column with the codes of a field."""
    if column.type == field.type:
        return column
    chunks = [
        pa.DictionaryArray.from_arrays(chunk.indices.cast(pa.int32()), chunk.dictionary, ordered=field.type.ordered)
        for chunk in column.chunks
    ]
    return pa.chunked_array(chunks, field.type)


class _File:
    """A file of tables that are alike; small neighbours are written together, so that row groups do not depend on the cut."""

    def __init__(self, path: Path, number: int, table: Any, kept: Mapping[str, Any]) -> None:
        self.path, self.first, self.kept = path, First(number, table), kept
        self._writer: Any = pq.ParquetWriter(path, pa.schema(map(_stored, self.first.schema), self.first.schema.metadata))
        self._waiting: list[Any] = []
        self.take(table, kept)

    @property
    def schema(self) -> Any:
        """The schema of its tables, as they came."""
        return pa.schema([f.with_type(self.kept.get(f.name, f.type)) for f in bare(self.first.schema)])

    def take(self, table: Any, kept: Mapping[str, Any]) -> bool:
        """Take one more table, if it is like the others."""
        fitted = self.first.fitted(table) if kept == self.kept else None
        if fitted is None:
            return False
        waiting = self._waiting
        waiting.append(fitted)
        if sum(t.num_rows for t in waiting) >= SPOOLED_ROWS or sum(t.nbytes for t in waiting) >= SPOOLED_BYTES:
            self._write()
        return True

    def _write(self) -> None:
        if self._waiting:
            whole = pa.concat_tables(self._waiting)
            columns = [_coded(column, _stored(field)) for column, field in zip(whole.columns, whole.schema, strict=True)]
            self._writer.write_table(pa.table(columns, schema=self._writer.schema), row_group_size=SPOOLED_ROWS)
        self._waiting = []

    def close(self) -> None:
        """Write what waits, and the footer."""
        try:
            self._write()
        finally:
            self._writer.close()
            self._writer = None  # 64 KiB of a closed file


def _opened(files: list[_File]) -> ParquetFiles:
    """Return files in the order of their stream, where they are several by the number of their first table."""
    found = open_source([file.path for file in files])
    if len(files) > 1:
        refs = {ref.path: ref for ref in found.files}
        names = [f"table {file.first.number} of the stream" for file in files]
        ordered = [replace(refs[str(file.path)], name=name) for file, name in zip(files, names, strict=True)]
        found = Files(tuple(ordered), found.uri)
    inventory = read_dataset(found)
    if not any(file.kept for file in files):
        return ParquetFiles(inventory)
    return _SomeNotStored(*_as_they_came(inventory, files))


def _as_they_came(inventory: Inventory, files: list[_File]) -> tuple[Inventory, dict[str, str]]:
    """Return what is known of files with the types that columns had before they were written, and columns that were not."""
    unified = unify([file.schema for file in files], [ref.name for ref in inventory.source.files])
    kept = {name: str(kind) for file in files for name, kind in file.kept.items()}
    return unified_as(inventory, unified, unified.schema), kept


@dataclass(frozen=True)
class _SomeNotStored(ParquetFiles):
    """Files of a stream with columns of types that Parquet does not know: their names and types are there, not their values."""

    not_stored: Mapping[str, str] = field(default_factory=dict)

    def select(self, keep: Any) -> ParquetFiles:
        """Return the same files with some of their row groups."""
        return replace(self, inventory=self.inventory.select(keep))

    def problem(self, column: str, *, nulls: bool = False) -> str:
        """Say what `ParquetFiles` says, or that the values of a column were not kept."""
        if (found := super().problem(column, nulls=nulls)) or column not in self.not_stored:
            return found
        return (
            f"column {column!r} of the stream is of type {self.not_stored[column]}, whose values it does not keep: leave it out"
        )


# --- what Parquet can hold


def storable(table: Any) -> tuple[Any, dict[str, Any]]:
    """Return a table as Parquet can hold it, and the types of columns that it cannot: they are null there."""
    columns, kept = [], {}
    for field_, column in zip(table.schema, table.columns, strict=True):
        if _can_store(field_.type):
            columns.append(_whole(column))
        elif _can_store(plain_type(field_.type)):
            chunks = [plain(chunk) for chunk in column.chunks]
            columns.append(_whole(pa.chunked_array(chunks, plain_type(field_.type))))
        else:
            columns.append(pa.chunked_array([pa.nulls(len(column))]))
            kept[field_.name] = field_.type
    fields = [
        f.with_type(c.type).with_nullable(f.nullable or f.name in kept) for f, c in zip(table.schema, columns, strict=True)
    ]
    return pa.table(columns, schema=pa.schema(fields, table.schema.metadata)), kept


@lru_cache(maxsize=1024)
def _can_store(kind: Any) -> bool:
    try:
        file = pa.BufferOutputStream()
        pq.write_table(pa.table([pa.nulls(2, kind)], names=["x"]), file)
        pq.read_table(pa.BufferReader(file.getvalue()))
    except (pa.ArrowException, NotImplementedError, TypeError, ValueError, OSError):
        return False
    return True


def _whole(column: Any) -> Any:
    """Return a column whose dictionaries, if it has any, hold no null, which Parquet cannot write: rows do."""
    kind = column.type
    if not pa.types.is_dictionary(kind) or not any(chunk.dictionary.null_count for chunk in column.chunks):
        return column
    again = [undictionaried(chunk).dictionary_encode() for chunk in column.chunks]
    arrays = [
        pa.DictionaryArray.from_arrays(
            a.indices.cast(kind.index_type), a.dictionary.cast(kind.value_type), ordered=kind.ordered
        )
        for a in again
    ]
    return pa.chunked_array(arrays, kind)
