"""Laws of resuming: a run that was stopped, killed or damaged ends with the bytes of one left alone."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import finish_chunk_by_chunk

from streamsgd.errors import ModelError, Stopped
from streamsgd.settings.make import make_settings
from streamsgd.training.events import Report
from streamsgd.training.run import train_model

N_CHUNKS = 12
ROOT = Path(__file__).resolve().parents[2]
BASE = {"target": "y", "exclude": ["label"], "epochs": 2, "chunk_rows": 1000, "executor": "inline"}

PLACES = (
    {"executor": "dask", "threads": 3, "memory": "2GB"},
    {"executor": "inline", "memory": "700MB"},
    {"executor": "dask", "threads": 1, "memory": "20GB"},
)
"""What a run may be resumed with without a trace in the model."""


def write_data(folder: Path, seed: int = 0) -> Path:
    """Write 6000 rows in row groups that are merged, read whole, and streamed in slices."""
    rng = np.random.default_rng([seed, 2])
    folder.mkdir(parents=True)
    for k, row_group_size in enumerate((30, 400, 1500)):
        x = rng.normal(size=(2000, 4))
        y = x @ [1.0, -2.0, 3.0, 0.5] + rng.normal(size=2000)
        columns: dict[str, Any] = {f"x{j}": pa.array(x[:, j], mask=rng.random(2000) < 0.03) for j in range(4)}
        columns["y"] = pa.array(y, mask=rng.random(2000) < 0.01)
        columns["label"] = pa.array(y > 0)
        pq.write_table(pa.table(columns), folder / f"{k}.parquet", row_group_size=row_group_size)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("resume") / "data")


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("resume") / "valid", seed=1)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Where checkpoints go."""
    return tmp_path / "checkpoints"


def train(data: Path, **settings: Any) -> tuple[bytes, Report]:
    given = {**BASE, "bad_rows": "skip", **settings}
    model, report = train_model(str(data), make_settings(given))
    return model.to_bytes(), report


def stop_after(chunks: int, data: Path, saved: Path, **settings: Any) -> None:
    """Start over and over, one chunk each time."""
    for _ in range(chunks):
        with pytest.raises(Stopped, match=r"stopped by the time limit before epoch .*; start again to go on"):
            train(data, checkpoint=str(saved), time_limit=1e-9, **settings)


CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "slices": {"chunk_rows": 400},
    "in order": {"shuffle": "none"},
    "batches that span chunks": {"batch_size": 777},
    "full batch": {"batch_size": "full", "epochs": 3},
    "momentum": {"optimizer": "momentum", "learning_rate": 0.01},
    "held out": {"validation": 0.2},
    "held out, judged within epochs": {"validation": 0.2, "validate_every": 700, "patience": 50},
    "out of patience": {"validation": 0.2, "epochs": 9, "patience": 1, "min_improvement": 0.5},
    "filter": {"filter": "x0 > -1 and x1 < 1"},
    "indicators": {"missing": ["indicator", "x1=zero"]},
}


@pytest.mark.parametrize("case", CASES)
def test_stopped_at_every_chunk_it_ends_with_the_same_bytes(data: Path, saved: Path, case: str) -> None:
    """Also where each start has another executor, other threads and another memory budget."""
    settings = CASES[case]
    alone, report = train(data, **settings)
    (result, _), stops = finish_chunk_by_chunk(partial(train, data), saved, cycle(PLACES), **settings)
    assert result == alone
    assert stops >= N_CHUNKS - 1 if case != "out of patience" else 0 < report.epochs < 9
    assert not saved.exists(), "a finished run leaves no checkpoint"


def test_a_data_set_of_its_own_judges_the_same_after_a_stop(data: Path, valid: Path, saved: Path) -> None:
    settings = {"valid": str(valid), "patience": 2, "epochs": 4, "min_improvement": 0.01, "chunk_rows": 3000}
    alone, _ = train(data, **settings)
    assert finish_chunk_by_chunk(partial(train, data), saved, cycle(PLACES), **settings)[0][0] == alone


def test_labels_too(data: Path, saved: Path) -> None:
    settings = {"target": "label", "exclude": ["y"]}
    alone, _ = train(data, **settings)
    assert finish_chunk_by_chunk(partial(train, data), saved, cycle(PLACES), **settings)[0][0] == alone


def test_a_resumed_run_says_so_and_counts_every_row_once(data: Path, saved: Path) -> None:
    _, alone = train(data)
    stop_after(7, data, saved)
    _, report = train(data, checkpoint=str(saved))
    assert report.resumed_from == (0, 7)
    assert (report.rows, report.epochs, report.steps) == (alone.rows, 2, alone.steps)


@pytest.mark.parametrize("keep", [1, 3])
def test_only_so_many_checkpoints_are_kept(data: Path, saved: Path, keep: int) -> None:
    stop_after(5, data, saved, checkpoint_keep=keep)
    assert len(list(saved.iterdir())) == keep


# --- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("place", PLACES[:2], ids=["dask", "inline"])
def test_a_signal_saves_a_checkpoint_and_stops(data: Path, saved: Path, number: signal.Signals, place: dict[str, Any]) -> None:
    before = signal.getsignal(number)
    settings = make_settings({**BASE, "bad_rows": "skip", "checkpoint": str(saved), **place})
    with pytest.raises(Stopped, match=r"stopped by a signal before epoch \d, chunk \d: a checkpoint is in") as stop:
        train_model(str(data), settings, emit=lambda _event: os.kill(os.getpid(), number))
    assert stop.value.exit_code == 75
    assert signal.getsignal(number) is before
    assert len(list(saved.iterdir())) == 1
    alone, _ = train(data)
    assert train(data, checkpoint=str(saved))[0] == alone


def test_a_signal_without_a_folder_says_that_nothing_was_saved(data: Path) -> None:
    settings = make_settings({**BASE, "bad_rows": "skip"})
    with pytest.raises(Stopped, match=r"stopped by a signal .*nothing saved"):
        train_model(str(data), settings, emit=lambda _event: os.kill(os.getpid(), signal.SIGTERM))


def test_a_second_signal_stops_at_once(data: Path, saved: Path) -> None:
    def twice(_event: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    threads = {*threading.enumerate()}
    settings = make_settings({**BASE, "bad_rows": "skip", "checkpoint": str(saved), **PLACES[0]})
    with pytest.raises(KeyboardInterrupt):
        train_model(str(data), settings, emit=twice)
    left = [thread for thread in threading.enumerate() if thread not in threads]
    assert not [thread for thread in left if not thread.name.startswith("Dask-Offload")]


# --- damage


def flip(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 0x10]) + raw[at + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda raw: b"",
    "truncated": lambda raw: raw[: len(raw) // 2],
    "a byte short": lambda raw: raw[:-1],
    "a bit of the length flipped": lambda raw: flip(raw, 1),
    "a bit of the header flipped": lambda raw: flip(raw, 300),
    "a bit of the arrays flipped": lambda raw: flip(raw, len(raw) - 9),
    "replaced": lambda raw: b"something else" * 100,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_newest_checkpoint_is_passed_over(
    data: Path, saved: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    alone, _ = train(data)
    stop_after(5, data, saved)
    newest = max(saved.iterdir())
    newest.write_bytes(DAMAGE[damage](newest.read_bytes()))
    with caplog.at_level(logging.WARNING, "streamsgd"):
        result, report = train(data, checkpoint=str(saved))
    assert f"passing over a checkpoint: {newest}" in caplog.text
    assert report.resumed_from == (0, 4)
    assert result == alone


def test_after_a_damaged_one_new_checkpoints_count(data: Path, saved: Path) -> None:
    """The damaged checkpoint has the later name, and must not push out those that are made after it."""
    stop_after(6, data, saved, checkpoint_keep=4)
    *_, before, newest = sorted(saved.iterdir())
    newest.write_bytes(b"")
    before.write_bytes(b"")
    stop_after(1, data, saved, checkpoint_keep=1)
    assert [path.name for path in saved.iterdir()] == ["epoch000000-chunk000000005.ckpt"]
    assert train(data, checkpoint=str(saved))[0] == train(data)[0]


def test_if_every_checkpoint_is_damaged_it_says_what_to_do(data: Path, saved: Path) -> None:
    stop_after(3, data, saved)
    for path in saved.iterdir():
        path.write_bytes(b"")
    with pytest.raises(ModelError, match="no checkpoint can be read; delete the folder to start from"):
        train(data, checkpoint=str(saved))


def test_what_a_killed_writer_left_is_ignored_and_cleared(data: Path, saved: Path) -> None:
    stop_after(3, data, saved)
    newest = max(saved.iterdir())
    (saved / ".epoch000000-chunk000000004.ckpt.partial").write_bytes(newest.read_bytes()[:100])
    assert train(data, checkpoint=str(saved))[0] == train(data)[0]
    assert not saved.exists()


# --- what may not change


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 32}, "with --batch-size auto, this run is with --batch-size 32"),
        ({"learning_rate": 0.5}, "without --learning-rate, this run is with --learning-rate 0.5"),
        ({"exclude": ["label", "x3"]}, "with --exclude 'label', this run is with --exclude 'label' --exclude 'x3'"),
        (
            {"seed": 1, "epochs": 5},
            "with (--seed 0, this run is with --seed 1|--epochs 2, this run is with --epochs 5) .and 1 more differ",
        ),
    ],
)
def test_other_settings_are_refused_by_name(data: Path, saved: Path, changed: dict[str, Any], message: str) -> None:
    stop_after(2, data, saved)
    with pytest.raises(ModelError, match=f"was made {message}.*--resume never to start anew"):
        train(data, checkpoint=str(saved), **changed)
    fresh, report = train(data, checkpoint=str(saved), resume="never", **changed)
    assert report.resumed_from is None
    assert fresh == train(data, **changed)[0]


def add_file(folder: Path) -> None:
    pq.write_table(pq.read_table(folder / "0.parquet").slice(0, 100), folder / "3.parquet")


def change_values(folder: Path) -> None:
    table = pq.read_table(folder / "1.parquet")
    pq.write_table(table.set_column(0, "x0", pa.array(np.arange(2000.0))), folder / "1.parquet")


@pytest.mark.parametrize("change", [add_file, change_values, lambda f: (f / "0.parquet").unlink()])
def test_other_data_is_refused(tmp_path: Path, saved: Path, change: Callable[[Path], None]) -> None:
    data = write_data(tmp_path / "data")
    stop_after(2, data, saved)
    change(data)
    with pytest.raises(ModelError, match=r"the data changed since the checkpoint in .* was saved"):
        train(data, checkpoint=str(saved))


def test_to_insist_on_resuming_needs_something_to_resume(data: Path, saved: Path) -> None:
    with pytest.raises(ModelError, match="--resume always: there is no checkpoint in"):
        train(data, checkpoint=str(saved), resume="always")
    with pytest.raises(ModelError, match="--resume always needs --checkpoint"):
        train(data, resume="always")
    stop_after(1, data, saved)
    assert train(data, checkpoint=str(saved), resume="always")[1].resumed_from == (0, 1)


# --- kills


def test_killed_at_random_instants_it_ends_with_the_same_bytes() -> None:
    """The small version of the proof: `python scripts/prove_kills.py --kills 200`."""
    command = [sys.executable, str(ROOT / "scripts" / "prove_kills.py"), "--kills", "3", "--rows", "4000"]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["kills"] == 3
    assert result["identical"] == result["runs"] > 0
