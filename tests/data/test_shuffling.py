"""The external shuffle: the same rows, in an order that only data and seed decide, whole or absent."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.data.shuffled import shuffling
from streamsgd.errors import BudgetError, SettingsError

Write = Callable[..., Path]


def mixed_table(n: int = 30_000) -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table(
        {
            "id": pa.array(np.arange(n)),
            "x": pa.array(rng.normal(size=n).astype(np.float32), mask=rng.random(n) < 0.1),
            "flag": pa.array(rng.random(n) < 0.5, mask=rng.random(n) < 0.1),
            "colour": pa.array(rng.choice(["red", "green", "blue"], n)).dictionary_encode(),
            "text": pa.array([None if k % 7 == 0 else f"value {k}" for k in range(n)]),
            "when": pa.array(rng.integers(0, 10**9, n), pa.timestamp("s", "UTC")),
            "price": pa.array(rng.integers(0, 10**6, n)).cast(pa.decimal128(21, 2)),
            "tags": pa.array([None if k % 5 == 0 else [k, k + 1][: k % 3] for k in range(n)], pa.list_(pa.int64())),
            "pair": pa.array([{"a": k, "b": str(k)} for k in range(n)]),
            "bag": pa.array([[("k", float(k))] for k in range(n)], pa.map_(pa.string(), pa.float64())),
            "nothing": pa.nulls(n),
            "y": pa.array((np.arange(n) >= n // 2).astype(np.int8)),
        }
    ).replace_schema_metadata({"made by": "a test"})


def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let little data have many runs and buckets."""
    from streamsgd.data.shuffled import shuffle_layout  # noqa: PLC0415

    monkeypatch.setattr(shuffle_layout, "BUCKET_BYTES", 1 << 19)
    monkeypatch.setattr(shuffle_layout, "LEAST_RUN", 1 << 18)
    monkeypatch.setattr(shuffle_layout, "MOST_RUN", 1 << 18)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_same_rows_come_out_of_every_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a sort by another column: the table that Arrow reads from the output is the table that went in."""
    small_buckets(monkeypatch)
    table = mixed_table()
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=5_000)
    done = streamsgd.shuffle(tmp_path / "in.parquet", tmp_path / "out", memory="1GB")
    assert (done.rows, done.already_there) == (table.num_rows, False)
    assert done.files > 4
    found = pq.read_table(tmp_path / "out")
    assert found.schema.equals(pq.read_schema(tmp_path / "in.parquet"))
    assert found.take(np.argsort(found["id"])).to_pylist() == table.to_pylist()
    ids = np.asarray(found["id"])
    assert abs(np.corrcoef(ids, np.arange(len(ids)))[0, 1]) < 0.03
    assert abs(np.corrcoef(ids[1:], ids[:-1])[0, 1]) < 0.03
    half = [np.asarray(pq.read_table(path, columns=["y"])["y"]).mean() for path in (tmp_path / "out").glob("part-*")]
    assert np.ptp(half) < 0.1


def test_duckdb_counts_the_same_rows(write: Write, tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    rng = np.random.default_rng(1)
    data = write({"a": rng.integers(0, 5, 4_000), "s": rng.choice(["u", "v"], 4_000)}, row_group_size=300, files=3)
    streamsgd.shuffle(data, tmp_path / "out")
    count = "select a, s, count(*) from read_parquet('{}/*.parquet') group by all order by all"
    assert duckdb.sql(count.format(data)).fetchall() == duckdb.sql(count.format(tmp_path / "out")).fetchall()


def test_bytes_follow_from_data_and_seed_alone(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_buckets(monkeypatch)
    table = mixed_table(8_000)
    data = write({name: table[name] for name in ("id", "x", "text", "y")}, row_group_size=700, files=2)
    for name, how in (("a", {"memory": "600MB"}), ("b", {"memory": "4GB"}), ("c", {"seed": 1})):
        streamsgd.shuffle(data, tmp_path / name, **how)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    other = bytes_of(tmp_path / "c")
    assert other.keys() == bytes_of(tmp_path / "a").keys()
    assert other["part-00000.parquet"] != bytes_of(tmp_path / "a")["part-00000.parquet"]


def test_a_shuffle_that_was_killed_goes_on(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every file that it writes."""
    small_buckets(monkeypatch)
    table = mixed_table(20_000)
    data = write({name: table[name] for name in ("id", "x", "text", "colour")}, row_group_size=3_000)
    streamsgd.shuffle(data, tmp_path / "whole")
    real, left = shuffling.whole_file, [0]

    def fragile(path: Path) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(path)

    from streamsgd.data.shuffled import shuffle_files  # noqa: PLC0415

    monkeypatch.setattr(shuffling, "whole_file", fragile)
    monkeypatch.setattr(shuffle_files, "whole_file", fragile)
    for kills in range(100):
        left[0] = 2 + kills % 2  # a bucket is two files
        try:
            streamsgd.shuffle(data, tmp_path / "killed", memory=("600MB", "2GB")[kills % 2])
        except KeyboardInterrupt:
            assert not (tmp_path / "killed").exists()
        else:
            break
    assert kills > 3
    assert bytes_of(tmp_path / "killed") == bytes_of(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data0", "killed", "whole"]


def test_what_is_there_is_not_replaced(write: Write, tmp_path: Path) -> None:
    data = write({"x": np.arange(100.0)})
    with pytest.raises(SettingsError, match="is there already"):
        streamsgd.shuffle(data, data)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SettingsError, match="is there already"):
        streamsgd.shuffle(data, tmp_path / "file")
    (tmp_path / ".out.shuffling").mkdir()
    (tmp_path / ".out.shuffling" / "mine").write_text("mine")
    with pytest.raises(SettingsError, match="no unfinished shuffle"):
        streamsgd.shuffle(data, tmp_path / "out")
    assert (tmp_path / ".out.shuffling" / "mine").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert not streamsgd.shuffle(data, tmp_path / "empty").already_there
    before = bytes_of(tmp_path / "empty")
    assert streamsgd.shuffle(data, tmp_path / "empty").already_there
    assert bytes_of(tmp_path / "empty") == before
    with pytest.raises(SettingsError, match="is there already"):
        streamsgd.shuffle(data, tmp_path / "empty", seed=1)


def test_folders_and_files_that_differ_become_one_schema(tmp_path: Path) -> None:
    for year, kind in ((2020, pa.int32()), (2021, pa.int64())):
        (tmp_path / "in" / f"year={year}").mkdir(parents=True)
        table = pa.table({"n": pa.array([1, 2, 3], kind), "s": [f"{year} {k}" for k in range(3)]})
        pq.write_table(table, tmp_path / "in" / f"year={year}" / "a.parquet")
    streamsgd.shuffle(tmp_path / "in", tmp_path / "out")
    found = pq.read_table(tmp_path / "out").sort_by("s").to_pylist()
    assert found == [{"n": k + 1, "s": f"{year} {k}", "year": year} for year in (2020, 2021) for k in range(3)]


def test_too_little_memory_or_disk_is_said_before(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write({"x": np.arange(1000.0)})
    with pytest.raises(BudgetError, match=r"smallest budget that can is --memory \d+MB") as refusal:
        streamsgd.shuffle(data, tmp_path / "out", memory="100MB")
    streamsgd.shuffle(data, tmp_path / "out", memory=str(refusal.value.least))
    monkeypatch.setattr(shuffling.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(SettingsError, match=r"needs about .* of disk"):
        streamsgd.shuffle(data, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    with pytest.raises(SettingsError, match="folder of this machine"):
        streamsgd.shuffle(data, "s3://bucket/out")


def test_the_command_says_what_it_wrote(write: Write, tmp_path: Path) -> None:
    data = write({"x": np.arange(1000.0)})
    command = [sys.executable, "-m", "streamsgd", "shuffle", str(data), str(tmp_path / "out"), "--quiet"]
    done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert (done["rows"], done["files"], done["already_there"]) == (1000, 1, False)


def test_a_changed_input_is_another_shuffle(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_buckets(monkeypatch)
    data = write({"x": np.arange(1000.0)})
    monkeypatch.setattr(shuffling, "_write_buckets", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        streamsgd.shuffle(data, tmp_path / "out")
    monkeypatch.undo()
    pq.write_table(pa.table({"x": np.arange(500.0)}), data / "000.parquet")
    assert streamsgd.shuffle(data, tmp_path / "out").rows == 500
    assert sorted(np.asarray(pq.read_table(tmp_path / "out")["x"])) == list(range(500))


@pytest.mark.parametrize("told", [True, False], ids=["footer tells", "measured"])
@pytest.mark.parametrize("options", [{}, {"use_dictionary": False, "column_encoding": {"s": "DELTA_BYTE_ARRAY"}}])
def test_buckets_are_of_what_rows_take_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], told: bool
) -> None:
    """200 MB of strings that take some kilobytes in the file, and are seven strings with long beginnings."""
    n, path = 2_000, tmp_path / "long.parquet"
    pq.write_table(pa.table({"s": ["p" * 100_000 + str(k % 7) for k in range(n)]}), path, **options)
    if not told:
        monkeypatch.setattr("streamsgd.data.sources.parquet_files.ParquetFiles.decoded", {"s": float("inf")})
    layout = shuffling.layout_of(shuffling.open_data(str(path))[0], ["s"], 0)
    assert layout.bytes > 200e6
    assert layout.bytes / layout.n_buckets <= 26e6
    assert layout.group_rows * 100_000 <= 10e6
    short = tmp_path / "short.parquet"
    pq.write_table(pa.table({"s": [str(k % 7) * 30 for k in range(n)]}), short, **options)
    few = shuffling.layout_of(shuffling.open_data(str(short))[0], ["s"], 0)
    assert (few.n_buckets, few.group_rows) == (1, shuffling.layout_of(shuffling.open_data(str(short))[0], ["s"], 1).group_rows)
    assert few.group_rows >= 1024
