"""What the footers of all files say: row groups, schema, partitions, fingerprint. No data page is read.

Footers lie (see `_counts`), schemas drift between files, and a million row groups must fit: so the numbers
are checked once here and kept as plain arrays, and disagreements about columns are recorded, to be raised by
`require` only for the columns that a job needs.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property, partial
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamsgd.data.normalise import plain_type
from streamsgd.data.notes import aside_of, noted
from streamsgd.data.parquet.footer_facts import LARGE_FOOTER, FooterFacts, joined, parse_footer
from streamsgd.data.parquet.footers import footer_in
from streamsgd.data.parquet.int96 import Int96Units, int96_of
from streamsgd.data.reading import TypedReader
from streamsgd.data.schemas import Conflict, bare, column_problem, field_ids, unify
from streamsgd.data.source import Source
from streamsgd.data.stores.files import FileRef, Files, open_source
from streamsgd.data.stores.filesystems import PathLike, io_timeout_of, retry
from streamsgd.data.stores.folders import PartitionColumns, partition_columns
from streamsgd.errors import SchemaError

__all__ = ["Conflict", "Dataset", "Inventory", "footer_bytes", "over_files", "read_dataset", "require"]


T = TypeVar("T")

R = TypeVar("R")


@dataclass(frozen=True)
class Inventory:
    """Everything the footers of Parquet files say, without open files; pickles to workers.

    `file`, `index`, `rows`, `bytes` have shape (n_row_groups,): the file's place in `source.files`, the row
    group's number in that file, its rows, and its encoded uncompressed bytes as the footer says them.
    `file_schema` (n_files,) points into `file_schemas`, the distinct physical schemas.
    `missing` (column -> a file without it), `conflicts` and `duplicates` (column -> a file that has it twice)
    are raised by `require`. A column that is also a partition folder is taken from the folder; `partition_texts`
    has its values as the folders' names say them. `aside` (column -> why) names columns that are no features unless asked for.
    `ids` are those of the columns of each of `file_schemas`.
    """

    source: Files
    schema: Any
    partition_names: tuple[str, ...]
    partition_values: tuple[tuple[object, ...], ...]
    file: npt.NDArray[np.int32]
    index: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int64]
    bytes: npt.NDArray[np.int64]
    fingerprint: str
    file_schemas: tuple[Any, ...]
    file_schema: npt.NDArray[np.int32]
    missing: Mapping[str, str]
    conflicts: Mapping[str, Conflict]
    duplicates: Mapping[str, str]
    partition_texts: tuple[tuple[str | None, ...], ...] = ()
    aside: Mapping[str, str] = field(default_factory=dict)
    ids: tuple[tuple[int, ...], ...] = ()
    int96: tuple[frozenset[str], ...] = ()
    """Columns of each of `file_schemas` that hold moments of 96 bits ..."""
    int96_units: Int96Units = field(default_factory=Int96Units)
    """... and the units as which they are read, as far as those were needed."""

    @property
    def n_rows(self) -> int:
        """Rows in all row groups."""
        return int(self.rows.sum())

    @property
    def n_row_groups(self) -> int:
        """Row groups in all files."""
        return len(self.rows)

    @property
    def n_files(self) -> int:
        """Files, also those without a row group."""
        return len(self.source.files)

    @property
    def compressed_bytes(self) -> int:
        """Length in bytes of all files that have a row group here."""
        return sum(self.source.files[i].size for i in np.unique(self.file))

    def problem(self, column: str, *, nulls: bool = False) -> str:
        """Return why a column cannot be used, or ''; with `nulls` a file that lacks it is no reason."""
        return column_problem(self, column, nulls=nulls)

    def folder_type(self, column: str) -> Any:
        """Return a type that says a folder's value as its name does: text where that is more than a number, as 01 is."""
        k = self.partition_names.index(column)
        pairs = zip(self.partition_texts, self.partition_values, strict=True)
        same = all(text[k] is None or str(value[k]) == text[k] for text, value in pairs)
        return self.schema.field(column).type if same else pa.string()

    def retyped(self, types: Mapping[str, Any]) -> "Inventory":
        """Return the same files with columns of folders read as other types.

        Raises `SchemaError` where a folder's name is no value of its type.
        """
        fields = [each.with_type(types.get(each.name, each.type)) for each in self.schema]
        columns = PartitionColumns(self.partition_names, self.partition_texts)
        kinds = [types.get(name, self.schema.field(name).type) for name in self.partition_names]
        values = columns.values(kinds, [ref.name for ref in self.source.files])
        return replace(self, schema=pa.schema(fields), partition_values=values)

    def physical_schema(self, file: int) -> Any:
        """Return the schema of one file as it is stored, before any widening."""
        return self.file_schemas[self.file_schema[file]]

    def int96_columns(self, file: int) -> frozenset[str]:
        """Return the columns of one file that hold moments of 96 bits."""
        return self.int96[self.file_schema[file]] if self.int96 else frozenset()

    def select(self, keep: npt.NDArray[np.bool_]) -> "Inventory":
        """Return the same files with fewer row groups; `keep` has shape (n_row_groups,)."""
        arrays = {name: getattr(self, name)[keep] for name in ("file", "index", "rows", "bytes")}
        return replace(self, **arrays, int96_units=Int96Units())


def read_dataset(
    data: PathLike | Sequence[PathLike] | Files,
    *,
    progress: Callable[[int, int], None] | None = None,
    threads: int = 8,
) -> Inventory:
    """Read the footers of all files, `threads` at a time; `progress(done, total)` counts files.

    Raises `DataError` naming the first file that is missing, empty, damaged, encrypted, or whose footer lies.
    """
    source = data if isinstance(data, Files) else open_source(data)
    schemas: dict[bytes, int] = {}
    footers, which = [], np.zeros(len(source.files), np.int32)
    for i, footer in enumerate(over_files(partial(_read_footer, source, Lock()), source.files, threads)):
        which[i] = schemas.setdefault(footer.schema, len(schemas))
        footers.append(footer._replace(schema=b""))
        if progress is not None:
            progress(i + 1, len(source.files))
    source = source if source.is_local else source.stamped([footer.stamp for footer in footers])
    written = [pa.ipc.read_schema(pa.py_buffer(schema)) for schema in schemas]
    physical = tuple(map(bare, written))
    firsts = [source.files[i].name for i in np.unique(which, return_index=True)[1]]
    unified = unify(physical, firsts)
    folders, types, holes, twice = partition_columns([ref.name for ref in source.files], unified.schema.names)
    names = folders.names
    aside = {name: why for schema in written for name, why in aside_of(schema).items() if name not in names}
    fields = [field for field in unified.schema if field.name not in names]
    fields += [pa.field(name, type_) for name, type_ in zip(names, types, strict=True)]
    drop = {name: value for name, value in unified.missing.items() if name not in names}
    groups = [len(footer.rows) for footer in footers]
    return Inventory(
        source=source,
        schema=pa.schema(fields),
        partition_names=names,
        partition_values=folders.values(types, [ref.name for ref in source.files]),
        file=np.repeat(np.arange(len(groups), dtype=np.int32), groups),
        index=joined([np.arange(n, dtype=np.int32) for n in groups], np.int32),
        rows=joined([footer.rows for footer in footers], np.int64),
        bytes=joined([footer.size for footer in footers], np.int64),
        fingerprint=_fingerprint(source, footers),
        file_schemas=physical,
        file_schema=which,
        missing=drop | holes,
        conflicts={name: value for name, value in unified.conflicts.items() if name not in names},
        duplicates={name: value for name, value in unified.duplicates.items() if name not in names} | twice,
        partition_texts=folders.texts,
        aside=aside | folders.aside(types),
        ids=tuple(map(field_ids, written)),
        int96=tuple(map(int96_of, written)),
    )


def _fingerprint(source: Files, footers: Sequence[FooterFacts]) -> str:
    digest = hashlib.sha256()
    for ref, footer in zip(source.files, footers, strict=True):
        digest.update(f"{len(ref.name)}:{ref.name}:{ref.size}:".encode())
        digest.update(footer.digest)
    return digest.hexdigest()


def over_files(task: Callable[[T], R], files: Sequence[T], threads: int) -> Iterable[R]:
    """Yield `task(file)` in order, done by `threads` threads; the first error stops the rest."""
    with ThreadPoolExecutor(threads, thread_name_prefix="footers") as pool:
        try:
            for start in range(0, len(files), 1024):  # not a million futures at once
                yield from pool.map(task, files[start : start + 1024])
        finally:
            pool.shutdown(cancel_futures=True)


def _read_footer(source: Files, one_at_a_time: Lock, ref: FileRef) -> FooterFacts:
    footer, stamp = _footer_and_stamp(source, ref)
    if len(footer) < LARGE_FOOTER:
        return parse_footer(footer, ref)._replace(stamp=stamp)
    with one_at_a_time:
        return parse_footer(footer, ref)._replace(stamp=stamp)


def footer_bytes(source: Files, ref: FileRef) -> bytes:
    """Return the footer with its length and magic, after checks that need no parser."""
    return _footer_and_stamp(source, ref)[0]


def _footer_and_stamp(source: Files, ref: FileRef) -> tuple[bytes, str]:
    """Return the footer, and the stamp of the file that it was read from."""
    stamps: list[str] = []

    def part(length: int, start: int) -> bytes:
        with source.open(ref) as file:
            stamps.append(source.identify(ref, file)[0])
            return bytes(file.read_at(length, start))

    def read(length: int, start: int) -> bytes:
        return retry(lambda: part(length, start), ref.name, within=io_timeout_of(source.uri))

    return footer_in(ref, lambda length: read(length, ref.size - length), lambda length: read(length, 0)), stamps[0]


@dataclass(frozen=True)
class Dataset:
    """The rows of a source, or of some of its groups; pickles to workers.

    `types` (column -> Arrow type) says as what columns are read if not as the source has them, and names columns of nulls that
    the source lacks.
    """

    source: Source
    types: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def schema(self) -> Any:
        """Arrow schema of all rows, of plain types."""
        fields = [each.with_type(self.types.get(each.name, plain_type(each.type))) for each in self.source.schema]
        names = set(self.source.schema.names)
        return pa.schema([*fields, *(pa.field(name, kind) for name, kind in self.types.items() if name not in names)])

    @property
    def aside(self) -> Mapping[str, str]:
        """Columns that are no features unless asked for, each with the reason."""
        found: Mapping[str, str] | None = getattr(self.source, "aside", None)
        return aside_of(noted(self.source.schema)) if found is None else found

    def reader(self, **how: Any) -> TypedReader:
        """Return what reads in this process, in the types of `schema`; `how` is as for `Source.reader`."""
        return TypedReader(self.source.reader(**how), self.source, self.schema)

    def retyped(self, types: Mapping[str, Any]) -> "Dataset":
        """Return the same rows with columns read as other types; those that the source lacks become columns of nulls.

        Raises `SchemaError` where a folder's name is no value of its type; other values are converted as they are read.
        """
        known = set(self.schema.names)
        changed = {name: kind for name, kind in types.items() if name not in known or self.schema.field(name).type != kind}
        if not changed:
            return self
        folders = {name: kind for name, kind in changed.items() if name in self.partition_names}
        source: Any = self.source
        source = source.retyped(folders) if folders and hasattr(source, "retyped") else source
        others = {name: kind for name, kind in changed.items() if name not in folders}
        return Dataset(source, {**self.types, **others})

    def whose(self, column: str) -> str:
        """Name the first file that has a column, to be put into a sentence; nothing where there is none."""
        found = getattr(self.source, "whose", None)
        return "" if found is None else str(found(column))

    @property
    def file(self) -> npt.NDArray[np.int32]:
        """The place in `source.files` of the file of each group, (n_row_groups,)."""
        return self.source.groups.file

    @property
    def index(self) -> npt.NDArray[np.int32]:
        """The number of each group in its file, (n_row_groups,)."""
        return self.source.groups.index

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """Rows of each group, (n_row_groups,)."""
        return self.source.groups.rows

    @property
    def bytes(self) -> npt.NDArray[np.int64]:
        """About what each group takes, (n_row_groups,): of files the encoded uncompressed bytes that footers say."""
        return self.source.groups.bytes

    @property
    def fingerprint(self) -> str:
        """What changes when the rows change."""
        return self.source.fingerprint

    @property
    def partition_names(self) -> tuple[str, ...]:
        """Columns that folders tell."""
        return self.source.partition_names

    @property
    def n_rows(self) -> int:
        """Rows in all groups."""
        return int(self.rows.sum())

    @property
    def n_row_groups(self) -> int:
        """Row groups in all files."""
        return len(self.rows)

    @property
    def n_files(self) -> int:
        """Files, also those without a row group."""
        return len(self.source.files)

    @property
    def compressed_bytes(self) -> int:
        """Length in bytes of all files that have a row group here."""
        return sum(self.source.files[i].size for i in np.unique(self.file))

    def select(self, keep: npt.NDArray[np.bool_]) -> "Dataset":
        """Return the same source with fewer groups; `keep` has shape (n_row_groups,)."""
        return Dataset(self.source.select(keep), self.types)

    def problem(self, column: str, *, nulls: bool = False) -> str:
        """Return why a column cannot be used, or ''; with `nulls` a part that lacks it is no reason."""
        if column not in self.source.schema.names:
            return ""
        return self.source.problem(column, nulls=True) if nulls else self.source.problem(column)


def require(dataset: Dataset | Inventory, columns: Iterable[str], *, nulls: Iterable[str] = ()) -> None:
    """Check that the data has these columns and can use them, else raise `SchemaError`.

    Those of `nulls` may lack in some files: they are null there.
    """
    forgiven = frozenset(nulls)
    for name in columns:
        if name not in dataset.schema.names:
            close = get_close_matches(name, dataset.schema.names, 3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"there are {_some(dataset.schema.names)}"
            raise SchemaError(f"column {name!r} is in no file; {hint}")
        if problem := dataset.problem(name, nulls=name in forgiven):
            raise SchemaError(problem)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8:,} more" if len(names) > 8 else "") if names else "none"
