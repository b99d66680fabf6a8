"""Fragments of a `pyarrow.dataset` as a source: each is read in the types that it has itself."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa

from streamsgd.data.notes import aside_of, noted
from streamsgd.data.parquet.int96 import INT96_UNIT
from streamsgd.data.schemas import Unified, bare, column_problem
from streamsgd.data.source import BaseSource, Groups, Part
from streamsgd.data.stores.files import FileRef
from streamsgd.data.stores.filesystems import first_line
from streamsgd.data.stores.folders import partition_columns
from streamsgd.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamsgd.planning.chunks import Piece


class ArrowFragments(BaseSource):
    """Fragments, each read as a whole; those of one schema that follow each other are as one file.

    Parameters
    ----------
    fragments
        At least one.
    names
        What messages call each; folders before it are columns.
    declared
        Schema of the data set: as its types values of text are read.

    """

    what = "fragment"

    def __init__(self, fragments: Sequence[Any], names: Sequence[str], declared: Any) -> None:
        pieces: list[Any] = []
        of: list[int] = []
        for k, fragment in enumerate(map(_exact, fragments)):
            parts = fragment.split_by_row_group() if hasattr(fragment, "split_by_row_group") else [fragment]
            pieces += parts
            of += [k] * len(parts)
        self.fragments, self._of, self._names = tuple(pieces), np.array(of, np.int64), tuple(map(str, names))
        raw = [_schema_of(_exact(fragment), declared) for fragment in fragments]
        written = list(map(noted, raw))
        self._folders, kinds, _, _ = partition_columns(names, [name for schema in written for name in schema.names])
        self._set_kinds(dict(zip(self._folders.names, kinds, strict=True)))
        known: dict[Any, int] = {}
        told = [f"{schema.to_string()}\0{bare(own)}\0{schema.metadata}" for schema, own in zip(written, raw, strict=True)]
        which = np.array([known.setdefault(text, len(known)) for text in told], np.int64)
        starts = np.unique(which, return_index=True)[1].tolist()
        self.physical, self.firsts = [bare(written[k]) for k in starts], [names[k] for k in starts]
        self._raw = [bare(raw[k]) for k in starts]
        self._own = which
        indexes = {name: why for k in starts for name, why in aside_of(written[k]).items() if name not in self.partition_names}
        self.aside = indexes | self._folders.aside(kinds)
        self._measure()

    def _set_kinds(self, kinds: Mapping[str, Any]) -> None:
        self._kinds = dict(kinds)
        self._values = self._folders.values(list(kinds.values()), self._names)

    def _measure(self) -> None:
        sizes = [_size_of(fragment) for fragment in self.fragments]
        rows, row_bytes = (np.array(column, np.int64) for column in zip(*sizes, strict=True))
        schemas = self._own[self._of]
        file = np.cumsum(np.diff(schemas, prepend=schemas[:1]) != 0).astype(np.int32)
        self.groups = Groups(file, np.arange(len(rows), dtype=np.int32), rows, row_bytes)
        starts = np.unique(file, return_index=True)[1]
        named = [self._names[k] for k in self._of[starts].tolist()]
        totals = np.add.reduceat(row_bytes, starts).tolist()
        self._schema_of_file = schemas[starts].tolist()
        self._files = tuple(FileRef("", name, size) for name, size in zip(named, totals, strict=True))
        self._marks = [f"{self._names[k]}\0{size}" for k, size in zip(self._of.tolist(), sizes, strict=True)]

    def fitted(self, unified: Unified) -> Self:
        """Return the fragments as parts of a whole that is so."""
        folders = [pa.field(name, kind) for name, kind in self._kinds.items()]
        fields = [each for each in unified.schema if each.name not in self.partition_names]
        self.unified, self.schema = unified, pa.schema([*fields, *folders])
        self.fingerprint = hashlib.sha256("\0".join([str(self.schema), *self._marks]).encode()).hexdigest()
        return self

    @property
    def partition_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Columns that the places of fragments say."""
        return self._folders.names

    @property
    def files(self) -> tuple[FileRef, ...]:
        """One for each run of fragments of one schema."""
        return self._files

    def retyped(self, types: Mapping[str, Any]) -> ArrowFragments:
        """Return the same fragments with columns of folders read as other types."""
        again = object.__new__(type(self))
        again.__dict__.update(self.__dict__)
        again._set_kinds({name: types.get(name, kind) for name, kind in self._kinds.items()})
        return again.fitted(self.unified)

    def problem(self, column: str, *, nulls: bool = False) -> str:
        """Say which fragments lack a column (unless `nulls`), or disagree about its type."""
        return "" if column in self.partition_names else column_problem(self.unified, column, nulls=nulls)

    def stored_types(self, column: str) -> list[Any]:
        """Return the Arrow type of a column in each run of fragments, None where it is not."""
        if column in self.partition_names:
            return [self._kinds[column]] * len(self._files)
        schemas = [self.physical[k] for k in self._schema_of_file]
        return [schema.field(column).type if column in schema.names else None for schema in schemas]

    def whose(self, column: str) -> str:
        """Name the first fragment that has a column, to be put into a sentence."""
        found = (first for schema, first in zip(self.physical, self.firsts, strict=True) if column in schema.names)
        return next((f" ({first})" for first in found), "")

    def arrays(self, piece: Piece, columns: tuple[str, ...]) -> list[Any]:
        """Return the columns of a piece; one that its fragments lack is null there."""
        tables = [self._part(part, columns) for part in self.parts(piece)]
        whole = tables[0] if len(tables) == 1 else pa.concat_tables(tables)
        return [whole.column(name) if name in whole.column_names else pa.nulls(whole.num_rows) for name in columns]

    def _part(self, part: Part, columns: tuple[str, ...]) -> Any:
        table = self.read_part(part.number, list(columns))
        rows = int(self.groups.rows[np.flatnonzero(self.groups.index == part.number)[0]])
        if table.num_rows != rows:
            raise DataError(f"{self._name(part.number)} gave {table.num_rows:,} rows and promised {rows:,}")
        return table.slice(part.start, part.stop - part.start)

    def read_part(self, number: int, columns: list[str]) -> Any:
        """Read those columns of a fragment that it has, with what its place says."""
        schema = self._raw[self._own[self._of[number]]]
        stored = [name for name in columns if name in schema.names and name not in self.partition_names]
        try:
            table = self.fragments[number].to_table(schema=schema, columns=stored)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self._name(number)}: cannot be read: {first_line(error)}") from error
        told = dict(zip(self.partition_names, self._values[self._of[number]], strict=True))
        for name in columns:
            if name in told:
                value = pa.scalar(told[name], self._kinds[name])
                table = table.append_column(pa.field(name, value.type), pa.repeat(value, table.num_rows))
        return table

    def _name(self, number: int) -> str:
        return self._names[int(self._of[number])]


def _exact(fragment: Any) -> Any:
    """Return a fragment that reads moments of 96 bits in a unit that holds all of them."""
    import pyarrow.dataset as pads  # noqa: PLC0415  slow to import; it is there

    if not isinstance(fragment, pads.ParquetFileFragment):
        return fragment
    format_ = pads.ParquetFileFormat(
        coerce_int96_timestamp_unit=INT96_UNIT, default_fragment_scan_options=fragment.format.default_fragment_scan_options
    )
    place = fragment.path if fragment.buffer is None else fragment.buffer
    filesystem = fragment.filesystem if fragment.buffer is None else None
    again = format_.make_fragment(place, filesystem, fragment.partition_expression)
    return again.subset(row_group_ids=[group.id for group in fragment.row_groups])


def _schema_of(fragment: Any, declared: Any) -> Any:
    """Return the schema of a fragment: of text, whose values are of the type that they are read as, that of its data set."""
    import pyarrow.dataset as pads  # noqa: PLC0415  slow to import; it is there

    schema = fragment.physical_schema
    if not isinstance(getattr(fragment, "format", None), pads.CsvFileFormat | pads.JsonFileFormat):
        return schema
    types = {each.name: each.type for each in declared if not pa.types.is_null(each.type)}
    return pa.schema([each.with_type(types.get(each.name, each.type)) for each in schema])


def _size_of(fragment: Any) -> tuple[int, int]:
    """Return rows and about the bytes of a fragment."""
    groups = getattr(fragment, "row_groups", None)
    if groups is not None:
        return sum(g.num_rows for g in groups), sum(max(0, g.total_byte_size) for g in groups)
    rows = fragment.count_rows()
    return rows, rows * 8 * max(1, len(fragment.physical_schema.names))
