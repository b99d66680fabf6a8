"""Kinds of columns of one's own, by name: found, encoded, explained, saved, loaded, resumed; no file makes us import them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from own_kinds import Geo, Internet

import streamsgd
from streamsgd.cli.main import main
from streamsgd.errors import DataError, ModelError, SettingsError

N = 3000

GEO, INTERNET = "own_kinds:Geo,degrees=45", "own_kinds:Internet"

PLAIN: dict[str, Any] = {"memory": "1GB", "executor": "inline"}


@pytest.fixture(scope="module")
def table() -> pa.Table:
    """A target that is linear in latitude and longitude, with an effect of the first byte of an address."""
    rng = np.random.default_rng(7)
    places = rng.integers(-90, 90, (N, 2))
    first = rng.integers(10, 14, N)
    words = [f"w{k}" for k in rng.integers(0, 5, N)]
    return pa.table(
        {
            "place": [None if k == 5 else f"{a}.0,{b}.0" for k, (a, b) in enumerate(places.tolist())],
            "ip": [f"{a}.{b % 7}.1.2" for b, a in enumerate(first.tolist())],
            "word": words,
            "y": 2.0 * places[:, 0] - 3.0 * places[:, 1] + 50.0 * (first == 12),
        }
    )


@pytest.fixture(scope="module")
def model(table: pa.Table) -> streamsgd.Model:
    return streamsgd.train(table, "y", column_kind=[GEO, INTERNET], **PLAIN)


# --- law: they are found and encoded, and their weights are said in units of their columns


def test_numbers_of_ones_own_learn_what_is_there(table: pa.Table) -> None:
    places = table["place"].slice(6)
    latitudes, longitudes = np.array([value.split(",") for value in places.to_pylist()], np.float64).T
    exact = pa.table({"place": places, "y": 2.0 * latitudes - 3.0 * longitudes + 7.0})
    found = streamsgd.train(exact, "y", column_kind=[GEO], polish=60, precision="float64", **PLAIN)
    weights, intercept = found.coefficients()
    assert found.encoding.names == ("place.latitude", "place.longitude")
    assert not found.encoding.is_wide, "rows of numbers stay dense"
    assert weights[:, 0] == pytest.approx([2.0, -3.0], abs=1e-4)
    assert intercept[0] == pytest.approx(7.0, abs=1e-2)


def test_they_stand_beside_ours(model: streamsgd.Model, table: pa.Table) -> None:
    assert {columns.name for columns in model.encoding.custom} == {"geo", "internet"}
    assert [category.name for category in model.encoding.categories] == ["word"]
    assert model.encoding.hashed is not None
    labels = {(value.column, value.value): value for value in model.values()}
    assert ("ip", "12/8") in labels
    assert ("ip", "12.3/16") in labels
    assert labels["ip", "12.3/16"].rows > 0
    assert labels["ip", "12/8"].weights[0] > labels["ip", "11/8"].weights[0]
    error = np.sqrt(np.mean((model.predict(table) - np.array(table["y"])) ** 2))
    assert error < 0.2 * np.std(np.array(table["y"]))


def test_a_kind_may_say_not_for_me(table: pa.Table) -> None:
    words = table.select(["word", "y"])
    ours = streamsgd.train(words, "y", **PLAIN)
    asked = streamsgd.train(words, "y", column_kind=[GEO, INTERNET], **PLAIN)
    assert asked.encoding == ours.encoding
    assert np.array_equal(asked.weights, ours.weights)


def test_a_column_can_be_named(table: pa.Table) -> None:
    found = streamsgd.train(table, "y", column_kind=["place=own_kinds:Geo"], **PLAIN)
    assert [columns.name for columns in found.encoding.custom] == ["geo"]
    assert {category.name for category in found.encoding.categories} == {"ip", "word"}
    with pytest.raises(DataError, match="'word' of type string is not for geo"):
        streamsgd.train(table, "y", column_kind=["wor*=own_kinds:Geo"], **PLAIN)
    with pytest.raises(SettingsError, match="there is no column 'plaice', did you mean 'place'"):
        streamsgd.train(table, "y", column_kind=["plaice=own_kinds:Geo"], **PLAIN)
    numbers = table.append_column("n", [range(N)])
    with pytest.raises(SettingsError, match="'n' is of type int64, which cannot be a latitude and a longitude"):
        streamsgd.train(numbers, "y", column_kind=["n=own_kinds:Geo"], **PLAIN)
    with pytest.raises(SettingsError, match="'place' is both --categorical and --column-kind geo"):
        streamsgd.train(table, "y", column_kind=["place=own_kinds:Geo"], categorical=["place"], **PLAIN)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("geo", "no package.module:Class"),
        ("own_kinds:Nothing", "own_kinds:Nothing cannot be imported"),
        ("own_kinds:Matched", "no frozen dataclass"),
        ("own_kinds:Geo,degree=3", "has no field 'degree', did you mean 'degrees'"),
        ("own_kinds:Geo,degrees=x", "is not a number of type float"),
    ],
)
def test_what_is_no_kind_is_refused(entry: str, message: str, table: pa.Table) -> None:
    with pytest.raises(SettingsError, match=f"--column-kind: .*{message}"):
        streamsgd.train(table, "y", column_kind=[entry], **PLAIN)


def test_two_kinds_of_one_name_are_refused(table: pa.Table) -> None:
    with pytest.raises(SettingsError, match="two kinds of columns are called 'geo'"):
        streamsgd.train(table, "y", column_kind=[GEO, "own_kinds:Geo"], **PLAIN)


# --- law: a model file keeps them by name, and imports nothing


def test_a_model_file_keeps_them(model: streamsgd.Model, table: pa.Table, tmp_path: Path) -> None:
    model.save(tmp_path / "m.sgd")
    for given in (
        [GEO, INTERNET],
        ["own_kinds:Geo", "own_kinds:Internet"],
        [Geo, Internet],
        ["place=own_kinds:Geo", Internet()],
    ):
        loaded = streamsgd.load(tmp_path / "m.sgd", column_kind=given)
        assert loaded.encoding == model.encoding, "with the fields of the model"
        assert np.array_equal(loaded.predict(table), model.predict(table))
        assert loaded.to_bytes() == model.to_bytes()
    with pytest.raises(ModelError, match="no file makes us import code: say where it is with --column-kind own_kinds:Geo"):
        streamsgd.load(tmp_path / "m.sgd")
    with pytest.raises(ModelError, match="--column-kind own_kinds:Internet"):
        streamsgd.load(tmp_path / "m.sgd", column_kind=GEO)
    with pytest.raises(DataError, match="has no column 'place'"):
        model.predict(table.drop_columns(["place"]))


def test_files_without_them_say_nothing_of_them(table: pa.Table) -> None:
    plain = streamsgd.train(table.select(["word", "y"]), "y", **PLAIN)
    assert "custom" not in plain.header()["encoding"]


# --- law: the command line and other processes have them too


def test_another_process_trains_shows_and_scores(table: pa.Table, model: streamsgd.Model, tmp_path: Path) -> None:
    pq.write_table(table, tmp_path / "d.parquet", row_group_size=500)
    out, flags = tmp_path / "m.sgd", ("--column-kind", f'"{GEO}"', "--column-kind", INTERNET)
    trained = _process(tmp_path, "train", tmp_path / "d.parquet", "--target", "y", *flags, "--memory", "1GB", "-o", out)
    assert trained.returncode == 0, trained.stderr
    shown = _process(tmp_path, "show", out, "--json", *flags[2:], "--column-kind", "own_kinds:Geo")
    summary = json.loads(shown.stdout)
    assert {"place.latitude", "place.longitude"} <= {column["name"] for column in summary["columns"]}
    assert "12/8" in {value["value"] for value in summary["values"]}
    refused = _process(tmp_path, "predict", out, tmp_path / "d.parquet", "-o", tmp_path / "p.parquet")
    assert refused.returncode == 2
    assert "no file makes us import code" in refused.stderr
    scored = _process(tmp_path, "predict", out, tmp_path / "d.parquet", "-o", tmp_path / "p.parquet", *flags)
    assert scored.returncode == 0, scored.stderr
    here = streamsgd.load(out, column_kind=[GEO, INTERNET]).predict(table)
    assert np.array_equal(pq.read_table(tmp_path / "p.parquet")["prediction"].to_numpy(), here)


def test_inspect_explains_them(table: pa.Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(table, tmp_path / "d.parquet")
    assert main(["inspect", str(tmp_path / "d.parquet"), "--target", "y", "--column-kind", f'"{GEO}"']) == 0
    text = capsys.readouterr().out
    assert "place: latitude and longitude, divided by 45" in text
    assert "2,999 of 2,999 values are places" in text


def test_a_stopped_run_goes_on_with_them(table: pa.Table, tmp_path: Path) -> None:
    pq.write_table(table, tmp_path / "d.parquet", row_group_size=500)
    options: dict[str, Any] = {"column_kind": [GEO, INTERNET], "chunk_rows": 500, "epochs": 2, **PLAIN}
    whole = streamsgd.train(tmp_path / "d.parquet", "y", **options)
    stopping = {**options, "out": tmp_path / "m.sgd", "checkpoint_chunks": 1, "time_limit": 1e-9}
    with pytest.raises(streamsgd.StreamSGDError, match="stopped by"):
        streamsgd.train(tmp_path / "d.parquet", "y", **stopping)
    resumed = streamsgd.train(tmp_path / "d.parquet", "y", **{**stopping, "time_limit": None, "resume": "always"})
    assert np.array_equal(resumed.weights, whole.weights)
    assert resumed.encoding == whole.encoding


def _process(folder: Path, *args: Any) -> "subprocess.CompletedProcess[str]":
    here = [str(Path(__file__).parents[1]), str(Path(streamsgd.__file__).parents[1])]
    path = os.pathsep.join([*here, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "streamsgd", *map(str, args)]
    env = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder, timeout=120, check=False)
