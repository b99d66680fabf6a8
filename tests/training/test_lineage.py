"""The runs that led to a model: what each learned can be told, and data that is learned again is noticed."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.errors import ModelError
from streamsgd.redact import remember
from streamsgd.training.resuming.start import lineage_of

ROWS = 300
PLAIN: dict[str, Any] = {"executor": "inline", "memory": "1GB", "epochs": 1}


@pytest.fixture
def days(tmp_path: Path) -> list[Path]:
    folders = [tmp_path / "days" / f"day={k}" for k in range(3)]
    for k, folder in enumerate(folders):
        folder.mkdir(parents=True)
        rng = np.random.default_rng(k)
        x = rng.normal(size=ROWS)
        pq.write_table(pa.table({"x": x, "y": x + rng.normal(size=ROWS)}), folder / "part.parquet")
    return folders


def learn(data: Any, out: Path, start: Path | None = None, **settings: Any) -> streamsgd.Model:
    begun = {"keep_memory": True} if start is None else {"start": str(start)}
    data = str(data) if isinstance(data, Path) else data
    return streamsgd.train(data, "y", out=out, exclude=["day"], **begun, **settings, **PLAIN)


def again(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    caplog.clear()
    return [text for text in found if "learned this data already" in text]


def test_data_that_is_learned_again_is_said_once_with_its_run(
    days: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tmp_path / "m.sgd"
    learn(days[0], model)
    learn(days[1], model, model)
    assert again(caplog) == []
    learn(days[0], model, model)
    (told,) = again(caplog)
    assert "in run 1 of 2 " in told
    learn(days[2], model, model)
    assert again(caplog) == []
    streamsgd.Trainer.load(model).partial_fit(str(days[2]))
    assert "in run 4 of 4 " in again(caplog)[0]


def test_other_rows_of_the_same_files_and_tables_of_one_size_are_not_taken_for_the_same(
    days: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tmp_path / "m.sgd"
    learn(days[0], model, filter="x > 0")
    learn(days[0], model, model, filter="x <= 0")
    assert again(caplog) == []
    learn(days[0], model, model, filter="x > 0")
    assert "in run 1 of 2 " in again(caplog)[0]
    tables = [pq.read_table(day / "part.parquet").select(["x", "y"]) for day in days]
    streamsgd.train(tables[0], "y", out=model, keep_memory=True, **PLAIN)
    streamsgd.train(tables[1], "y", out=model, start=str(model), **PLAIN)
    assert again(caplog) == []


def test_a_job_that_is_started_twice_is_passed_over_as_the_message_says(
    days: list[Path], tmp_path: Path, command_line: Any
) -> None:
    model = tmp_path / "m.sgd"
    learn(days[0], model)
    job = ("train", str(days[1]), "--target", "y", "--from", str(model), "-o", str(model), "--executor", "inline")
    ended = [command_line(*job, *more) for more in ((), ("--skip-if-done",), ())]
    assert [one.stderr.count("learned this data already, in run 2 of 2") for one in ended] == [0, 0, 1]
    assert '"already done"' in ended[1].stdout


def test_a_run_is_known_by_its_data(days: list[Path], tmp_path: Path, command_line: Callable[..., Any]) -> None:
    model = tmp_path / "m.sgd"
    learn(days[0], model)
    learn(days[1], model, model, filter="x > 0")
    learn([str(day) for day in days], model, model)
    shown = command_line("show", str(model), "--lineage").stdout.splitlines()
    assert shown[0].split()[-1] == "data"
    assert shown[1].endswith("  day=0/part.parquet")
    assert shown[2].endswith("  day=1/part.parquet, --filter 'x > 0'")
    assert shown[3].endswith("  day=0/part.parquet and 2 more")


def test_names_that_are_none_or_not_to_be_known_are_not_in_the_model(
    days: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamsgd.redact._known", set())
    hidden = learn(days[0], tmp_path / "hidden.sgd", values=False)
    table = pq.read_table(days[0] / "part.parquet").select(["x", "y"])
    plain = streamsgd.train(table, "y", keep_memory=True, **PLAIN)
    remember("s3://key:day=0/part@bucket")
    secret = learn(days[0], tmp_path / "secret.sgd")
    assert [lineage_of(model)[0].get("data") for model in (hidden, plain, secret)] == [None, None, "***.parquet"]
    assert b"day=0/part" not in (tmp_path / "hidden.sgd").read_bytes() + (tmp_path / "secret.sgd").read_bytes()


def test_the_bytes_of_a_model_do_not_say_where_its_data_was(days: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "copies" / "day=0"
    other.mkdir(parents=True)
    (other / "part.parquet").write_bytes((days[0] / "part.parquet").read_bytes())
    assert learn(days[0], tmp_path / "a").to_bytes() == learn(other, tmp_path / "b").to_bytes()


def test_a_lineage_that_is_damaged_is_refused(days: list[Path], tmp_path: Path) -> None:
    model = learn(days[0], tmp_path / "m.sgd")
    for wrong in ({"data": 5}, {"lineage": [{"fingerprint": "", "filter": 5}]}):
        streamsgd.Model(**{**vars(model), "provenance": {**model.provenance, **wrong}}).save(tmp_path / "wrong.sgd")
        with pytest.raises(ModelError, match="provenance"):
            streamsgd.load(tmp_path / "wrong.sgd")
