"""Laws of lanes: who does the work, who dies of it and who is late at it leaves no trace in the model."""

import json
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dask.utils import key_split
from distributed import Client, LocalCluster
from workers import Crash, Slow, Without

import streamsgd
from streamsgd.compute import client as clients
from streamsgd.compute import local_cluster as clusters
from streamsgd.compute.context import versions
from streamsgd.compute.executors import LOOPBACK
from streamsgd.compute.local_cluster import LocalWorkers
from streamsgd.data.parquet.pieces import PieceReader
from streamsgd.errors import ClusterError, SettingsError, UnreadableError
from streamsgd.planning.stragglers import parse_straggler
from streamsgd.settings.make import make_settings
from streamsgd.training.backends import pool as workforce
from streamsgd.training.backends import shipping
from streamsgd.training.backends.choose import warn_of_limits
from streamsgd.training.backends.pool import Assignment, WorkerPool
from streamsgd.training.checkpoint import Checkpoints
from streamsgd.training.events import Event
from streamsgd.training.job import Job
from streamsgd.training.run import train_model

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
    "l1": {"optimizer": "sgd", "penalty": "l1:l1=0.001", "learning_rate": 0.01},
    "strings, nag": {"optimizer": "normalized", "batch_size": 1, "features": ["x0", "x1", "s"]},
    "strings, ftrl": {"optimizer": "ftrl", "batch_size": 1, "features": ["x0", "x1", "s"]},
    "softmax": {"target": "kind", "optimizer": "adagrad"},
    "sync": {"optimizer": "adam", "combine": "sync", "batch_size": 100},
    "full batch, strings": {"optimizer": "adagrad", "batch_size": "full", "features": ["x0", "x1", "s"]},
    "polished": {"polish": 4, "epochs": 1, "batch_size": "auto"},
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


@contextmanager
def client_of(n_workers: int, *, processes: bool = True) -> Iterator[tuple[Any, Any]]:
    """Give a cluster as distributed makes it, nannies and all, and a client."""
    quiet = {"dashboard": False, "dashboard_address": LOOPBACK}
    with (
        LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            processes=processes,
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
            scheduler_kwargs=quiet,
        ) as local,
        Client(local, set_as_default=False) as client,
    ):
        yield local, client


_ALONE: dict[str, bytes] = {}


def alone(data: Path, **settings: Any) -> bytes:
    """Return what one thread makes of it."""
    key = json.dumps(settings, sort_keys=True)
    if key not in _ALONE:
        _ALONE[key] = train(data, **settings)
    return _ALONE[key]


# --- law: lanes alone decide what comes out


@pytest.mark.parametrize(("case", "lanes"), [*((case, 4) for case in CASES), ("race", 3), ("strings, nag", 1)])
def test_threads_and_worker_processes_give_the_bytes_of_one_thread(
    data: Path, workers: LocalWorkers, case: str, lanes: int
) -> None:
    settings = {**CASES[case], "lanes": lanes}
    expected = alone(data, **settings)
    assert train(data, **{**settings, "executor": "dask", "threads": 3}) == expected
    assert train(data, **settings, client=workers.client) == expected


def test_lanes_are_part_of_what_is_computed(data: Path) -> None:
    assert len({alone(data, lanes=lanes) for lanes in (1, 3, 4)}) == 3


@pytest.mark.parametrize("n_workers", [2])
def test_workers_started_for_the_run_give_the_bytes_of_one_thread(data: Path, n_workers: int) -> None:
    assert train(data, lanes=4, workers=n_workers) == alone(data, lanes=4)


# --- law: deaths leave no trace


def kill_one(workers: LocalWorkers, number: int) -> None:
    workers.processes[number].send_signal(signal.SIGKILL)


@pytest.mark.parametrize("case", ["race", "strings, nag"])
def test_workers_killed_between_and_within_rounds_leave_no_trace(data: Path, workers: LocalWorkers, case: str) -> None:
    kills = 0

    def emit(event: Event) -> None:
        nonlocal kills
        if event.kind == "chunk" and kills < 5:
            later = threading.Timer(0.01 * kills, kill_one, [workers, kills % 3])
            later.start()
            kills += 1

    settings = {**CASES[case], "lanes": 4}
    assert train(data, **settings, client=workers.client, emit=emit) == alone(data, **settings)
    assert kills == 5


def test_all_workers_killed_at_once_leave_no_trace(data: Path, workers: LocalWorkers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the common model is kept by one of them only."""
    monkeypatch.setattr(shipping, "DIRECT", 0)
    events = 0

    def emit(event: Event) -> None:
        nonlocal events
        events += event.kind == "chunk"
        if events == 3:
            for number in range(3):
                kill_one(workers, number)

    assert train(data, lanes=4, client=workers.client, emit=emit) == alone(data, lanes=4)
    assert events > 3


def test_a_cluster_that_shrinks_to_one_and_grows_again_leaves_no_trace(data: Path) -> None:
    sizes: list[int] = []
    with client_of(2) as (local, client):

        def emit(event: Event) -> None:
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


@pytest.mark.parametrize("then", [["--threads", "2"]], ids=" ".join)
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


class Enough(Exception):
    """Ends a run."""


def test_a_row_group_that_kills_is_left_out_and_counted_and_stays_out_after_a_stop(
    data: Path, workers: LocalWorkers, crash: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {**BASE, "lanes": 4, "exclude": ["s", "kind"], "unreadable": "skip"}
    saved = make_settings({**given, "checkpoint": str(tmp_path / "kept"), "checkpoint_chunks": 1})

    def emit(event: Event) -> None:
        if event.kind == "chunk" and event.epoch >= 1.2:
            raise Enough

    with pytest.raises(Enough):
        train_model(str(data), saved, client=workers.client, emit=emit)
    sound, touched, why = PieceReader.read, [], [""]

    def read(reader: Any, piece: Any, names: Any, *args: Any) -> Any:
        if piece.first <= crash < piece.last and "x0" in names:  # targets are looked at before a run begins
            touched.append(piece)
            raise UnreadableError(why[0])
        return sound(reader, piece, names, *args)

    monkeypatch.setattr(PieceReader, "read", read)
    model, report = train_model(str(data), saved)
    assert report.resumed_from
    assert not touched
    assert model.provenance["counts"]["skipped"] == GROUP
    why[:] = model.provenance["left_out"]
    assert f"1.parquet, row group {crash - 16}: killed" in "".join(why)
    # As where reading it is an error that can be caught, once the columns are known.
    monkeypatch.setattr(PieceReader, "read", sound)

    def after_the_first_look(_job: Job) -> None:
        monkeypatch.setattr(PieceReader, "read", read)

    assert train_model(str(data), make_settings(given), on_job=after_the_first_look)[0].to_bytes() == model.to_bytes()
    assert touched


# --- law: who is late leaves no trace, or exactly the one that was asked for


@pytest.fixture
def slow(workers: LocalWorkers) -> Iterator[None]:
    """Have one worker take ten times as long as the others."""
    workers.client.register_plugin(Slow(0.05, {max(workers.client.nthreads()): 10.0}))
    yield
    workers.client.unregister_worker_plugin("slow")


@pytest.mark.usefixtures("slow")
def test_what_is_late_is_done_again_and_leaves_no_trace(
    data: Path, workers: LocalWorkers, caplog: pytest.LogCaptureFixture
) -> None:
    expected = alone(data, lanes=4)
    with caplog.at_level(logging.INFO, "streamsgd"):
        assert train(data, lanes=4, client=workers.client) == expected
    assert "is late and is done again by" in caplog.text
    assert train(data, lanes=4, client=workers.client, straggler="wait") == expected


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("straggler", ["drop:1", "deadline:0.9"])
def test_rows_that_are_dropped_are_counted(data: Path, workers: LocalWorkers, straggler: str) -> None:
    """What was learned and what was lost is everything."""
    given = {**BASE, "lanes": 3, "exclude": ["s", "kind"], "validation": 0.0, "straggler": straggler}
    model, report = train_model(str(data), make_settings(given), client=workers.client)
    lost = model.provenance["counts"]["lost"]
    assert lost > 0
    assert lost % CHUNK == 0
    assert report.rows + lost == 2 * N_ROWS


def test_a_round_ends_early_by_its_policy_alone() -> None:
    drop, deadline, again = (parse_straggler(text) for text in ("drop:2", "deadline:5", "again"))
    assert [drop.is_enough(4, n, 0.0) for n in (1, 2, 3)] == [True, True, False]
    assert not drop.is_enough(4, 1, 0.0, waiting=1), "what nobody had time for is not late"
    assert [deadline.is_enough(1, 3, seconds) for seconds in (4.9, 5.0)] == [False, True]
    assert not deadline.is_enough(0, 3, 9.0), "nothing is no result"
    assert not again.is_enough(3, 1, 1e9)


class _Client:
    """Remembers what it is given; everything ends at once."""

    status = "running"

    def __init__(self, *workers: str) -> None:
        self.workers, self.keys = dict.fromkeys(workers, 1), []

    def nthreads(self, callback_timeout: float) -> dict[str, int]:
        return dict(self.workers)

    def submit(self, *_args: Any, key: str, **_kwargs: Any) -> Any:
        self.keys.append(key)
        return SimpleNamespace(status="finished", add_done_callback=lambda _call: None)


def force_of(*workers: str, versions: dict[str, str] | None = None) -> WorkerPool:
    """Three looks: seen, able, fit."""
    answer = SimpleNamespace(status="finished", result=lambda timeout: (versions, None))
    force = WorkerPool(_Client(*workers), 1, *[lambda _worker: answer] * 2)
    for _ in range(3):
        force._looked = -9.0
        force.look()
    return force


def work(force: WorkerPool, worker: str, seconds: float, rows: int = 100) -> Assignment:
    """Have a worker begin something so many seconds ago."""
    task = Assignment(SimpleNamespace(status="pending"), worker, rows, time.monotonic() - seconds)
    force.began(task)
    return task


def end(force: WorkerPool, task: Assignment) -> None:
    task.future.status = "finished"
    force.note(task)
    force.ended(task)


def test_a_slow_worker_gets_what_nobody_else_would_end_sooner() -> None:
    force = force_of("a", "b")
    for worker, seconds in (("a", 1.0), ("b", 10.0), ("a", 1.0), ("b", 10.0), ("a", 1.0)):  # of which the first of each loads
        end(force, work(force, worker, seconds))
    assert force.choose([100]) is force.workers["a"]
    busy = work(force, "a", 0.5)
    assert force.choose([100]) is None, "a is free in half a second and ends in one and a half"
    assert force.choose([100] * 12) is force.workers["b"], "twelve lanes would keep a busy for longer than one keeps b"
    force.ended(busy)
    for _ in range(64):
        force.end_round({"a"})
    assert force.workers["b"].pace == pytest.approx(0.01, rel=0.02), "what was slow is given another chance"


def test_what_nobody_waits_for_keeps_its_worker_busy() -> None:
    force = force_of("a")
    late = work(force, "a", 9.0)
    assert not force.free
    late.future.status = "finished"
    force._looked = -9.0
    force.look()
    assert [worker.address for worker in force.free] == ["a"]


def test_other_versions_on_a_worker_are_warned_of_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("streamsgd"), "propagate", True)
    force = force_of("a", "b", versions={**versions(), "numpy": "1.0"})
    assert len(force.fit) == 2
    assert caplog.text.count(f"numpy 1.0 there, {np.__version__} here") == 1


def test_dashboards_group_tasks_by_what_they_do() -> None:
    names = {
        "streamsgd-learn-epoch0-chunk12-0123456789ab-7": "streamsgd-learn",
        "streamsgd-join-0123456789ab-8": "streamsgd-join",
        "streamsgd-probe-epoch1-chunk2-0123456789ab-9": "streamsgd-probe",
    }
    assert {name: key_split(name) for name in names} == names


# --- law: what cannot work is said, soon


def test_a_scheduler_that_is_not_there_is_an_error(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "START", 1.0)
    monkeypatch.setattr(clients, "START", 1.0)
    with pytest.raises(ClusterError, match=r"--scheduler tcp://127\.0\.0\.1:1 does not answer"):
        train(data, scheduler="tcp://127.0.0.1:1")


def test_clients_that_cannot_be_used_are_refused(data: Path) -> None:
    with pytest.raises(SettingsError, match="is no synchronous"):
        train(data, client="tcp://127.0.0.1:8786")
    with client_of(0) as (_local, client):
        client.close()
        with pytest.raises(SettingsError, match="is not connected"):
            train(data, client=client)


def test_no_worker_is_an_error_after_a_while(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workforce, "NO_WORKER", 1.0)
    message = "no worker for 1 s at .*: start some, then the same command resumes"
    with client_of(0) as (_local, client), pytest.raises(ClusterError, match=message):
        train(data, client=client)


def test_workers_without_the_package_are_named(data: Path) -> None:
    with client_of(1) as (_local, client):
        client.register_plugin(Without("streamsgd"))
        with pytest.raises(ClusterError, match=r"worker tcp://\S+ cannot load what it needs .*: install there"):
            train(data, client=client)


# --- law: memory


def test_a_worker_whose_dask_limit_is_too_small_is_warned_of(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Dask would spill and kill where the budget allows."""
    job = streamsgd.plan(str(data), "y", lanes=2, memory="2GB")
    for limit, warned in ((job.budget.projected // 2, True), (4 * job.budget.projected, False)):
        caplog.clear()
        with (
            LocalCluster(
                n_workers=1,
                processes=False,
                memory_limit=limit,
                dashboard_address=None,
                scheduler_kwargs={"dashboard": False, "dashboard_address": LOOPBACK},
            ) as found,
            Client(found, set_as_default=False) as client,
        ):
            warn_of_limits(job, client)
        assert ("has a Dask memory_limit below what a worker of this job may take" in caplog.text) is warned


def test_workers_and_their_driver_stay_within_their_budget(tmp_path: Path) -> None:
    """Each of them, watched fifty times a second while lanes train on data of twice the budget."""
    rng, limit = np.random.default_rng(0), 600 * 10**6
    table = pa.table({**{f"x{k}": rng.normal(size=400_000).astype(np.float32) for k in range(30)}, "y": np.arange(400_000) % 2})
    for k in range(24):
        pq.write_table(table, tmp_path / f"{k}.parquet", row_group_size=50_000, compression="none", use_dictionary=False)
    command = [sys.executable, "-m", "streamsgd", "train", *map(str, sorted(tmp_path.glob("*.parquet"))), "--target", "y"]
    command += ["--lanes", "4", "--workers", "2", "--epochs", "1", "--memory", f"{limit}B", "-o", str(tmp_path / "m.sgd")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        peaks: dict[int, int] = {}
        driver = psutil.Process(process.pid)
        while process.poll() is None:
            with suppress(psutil.Error):
                for one in [driver, *driver.children(recursive=True)]:
                    peaks[one.pid] = max(peaks.get(one.pid, 0), one.memory_info().rss)
            time.sleep(0.02)
    assert process.returncode == 0
    # A library may ask the system something by a program that lives for a moment (`ldconfig`): a megabyte or two.
    assert sum(peak > 100e6 for peak in peaks.values()) == 3
    assert max(peaks.values()) <= limit
