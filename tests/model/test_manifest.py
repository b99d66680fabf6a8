"""Scoring of what is empty, and of what is gone: outputs follow their inputs, and nothing else is touched."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.fs import LocalFileSystem

import streamsgd
from streamsgd.cli.main import main
from streamsgd.model import manifest

TABLE = pa.table({"key": range(200), "x": np.linspace(0, 1, 200), "y": [0, 1] * 100})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("manifest") / "m.sgd"
    streamsgd.train(TABLE, "y", out=path, id=["key"], executor="inline", epochs=1, optimizer="adam")
    return path


def days(folder: Path, *numbers: int) -> Path:
    for day in numbers:
        (folder / f"day={day}").mkdir(parents=True)
        pq.write_table(TABLE, folder / f"day={day}" / "p.parquet")
    return folder


def there(out: Path) -> set[str]:
    return {path.relative_to(out).as_posix() for path in out.rglob("*.parquet")}


def score(model: Path, data: Path, out: Path, *more: str) -> dict[str, int]:
    assert main(["predict", str(model), str(data), "-o", str(out), "--executor", "inline", "--quiet", *more]) == 0
    return {}


def test_outputs_whose_input_is_gone_are_deleted_if_asked_for(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data, out = days(tmp_path / "data", 1, 2, 3), tmp_path / "out"
    score(model, data, out)
    shutil.rmtree(data / "day=2")
    score(model, data, out)
    assert len(there(out)) == 3
    capsys.readouterr()
    score(model, data, out, "--prune")
    assert json.loads(capsys.readouterr().out)["files_pruned"] == 1
    assert there(out) == {"day=1/p.parquet", "day=3/p.parquet"}
    assert manifest.Outputs(LocalFileSystem(), str(out)).entries().keys() == there(out)


def test_only_what_the_list_names_and_scoring_wrote_is_deleted(model: Path, tmp_path: Path) -> None:
    data, out = days(tmp_path / "data", 1, 2, 3), tmp_path / "out"
    score(model, data, out)
    pq.write_table(TABLE, out / "mine.parquet")  # not in the list
    shutil.rmtree(data / "day=2")
    shutil.rmtree(data / "day=3")
    pq.write_table(TABLE, out / "day=3" / "p.parquet")  # in the list, but somebody else's now
    score(model, data, out, "--prune")
    assert there(out) == {"day=1/p.parquet", "day=3/p.parquet", "mine.parquet"}


def test_a_part_of_the_data_prunes_nothing_of_the_rest(model: Path, tmp_path: Path) -> None:
    """Other days were scored by other calls: their inputs are still there."""
    data, out = days(tmp_path / "data", 1, 2), tmp_path / "out"
    score(model, data, out)
    score(model, data / "day=1", out, "--prune")
    assert there(out) == {"day=1/p.parquet", "day=2/p.parquet"}
    elsewhere = days(tmp_path / "other", 1)
    score(model, elsewhere, out, "--prune")
    assert there(out) == {"day=1/p.parquet", "day=2/p.parquet"}


def test_a_list_that_leads_out_of_its_folder_leads_nowhere(model: Path, tmp_path: Path) -> None:
    data, out = days(tmp_path / "data", 1), tmp_path / "out"
    score(model, data, out)
    score(model, data, tmp_path / "other")
    list_file = out / manifest.NAME
    found = json.loads(list_file.read_text())
    found["outputs"]["../other/day=1/p.parquet"] = {**found["outputs"]["day=1/p.parquet"], "path": "/gone"}
    list_file.write_text(json.dumps(found))
    score(model, data, out, "--prune")
    assert there(tmp_path / "other") == {"day=1/p.parquet"}
    list_file.write_text("{")
    assert main(["predict", str(model), str(data), "-o", str(out), "--prune", "--quiet"]) == 2


@pytest.mark.parametrize("how", ["no rows", "no group", "filtered", "no file"])
def test_an_empty_partition_scores_to_an_empty_output(how: str, model: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    if how == "no rows":
        pq.write_table(TABLE.slice(0, 0), data / "p.parquet")
    elif how == "no group":
        pq.ParquetWriter(data / "p.parquet", TABLE.schema).close()
    elif how == "filtered":
        pq.write_table(TABLE, data / "p.parquet")
    else:
        (data / "_SUCCESS").touch()
    score(model, data, out, *(["--filter", "x > 2"] if how == "filtered" else []))
    if how == "no file":
        assert not there(out)
        return
    found = pq.read_table(out / "p.parquet")
    assert found.num_rows == 0
    assert found.column_names == ["key", "prediction", "probability"]
    score(model, days(tmp_path / "full", 1), tmp_path / "whole")
    assert pq.ParquetFile(tmp_path / "whole" / "day=1" / "p.parquet").schema_arrow.equals(found.schema)


def test_a_folder_that_is_not_there_or_holds_something_else_is_an_error(model: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "notes.txt").write_text("no Parquet")
    for place in (tmp_path / "nowhere", tmp_path / "data"):
        assert main(["predict", str(model), str(place), "-o", str(tmp_path / "out"), "--quiet"]) == 2
