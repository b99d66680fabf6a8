"""Tables of Delta Lake: rows are those that their own library reads, of the version that was asked for."""

import base64
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.data.open import open_data, open_whole
from streamsgd.data.sources.live import place_of
from streamsgd.data.timings import Timings
from streamsgd.errors import DataError, SettingsError
from streamsgd.planning.chunks import Piece
from streamsgd.testing import check_source

deltalake = pytest.importorskip("deltalake")

N = 400


def table_of(seed: int, n: int = N) -> pa.Table:
    rng = np.random.default_rng(seed)
    groups = np.array(["a b", "c/d=1", "é%20"])[np.arange(n) % 3]
    day = pa.array(np.arange(n) // 100, mask=np.arange(n) // 100 == 2)
    return pa.table(
        {"x": rng.normal(size=n), "key": np.arange(n) + 1000 * seed, "g": groups, "day": day, "y": np.arange(n) % 2}
    )


def rows_of(source: Any) -> list[dict[str, Any]]:
    reader, rows = source.reader(), []
    for group, n in enumerate(source.groups.rows.tolist()):
        for arrays in reader.read(Piece(0, group, group + 1, 0, n, 0), tuple(source.schema.names), Timings()) if n else ():
            rows += pa.table(arrays, names=source.schema.names).to_pylist()
    return sorted(rows, key=lambda row: row["key"])


def told(table: Any) -> list[dict[str, Any]]:
    """Return the rows as the engine of `deltalake` reads them."""
    found = pa.RecordBatchReader.from_stream(table.scan()).read_all()
    return sorted(found.to_pylist(), key=lambda row: row["key"])


@pytest.fixture
def table(tmp_path: Path) -> str:
    """Return a table of three versions: partitioned, with a column that came later, and rows that were deleted."""
    place = str(tmp_path / "lake")
    writer = deltalake.WriterProperties(max_row_group_size=50)
    deltalake.write_deltalake(place, table_of(1), partition_by=["g", "day"], writer_properties=writer)
    more = table_of(2).append_column("late", pa.array(np.arange(N) * 0.5))
    deltalake.write_deltalake(place, more, mode="append", schema_mode="merge", writer_properties=writer)
    deltalake.DeltaTable(place).delete("key % 7 = 0")
    return place


@pytest.mark.parametrize("version", [0, 1, 2])
def test_rows_of_a_version_are_those_that_deltalake_reads(table: str, version: int) -> None:
    at = deltalake.DeltaTable(table, version=version)
    for given in (at, f"{table}@v{version}", *([table, Path(table), [f"{table}/"]] if version == 2 else ())):
        source = open_whole(given).source
        assert rows_of(source) == told(at)
        assert source.partition_names == ("g", "day")
        assert source.version == f"Delta version {version} of table {at.metadata().id}"
    check_source(source)


def test_versions_differ_and_the_same_is_the_same(table: str) -> None:
    prints = [open_whole(f"{table}@v{k}").fingerprint for k in (0, 1, 2, 2)]
    assert len({*prints}) == 3
    deltalake.write_deltalake(table, table_of(3).append_column("late", pa.array(np.zeros(N))), mode="append")
    assert open_whole(f"{table}@v2").fingerprint == prints[2] != open_whole(table).fingerprint


def test_a_filter_prunes_partitions_and_row_groups(table: str) -> None:
    whole = open_whole(table)
    some = open_data(table, "day == 1")[0]
    assert {row["day"] for row in rows_of(some.source)} == {1}
    by_key = open_data(f"{table}@v0", "key < 1010")[0]
    assert by_key.n_rows < whole.n_rows / 4
    assert not open_data(table, "late >= 0")[0].n_rows > whole.n_rows


def test_a_model_knows_its_version_and_scores_the_table(table: str, tmp_path: Path) -> None:
    settings = {"exclude": ["key"], "epochs": 1, "executor": "inline", "shuffle": "none"}
    model = streamsgd.train(f"{table}@v1", "y", **settings)
    rows = sorted(rows_of(open_whole(f"{table}@v1").source), key=lambda row: row["key"])
    assert model.provenance["version"].startswith("Delta version 1 of table ")
    assert model.provenance["rows"] == len(rows) == 2 * N
    model.save(tmp_path / "m.sgd")
    command = [sys.executable, "-m", "streamsgd", "show", str(tmp_path / "m.sgd")]
    assert "Delta version 1" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    scored = streamsgd.predict(model, table, tmp_path / "scores", id=["key"])
    assert scored.rows == len(told(deltalake.DeltaTable(table)))


# --- law: deletion vectors, which deltalake reads and does not write


def delete_by_vector(table: str, gone: dict[str, list[int]]) -> None:
    """Commit a version in which files have deletion vectors, as the protocol of Delta Lake writes them into its log."""
    log = Path(table) / "_delta_log"
    actions = [json.loads(line) for path in sorted(log.glob("*.json")) for line in path.read_text().splitlines()]
    adds = {action["add"]["path"]: action["add"] for action in actions if "add" in action}
    features = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["deletionVectors"]}
    lines: list[Any] = [{"protocol": {**features, "writerFeatures": ["deletionVectors"]}}]
    for path, rows in gone.items():
        vector = {"storageType": "i", "pathOrInlineDv": z85(bitmap(rows)), "sizeInBytes": len(bitmap(rows))}
        removed = {"path": path, "deletionTimestamp": 1, "dataChange": True}
        lines += [{"remove": removed}, {"add": {**adds[path], "deletionVector": {**vector, "cardinality": len(rows)}}}]
    version = len(list(log.glob("*.json")))
    (log / f"{version:020}.json").write_text("".join(json.dumps(line) + "\n" for line in lines))


def bitmap(rows: list[int]) -> bytes:
    """Return a 64-bit roaring bitmap of one container: magic, one key, and the portable format of 32 bits."""
    head = struct.pack("<IQI", 1681511377, 1, 0)
    return head + struct.pack("<IIHHI", 12346, 1, 0, len(rows) - 1, 16) + np.array(rows, "<u2").tobytes()


def z85(raw: bytes) -> str:
    letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    theirs = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
    padded = raw + bytes(-len(raw) % 4)
    return base64.b85encode(padded).decode().translate(str.maketrans(theirs, letters))


@pytest.mark.parametrize("gone", [[0], [49, 50, 51], [0, 1, 2, 99], [*range(50)], [*range(7, 200, 3)]], ids=str)
def test_deleted_rows_are_gone(tmp_path: Path, gone: list[int]) -> None:
    place = str(tmp_path / "lake")
    writer = deltalake.WriterProperties(max_row_group_size=50)
    deltalake.write_deltalake(place, table_of(1, 200), writer_properties=writer)
    deltalake.write_deltalake(place, table_of(2, 200), mode="append", writer_properties=writer)
    lines = (Path(place) / "_delta_log" / f"{0:020}.json").read_text().splitlines()
    path = next(action["add"]["path"] for action in map(json.loads, lines) if "add" in action)
    delete_by_vector(place, {path: gone})
    source = open_whole(place).source
    found = rows_of(source)
    assert found == told(deltalake.DeltaTable(place))
    assert len(found) == 400 - len(gone)
    check_source(source)
    assert source.fingerprint != open_whole(f"{place}@v1").fingerprint
    model = streamsgd.train(place, "y", epochs=1, executor="inline", shuffle="none", chunk_rows=70, batch_size=10)
    same = streamsgd.train(
        pa.Table.from_pylist(found).select(source.schema.names), "y", epochs=1, shuffle="none", batch_size=10
    )
    assert model.provenance["rows_learned"] == same.provenance["rows_learned"]


# --- law: columns go by what the log calls them, which deltalake reads and does not write


def mapped_table(place: Path, mode: str) -> str:
    """Write a table of two versions: names that swap between a partition and a column, one that is new under an old name."""
    (place / "_delta_log").mkdir(parents=True)
    stored = {"c-x": (1, "double"), "c-y": (2, "long"), "day": (3, "string"), "key": (4, "long"), "late": (5, "string")}

    def metadata(names: dict[str, str]) -> dict[str, Any]:
        fields = [
            {
                "name": name,
                "type": stored[of][1],
                "nullable": True,
                "metadata": {"delta.columnMapping.id": stored[of][0], "delta.columnMapping.physicalName": of},
            }
            for name, of in names.items()
        ]
        configuration = {"delta.columnMapping.mode": mode, "delta.columnMapping.maxColumnId": "5"}
        partition = next(name for name, of in names.items() if of == "day")
        common = {"id": "0af2b3d0-0000-4000-8000-000000000001", "format": {"provider": "parquet", "options": {}}}
        schema = {"schemaString": json.dumps({"type": "struct", "fields": fields}), "partitionColumns": [partition]}
        return {"metaData": {**common, **schema, "configuration": configuration, "createdTime": 1}}

    def add(name: str, day: str | None, columns: dict[str, Any]) -> dict[str, Any]:
        ids = [pa.field(c, pa.array(v).type, metadata={"PARQUET:field_id": str(stored[c][0])}) for c, v in columns.items()]
        # Where ids decide, names of files say nothing.
        names = [f"any-{c}" if mode == "id" else c for c in columns]
        written = pa.table([pa.array(v) for v in columns.values()], schema=pa.schema(ids)).rename_columns(names)
        pq.write_table(written, place / name, row_group_size=20)
        size = (place / name).stat().st_size
        told = {"partitionValues": {"day": day}, "stats": json.dumps({"numRecords": written.num_rows})}
        return {"add": {"path": name, "size": size, "modificationTime": 1, "dataChange": True, **told}}

    def commit(version: int, *lines: Any) -> None:
        (place / "_delta_log" / f"{version:020}.json").write_text("\n".join(map(json.dumps, lines)))

    n = np.arange(50)
    protocol = {"protocol": {"minReaderVersion": 2, "minWriterVersion": 5}}
    first = {"c-x": n * 0.5, "c-y": n % 2, "key": n}
    commit(0, protocol, metadata({"x": "c-x", "y": "c-y", "day": "day", "key": "key"}), add("a.parquet", "mon", first))
    now = metadata(
        {
            "price": "c-x",
            "y": "c-y",
            "key": "key",
            "weekday": "day",
            "x": "late",
        }
    )
    second = {"late": np.array(["u", "v"])[n % 2], "key": n + 100, "c-x": n * 2.0, "c-y": n % 2}
    commit(1, now, add("b.parquet", None, second))
    return str(place)


@pytest.mark.parametrize("mode", ["name", "id"])
def test_renamed_columns_are_read_by_what_the_log_calls_them(mode: str, tmp_path: Path) -> None:
    place = mapped_table(tmp_path / "lake", mode)
    if mode == "name":
        for version in (0, 1):
            assert rows_of(open_whole(f"{place}@v{version}").source) == told(deltalake.DeltaTable(place, version=version))
    source = open_whole(place).source
    rows = rows_of(source)
    assert [row["price"] for row in rows] == [*np.arange(50) * 0.5, *np.arange(50) * 2.0]
    assert [row["x"] for row in rows] == [None] * 50 + ["u", "v"] * 25
    assert {row["weekday"] for row in rows[:50]} == {"mon"}
    check_source(source)
    common: dict[str, Any] = {"executor": "inline", "epochs": 1, "shuffle": "none", "batch_size": 10, "optimizer": "adam"}
    model = streamsgd.train(place, "y", exclude=["key"], filter="weekday == 'mon' or price > 20", **common)
    same = streamsgd.train(
        pa.Table.from_pylist(rows, pa.schema(source.schema)),
        "y",
        exclude=["key"],
        filter="weekday == 'mon' or price > 20",
        **common,
    )
    assert model.provenance["counts"]["filtered"] == same.provenance["counts"]["filtered"] == 11
    np.testing.assert_array_equal(model.weights, same.weights)
    assert source.partition_names == ("weekday",)
    streamsgd.predict(model, place, tmp_path / "scores", id=["key", "weekday"])
    scored = sorted(pq.read_table(tmp_path / "scores").to_pylist(), key=lambda row: row["key"])
    assert [row["weekday"] for row in scored] == ["mon"] * 50 + [None] * 50
    np.testing.assert_allclose([row["probability"] for row in scored], model.predict_proba(pa.Table.from_pylist(rows))[:, 1])


def test_places_of_rows_that_are_left() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        gone = np.flatnonzero(rng.random(40) < rng.random())
        left = np.setdiff1d(np.arange(40), gone)
        assert [place_of(gone, k) for k in range(len(left))] == left.tolist()


# --- law: what cannot be read is refused by name


def test_what_is_not_understood_is_refused_by_name(table: str, tmp_path: Path) -> None:
    log = Path(table) / "_delta_log"
    first = log / f"{0:020}.json"
    lines = [json.loads(line) for line in first.read_text().splitlines()]
    for line in lines:
        if "protocol" in line:
            features = {"readerFeatures": ["typeWidening"], "writerFeatures": ["typeWidening"]}
            line["protocol"] = {"minReaderVersion": 3, "minWriterVersion": 7, **features}
    first.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DataError, match=r"asks its readers for typeWidening.*from_stream"):
        open_whole(f"{table}@v0")
    with pytest.raises(DataError, match=r"lake@v99: this Delta table has no version 99: there are 0 to 2$"):
        open_whole(f"{table}@v99")
    with pytest.raises(DataError, match=r"Delta table .*file_uris\(\)"):
        open_whole(f"{table}/{next(p.name for p in Path(table).iterdir() if p.name.startswith('g='))}")


def test_a_version_that_was_cleaned_up_is_said(table: str) -> None:
    deltalake.DeltaTable(table).create_checkpoint()
    (Path(table) / "_delta_log" / f"{0:020}.json").unlink()
    with pytest.raises(
        DataError, match=r"version 1 of .* can no longer be read: .* log begins with version 1; the newest is 2"
    ):
        open_whole(f"{table}@v1")
    (Path(table) / "_delta_log" / f"{2:020}.json").write_text("{")
    with pytest.raises(DataError, match="cannot be opened"):
        open_whole(f"{table}@v0")


def test_without_its_library_the_extra_is_named(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(SettingsError, match=r"streamsgd\[delta\]"):
        open_whole(f"{table}@v1")
