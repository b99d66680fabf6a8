"""What tests share: where data is, how a small data set is written, and a run that is exact."""

import atexit
import gc
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamsgd.cli.main import main
from streamsgd.compute.local_cluster import LocalWorkers
from streamsgd.errors import Stopped
from streamsgd.settings import words
from streamsgd.settings.make import make_settings
from streamsgd.training.run import train_model

T = TypeVar("T")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

EXACT = {
    "target": "y",
    "precision": "float64",
    "scale": "none",
    "optimizer": "sgd",
    "schedule": "constant",
    "penalty": "none",
    "executor": "inline",
    "memory": "2GB",
}
"""Settings under which a run is textbook gradient descent from zero, in double precision."""


QUIET: dict[str, Any] = {
    "dashboard_address": None,
    "scheduler_kwargs": {"dashboard": False, "dashboard_address": "127.0.0.1:0"},
    "worker_dashboard_address": "127.0.0.1:0",
    "silence_logs": 50,
}
"""How a `LocalCluster` of a test starts without a port that another one may have."""


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell makes what it starts in the background ignore Ctrl-C, and so would all that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module", autouse=True)
def young_garbage() -> Iterator[None]:
    """Keep Python's collector from going through all that earlier modules compiled: of millions of objects nearly none goes."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def messages_as_written(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Match messages as they are written, with flags; tests marked `python_words` see what Python makes of them."""
    if "python_words" not in request.keywords:
        monkeypatch.setattr(words, "in_arguments", lambda text: text)


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Undo what a command that ran within the test's process did to the logger: the next test may look at what is said."""
    ours = logging.getLogger("streamsgd")
    before = ours.level, ours.propagate, ours.disabled, ours.handlers[:]
    yield
    ours.setLevel(before[0])
    ours.propagate, ours.disabled, ours.handlers = before[1:]


@pytest.fixture
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"the shared data folder {SHARED} is not there")
    return SHARED


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Any]:
    """A client of two worker processes, which take seconds to import what they need: a module starts them once."""
    with LocalWorkers(2) as found:
        found.client.wait_for_workers(2, timeout=60)
        yield found.client


class Ended(NamedTuple):
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def command_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Run commands of the command line within this process: one of its own takes seconds to import and to load kernels."""

    def run(*arguments: Any, **environ: str) -> Ended:
        capsys.readouterr()
        with monkeypatch.context() as patched:
            for name, value in environ.items():
                patched.setenv(name, value)
            code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Ended(code, said.out, said.err)

    return run


def status_of_child(run: Callable[[], object]) -> int:
    """Run in a child of this process and return how it ended: what it exited with, or the negative number of a signal.

    It has what this process compiled and imported, which a process of its own takes seconds for.
    """
    child = os.fork()
    if not child:
        try:
            signal.alarm(200)
            run()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - a child must not go on as the test
            traceback.print_exc()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Forked:
    """A child of this process in the words of `subprocess.Popen`: it need not import what this one has."""

    def __init__(self, run: Callable[[], object], err: tuple[int, int] | None = None) -> None:
        """Run; stderr is a pipe, or what `err` is the two ends of."""
        (out, to_out), (err, to_err) = os.pipe(), err or os.pipe()
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            try:
                for number, name in ((to_out, "stdout"), (to_err, "stderr")):
                    os.dup2(number, getattr(sys, f"__{name}__").fileno())
                    setattr(sys, name, os.fdopen(number, "w"))
                atexit._clear()  # of this process: the child leaves nothing to tidy up
                run()
            except BaseException:  # noqa: BLE001 - a child must not go on as the test
                traceback.print_exc()
            finally:
                os._exit(1)
        os.close(to_out)
        os.close(to_err)
        self.stdout, self.stderr = os.fdopen(out), os.fdopen(err)

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def poll(self) -> int | None:
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def communicate(self, timeout: float) -> tuple[str, str]:
        late = threading.Timer(timeout, self.send_signal, [signal.SIGKILL])
        late.start()
        with self.stdout, self.stderr:
            said = self.stdout.read(), self.stderr.read()
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        late.cancel()
        return said


def as_columns(x: np.ndarray, **others: Any) -> dict[str, Any]:
    return {**{f"x{j}": x[:, j] for j in range(x.shape[1])}, **others}


def finish_chunk_by_chunk(
    run: Callable[..., T], saved: Path, places: Iterator[dict[str, Any]], **settings: Any
) -> tuple[T, int]:
    """Stop a run wherever it can be stopped until it ends, each start in another place; return its result and the stops."""
    for stops in range(200):
        try:
            return run(checkpoint=str(saved), time_limit=1e-9, **{**settings, **next(places)}), stops
        except Stopped:
            continue
    raise AssertionError("does not end")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write columns to Parquet files of equal size in a new folder."""

    def write(columns: dict[str, Any], *, row_group_size: int | None = None, files: int = 1) -> Path:
        folder = tmp_path / f"data{len(list(tmp_path.glob('data*')))}"
        folder.mkdir()
        table = pa.table(columns)
        n = table.num_rows
        for k in range(files):
            part = table.slice(k * n // files, (k + 1) * n // files - k * n // files)
            pq.write_table(part, folder / f"{k:03}.parquet", row_group_size=row_group_size)
        return folder

    return write


@pytest.fixture
def train() -> Callable[..., Any]:
    """Train as `EXACT` says, unless told otherwise; gives (flat weights, model, report)."""

    def train(data: Path, **settings: Any) -> Any:
        model, report = train_model(data, make_settings({**EXACT, **settings}))
        return model.weights.ravel().copy(), model, report

    return train
