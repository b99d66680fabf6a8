"""Tables of Delta Lake, as `deltalake` reads their log: one version of one, its files, partitions and deletion vectors."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from streamsgd.data.dataset import Dataset, read_dataset
from streamsgd.data.dates import OF_TABLES
from streamsgd.data.normalise import plain_type
from streamsgd.data.sources.live import NOWHERE, LiveRows
from streamsgd.data.sources.parquet_files import ParquetFiles
from streamsgd.data.stores.files import Files, open_source
from streamsgd.data.stores.folders import PartitionColumns
from streamsgd.errors import DataError, SettingsError
from streamsgd.messages import extra

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streamsgd.data.dataset import Inventory

VERSIONED = re.compile(r"(?P<place>.+)@v(?P<version>\d+)$")
"""The path of a version of a table, as Spark writes it: `table@v5`."""

UNDERSTOOD = frozenset(["columnMapping", "deletionVectors", "timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"])
"""What a table may ask of who reads it."""


def is_delta(data: Any) -> bool:
    """Whether data is a `deltalake.DeltaTable`, or the path of one version of a table."""
    deltalake = sys.modules.get("deltalake")
    return (deltalake is not None and isinstance(data, deltalake.DeltaTable)) or _version_of(data) is not None


def _version_of(data: Any) -> re.Match[str] | None:
    one = data[0] if isinstance(data, list | tuple) and len(data) == 1 else data
    return VERSIONED.match(one) if isinstance(one, str) else None


def dataset_of_delta(data: Any, progress: Callable[[int, int], None] | None = None) -> Dataset:
    """Return the rows of a table of Delta Lake: a `DeltaTable` at its version, or a path, of the newest version or of `@v5`.

    Raises
    ------
    DataError
        It cannot be read: its log, or what the table asks of its readers; the message names it.
    SettingsError
        `deltalake` is not installed.

    """
    table = _table_of(data) if isinstance(data, str | list | tuple) else data
    root = str(table.table_uri).removeprefix("file://").rstrip("/")
    version = f"Delta version {table.version()} of table {table.metadata().id}"
    _check_understood(table, root)
    schema = pa.schema(table.schema().to_arrow())
    actions = pa.table(table.get_add_actions(flatten=True))
    paths = [_uri(root, path) for path in actions.column("path").to_pylist()]
    if not paths:
        raise DataError(f"{root}: version {table.version()} of this Delta table has no file, so there is no row")
    partitions = list(table.metadata().partition_columns)
    values = zip(*(actions.column(f"partition.{name}").to_pylist() for name in partitions), strict=True)
    told = dict(zip(paths, values, strict=True)) if partitions else {}
    mode = table.metadata().configuration.get("delta.columnMapping.mode", "none")
    mapped = {each.name: _mapped(each) if mode != "none" else (each.name, -1) for each in schema}
    # Names of files are unique among themselves, and need not be so among the names of now.
    stored = pa.schema([each.with_name(mapped[each.name][0]) for each in schema])
    files = read_dataset(plain_names(open_source(paths)), progress=progress)
    inventory = partitioned(files, stored, [mapped[name][0] for name in partitions], told)
    names = _names(root, inventory, mapped, by_id=mode == "id", told=partitions)
    return Dataset(LiveRows(ParquetFiles(inventory), _plain(schema), version, names, _deleted(table, inventory)))


def _mapped(column: Any) -> tuple[str, int]:
    """Return what files call a column, and its id."""
    known = {key.decode(): value.decode() for key, value in (column.metadata or {}).items()}
    return known.get("delta.columnMapping.physicalName", column.name), int(known.get("delta.columnMapping.id", -1))


def _names(
    root: str, inventory: Inventory, mapped: Mapping[str, tuple[str, int]], *, by_id: bool, told: Sequence[str]
) -> tuple[dict[str, str], ...]:
    """Return what each file calls the columns, by its names or by its ids; nothing where all have the names of now.

    Raises
    ------
    DataError
        Columns go by ids, and a file has none.

    """
    if not by_id and all(name == stored for name, (stored, _) in mapped.items()):
        return ()
    found, known = [], dict[Any, dict[str, str]]()
    for k, ref in enumerate(inventory.source.files):
        there, ids = inventory.physical_schema(k).names, inventory.ids[inventory.file_schema[k]]
        if by_id and all(number < 0 for number in ids):
            raise DataError(
                f"{root}: columns of this Delta table go by their ids, and {ref.name} has none: write the file again"
            )
        called = dict(zip(ids, there, strict=True)) if by_id else {name: name for name in there}
        keys = {name: column[1] if by_id else column[0] for name, column in mapped.items()}
        names = {name: mapped[name][0] if name in told else called.get(key, NOWHERE) for name, key in keys.items()}
        found.append(known.setdefault(tuple(names.values()), names))
    return tuple(found)


def _plain(schema: Any) -> Any:
    return pa.schema([pa.field(each.name, plain_type(each.type)) for each in schema])


def _table_of(data: Any) -> Any:
    try:
        from deltalake import DeltaTable  # noqa: PLC0415  an extra
        from deltalake.exceptions import DeltaError  # noqa: PLC0415
    except ImportError:
        raise SettingsError(f"{data}: is a Delta table: to read it, {extra('delta')}") from None
    found, (place,) = _version_of(data), [data] if isinstance(data, str) else data
    try:
        return DeltaTable(found["place"], version=int(found["version"])) if found else DeltaTable(place)
    except (DeltaError, OSError, ValueError) as error:
        missing = _missing(found["place"], int(found["version"])) if found else None
        raise DataError(f"{place}: {missing or f'this Delta table cannot be opened: {error}'}") from error


def _missing(place: str, version: int) -> str | None:
    """Return which versions there are, if that is what a version lacks; else None."""
    from deltalake import DeltaTable  # noqa: PLC0415  an extra
    from deltalake.exceptions import DeltaError  # noqa: PLC0415

    try:
        known = [int(entry["version"]) for entry in DeltaTable(place).history()]
    except (DeltaError, OSError, ValueError, KeyError):
        return None
    oldest, newest = min(known, default=0), max(known, default=0)
    if version > newest:
        return f"this Delta table has no version {version}: there are {oldest} to {newest}"
    if oldest == 0:
        return None
    return (
        f"version {version} of this Delta table can no longer be read: older commits were cleaned up, and its log begins with "
        f"version {oldest}; the newest is {newest}"
    )


def _check_understood(table: Any, root: str) -> None:
    strange = sorted({*(table.protocol().reader_features or ())} - UNDERSTOOD)
    if strange:
        raise DataError(
            f"{root}: this Delta table asks its readers for {', '.join(strange)}, which streamsgd does not know; stream it: "
            "streamsgd.train(pyarrow.RecordBatchReader.from_stream(deltalake.DeltaTable(path).scan()), ...)"
        )


def _uri(root: str, path: str) -> str:
    """Return where a file of the log is: its path there is relative to the table or a whole URI, percent-encoded once."""
    plain = unquote(path)
    return plain.removeprefix("file://") if "://" in plain or plain.startswith("/") else f"{root}/{plain}"


def plain_names(files: Files) -> Files:
    """Return files whose names say nothing of columns: the log of their table does, and folders may have any name."""
    return Files(tuple(replace(ref, name=ref.name.replace("=", "-")) for ref in files.files), files.uri)


def partitioned(inventory: Inventory, schema: Any, names: Sequence[str], told: Mapping[str, tuple[Any, ...]]) -> Inventory:
    """Return what is known of files with the columns that are one value in each, by the path of the file."""
    if not names:
        return inventory
    values = tuple(told[_known_path(ref.path, told)] for ref in inventory.source.files)
    texts = tuple(tuple(None if value is None else str(value) for value in row) for row in values)
    fields = [each for each in inventory.schema if each.name not in names]
    fields += [pa.field(name, plain_type(schema.field(name).type)) for name in names]
    own, columns = pa.schema(fields), PartitionColumns(tuple(names), texts)
    aside = {name: why for name, why in inventory.aside.items() if name not in names}
    aside |= columns.aside([own.field(name).type for name in names], OF_TABLES)
    return replace(
        inventory, schema=own, partition_names=columns.names, partition_values=values, partition_texts=texts, aside=aside
    )


def _known_path(path: str, told: Mapping[str, Any]) -> str:
    """Return how the log calls a file: with the scheme of its store, or as it is."""
    return path if path in told else next(uri for uri in told if uri.endswith(path))


def _deleted(table: Any, inventory: Inventory) -> dict[tuple[int, int], np.ndarray]:
    """Return the rows that deletion vectors take from each row group, counted from its first."""
    if "deletionVectors" not in (table.protocol().reader_features or ()):
        return {}
    by_file = {}
    for batch in pa.RecordBatchReader.from_stream(table.deletion_vectors()):
        for path, keep in zip(*(batch.column(k) for k in (0, 1)), strict=True):
            by_file[unquote(path.as_py()).removeprefix("file://")] = np.flatnonzero(~keep.values.to_numpy(zero_copy_only=False))
    found: dict[tuple[int, int], np.ndarray] = {}
    for path, rows in by_file.items():
        file = next(k for k, ref in enumerate(inventory.source.files) if path.endswith(ref.path))
        found |= by_group(inventory, file, rows)
    return found


def by_group(inventory: Inventory, file: int, rows: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    """Return rows of a file, int64 (n,), rising, by its row groups, counted from the first row of each."""
    mine = np.flatnonzero(inventory.file == file)
    starts = np.concatenate([[0], np.cumsum(inventory.rows[mine])])
    cuts = np.searchsorted(rows, starts)
    return {
        (file, int(inventory.index[group])): rows[cuts[k] : cuts[k + 1]] - starts[k]
        for k, group in enumerate(mine.tolist())
        if cuts[k + 1] > cuts[k]
    }
