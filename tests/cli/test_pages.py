"""Help pages, JSON and quiet on every command, dry runs, and what the machine says of itself."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.cli.commands import cli
from streamsgd.cli.main import main
from streamsgd.settings.describe import describe
from streamsgd.show import machine

ROOT = Path(__file__).resolve().parents[2]

TABLE = pa.table({"x": [0.1, 0.9] * 500, "s": ["a", "b"] * 500, "y": [0, 1] * 500})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pages")
    pq.write_table(TABLE, path / "d.parquet")
    streamsgd.train(path / "d.parquet", "y", out=path / "m.sgd", executor="inline", epochs=1, optimizer="adam")
    return path


def arguments(name: str, place: Path, out: Path) -> list[str]:
    """Return arguments with which a command works."""
    data, model = str(place / "d.parquet"), str(place / "m.sgd")
    learn = ["--target", "y", "--epochs", "1", "--optimizer", "adam"]
    return {
        "train": [data, "--target", "y", "-o", str(out / "m.sgd"), "--epochs", "1", "--optimizer", "adam"],
        "plan": [data, "--target", "y"],
        "inspect": [data, "--target", "y"],
        "noise": [data, "--target", "y"],
        "shuffle": [data, str(out / "shuffled")],
        "predict": [model, data, "-o", str(out / "scores")],
        "evaluate": [model, data],
        "show": [model],
        "export": [model, "--to", "json", "-o", str(out / "m.json")],
        "tune": [data, *learn, "--grid", "learning_rate=0.01,0.1", "-o", str(out / "best.sgd")],
        "pilot": [data, "--target", "y", "--batch-size", "16,64", "--optimizer", "adam"],
        "sample": [data, "--target", "y", "--method", "laplace", "--prior", "normal:sd=1", "-o", str(out / "p.sgd")],
        "calibrate": [model, data, "-o", str(out / "c.sgd")],
        "compare": [model, model, data],
        "explain": [model, data, "-o", str(out / "why")],
        "importance": [model, data, "--rows", "200"],
        "report": [model, "-o", str(out / "m.html")],
        "parts": [],
        "doctor": [data],
        "warmup": ["--columns", "numbers", "--task", "binary", "--optimizer", "adam", "--executor", "inline"],
        "completion": ["bash"],
    }[name]


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_json_is_json_on_both_streams_and_quiet_is_quiet(
    name: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, *arguments(name, place, tmp_path), "--json"]) == 0
    shown = capsys.readouterr()
    json.loads(shown.out)
    for line in shown.err.splitlines():
        event = json.loads(line)
        assert {"time", "level", "event"} <= event.keys()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", event["time"])
    (tmp_path / "again").mkdir()
    assert main([name, *arguments(name, place, tmp_path / "again"), "--quiet"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_has_json_quiet_and_a_page_of_all_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert {"--json", "--quiet"} <= {option for parameter in cli.commands[name].params for option in parameter.opts}
    assert main([name, "--help-all"]) == 0
    page = capsys.readouterr().out
    for parameter in cli.commands[name].params:
        assert not isinstance(parameter, click.Option) or parameter.opts[0] in page, parameter.name


def test_errors_are_json_too_where_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "nowhere.sgd", "--json"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert said["level"] == "error"
    assert said["message"].startswith("nowhere.sgd")


def test_the_short_page_has_ten_options_and_the_long_one_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    short = capsys.readouterr().out
    first = short.partition("What matters first:\n")[2].partition("\n\n")[0]
    assert len(re.findall(r"^  -", first, re.MULTILINE)) == 10
    assert "Examples:\n  streamsgd train " in short
    assert main(["train", "--help-all"]) == 0
    every = capsys.readouterr().out
    for setting in describe():
        assert setting.flag in short, setting.name
        assert re.search(rf"^  {setting.flag}\b.*", every, re.MULTILINE) or setting.metavar == "", setting.name
    assert "which --help-all explains" not in every


def test_the_first_page_groups_commands_and_shows_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    page = capsys.readouterr().out
    for heading in ("Examples:", "Learn:", "Use a model:", "Look:", "This machine:"):
        assert heading in page
    for name in cli.commands:
        assert re.search(rf"^  {name} ", page, re.MULTILINE), name


def test_every_example_of_a_page_is_a_command_line_that_parses() -> None:
    for name, command in cli.commands.items():
        for example in getattr(command, "examples", ()):
            with click.Context(cli) as above:
                command.make_context(name, example.split(), parent=above, resilient_parsing=False)


def test_a_dry_run_says_what_the_run_would_do_and_writes_nothing(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "m.sgd"
    args = ["train", str(place / "d.parquet"), "--target", "y", "-o", str(out), "--epochs", "3", "--chunk-rows", "100"]
    assert main([*args, "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["status"], found["resumes_from"], found["plan"]["epochs"]) == ("dry run", None, 3)
    assert not out.parent.exists()
    assert main([*args, "--time-limit", "1e-6", "--quiet"]) == 75
    capsys.readouterr()
    kept = sorted(path.name for path in out.parent.rglob("*"))
    assert main([*args, "--dry-run"]) == 0
    assert f"from the checkpoint in {out}.ckpt" in capsys.readouterr().out
    assert main([*args, "--dry-run", "--resume", "never"]) == 0
    assert sorted(path.name for path in out.parent.rglob("*")) == kept
    assert main([*args, "--dry-run", "--epochs", "4"]) == 2
    assert "was made with --epochs 3, this run is with --epochs 4" in capsys.readouterr().err
    assert main(["train", str(place / "d.parquet"), "--target", "y", "-o", str(tmp_path), "--dry-run"]) == 2
    assert "is a folder" in capsys.readouterr().err
    assert (
        main(["train", str(place / "d.parquet"), "--target", "y", "-o", str(place / "d.parquet" / "m.sgd"), "--dry-run"]) == 2
    )
    assert "cannot be written" in capsys.readouterr().err


def test_a_dry_run_needs_no_place_for_a_model(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    args = ["train", str(place / "d.parquet"), "--target", "y", "--epochs", "3"]
    assert main([*args, "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["status"], found["model"], found["resumes_from"], found["plan"]["epochs"]) == ("dry run", None, None, 3)
    assert main([*args, "--dry-run", "--time-limit", "9", "--checkpoint", "kept"]) == 0
    assert "a dry run: nothing was written" in capsys.readouterr().out
    assert not any(tmp_path.iterdir())
    for more in ([], ["--dry-run", "--skip-if-done"], ["--loss", "no such"]):
        assert main([*args, *more]) == 2
        assert "Missing option '-o' / '--out'" in capsys.readouterr().err


def test_show_names_the_sampler_that_was_chosen(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(place / "m.sgd")]) == 0
    assert re.search(r"^  shuffle +corgi$", capsys.readouterr().out, re.MULTILINE)


# --- the machine


def test_the_doctor_finds_what_is_here(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(place), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["pyarrow"] == pa.__version__
    assert found["processors"]["usable"] <= (os.cpu_count() or 1)
    assert found["places"][0]["files"] == 1
    assert found["places"][0]["bytes"] == (place / "d.parquet").stat().st_size
    assert found["problems"] == []


def test_the_doctor_knows_every_extra_by_what_can_be_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`mlflow-skinny` brings mlflow; a folder of a library's name is not the library."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert machine.EXTRAS.keys() == extras.keys() - {"all"}
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "__init__.py").touch()
    (tmp_path / "hollow").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(machine.metadata, "packages_distributions", lambda: {"mlflow": ["numpy"]})
    monkeypatch.setattr(machine, "EXTRAS", {"mlflow": "mlflow", "s3": "no_such_library"})
    monkeypatch.setattr(machine, "OTHERS", ("hollow",))
    found = machine.examine()
    assert found["optional"] == {"mlflow": np.__version__, "no_such_library": None, "hollow": None}
    assert any(line.endswith("not installed: no_such_library (extra s3), hollow") for line in machine.machine_text(found))


def test_the_doctor_says_what_is_wrong_and_exits_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STREAMSGD_VALID", "s3://KEY:SECRETSECRET@bucket/x")
    assert main(["doctor", str(tmp_path / "nowhere")]) == 2
    text = capsys.readouterr().out
    assert "problem: " in text
    assert "no such file or folder" in text
    assert "SECRETSECRET" not in text


@pytest.mark.parametrize(
    ("words", "cursor", "wanted"),
    [
        ("streamsgd tr", 1, {"train"}),
        ("streamsgd train --opti", 2, {"--optimizer"}),
        ("streamsgd train --optimizer ad", 3, {"adam", "adamw", "adagrad"}),
        ("streamsgd train --resume a", 3, {"auto", "always"}),
    ],
)
def test_the_shell_completes_commands_flags_and_values(words: str, cursor: int, wanted: set[str]) -> None:
    env = {**os.environ, "_STREAMSGD_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(cursor)}
    done = subprocess.run([sys.executable, "-m", "streamsgd"], capture_output=True, text=True, env=env, check=False)
    assert {line.partition(",")[2] for line in done.stdout.splitlines()} == wanted


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_that_asks_us(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert f"_STREAMSGD_COMPLETE={shell}_complete" in capsys.readouterr().out


def test_progress_lines_of_a_run_have_time_and_level(place: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["train", *arguments("train", place, tmp_path), "--chunk-rows", "100", "--epochs", "2", "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {"job", "progress"} <= {event["event"] for event in events if event["level"] == "info"}
    warned = [event for event in events if event["level"] == "warning"]
    assert "streamed in slices" in warned[0]["message"]
