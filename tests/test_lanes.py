"""Laws of lanes: who does the work, who dies of it and who is late at it leaves no trace in the model."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dask.utils import key_split
from workers import Crash, Slow

from streamsgd import cluster, workforce
from streamsgd.checkpoint import Checkpoints
from streamsgd.clusters import LocalWorkers
from streamsgd.errors import ClusterError, SettingsError, UnreadableError
from streamsgd.parquet import PieceReader
from streamsgd.settings import make_settings
from streamsgd.trainer import Progress, train_model

N_ROWS, GROUP, CHUNK = 6000, 125, 500
BASE: dict[str, Any] = {
    "target": "y",
    "epochs": 2,
    "chunk_rows": CHUNK,
    "memory": "2GB",
    "validation": 0.1,
    "executor": "inline",
    "batch_size": 32,
}

CASES: dict[str, dict[str, Any]] = {
    "race": {"batch_size": "auto"},
    "adam": {"optimizer": "adam"},
    "momentum": {"optimizer": "momentum", "learning_rate": 0.01},
    "l1": {"optimizer": "sgd", "penalty": "l1:l1=0.001", "learning_rate": 0.01},
    "strings, nag": {"optimizer": "nag", "batch_size": 1, "features": ["x0", "x1", "s"]},
    "strings, ftrl": {"optimizer": "ftrl", "batch_size": 1, "features": ["x0", "x1", "s"]},
    "strings, coin": {"optimizer": "coin", "batch_size": 1, "features": ["x0", "x1", "s"]},
    "softmax": {"target": "kind", "optimizer": "adagrad"},
}


def write_data(folder: Path, n_rows: int = N_ROWS) -> Path:
    """Write numbers, strings of 2000 values, and targets of two and of three classes, in three files."""
    rng = np.random.default_rng(5)
    folder.mkdir(parents=True)
    for k in range(3):
        n = n_rows // 3
        x = rng.normal(size=(n, 4))
        score = x @ [1.0, -2.0, 0.5, 0.0] + rng.normal(size=n)
        columns: dict[str, Any] = {f"x{j}": pa.array(x[:, j], mask=rng.random(n) < 0.02) for j in range(4)}
        columns["s"] = pa.array([f"v{v}" for v in rng.integers(0, 2000, n)])
        columns |= {"y": (score > 0).astype(int), "kind": np.digitize(score, [-1.0, 1.0])}
        pq.write_table(pa.table(columns), folder / f"{k}.parquet", row_group_size=GROUP)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("lanes") / "data")


@pytest.fixture(scope="module")
def workers() -> Iterator[LocalWorkers]:
    """Three processes, which come back when they are killed."""
    with LocalWorkers(3) as found:
        found.client.wait_for_workers(3, timeout=60)
        yield found


def train(data: Path, *, client: Any = None, emit: Any = None, **settings: Any) -> bytes:
    given = {**BASE, "exclude": [] if "features" in settings else ["s", "kind"], **settings}
    if given["target"] == "kind":
        given["exclude"] = ["s", "y"]
    model, _ = train_model(str(data), make_settings(given), client=client, emit=emit)
    return model.to_bytes()


_ALONE: dict[str, bytes] = {}


def alone(data: Path, **settings: Any) -> bytes:
    """Return what one thread makes of it."""
    key = json.dumps(settings, sort_keys=True)
    if key not in _ALONE:
        _ALONE[key] = train(data, **settings)
    return _ALONE[key]


# --- law: lanes alone decide what comes out


@pytest.mark.parametrize("lanes", [1, 3, 4])
@pytest.mark.parametrize("case", CASES)
def test_threads_and_worker_processes_give_the_bytes_of_one_thread(
    data: Path, workers: LocalWorkers, case: str, lanes: int
) -> None:
    settings = {**CASES[case], "lanes": lanes}
    expected = alone(data, **settings)
    assert train(data, **{**settings, "executor": "dask", "threads": 3}) == expected
    assert train(data, **settings, client=workers.client) == expected


def test_lanes_are_part_of_what_is_computed(data: Path) -> None:
    assert len({alone(data, lanes=lanes) for lanes in (1, 3, 4)}) == 3


@pytest.mark.parametrize("n_workers", [1, 2])
def test_workers_started_for_the_run_give_the_bytes_of_one_thread(data: Path, n_workers: int) -> None:
    assert train(data, lanes=4, workers=n_workers) == alone(data, lanes=4)


# --- law: deaths leave no trace


def kill_one(workers: LocalWorkers, number: int) -> None:
    workers.processes[number].send_signal(signal.SIGKILL)


@pytest.mark.parametrize("case", ["race", "strings, nag"])
def test_workers_killed_between_and_within_rounds_leave_no_trace(data: Path, workers: LocalWorkers, case: str) -> None:
    kills = 0

    def emit(event: Progress) -> None:
        nonlocal kills
        if event.kind == "chunk" and kills < 5:
            later = threading.Timer(0.01 * kills, kill_one, [workers, kills % 3])
            later.start()
            kills += 1

    settings = {**CASES[case], "lanes": 4}
    assert train(data, **settings, client=workers.client, emit=emit) == alone(data, **settings)
    assert kills == 5


def test_all_workers_killed_at_once_leave_no_trace(
    data: Path, workers: LocalWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the common model is kept by one of them only."""
    monkeypatch.setattr(cluster, "DIRECT", 0)
    events = 0

    def emit(event: Progress) -> None:
        nonlocal events
        events += event.kind == "chunk"
        if events == 3:
            for number in range(3):
                kill_one(workers, number)

    assert train(data, lanes=4, client=workers.client, emit=emit) == alone(data, lanes=4)
    assert events > 3


def test_a_cluster_that_shrinks_to_one_and_grows_again_leaves_no_trace(data: Path) -> None:
    from distributed import Client, LocalCluster

    sizes: list[int] = []
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50) as local,
        Client(local, set_as_default=False) as client,
    ):

        def emit(event: Progress) -> None:
            if event.kind == "chunk":
                sizes.append(len(client.nthreads()))
                if len(sizes) == 2:
                    local.scale(1)
                elif len(sizes) == 6:
                    local.scale(3)
                    client.wait_for_workers(3, timeout=60)

        assert train(data, lanes=4, client=client, emit=emit) == alone(data, lanes=4)
        assert {1, 3} <= set(sizes)


# --- law: a run goes on from its checkpoint, wherever

DRIVER = ["-m", "streamsgd", "train"]


def command(data: Path, out: Path, *more: str) -> list[str]:
    words = [sys.executable, *DRIVER, str(data), "--out", str(out), "--lanes", "4", "--checkpoint-chunks", "1"]
    given = {**BASE, "exclude": None, "executor": None}
    for name, value in given.items():
        words += [f"--{name.replace('_', '-')}", str(value)] if value is not None else []
    return [*words, "--exclude", "s", "--exclude", "kind", *more]


def until(holds: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.02)


@pytest.mark.parametrize("then", [["--workers", "1"], ["--threads", "2"]], ids=" ".join)
def test_a_driver_that_is_killed_leaves_no_process_and_no_trace(data: Path, tmp_path: Path, then: list[str]) -> None:
    out = tmp_path / "model.sgd"
    driver = subprocess.Popen(command(data, out, "--workers", "2"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    kept = Checkpoints(f"{out}.ckpt", 2)
    until(lambda: kept.names() or driver.poll() is not None)
    children = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.communicate()
    assert len(children) >= 2
    _gone, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    assert not out.exists()
    done = subprocess.run(command(data, out, *then), capture_output=True, check=True, text=True)
    assert json.loads(done.stdout.splitlines()[-1])["resumed_from"]
    assert out.read_bytes() == alone(data, lanes=4)


# --- law: who kills workers is named


@pytest.fixture
def crash(workers: LocalWorkers) -> Iterator[int]:
    """Have a row group kill whoever reads it."""
    group = 21
    workers.client.register_plugin(Crash(group))
    yield group
    workers.client.unregister_worker_plugin("crash")


def test_a_row_group_that_kills_is_named(data: Path, workers: LocalWorkers, crash: int) -> None:
    with pytest.raises(UnreadableError, match=rf"1\.parquet, row group {crash - 16}: killed one worker after another"):
        train(data, lanes=4, client=workers.client)


def test_a_row_group_that_kills_is_left_out_and_counted_also_after_a_stop(
    data: Path, workers: LocalWorkers, crash: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings({**BASE, "lanes": 4, "exclude": ["s", "kind"], "unreadable": "skip"})
    model, _ = train_model(str(data), settings, client=workers.client)
    assert model.provenance["counts"]["skipped"] == GROUP
    assert f"row group {crash - 16}: killed" in "".join(model.provenance["left_out"])
    # As where reading it is an error that can be caught.
    sound = PieceReader.read

    def read(reader: Any, piece: Any, *args: Any) -> Any:
        if piece.first <= crash < piece.last:
            raise UnreadableError(model.provenance["left_out"][0])
        return sound(reader, piece, *args)

    monkeypatch.setattr(PieceReader, "read", read)
    assert train_model(str(data), settings)[0].to_bytes() == model.to_bytes()
