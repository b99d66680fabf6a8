"""The command line: help, streams, exit codes, JSON, and that it is only a skin."""

import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Ended, Forked

import streamsgd
from streamsgd.cli.commands import cli
from streamsgd.cli.entry import entry, leave
from streamsgd.cli.main import main
from streamsgd.compute.memory import PeakMemory
from streamsgd.redact import Redactor
from streamsgd.settings.fields import Settings
from streamsgd.settings.registry import PARTS
from streamsgd.show.reporters import Plain

COMMANDS = sorted(cli.commands)
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


def rows(n: int, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)).astype(np.float32)
    y = (rng.random(n) < 1 / (1 + np.exp(-(x @ [1.0, -2.0, 0.5])))).astype(np.int64)
    return pa.table({**{f"x{j}": x[:, j] for j in range(3)}, "key": np.arange(n), "y": y})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "a.parquet"
    pq.write_table(rows(6_000), path, row_group_size=1_000)
    return path


@pytest.fixture(scope="module")
def model(data: Path) -> Path:
    path = data.parent / "m.sgd"
    streamsgd.train(data, "y", out=path, id=["key"], executor="inline", memory="2GB", epochs=2)
    return path


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in [key for key in os.environ if key.startswith("STREAMSGD_")]:
        monkeypatch.delenv(key)


def train_args(data: Path, out: Path, *more: str) -> list[str]:
    common = ["--target", "y", "--id", "key", "--executor", "inline", "--memory", "2GB", "--epochs", "2"]
    return ["train", str(data), "-o", str(out), *common, *more]


def run(args: list[str]) -> Ended:
    """Be the process of the command line in a child, which need not import what this one has."""
    child = Forked(lambda: leave(entry(args)))
    said = child.communicate(timeout=120)
    return Ended(child.returncode or 0, *said)


# --- help


def walk(command: click.Command, name: str = "streamsgd") -> Any:
    yield name, command
    for key, child in getattr(command, "commands", {}).items():
        yield from walk(child, f"{name} {key}")


def test_every_command_and_option_has_help() -> None:
    for name, command in walk(cli):
        assert command.help, name
        assert command.get_short_help_str(500).endswith((".", "...")), name
        for option in command.params:
            assert isinstance(option, click.Argument) or getattr(option, "help", None), (name, option.name)


def test_train_has_a_flag_for_every_setting() -> None:
    flags = {option for parameter in cli.commands["train"].params for option in parameter.opts}
    assert {f"--{field.replace('_', '-')}" for field in Settings.__struct_fields__} <= flags


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_defaults_and_exits_0(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(f"Usage: streamsgd {name}")
    assert shown.err == ""
    if name == "train":
        assert "[default: auto]" in re.sub(r"\s+", " ", shown.out)


HEAVY = ("numpy", "numba", "pyarrow", "dask", "distributed", "rich", "psutil", "fsspec", "safetensors")


TIMED = f"print([m for m in {HEAVY} if m in sys.modules], time.process_time(), file=sys.stderr)\n"


def spent_by(code: str) -> float:
    """Return the processor seconds of a new interpreter that runs code, which imports nothing heavy."""
    timed = "import sys, time\n" + code + TIMED
    done = subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True)
    heavy, _, spent = done.stderr.rpartition(" ")
    assert heavy == "[]"
    return float(spent)


@pytest.fixture(scope="module")
def seconds_of_its_libraries() -> float:
    return min(spent_by("import click, msgspec\n") for _ in range(3))


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_imports_nothing_heavy_and_takes_no_time(name: str, seconds_of_its_libraries: float) -> None:
    """It takes 1.4 times what importing click and msgspec takes; a slow or busy machine is slow at both."""
    args = [name, "--help"] if name else ["--help"]
    code = f"from streamsgd.cli.main import main\nassert main({args}) == 0\n"
    assert any(spent_by(code) < 2.2 * seconds_of_its_libraries + 0.05 for _ in range(3))


def test_parts_lists_the_registry_without_numpy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parts", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {kind: set(parts) for kind, parts in found.items()} == {kind: set(parts) for kind, parts in PARTS.items()}
    assert all(part["title"] for parts in found.values() for part in parts.values())
    assert found["loss"]["huber"]["fields"] == {"delta": 1.0}
    assert main(["parts"]) == 0
    assert "elastic-net" in capsys.readouterr().out


# --- the commands


def test_train_predict_evaluate_end_with_one_json_object(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.sgd"
    assert main(train_args(data, out, "--validation", "0.1")) == 0
    shown = capsys.readouterr()
    (line,) = shown.out.splitlines()
    result = json.loads(line)
    assert result["command"] == "train"
    assert result["model"] == str(out)
    assert result["rows"] + 2 * result["counts"]["held"] == 12_000
    assert result["metrics"]["progressive_loss"] < result["metrics"]["best_constant_loss"]
    assert result["metrics"]["held_out"]["auc"] > 0.8
    assert result["time"].keys() == {"wait", "fit", "other", "decode", "encode", "cache", "compile"}
    assert result["peak_memory_bytes"] > 50e6
    assert result["rows_per_second"] > 0
    assert "best constant loss" in shown.err
    assert main(["predict", str(out), str(data), "-o", str(tmp_path / "p.parquet"), "--executor", "inline"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["rows"], result["files"]) == (6_000, 1)
    assert pq.read_table(tmp_path / "p.parquet").column_names[0] == "key"
    assert main(["evaluate", str(out), str(data), "--executor", "inline"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["metrics"]["auc"] > 0.8
    assert result["rows"] == 6_000


def test_the_cli_makes_the_same_model_as_the_library(data: Path, model: Path, tmp_path: Path) -> None:
    assert main(train_args(data, tmp_path / "m.sgd", "--quiet")) == 0
    assert (tmp_path / "m.sgd").read_bytes() == model.read_bytes()


def test_progress_has_rows_2_to_the_k(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(train_args(data, tmp_path / "m.sgd", "--json")) == 0
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    marks = [event["rows"] for event in events if event["event"] == "progress"]
    assert marks == [1024, 2048, 4096, 8192]
    told = [event for event in events if event["event"] == "progress"]
    assert all({"loss", "recent", "rows_per_second", "bytes"} <= event.keys() for event in told)
    assert [event["state"] for event in events if event.get("stage") == "looking at how rows are ordered"] == [
        "begins",
        "ended",
    ]


def test_plan_says_what_train_would_do(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["plan", str(data), "--target", "y", "--id", "key", "--memory", "1GB", "--epochs", "3"]
    assert main([*args, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["data"]["rows"], plan["data"]["row_groups"], plan["epochs"]) == (6_000, 6, 3)
    assert plan["steps"] == 3 * -(-5_700 // plan["batch_size"]), "a twentieth is held out"
    sizes = {column["name"]: column for column in plan["columns"]}
    assert sizes["x0"]["decoded_bytes"] == 24_000
    assert sizes["y"]["decoded_bytes"] == 48_000
    stored = sum(column["encoded_bytes"] for column in plan["columns"])
    assert 0 < stored < plan["data"]["file_bytes"]
    memory = plan["memory"]
    assert memory["projected"] == sum(memory["parts"].values())
    assert memory["projected"] <= memory["limit"] == 10**9
    assert plan["estimate"]["seconds"] > plan["estimate"]["read_seconds"] > 0
    assert main(args) == 0
    text = capsys.readouterr().out
    assert "estimate, from decoding" in text
    assert "projected peak of 1.00 GB" in text


def test_inspect_and_show_print_text_and_json(data: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(data), "--target", "y"]) == 0
    assert "batch noise" in capsys.readouterr().out
    assert main(["inspect", str(data), "--target", "y", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["order"]["design_effect"].keys() == {"none", "block", "corgi"}
    assert main(["show", str(model), "--top", "2"]) == 0
    text = capsys.readouterr().out
    assert text.index("x1") < text.index("x0")
    assert "1 more column;" in text
    assert main(["show", str(model), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    weights, intercepts = streamsgd.load(model).coefficients()
    assert {c["name"]: c["weight"] for c in summary["columns"]} == dict(
        zip(("x0", "x1", "x2"), weights[:, 0].tolist(), strict=True)
    )
    assert summary["intercept"] == intercepts[0]


def test_show_has_a_table_for_every_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = rows(600).set_column(4, "y", pa.array(["a", "b", "c"] * 200))
    streamsgd.train(table, "y", out=tmp_path / "m.sgd", executor="inline", epochs=1)
    assert main(["show", str(tmp_path / "m.sgd")]) == 0
    text = capsys.readouterr().out
    assert all(f"class {name}" in text for name in "abc")


# --- streams


def test_without_a_terminal_there_are_no_control_characters(data: Path, tmp_path: Path) -> None:
    done = run(train_args(data, tmp_path / "m.sgd"))
    assert done.returncode == 0
    assert not CONTROL.search(done.stderr)
    assert not CONTROL.search(done.stdout)
    assert "since last" in done.stderr
    json.loads(done.stdout.splitlines()[-1])


def on_a_terminal(args: list[str], **environ: str) -> tuple[int, str]:
    """Run with stderr on a pseudo-terminal; return the exit code and what it showed."""

    def be() -> None:
        os.environ.update({"TERM": "xterm-256color", **environ})
        leave(entry(args))

    child, shown = Forked(be, os.openpty()), b""
    while True:
        try:
            part = os.read(child.stderr.fileno(), 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    child.stderr.close()
    while child.poll() is None:
        time.sleep(0.01)
    child.stdout.close()
    return child.poll(), shown.decode()


def test_a_terminal_gets_a_bar_and_no_color_no_colours(data: Path, tmp_path: Path) -> None:
    code, shown = on_a_terminal(train_args(data, tmp_path / "m.sgd"))
    assert code == 0
    assert "\x1b[" in shown
    assert "since last" in shown
    code, shown = on_a_terminal(train_args(data, tmp_path / "n.sgd"), NO_COLOR="1")
    assert code == 0
    assert not re.search(r"\x1b\[[0-9;]*m", re.sub(r"\x1b\[[01]?m", "", shown))


@pytest.mark.parametrize("command", ["train", "predict", "evaluate"])
def test_quiet_is_quiet(command: str, data: Path, model: Path, tmp_path: Path) -> None:
    args = {
        "train": train_args(data, tmp_path / "m.sgd"),
        "predict": ["predict", str(model), str(data), "-o", str(tmp_path / "p")],
        "evaluate": ["evaluate", str(model), str(data)],
    }[command]
    done = run([*args, "--quiet"])
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


def test_warnings_are_one_line_on_stderr(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(train_args(data, tmp_path / "m.sgd", "--chunk-rows", "300")) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert "streamed in slices" in warnings[0]
    silent = (logging.NullHandler, Redactor)
    assert not [h for h in logging.getLogger("streamsgd").handlers if not isinstance(h, silent)]


def test_a_reader_that_leaves_is_not_a_bug(data: Path) -> None:
    command = f"{sys.executable} -m streamsgd inspect {data} --json | head -c 1"
    done = subprocess.run(["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 141)
    assert done.stderr == ""


# --- exit codes


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "nowhere", "--target", "y", "-o", "m"], "nowhere"),
        (["train", "x"], "Missing option '-o'"),
        (["train", "x", "-o", "m"], "no target"),
        (["trian"], "train"),
        (["train", "x", "-o", "m", "--targt", "y"], "--target"),
        (["plan", "x", "--target", "y", "--epochs", "-1"], "--epochs: '-1' is not a whole number"),
        (["show", "nowhere.sgd"], "nowhere.sgd"),
        (["show", "m", "--top", "x"], "not a valid integer"),
        ([], "Usage"),
    ],
)
def test_what_the_user_can_fix_is_one_line_and_exit_2(
    args: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(args) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err
    if args:
        assert shown.err.startswith("error: ")
        assert len(shown.err.splitlines()) == 1


def test_plan_refuses_a_budget_and_names_one_that_holds(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["plan", str(data), "--target", "y", "--memory"]
    assert main([*args, "50MB"]) == 2
    found = re.search(r"--memory (\d+MB)$", capsys.readouterr().err.strip())
    assert found
    assert main([*args, found[1]]) == 0


def test_variables_and_files_reach_the_commands(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.toml"
    config.write_text("target = 'y'\nepochs = 2\nbatch_size = 10\n")
    monkeypatch.setenv("STREAMSGD_BATCH_SIZE", "20")
    assert main(["plan", str(data), "--json", "--config", str(config), "--epochs", "3"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["target"]["name"], plan["epochs"], plan["batch_size"]) == ("y", 3, 20)
    monkeypatch.setenv("STREAMSGD_EPOCH", "1")
    assert main(["plan", str(data), "--target", "y"]) == 2
    assert "STREAMSGD_EPOCH " in capsys.readouterr().err


def test_a_bug_shows_its_traceback_and_exits_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("streamsgd.show.parts.parts_text", broken)
    assert main(["parts"]) == 1
    shown = capsys.readouterr().err
    assert "ZeroDivisionError: oops" in shown
    assert "please report it" in shown


def test_interrupted_before_there_is_anything_to_save_is_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("streamsgd.show.parts.parts_text", interrupted)
    assert main(["parts"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


# --- stopping


@pytest.fixture
def long_run(tmp_path: Path) -> list[str]:
    """A run of many seconds and chunks."""
    data = tmp_path / "long.parquet"
    pq.write_table(rows(40_000), data, row_group_size=1_000)
    more = ["--epochs", "400", "--chunk-rows", "2000", "--checkpoint-every", "0.2", "--batch-size", "1"]
    return train_args(data, tmp_path / "m.sgd", *more)


def start(args: list[str]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "streamsgd", *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_checkpoint(args: list[str], child: "subprocess.Popen[str]") -> None:
    folder = Path(args[args.index("-o") + 1] + ".ckpt")
    until = time.monotonic() + 240
    while time.monotonic() < until and child.poll() is None:
        if any(folder.glob("*.ckpt")):
            return
        time.sleep(0.02)
    raise AssertionError(child.communicate(timeout=10))


def test_sigterm_saves_exits_75_and_the_same_command_goes_on(long_run: list[str]) -> None:
    child = start(long_run)
    wait_for_checkpoint(long_run, child)
    child.send_signal(signal.SIGTERM)
    out, err = child.communicate(timeout=240)
    assert child.returncode == 75, err
    assert json.loads(out.splitlines()[-1])["status"] == "stopped"
    assert "checkpoint" in err
    long_run[long_run.index("400")] = "400"
    again = start([*long_run, "--time-limit", "0.5"])
    out, err = again.communicate(timeout=240)
    assert again.returncode == 75, err
    assert "resumed" in err


def test_a_stopped_run_finishes_with_the_same_command(data: Path, tmp_path: Path, capsys: Any) -> None:
    args = train_args(data, tmp_path / "m.sgd", "--chunk-rows", "500")
    assert main([*args, "--time-limit", "0.000001"]) == 75
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["status"] == "stopped"
    assert main(args) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["status"] == "done"
    assert result["resumed_from"] == [0, 1]
    whole = tmp_path / "whole.sgd"
    assert main(train_args(data, whole, "--chunk-rows", "500", "--quiet")) == 0
    assert whole.read_bytes() == (tmp_path / "m.sgd").read_bytes()


def test_a_line_may_be_written_in_the_middle_of_another() -> None:
    """As the handler of a signal does: a lock that it waits for would never be given back."""

    class Interrupted(io.StringIO):
        def write(self, text: str) -> int:
            if text == "first\n":
                reporter.line("second")
            return super().write(text)

    stream = Interrupted()
    reporter = Plain(stream, PeakMemory())
    done = threading.Thread(target=reporter.line, args=("first",), daemon=True)
    done.start()
    done.join(10.0)
    assert not done.is_alive()
    assert stream.getvalue() == "second\nfirst\n"


def test_ctrl_c_twice_is_130(long_run: list[str]) -> None:
    child = start([*long_run, "--chunk-rows", "40000", "--batch-size", "1"])
    while "since last" not in child.stderr.readline():  # type: ignore[union-attr]
        assert child.poll() is None
    child.send_signal(signal.SIGINT)
    time.sleep(0.001)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=240)
    assert child.returncode in (75, 130), err  # 75 where the first one had saved before the second came
    assert "Traceback" not in err
