"""Parquet files as a source."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from streamsgd.data.dataset import Dataset, Inventory, footer_bytes, read_dataset
from streamsgd.data.parquet.open_footers import Footers
from streamsgd.data.parquet.pieces import PieceReader, where
from streamsgd.data.parquet.pruning import prune
from streamsgd.data.sizes import decoded_bytes, encoded_bytes, is_wild, parquet_cost
from streamsgd.data.source import WHOLE_BYTES, Feed, Groups, ReadCost, where_row

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    import numpy as np

    from streamsgd.data.schemas import Unified
    from streamsgd.data.stores.files import FileRef
    from streamsgd.planning.chunks import Piece

T = TypeVar("T")


@dataclass(frozen=True)
class ParquetFiles:
    """What the footers of Parquet files say, as a `Source`."""

    inventory: Inventory

    @property
    def schema(self) -> Any:
        """Schema that all files fit in, folders included."""
        return self.inventory.schema

    @cached_property
    def groups(self) -> Groups:
        """Row groups."""
        found = self.inventory
        return Groups(found.file, found.index, found.rows, found.bytes)

    @property
    def files(self) -> tuple[FileRef, ...]:
        """The files, by name."""
        return self.inventory.source.files

    @property
    def fingerprint(self) -> str:
        """Digest of names, lengths and footers."""
        return self.inventory.fingerprint

    @property
    def partition_names(self) -> tuple[str, ...]:
        """Keys of folders `key=value`."""
        return self.inventory.partition_names

    @property
    def uri(self) -> str:
        """Filesystem of the files."""
        return self.inventory.source.uri

    def mark(self, file: int) -> bytes:
        """Return the footer, whose statistics and offsets tell a file that was rewritten to the same length."""
        return footer_bytes(self.inventory.source, self.files[file])

    def select(self, keep: np.ndarray) -> ParquetFiles:
        """Return the same files with some of their row groups."""
        return ParquetFiles(self.inventory.select(keep))

    def reader(self, *, at_once: int = WHOLE_BYTES, keeps_open: bool = True) -> PieceReader:
        """Return the reader of this process."""
        return PieceReader(self.inventory, at_once=at_once, keeps_open=keeps_open)

    def where(self, piece: Piece) -> str:
        """Name the file and row groups of a piece."""
        return where(self.inventory, piece)

    def where_row(self, piece: Piece, row: int) -> str:
        """Name a row of a piece by its row group and its number there, both from 0."""
        return where_row(self.groups, piece, row, "row group")

    @property
    def aside(self) -> Mapping[str, str]:
        """Columns that are no features unless asked for: of an index of pandas, of folders for dates."""
        return self.inventory.aside

    def retyped(self, types: Mapping[str, Any]) -> ParquetFiles:
        """Return the same files with columns of folders read as other types."""
        return ParquetFiles(self.inventory.retyped(types))

    @property
    def conflicts(self) -> Mapping[str, Any]:
        """Columns about whose type files disagree."""
        return self.inventory.conflicts

    def settled(self, types: Mapping[str, Any]) -> ParquetFiles:
        """Return the same files with columns that are of one of these types in all that hold values of them."""
        found = self.inventory
        schema = pa.schema([each.with_type(types.get(each.name, each.type)) for each in found.schema])
        conflicts = {name: conflict for name, conflict in found.conflicts.items() if name not in types}
        return replace(self, inventory=replace(found, schema=schema, conflicts=conflicts))

    def stored_types(self, column: str) -> list[Any]:
        """Return the Arrow type of a column in each file, None where it is not; of folders, one that holds their names."""
        found = self.inventory
        if column in found.partition_names:
            return [found.folder_type(column)] * len(self.files)
        schemas = [schema.field(column).type if schema.names.count(column) == 1 else None for schema in found.file_schemas]
        return [schemas[k] for k in found.file_schema.tolist()]

    def exact_type(self, file: int, column: str) -> Any | None:
        """Return the Arrow type that holds moments of 96 bits of a column of a file exactly; None of other columns.

        The column is read for it, once.

        Raises
        ------
        DataError
            There is none.

        """
        found = self.inventory
        if column in found.partition_names or column not in found.int96_columns(file):
            return None
        return found.int96_units.of(found, file, column, Footers())[1]

    def folder_text(self, file: int, column: str) -> str | None:
        """Return what the folder of a file says of a column."""
        return self.inventory.partition_texts[file][self.partition_names.index(column)]

    def whose(self, column: str) -> str:
        """Name the first file that has a column, to be put into a sentence."""
        found = self.inventory
        return next((f" ({ref.name})" for k, ref in enumerate(self.files) if column in found.physical_schema(k).names), "")

    def problem(self, column: str, *, nulls: bool = False) -> str:
        """Say which files lack a column (unless `nulls`), have it twice, or disagree about its type."""
        return self.inventory.problem(column, nulls=nulls)

    def cost(self, columns: Sequence[str], at_once: int = WHOLE_BYTES) -> ReadCost:
        """Return the bytes of a read, and of the footers that are kept."""
        there = [name for name in columns if name in self.inventory.schema.names]
        decoded = self.decoded if is_wild(self.inventory.schema, there, ()) else {}  # which takes a look at footers
        return parquet_cost(self.inventory, columns, at_once, decoded)

    @cached_property
    def decoded(self) -> Mapping[str, float]:
        """Bytes in memory of each column, as far as footers tell."""
        return decoded_bytes(self.inventory)

    def encoded_bytes(self) -> Mapping[str, int]:
        """Return the compressed bytes of columns, estimated from the footers of some files."""
        return encoded_bytes(self.inventory)

    def prune(self, condition: Any) -> np.ndarray:
        """Return which row groups may hold a match, by folders and statistics."""
        return prune(self.inventory, condition)

    def prefetch(self, groups: Sequence[int]) -> None:
        """Do nothing: the system reads ahead in files."""

    def feed(self, columns: tuple[str, ...], client: Any) -> Feed:  # noqa: ARG002
        """Return nothing for tasks: they read files themselves."""
        return Feed()

    def lending(self, tables: Sequence[tuple[int, Any]]) -> AbstractContextManager[None]:  # noqa: ARG002
        """Take nothing."""
        return nullcontext()


def unified_as(found: Inventory, unified: Unified, schema: Any) -> Inventory:
    """Return what is known of files with another schema, and what stands in its way; of folders all is as it was."""
    folders = found.partition_names

    def both(known: Mapping[str, T], now: Mapping[str, T]) -> dict[str, T]:
        return {k: v for k, v in now.items() if k not in folders} | {k: v for k, v in known.items() if k in folders}

    return replace(
        found,
        schema=schema,
        missing=both(found.missing, unified.missing),
        conflicts=both(found.conflicts, unified.conflicts),
        duplicates=both(found.duplicates, unified.duplicates),
    )


def open_files(data: Any, progress: Callable[[int, int], None] | None = None) -> Dataset:
    """Read the footers of all files of a path, folder, glob, URL, or of several; `progress(done, total)` counts files."""
    return Dataset(ParquetFiles(read_dataset(data, progress=progress)))
