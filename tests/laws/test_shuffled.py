"""What `streamsgd shuffle` writes means what went in: any type, files that differ, columns that are no features."""

import datetime as dt
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_meaning import FORMS, held

import streamsgd
from streamsgd.data.exact_types import as_exactly, candidates, holds
from streamsgd.data.normalise import plain_type
from streamsgd.data.open import open_whole
from streamsgd.data.schemas import widen
from streamsgd.data.types import column_type
from streamsgd.errors import DataError

pd = pytest.importorskip("pandas")

FAST: dict[str, Any] = {"executor": "inline", "memory": "1GB", "epochs": 1}
FAR = [dt.datetime(9999, 12, 31), None, dt.datetime(1, 1, 1)]  # noqa: DTZ001


def write(folder: Path, **columns: Any) -> Path:
    """One file for each column, of which each is column c there."""
    for name, column in columns.items():
        folder.mkdir(exist_ok=True)
        x = np.sin(np.arange(len(column)) * 1.7 + ord(name[0]))
        table = pa.table({"c": column, "x": x, "id": [f"{name}{k}" for k in range(len(column))], "y": x * 2})
        pq.write_table(table, folder / f"{name}.parquet")
    return folder


def shuffled(data: Any, folder: Path) -> Path:
    streamsgd.shuffle(data, folder, memory="1GB")
    return folder


def said(value: Any) -> Any:
    """An encoding but for what the order of rows decides (last digits) and the width of types, which says nothing."""
    if isinstance(value, float):
        return 0.0 if abs(value) < 1e-12 else float(f"{value:.9g}")
    if isinstance(value, dict):
        return {key: said(inner) for key, inner in value.items() if key not in ("type", "stored")}
    return [said(inner) for inner in value] if isinstance(value, list | tuple) else value


def encoding(data: Any, **asked: Any) -> Any:
    return said(msgspec.to_builtins(streamsgd.train(data, "y", id=["id"], **FAST, **asked).encoding))


def test_helpers_see_differences(tmp_path: Path) -> None:
    data = write(tmp_path / "in", a=pa.array([1, 2, 3] * 20))
    assert encoding(data) != encoding(data, categorical=["c"])


@pytest.mark.parametrize("family", FORMS)
def test_the_encoding_of_shuffled_rows_is_that_of_the_rows(family: str, tmp_path: Path) -> None:
    """Files of all types of one meaning."""
    values, kinds = FORMS[family]
    columns: dict[str, Any] = {}
    for name, kind in zip("abcdefghijklmnop", kinds, strict=False):
        known = [plain_type(column.type) for column in columns.values()]
        if any(widen(plain_type(kind), other) is None for other in known):
            continue  # refused before anything is read
        try:
            write(tmp_path / "in", **{name: held(values * 12, kind)})
        except (pa.ArrowException, NotImplementedError):
            continue
        columns[name] = held(values * 12, kind)
    assert len(columns) > 1 or family in ("flags", "times")
    assert encoding(shuffled(tmp_path / "in", tmp_path / "out")) == encoding(tmp_path / "in")


def stored() -> Iterator[str]:
    """The types that Parquet files can hold."""
    for kind in {kind for _, kinds in FORMS.values() for kind in kinds}:
        try:
            pq.write_table(pa.table({"c": pa.nulls(1, kind)}), pa.BufferOutputStream())
        except (pa.ArrowException, NotImplementedError):
            continue
        yield str(kind)


@pytest.mark.parametrize("kind", sorted(stored()))
def test_one_file_of_any_type_comes_out_as_it_went_in(kind: str, tmp_path: Path) -> None:
    values, type_ = next((values, each) for values, kinds in FORMS.values() for each in kinds if str(each) == kind)
    write(tmp_path / "in", a=held(values * 5, type_))
    out = shuffled(tmp_path / "in", tmp_path / "out")
    before, after = (by_id(pq.read_table(folder)) for folder in (tmp_path / "in", out))
    assert after == before
    types = [plain_type(open_whole(data).schema.field("c").type) for data in (tmp_path / "in", out)]
    assert column_type("c", types[0]) == msgspec.structs.replace(column_type("c", types[1]), stored=str(types[0]))


def by_id(table: pa.Table) -> dict[str, Any]:
    return dict(zip(table["id"].to_pylist(), table["c"].to_pylist(), strict=True))


BESIDE: dict[str, tuple[Any, Any, bool]] = {
    "large integers and halves": (pa.array([2**60 + 1] * 30), pa.array([1.5, None] * 15), False),
    "large integers and whole doubles": (pa.array([2**60 + 1] * 30), pa.array([1.0, None] * 15), True),
    "integers and doubles": (pa.array(range(30)), pa.array([1.5, None] * 15), True),
    "large integers and NaN": (pa.array([2**60 + 1] * 30), pa.array([float("nan")] * 30), False),
    "far moments and round ones": (
        pa.array(FAR * 10, pa.timestamp("us")), pa.array([10**18 + 1000] * 30, pa.timestamp("ns")), True,
    ),
    "far moments and fine ones": (
        pa.array(FAR * 10, pa.timestamp("us")), pa.array([10**18 + 1] * 30, pa.timestamp("ns")), False,
    ),
    "far dates and moments": (pa.array([dt.date(9999, 1, 1)] * 30), pa.array([10**18] * 30, pa.timestamp("ns")), True),
    "moments of zones": (
        pa.array(FAR * 10, pa.timestamp("us", "UTC")), pa.array([10**18] * 30, pa.timestamp("ns", "Asia/Tokyo")), True,
    ),
    "long durations and short ones": (
        pa.array([10**12] * 30, pa.duration("s")), pa.array([1] * 30, pa.duration("ns")), False,
    ),
    "wide decimals and integers": (
        pa.array([Decimal(10) ** 37 + 1] * 30, pa.decimal128(38, 0)), pa.array([2**60 + 1] * 30), True,
    ),
    "decimals and doubles": (pa.array([Decimal("0.25")] * 30, pa.decimal128(9, 2)), pa.array([1e30] * 30), True),
    "fine decimals and doubles": (pa.array([Decimal(10) ** 30 + 1] * 30, pa.decimal128(38, 2)), pa.array([0.125] * 30), False),
    "categories and doubles": (pa.array([2**60 + 1] * 30).dictionary_encode(), pa.array([1.5] * 30), False),
    "categories and whole doubles": (pa.array([7] * 30).dictionary_encode(), pa.array([1.0] * 30), True),
    "lists": (pa.array([[2**60 + 1]] * 30), pa.array([[1.5]] * 30), False),
    "lists of whole numbers": (pa.array([[2**60 + 1, 2]] * 30), pa.array([[1.0, None]] * 30), True),
    "nothing": (pa.array([2**60 + 1] * 30), pa.nulls(30), True),
}  # fmt: skip


@pytest.mark.parametrize("case", BESIDE)
def test_files_that_differ_are_one_file_of_the_same_values_or_refused_by_name(case: str, tmp_path: Path) -> None:
    a, b, fits = BESIDE[case]
    data = write(tmp_path / "in", a=a, b=b)
    ways: dict[str, Any] = {
        "shuffle": lambda: shuffled(data, tmp_path / "out"),
        "external": lambda: encoding(data, shuffle="external"),
    }
    for way, go in ways.items():
        if fits:
            go()
            continue
        with pytest.raises(DataError, match=r"b\.parquet.*'c' is of type .* and .* in a\.parquet") as refusal:
            go()
        assert ("--shuffle corgi" in str(refusal.value)) == (way == "external")
        assert not (tmp_path / "out").exists()
    if not fits:
        return
    out = by_id(pq.read_table(tmp_path / "out"))
    stored = {key: value for name in "ab" for key, value in by_id(pq.read_table(data / f"{name}.parquet")).items()}
    assert {key: _plain(value) for key, value in out.items()} == {key: _plain(value) for key, value in stored.items()}


def _plain(value: Any) -> Any:
    """A value, whichever of its types holds it."""
    if isinstance(value, dt.datetime | pd.Timestamp):
        return str(pd.Timestamp(value).tz_convert("UTC").tz_localize(None) if value.tzinfo else value)[:19]
    return f"{value} 00:00:00" if isinstance(value, dt.date) else value


def test_what_auto_cannot_shuffle_it_learns_as_it_is_and_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    n = 20_000
    for name, column in (("a", pa.array([2**60 + 1] * n)), ("b", pa.array([1.5] * n))):
        (tmp_path / "in").mkdir(exist_ok=True)
        table = pa.table({"c": column, "x": np.sin(np.arange(n)), "y": pa.array([name == "b"] * n)})
        pq.write_table(table, tmp_path / "in" / f"{name}.parquet", row_group_size=1000)
    with caplog.at_level(logging.WARNING):
        model = streamsgd.train(tmp_path / "in", "y", chunk_rows=2000, **FAST)
    assert {*model.encoding.sources} == {"c", "x"}
    (told,) = [message for message in caplog.messages if "follows the target" in message]
    assert "cannot be shuffled on disk: b.parquet" in told
    assert "--shuffle external" not in told


def test_the_command_refuses_and_does_not_break(tmp_path: Path) -> None:
    data = write(tmp_path / "in", a=BESIDE["large integers and halves"][0], b=BESIDE["large integers and halves"][1])
    done = subprocess.run(
        [sys.executable, "-m", "streamsgd", "shuffle", str(data), str(tmp_path / "out"), "--memory", "1GB"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "bug" not in done.stderr


# --- what is no feature


def set_aside(data: Any) -> dict[str, str]:
    return dict(open_whole(data).aside)


def pandas_file(folder: Path) -> Path:
    folder.mkdir()
    x = np.sin(np.arange(60.0))
    frame = pd.DataFrame({"x": x, "g": pd.Categorical([10, 20, 30] * 20), "h": pd.Categorical(["a", "b"] * 30), "y": x})
    frame.index = pd.Index(np.arange(60)[::-1] ** 2)
    frame.to_parquet(folder / "a.parquet")
    named = frame.set_index(pd.Index(np.arange(60) % 7 * 1.0, name="row"))
    return folder if folder.name == "unnamed" else (named.to_parquet(folder / "a.parquet"), folder)[1]


def dated_folders(folder: Path) -> Path:
    for k, name in enumerate(["day=2024-01-01/site=007", "day=2024-01-02/site=7"]):
        (folder / name).mkdir(parents=True)
        pq.write_table(pa.table({"x": np.sin(np.arange(30.0) + k), "y": np.arange(30.0)}), folder / name / "a.parquet")
    return folder


def delta_table(folder: Path) -> Path:
    deltalake = pytest.importorskip("deltalake")
    table = pa.table({"x": np.sin(np.arange(60.0)), "y": np.arange(60.0), "day": pa.array([dt.date(2024, 1, 1)] * 60)})
    deltalake.write_deltalake(str(folder), table, partition_by=["day"])
    return folder


MADE = {"unnamed": pandas_file, "named": pandas_file, "folders": dated_folders, "delta": delta_table}


@pytest.mark.parametrize("name", MADE)
def test_columns_that_are_no_features_stay_so_and_it_is_said(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = MADE[name](tmp_path / name)
    out = shuffled(data, tmp_path / "out")
    assert set_aside(out) == set_aside(data) != {}
    before = said(msgspec.to_builtins(streamsgd.train(data, "y", **FAST).encoding))
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert said(msgspec.to_builtins(streamsgd.train(out, "y", **FAST).encoding)) == before
    assert sum("not taken as features" in message for message in caplog.messages) == 1
    assert set_aside(shuffled(out, tmp_path / "again")) == set_aside(data)
    for column in set_aside(data):
        assert column in pq.read_table(out).column_names
        assert column in streamsgd.train(out, "y", features=["x", column], **FAST).encoding.sources


def test_what_is_passed_on_is_json_in_the_file(tmp_path: Path) -> None:
    out = shuffled(dated_folders(tmp_path / "in"), tmp_path / "out")
    kept = pq.read_schema(out / "part-00000.parquet").metadata[b"streamsgd.aside"]
    assert json.loads(kept) == {"day": "a folder for each date, which new data does not repeat"}


# --- types


def test_types_that_hold_others_do() -> None:
    ends = {
        kind: [pa.scalar(value, kind) for value in (np.iinfo(str(kind)).min, np.iinfo(str(kind)).max)]
        for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
    }
    for own, values in ends.items():
        for wanted in [*ends, pa.float32(), pa.float64()]:
            exact = True
            for value in values:
                try:
                    found = as_exactly(pa.array([value.as_py()], own), wanted)
                    exact &= int(found.to_pylist()[0]) == value.as_py()
                except (pa.ArrowException, ValueError):
                    exact = False
            assert not holds(own, wanted) or exact
            assert own != wanted or holds(own, wanted)
    assert candidates(pa.string(), []) == [pa.string()]
