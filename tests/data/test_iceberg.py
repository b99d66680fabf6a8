"""Tables of Apache Iceberg: rows are those that their own library reads, of the snapshot that was asked for."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_delta import rows_of, table_of

import streamsgd
from streamsgd.data.open import open_data, open_whole
from streamsgd.data.sources import iceberg
from streamsgd.errors import DataError, SettingsError
from streamsgd.testing import check_source

pytest.importorskip("pyiceberg")
pytestmark = pytest.mark.filterwarnings("ignore")  # of pyiceberg and its dependencies

from pyiceberg.catalog.sql import SqlCatalog  # noqa: E402
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat  # noqa: E402
from pyiceberg.table import FileScanTask  # noqa: E402
from pyiceberg.types import LongType  # noqa: E402

N = 400


def told(scan: Any) -> list[dict[str, Any]]:
    """Return the rows as `pyiceberg` reads them."""
    return sorted(scan.to_arrow().to_pylist(), key=lambda row: row["key"])


@pytest.fixture
def table(tmp_path: Path) -> Any:
    """Return a table whose columns were renamed, added, dropped, widened, and moved, and of which rows were deleted."""
    catalog = SqlCatalog("test", uri=f"sqlite:///{tmp_path / 'catalog.db'}", warehouse=f"file://{tmp_path}")
    catalog.create_namespace("lake")
    first = table_of(1).append_column("small", pa.array(np.arange(N), pa.int32())).append_column("old", pa.array(np.ones(N)))
    made = catalog.create_table("lake.clicks", first.schema)
    with made.update_spec() as spec:
        spec.add_identity("g")
    made.append(first)
    with made.update_schema() as change:
        change.rename_column("x", "score")
        change.delete_column("old")
    with made.update_schema() as change:
        change.add_column("x", LongType())  # another column under the name of an earlier one
        change.update_column("small", LongType())
    second = table_of(2).rename_columns(["score", "key", "g", "day", "y"])
    made.append(second.append_column("small", pa.array(np.arange(N))).append_column("x", pa.array(np.arange(N))))
    made.delete("key < 1100")
    return made


def test_rows_of_a_snapshot_are_those_that_pyiceberg_reads(table: Any) -> None:
    numbers = [snapshot.snapshot_id for snapshot in table.snapshots()]
    for number in numbers:
        source = open_whole(table.scan(snapshot_id=number)).source
        assert rows_of(source) == told(table.scan(snapshot_id=number))
        assert source.version.startswith(f"Iceberg snapshot {number} of table ")
        check_source(source)
    for given in (table, table.metadata_location, [table.metadata_location]):
        assert rows_of(open_whole(given).source) == told(table.scan())
    prints = [open_whole(table.scan(snapshot_id=number)).fingerprint for number in numbers]
    assert len({*prints}) == len({*numbers})


def test_a_renamed_column_is_learned_under_its_name_of_now(table: Any) -> None:
    settings = {"features": ["score"], "epochs": 1, "shuffle": "none", "optimizer": "adam", "filter": "key >= 1200"}
    model = streamsgd.train(table, "y", executor="inline", **settings)
    assert model.provenance["version"].startswith("Iceberg snapshot ")
    assert model.provenance["rows_learned"] == sum(row["key"] >= 1200 for row in told(table.scan()))
    assert open_data(table, "key >= 1200")[0].n_rows == len(told(table.scan())), "statistics go by the names of files"


def test_position_deletes_are_gone(table: Any, tmp_path: Path) -> None:
    """pyiceberg reads them and writes none, so that the file of deletes is made here, as the specification says."""
    tasks = list(table.scan().plan_files())
    path = tasks[0].file.file_path
    pq.write_table(pa.table({"file_path": [path] * 3, "pos": pa.array([0, 7, 8], pa.int64())}), tmp_path / "deletes.parquet")
    deletes = DataFile.from_args(
        content=DataFileContent.POSITION_DELETES, file_path=f"file://{tmp_path}/deletes.parquet", file_format=FileFormat.PARQUET
    )
    given = [FileScanTask(tasks[0].file, {deletes}), *tasks[1:]]
    inventory = open_whole(table).source.stored.inventory
    (((file, group), rows),) = iceberg._deleted(table.io, given, inventory).items()
    assert (inventory.source.files[file].path, group, rows.tolist()) == (path.removeprefix("file://"), 0, [0, 7, 8])


def test_what_cannot_be_read_is_refused_by_name(table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="filtered or projected"):
        open_whole(table.scan(row_filter="key > 3"))
    with pytest.raises(DataError, match=r"metadata\.json.*cannot be read"):
        open_whole(f"file://{tmp_path}/no.metadata.json")
    with pytest.raises(DataError, match=r"Iceberg table .*streamsgd\[iceberg\]"):
        open_whole(table.location().removeprefix("file://"))
    equality = ValueError("PyIceberg does not yet support equality deletes")
    monkeypatch.setattr(type(table.scan()), "plan_files", lambda _: (_ for _ in ()).throw(equality))
    with pytest.raises(DataError, match=r"cannot be planned: .*equality deletes"):
        open_whole(table)
    monkeypatch.setitem(sys.modules, "pyiceberg.table", None)
    with pytest.raises(SettingsError, match=r"streamsgd\[iceberg\]"):
        open_whole(f"{tmp_path}/v1.metadata.json")
