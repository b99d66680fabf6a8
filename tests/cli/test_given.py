"""Words in the wrong place are told with the right one: models and data, swapped or too many."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.cli.commands import cli
from streamsgd.cli.main import main

N = 60
TABLE = pa.table({"x": np.sin(np.arange(N)), "y": np.arange(N) % 2})

OF_TWO = "compare"
OF_ONE = ("explain", "importance", "calibrate", "report")
WITH_ALSO = ("predict", "evaluate")
WITH_FROM = ("train", "plan", "sample")
OUT = ("predict", "explain", "calibrate", "report", "train", "sample")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    (folder / "hold").mkdir()
    pq.write_table(TABLE, folder / "hold" / "a.parquet")
    streamsgd.train(TABLE, "y", out=folder / "m.sgd", executor="inline", epochs=1)
    (folder / "c.sgd").write_bytes((folder / "m.sgd").read_bytes())
    (folder / "t.csv").write_text("x,y\n1,0\n" * 9)
    (folder / "tiny.json").write_text("[1]\n")
    return folder


@pytest.fixture(autouse=True)
def there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def said(args: list[str], capsys: Any) -> str:
    more = ["-o", "out"] if args[0] in OUT else []
    assert main([*args, *more]) == 2
    shown: str = capsys.readouterr().err
    assert len(shown.splitlines()) == 1
    return shown


def test_every_command_that_takes_data_is_here() -> None:
    takes = {name for name, command in cli.commands.items() if any(p.name == "data" for p in command.params)}
    assert {OF_TWO, *OF_ONE, *WITH_ALSO, *WITH_FROM} <= takes
    for name in takes:
        assert next(p for p in cli.commands[name].params if p.name == "data").callback is not None, name


@pytest.mark.parametrize("command", WITH_ALSO)
def test_a_second_model_is_for_also(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = said([command, "m.sgd", "c.sgd", "hold/"], capsys)
    assert "error: c.sgd is a model, and DATA is wanted there: name models beside the first with --also" in shown


@pytest.mark.parametrize("command", OF_ONE)
def test_a_second_model_has_no_place(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = said([command, "m.sgd", "c.sgd", "hold/"], capsys)
    assert f"error: c.sgd is a model, and DATA is wanted there: {command} takes one model, before DATA" in shown


def test_a_third_model_is_compared_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    shown = said([OF_TWO, "m.sgd", "c.sgd", "m.sgd", "hold/"], capsys)
    assert "m.sgd is a model, and DATA is wanted there: more than two are compared by evaluate MODEL DATA --also OTHER" in shown


@pytest.mark.parametrize("command", WITH_FROM)
def test_a_model_is_no_data_to_learn_from(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "m.sgd is a model, and DATA is wanted there: a model goes to --from" in said(
        [command, "m.sgd", "--target", "y"], capsys
    )


@pytest.mark.parametrize("data", ["hold", "hold/a.parquet"])
@pytest.mark.parametrize("command", [*WITH_ALSO, *OF_ONE])
def test_data_before_the_model_is_told(command: str, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = said([command, data, "m.sgd"], capsys)
    assert f"m.sgd is a model, and DATA is wanted there, while {data} is none: MODEL comes before DATA" in shown
    shown = said(["compare", "m.sgd", data, "c.sgd"], capsys)
    assert f"while {data} is none: MODEL OTHER comes before DATA" in shown
    assert f"{data}: is " in said([command, data, data], capsys)


@pytest.mark.parametrize("name", ["t.csv", "tiny.json"])
def test_what_is_no_parquet_is_told_so(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = said(["train", name, "--target", "y"], capsys)
    assert f"error: {place / name}: is not Parquet (" in shown
    assert "and nothing else is read: write it as Parquet" in shown


@pytest.mark.parametrize("more", [[], ["--unreadable", "skip"]])
@pytest.mark.parametrize("command", ["train", "predict", "evaluate"])
def test_a_truncated_file_among_others_is_told_by_its_whole_path(
    command: str, more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hold").mkdir()
    for name in "abc":
        pq.write_table(TABLE, tmp_path / "hold" / f"{name}.parquet")
    path = tmp_path / "hold" / "b.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    given = ["--target", "y"] if command == "train" else []
    shown = said([command, *([] if given else ["m.sgd"]), str(tmp_path / "hold"), *given, *more], capsys)
    assert f"error: {path}: it does not end with PAR1; it is truncated: remove it or write it again; " in shown
    assert "not a file without its footer: nobody knows what rows it holds" in shown


def test_a_size_without_its_unit_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    shown = said(["train", "hold/", "--target", "y", "--memory", "4"], capsys)
    assert "--memory: 4 without a unit is that many bytes; did you mean 4GB, or 4MB?" in shown


@pytest.mark.parametrize("given", ["l2=0.1", "l2:0.1", "l2(0.1)", "l2 0.1", "l2,l2=0.1"])
def test_a_part_that_is_written_otherwise_is_shown_as_it_is_written_here(
    given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "; write it as l2:l2=0.1" in said(["train", "hold/", "--target", "y", "--penalty", given], capsys)


def test_folders_that_are_made_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(TABLE, tmp_path / "a.parquet")
    pq.write_table(TABLE, tmp_path / "b.parquet")
    for command in ("predict", "explain"):
        for name, data in (("one", ["a"]), ("two", ["a", "b"])):
            out = tmp_path / command / f"{name}.parquet"
            out.parent.mkdir(exist_ok=True)
            assert main([command, "m.sgd", *[str(tmp_path / f"{each}.parquet") for each in data], "-o", str(out)]) == 0
            assert out.is_dir() == (name == "two") == (f"to the folder {out}, a file for each" in capsys.readouterr().err)
    for made in (True, False):
        out = tmp_path / "new" / "m.sgd"
        assert main(["train", str(tmp_path / "a.parquet"), "--target", "y", "--epochs", "1", "-o", str(out)]) == 0
        assert made == (f"saved {out}, in a folder that was made for it" in capsys.readouterr().err)
