"""Signals and streams: whenever one comes, the process ends in time with a code and a line that say what is there."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Forked
from dask.system import CPU_COUNT

import streamsgd
from streamsgd.cli import main as main_module
from streamsgd.cli import signals
from streamsgd.cli.entry import entry, leave
from streamsgd.cli.main import main
from streamsgd.compute.context import cpu_quota

STAGES = {
    "imports": ("streamsgd.data.parquet.pieces", None),
    "first look": ("streamsgd.features.choose", "choose_encoding"),
    "plan": ("streamsgd.planning.chunks", "make_plan"),
    "loop": ("streamsgd.training.learner", "Learner.fit"),
    "checkpoint": ("streamsgd.model.store", "write"),
    "saving": ("streamsgd.model.model", "Model.save"),
    "scoring": ("streamsgd.model.predict", "ParquetPredictor._predictions"),
}
"""Where a process says that it has come, and waits a moment."""

IMPORTS = """
import importlib.abc, os, sys, time

class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            sys.meta_path.remove(self)
            os.write(2, b"HERE\\n")
            until = time.monotonic() + float(os.environ["WAIT"])
            while time.monotonic() < until:
                time.sleep(0.01)

sys.meta_path.insert(0, Watch())
from streamsgd.cli.entry import entry, leave
leave(entry(sys.argv[2:]))
"""


Process = Forked | subprocess.Popen


def here(seconds: float) -> None:
    os.write(2, b"HERE\n")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.01)


def run_slowly(module: str, function: str, arguments: list[str], wait: float) -> None:
    """Be the process of the command line, which waits where it comes to a function for the first time."""
    *outer, last = function.split(".")
    owner: Any = importlib.import_module(module)
    for word in outer:
        owner = getattr(owner, word)
    usual, seen = getattr(owner, last), []

    def slow(*args: Any, **more: Any) -> Any:
        if not seen:
            seen.append(1)
            here(wait)
        return usual(*args, **more)

    setattr(owner, last, slow)
    for other in [other for name, other in sys.modules.items() if name.startswith("streamsgd.")]:
        if vars(other).get(last) is usual:  # who imported it by name
            setattr(other, last, slow)
    leave(entry(arguments))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "d.parquet"
    pq.write_table(pa.table({"x": rng.normal(size=4000), "y": rng.normal(size=4000)}), path, row_group_size=500)
    streamsgd.train(path, "y", out=path.with_name("m.sgd"), executor="inline", memory="1GB", optimizer="adam", chunk_rows=500)
    return path


def begin(stage: str, data: Path, out: Path, wait: float) -> Process:
    """Start a process and wait until it has come to a stage."""
    train = ["train", str(data), "--target", "y", "-o", str(out), "--epochs", "3", "--optimizer", "adam", "--chunk-rows", "500"]
    predict = ["predict", str(data.with_name("m.sgd")), str(data), "-o", str(out)]
    arguments = predict if stage == "scoring" else [*train, "--checkpoint-chunks", "1"]
    arguments += ["--memory", "2GB", "--quiet"]
    module, function = STAGES[stage]
    process: Process
    if function:
        process = Forked(lambda: run_slowly(module, function, arguments, wait))
    else:
        command, environ = [sys.executable, "-c", IMPORTS, module, *arguments], {**os.environ, "WAIT": str(wait)}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)
    return arrived(process)


def arrived(process: Any) -> Process:
    while process.stderr.readline() != "HERE\n":
        assert process.poll() is None
    return process


def ended(process: Process, seconds: float) -> tuple[str, str]:
    began = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - began < seconds
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    return out, err


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_any_stage_ends_the_process_with_one_line_and_the_same_command_goes_on(
    stage: str, number: signal.Signals, data: Path, tmp_path: Path
) -> None:
    process = begin(stage, data, tmp_path / "o", 1.0)
    process.send_signal(number)
    out, _ = ended(process, 10.0)
    in_the_loop = stage in ("loop", "checkpoint")  # a checkpoint is saved, whichever signal it was
    assert process.returncode == (130 if number == signal.SIGINT and not in_the_loop else 75)
    (line,) = out.splitlines()
    result = json.loads(line)
    assert result["status"] == "stopped"
    assert result["command"] == ("predict" if stage == "scoring" else "train")
    if stage != "scoring":
        assert (result["checkpoint"] is not None) == (stage in ("loop", "checkpoint", "saving"))
        assert bool(list(tmp_path.glob("o.ckpt/*.ckpt"))) == (stage in ("loop", "checkpoint", "saving"))
    assert not [path.name for path in tmp_path.rglob("*") if path.name.endswith((".partial", ".lock"))]


def test_a_second_signal_ends_it_at_once_though_the_first_has_not(data: Path, tmp_path: Path) -> None:
    process = begin("loop", data, tmp_path / "o", 60.0)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, _ = ended(process, 2.0 + 1.0)  # a busy machine
    assert process.returncode == 130
    assert json.loads(out)["status"] == "stopped"


def test_a_process_that_no_signal_reaches_ends_all_the_same() -> None:
    """Python's handlers wait for the main thread, which may be in code of somebody else."""
    code = (
        "import ctypes, os\n"
        "from streamsgd.cli import signals\n"
        "signals.GRACE = 1.0\n"
        "signals.Signals('train').arm()\n"
        "mutex = ctypes.create_string_buffer(64)\n"
        "ctypes.CDLL(None).pthread_mutex_lock(mutex)\n"
        "os.write(2, b'HERE\\n')\n"
        "ctypes.CDLL(None).pthread_mutex_lock(mutex)\n"  # for ever, and no signal wakes it
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    assert process.stderr.readline() == "HERE\n"
    until = time.monotonic() + 2.0  # it says HERE before it is stuck
    while "futex" not in Path(f"/proc/{process.pid}/wchan").read_text() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 75
    assert json.loads(out)["command"] == "train"


DROPPING = {
    "a bare except": "try:\n    wait()\nexcept BaseException:\n    pass",
    "C code": "import ctypes\nctypes.CFUNCTYPE(None)(wait)()",
    "a destructor": "class D:\n    def __del__(self):\n        wait()\nD()",
    "an import": "import slow\nassert slow.whole",
    "an import that is tried": "try:\n    import slow\nexcept BaseException:\n    pass\nimport slow\nassert slow.whole",
    "another exception": "try:\n    wait()\nexcept BaseException:\n    {}['x']",
}
"""Code in which a signal comes, and what is done with its exception there."""


def drop(code: str, folder: Path) -> None:
    """Listen to signals as the command line does, and run code that a signal comes in."""
    sys.path.insert(0, str(folder))
    sys.modules["here"] = module = types.ModuleType("here")
    vars(module)["wait"] = partial(here, 0.5)
    listening = signals.Signals("train")
    listening.arm()
    try:
        exec(code, vars(module))
        until = time.monotonic() + 5.0
        while time.monotonic() < until:
            pass
        left = 0
    except BaseException as error:  # noqa: BLE001 - as `main` does
        left = main_module._failed(error, listening, as_json=False)
    os._exit(left)


@pytest.mark.parametrize("where", DROPPING)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_whose_exception_is_dropped_or_would_break_an_import_is_taken_after_it(
    where: str, number: signal.Signals, tmp_path: Path
) -> None:
    tmp_path.joinpath("slow.py").write_text("from here import wait\nwait()\nwhole = True\n")
    process = arrived(Forked(lambda: drop(DROPPING[where], tmp_path)))
    process.send_signal(number)
    out, _ = ended(process, 2.5)
    assert process.returncode == (130 if number == signal.SIGINT else 75)
    assert json.loads(out)["status"] == "stopped"


# --- streams and the end


def command(data: Path, out: Path, shell: str) -> "subprocess.CompletedProcess[str]":
    words = f"{sys.executable} -m streamsgd train {data} --target y -o {out} --epochs 1 --optimizer adam --memory 1GB"
    return subprocess.run(f"{words} {shell}", shell=True, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("shell", "code", "said"),
    [
        (">&-", 2, "cannot be written to stdout: Bad file descriptor"),
        ("2>&-", 0, ""),
        (">&- 2>&- <&-", 2, ""),
        ("2>/dev/full", 0, ""),
        ("> /dev/full", 2, "cannot be written to stdout: No space left on device"),
    ],
)
def test_closed_and_full_streams_cost_no_model_and_are_named(
    shell: str, code: int, said: str, data: Path, tmp_path: Path
) -> None:
    done = command(data, tmp_path / "m.sgd", shell)
    assert done.returncode == code, done
    assert streamsgd.load(tmp_path / "m.sgd").weights.any()
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["train", "--help"], ["predict", "--help-all"]], ids=" ".join)
def test_pages_that_cannot_be_written_are_an_error_in_words(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(words) == 2
    assert "cannot be written to stdout: No space left on device" in capfd.readouterr().err


def test_what_was_registered_for_the_end_is_done_although_python_does_not_tidy_up() -> None:
    code = "import atexit; atexit.register(print, 'bye'); from streamsgd.cli.entry import leave; print('hi'); leave(3)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "hi\nbye\n")


def test_threads_are_counted_as_dask_does() -> None:
    assert cpu_quota() == CPU_COUNT


def test_small_runs_and_scoring_load_no_dask(data: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom streamsgd.cli.main import main\n"
        f"assert main(['train', {str(data)!r}, '--target', 'y', '-o', {str(tmp_path / 'm')!r}, '--epochs', '1']) == 0\n"
        f"assert main(['predict', {str(tmp_path / 'm')!r}, {str(data)!r}, '-o', {str(tmp_path / 's')!r}]) == 0\n"
        "print(sorted({'dask', 'distributed', 'cryptography', 'fsspec'} & {*sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("executor", ["auto", "dask"])
def test_a_child_forked_after_a_run_trains_the_same_model_and_says_why_it_starts_no_workers(
    executor: str, data: Path, tmp_path: Path
) -> None:
    code = f"""
import os, sys, streamsgd
def train(**more):
    return streamsgd.train({str(data)!r}, "y", memory="1GB", epochs=1, optimizer="adam", executor={executor!r}, **more)
first = train()
if os.fork() == 0:
    same = train().weights.tobytes() == first.weights.tobytes()
    try:
        said = "" if {executor!r} == "auto" else train(workers=1)
    except streamsgd.StreamSGDError as error:
        said = str(error)
    os.write(1, f"{{same}} {{said}}\\n".encode())
    os._exit(0)
os.wait()
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("True"), done
    assert executor == "auto" or re.search("forked from one that had Dask running.*spawn", done.stdout)
