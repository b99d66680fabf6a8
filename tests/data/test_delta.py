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
import pytest

import streamsgd
from streamsgd.data.live import place_of
from streamsgd.data.open import open_data, open_whole
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
        if "metaData" in line:
            line["metaData"]["configuration"]["delta.columnMapping.mode"] = "name"
    first.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DataError, match=r"asks its readers for columnMapping.*from_stream"):
        open_whole(f"{table}@v0")
    with pytest.raises(DataError, match="cannot be opened"):
        open_whole(f"{table}@v99")
    with pytest.raises(DataError, match=r"Delta table .*file_uris\(\)"):
        open_whole(f"{table}/{next(p.name for p in Path(table).iterdir() if p.name.startswith('g='))}")


def test_without_its_library_the_extra_is_named(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(SettingsError, match=r"streamsgd\[delta\]"):
        open_whole(f"{table}@v1")
