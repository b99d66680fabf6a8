"""Tables of Apache Iceberg, as `pyiceberg` plans their scans: a snapshot of one, renamed columns and deleted rows."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from streamsgd.data.dataset import Dataset, read_dataset
from streamsgd.data.dates import OF_TABLES, dated_columns
from streamsgd.data.normalise import plain_type
from streamsgd.data.schemas import bare
from streamsgd.data.sources.delta import by_group, plain_names
from streamsgd.data.sources.live import NOWHERE, LiveRows
from streamsgd.data.sources.parquet_files import ParquetFiles
from streamsgd.data.stores.files import open_source
from streamsgd.data.stores.filesystems import locate
from streamsgd.errors import DataError, SettingsError
from streamsgd.messages import extra

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamsgd.data.dataset import Inventory

SUFFIX = ".metadata.json"


def is_iceberg(data: Any) -> bool:
    """Whether data is a table of `pyiceberg`, a scan of one, or the path of a table's metadata."""
    tables = sys.modules.get("pyiceberg.table")
    if tables is not None and isinstance(data, tables.Table | tables.DataScan):
        return True
    return isinstance(_path_of(data), str)


def _path_of(data: Any) -> str | None:
    one = data[0] if isinstance(data, list | tuple) and len(data) == 1 else data
    return one if isinstance(one, str) and one.endswith(SUFFIX) else None


def dataset_of_iceberg(data: Any, progress: Callable[[int, int], None] | None = None) -> Dataset:
    """Return the rows of a snapshot: of a scan its own, of a table and of metadata the current one.

    Raises
    ------
    DataError
        It cannot be read: its metadata, equality deletes, files that are not Parquet, columns that only folders tell; the
        message names it.
    SettingsError
        `pyiceberg` is not installed, or the scan is filtered or projected.

    """
    path = _path_of(data)
    scan = _scan_of(data if path is None else _table_of(path))
    name = scan.table_metadata.location
    snapshot = scan.snapshot()
    try:
        tasks = [] if snapshot is None else list(scan.plan_files())
    except (ValueError, NotImplementedError, OSError) as error:
        raise DataError(f"{name}: the scan of this Iceberg table cannot be planned: {error}") from error
    if not tasks:
        raise DataError(f"{name}: this snapshot of the Iceberg table has no file, so there is no row")
    other = next((task.file for task in tasks if task.file.file_format.name != "PARQUET"), None)
    if other is not None:
        raise DataError(f"{other.file_path}: is {other.file_format.name}; of Iceberg tables streamsgd reads Parquet only")
    inventory = read_dataset(plain_names(open_source([_place(task.file.file_path) for task in tasks])), progress=progress)
    names = _names(scan, inventory, {locate(_place(task.file.file_path)).path: task.file for task in tasks})
    version = f"Iceberg snapshot {snapshot.snapshot_id} of table {scan.table_metadata.table_uuid}"
    schema, deleted = _schema(scan), _deleted(scan.io, tasks, inventory)
    return Dataset(LiveRows(ParquetFiles(inventory), schema, version, names, deleted, _dated(scan, tasks, schema)))


def _place(path: str) -> str:
    """Return where a file of the metadata is: local ones are named like URIs, and are none, since nothing is encoded."""
    return path.removeprefix("file://")


def _table_of(path: str) -> Any:
    try:
        from pyiceberg.table import StaticTable  # noqa: PLC0415  an extra
    except ImportError:
        raise SettingsError(f"{path}: is an Iceberg table: to read it, {extra('iceberg')}") from None
    try:
        return StaticTable.from_metadata(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: the metadata of this Iceberg table cannot be read: {error}") from error


def _scan_of(data: Any) -> Any:
    scan = data if hasattr(data, "plan_files") else data.scan()
    if str(scan.row_filter) != "AlwaysTrue()" or "*" not in scan.selected_fields or scan.limit is not None:
        raise SettingsError("a scan of an Iceberg table that is filtered or projected is refused: give filter= and features=")
    return scan


def _schema(scan: Any) -> Any:
    from pyiceberg.io.pyarrow import schema_to_pyarrow  # noqa: PLC0415

    found = bare(schema_to_pyarrow(scan.projection(), include_field_ids=False))
    return pa.schema([pa.field(each.name, plain_type(each.type)) for each in found])


def _dated(scan: Any, tasks: Sequence[Any], schema: Any) -> dict[str, str]:
    """Return the columns that files are partitioned by as they are, and that new data does not repeat, with the reason."""
    values: dict[int, list[object]] = {}
    for task in tasks:
        spec = scan.table_metadata.specs().get(task.file.spec_id)
        for k, part in enumerate(spec.fields if spec is not None else ()):
            if str(part.transform) == "identity":
                values.setdefault(part.source_id, []).append(task.file.partition[k])
    told = {each.name: (schema.field(each.name).type, values.get(each.field_id)) for each in scan.projection().fields}
    return dated_columns({name: (kind, some) for name, (kind, some) in told.items() if some is not None}, OF_TABLES)


def _names(scan: Any, inventory: Inventory, files: dict[str, Any]) -> tuple[dict[str, str] | None, ...]:
    """Return what each file calls the columns, by their ids; None where all have the names of now."""
    fields, mapped = scan.projection().fields, scan.table_metadata.name_mapping()
    by_name = {name: each.field_id for each in mapped or () for name in each.names}
    found, known = [], dict[tuple[Any, ...], dict[str, str]]()
    for k, ref in enumerate(inventory.source.files):
        there = inventory.physical_schema(k).names
        ids = inventory.ids[inventory.file_schema[k]]
        ids = ids if any(number >= 0 for number in ids) else tuple(by_name.get(name, -1) for name in there)
        called = dict(zip(ids, there, strict=True))
        _check_told(scan, fields, called, files[ref.path])
        names = {each.name: called.get(each.field_id, NOWHERE) for each in fields}
        found.append(known.setdefault(tuple(names.values()), names))
    here = frozenset(inventory.schema.names)
    same = all(a == b or (b == NOWHERE and a not in here) for names in known.values() for a, b in names.items())
    return () if same else tuple(found)


def _check_told(scan: Any, fields: Sequence[Any], called: dict[int, str], file: Any) -> None:
    """Refuse files without a column whose value the metadata tells: it would be null, and is not."""
    if not called.keys() & {each.field_id for each in fields}:
        raise DataError(f"{file.file_path}: no column has an id of the Iceberg table; write the file again with its library")
    lacking = [each for each in fields if each.field_id not in called]
    spec = scan.table_metadata.specs().get(file.spec_id)
    sources = {part.source_id for part in spec.fields} if spec is not None else set()
    told = next((each.name for each in lacking if each.field_id in sources or each.initial_default is not None), None)
    if told is not None:
        raise DataError(
            f"{file.file_path}: has no column {told!r}, whose value only the metadata of the Iceberg table tells, which is "
            "not read there: rewrite the file with the column in it"
        )


def _deleted(io: Any, tasks: Sequence[Any], inventory: Inventory) -> dict[tuple[int, int], np.ndarray]:
    """Return the rows that position deletes take from each row group, counted from its first."""
    if not any(task.delete_files for task in tasks):
        return {}
    from pyiceberg.io.pyarrow import _read_all_delete_files  # noqa: PLC0415  Parquet, ORC and vectors in one place

    found: dict[tuple[int, int], np.ndarray] = {}
    places = {locate(_place(path)).path: arrays for path, arrays in _read_all_delete_files(io, tasks).items()}
    for file, ref in enumerate(inventory.source.files):
        rows = [np.asarray(array, np.int64) for array in places.get(ref.path, ())]
        found |= by_group(inventory, file, np.unique(np.concatenate(rows))) if rows else {}
    return found
