"""Sorted rows: a run says what it risks, and learns as well as from shuffled ones, the same bits wherever it runs."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.data.parquet.pieces import PieceReader
from streamsgd.data.shuffled import shuffling
from streamsgd.errors import SettingsError, Stopped
from streamsgd.inspection import risk
from streamsgd.inspection.risk import OrderLook
from streamsgd.planning.variance import between_chunks
from streamsgd.settings.make import make_settings
from streamsgd.training.prepare import prepare

Write = Callable[..., Path]
ROWS, WIDTH = 48_000, 8
SMALL: dict[str, Any] = {"chunk_rows": 4_000, "memory": "1GB", "executor": "inline", "epochs": 1}
"""Chunks of a twelfth of the rows, as of data that is larger than memory."""


def columns(n: int = ROWS) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(n, WIDTH)).astype(np.float32)
    y = rng.random(n) < 1.0 / (1.0 + np.exp(-x.sum(axis=1) / 2.0))
    return {**{f"x{j}": x[:, j] for j in range(WIDTH)}, "y": y.astype(np.int32)}


def in_order(found: dict[str, Any], order: np.ndarray) -> dict[str, Any]:
    return {name: np.asarray(values)[order] for name, values in found.items()}


def by_label(found: dict[str, Any]) -> dict[str, Any]:
    return in_order(found, np.argsort(found["y"], kind="stable"))


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING and "order of the rows" in r.getMessage()]


@pytest.mark.parametrize("groups", [1, 8, 32, 256])
@pytest.mark.parametrize("epochs", [1, 2])
def test_sorted_rows_train_to_what_shuffled_ones_do(write: Write, groups: int, epochs: int) -> None:
    shuffled, ordered = columns(), by_label(columns())
    mixed, apart = (write(data, row_group_size=ROWS // groups) for data in (shuffled, ordered))
    losses = []
    for data in (mixed, apart):
        model = streamsgd.train(data, "y", **{**SMALL, "epochs": epochs})
        losses.append(streamsgd.evaluate(model, mixed, executor="inline")["log_loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.005)


def test_one_row_group_is_looked_at_in_slices_to_its_end_and_read_once(
    write: Write, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    real = PieceReader.read
    monkeypatch.setattr(PieceReader, "read", lambda self, piece, *more: opened.append(piece) or real(self, piece, *more))
    data = write(by_label(columns()), row_group_size=ROWS)
    settings = make_settings({**SMALL, "target": "y"})
    job = prepare(data, settings)
    (said,) = warnings_of(caplog)
    assert "a chunk mixes 2.0 of 24 runs of 2,000 rows" in said
    assert job.order is not None
    assert job.order["between_units"] == pytest.approx(1.0, abs=0.1)
    assert sum(piece.rows == ROWS for piece in opened) <= 3  # the target twice, the columns once


def test_a_target_that_is_the_same_wherever_was_looked_is_said(
    write: Write, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(risk, "LEAST_UNITS", 3)
    monkeypatch.setattr(risk, "MOST_UNITS", 3)
    found = columns()
    data = write({**found, "y": np.r_[np.zeros(ROWS - 400, np.int32), np.ones(400, np.int32)]}, row_group_size=400)
    streamsgd.train(data, "y", **{**SMALL, "chunk_rows": 400})
    (said,) = warnings_of(caplog)
    assert "could not be told: the target is one and the same in all 3 of 120 places" in said
    assert "--shuffle external" in said


def test_a_risk_is_said_once_with_numbers_and_the_way_out(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    data = write(by_label(columns()), row_group_size=ROWS // 16)
    model = streamsgd.train(data, "y", **SMALL, shuffle="corgi")
    (said,) = warnings_of(caplog)
    assert "a chunk mixes 1.3 of 16 runs of 3,000 rows" in said
    assert all(word in said for word in ("--shuffle external", "streamsgd shuffle DATA OUT", "--memory", "% of the target"))
    order = model.provenance["order"]
    assert order["risk"]
    assert order["between_units"] == pytest.approx(1.0, abs=0.1)
    assert order["between_chunks"] == pytest.approx(between_chunks(order["between_units"], 16, 4 / 3))
    assert model.provenance["shuffle"] == "corgi"
    caplog.clear()
    streamsgd.train(data, "y", **SMALL, shuffle="none")
    (said,) = warnings_of(caplog)
    assert "16 runs of 3,000 rows are learned one after another" in said


def test_rows_without_a_risk_are_trained_on_in_silence(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    for seed in range(5):
        rows = in_order(columns(20_000), np.random.default_rng(seed).permutation(20_000))
        model = streamsgd.train(write(rows, row_group_size=500), "y", **SMALL)
        assert model.provenance["shuffle"] == "corgi"
        assert not model.provenance["order"]["risk"]
    whole = write(by_label(columns()), row_group_size=1_000)
    assert streamsgd.train(whole, "y", **{**SMALL, "chunk_rows": ROWS}).provenance["shuffle"] == "corgi"
    assert not warnings_of(caplog)


def test_regression_and_classes_are_looked_at_too(write: Write) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=20_000)
    for y in (np.sort(x), np.sort(rng.integers(0, 4, 20_000)).astype(str), np.sort(rng.poisson(3.0, 20_000))):
        job = prepare(str(write({"x": x, "y": y}, row_group_size=1_000)), make_settings({**SMALL, "target": "y"}))
        assert job.order is not None
        assert job.order["risk"]
        assert job.external is not None


def test_plan_and_the_command_line_say_it(write: Write, tmp_path: Path, command_line: Callable[..., Any]) -> None:
    data = write(by_label(columns(12_000)), row_group_size=1_000)
    flags = ["--target", "y", "--chunk-rows", "2000", "--memory", "1GB", "--executor", "inline"]
    done = command_line("plan", data, *flags, "--json")
    assert done.returncode == 0
    assert done.stderr.count("order of the rows") == 1
    plan = json.loads(done.stdout)
    assert plan["shuffle"] == "external"
    assert plan["order"]["risk"]
    out = tmp_path / "m.sgd"
    done = command_line("train", data, "-o", out, *flags)
    assert done.returncode == 0
    assert done.stderr.count("order of the rows") == 1
    assert "m.sgd.ckpt.rows" in done.stderr
    said = json.loads(done.stdout)
    assert (said["shuffle"], said["order"]["risk"], said["order"]["shuffled_on_disk"]) == ("external", True, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data0", "m.sgd"]


def test_the_bits_are_the_same_in_any_memory_on_workers_and_after_kills(write: Write, tmp_path: Path) -> None:
    data = write(by_label(columns(20_000)), row_group_size=1_000, files=2)
    usual = {**SMALL, "epochs": 2, "validation": 0.1}
    expected = streamsgd.train(data, "y", **usual)
    assert expected.provenance["shuffle"] == "external"
    for where in ({"memory": "4GB", "executor": "dask", "threads": 2}, {"cache_dir": str(tmp_path / "cache")}):
        model = streamsgd.train(data, "y", **{**usual, **where})
        assert model.weights.tobytes() == expected.weights.tobytes()
        assert model.metrics == expected.metrics
    assert len(list((tmp_path / "cache").iterdir())) == 1
    places = ({"memory": "700MB"}, {"memory": "2GB", "cache_dir": str(tmp_path / "cache")})
    said = []
    for start in range(100):
        try:
            model = streamsgd.train(
                data, "y", checkpoint=str(tmp_path / "saved"), time_limit=1e-9, **{**usual, **places[start % 2]}
            )
        except Stopped as stop:
            said.append(str(stop))
            assert (tmp_path / "saved.rows").is_dir() or (tmp_path / ".saved.rows.shuffling").is_dir()
            continue
        break
    assert start > 3
    assert "shuffled on disk" in said[0]
    assert "before epoch" in said[-1]
    assert model.weights.tobytes() == expected.weights.tobytes()
    workers = streamsgd.train(data, "y", **{**usual, "workers": 2})
    assert workers.weights.tobytes() == expected.weights.tobytes()


def test_shuffled_rows_are_deleted_when_a_run_is_done_and_kept_in_a_cache(write: Write, tmp_path: Path) -> None:
    data = write(by_label(columns(20_000)), row_group_size=1_000)
    streamsgd.train(data, "y", out=tmp_path / "m.sgd", **SMALL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data0", "m.sgd"]
    streamsgd.train(data, "y", cache_dir=str(tmp_path / "cache"), **SMALL)
    (kept,) = (tmp_path / "cache").iterdir()
    before = {path.name: path.stat().st_mtime_ns for path in kept.iterdir()}
    streamsgd.train(data, "y", cache_dir=str(tmp_path / "cache"), **SMALL)
    assert {path.name: path.stat().st_mtime_ns for path in kept.iterdir()} == before


def test_what_cannot_be_shuffled_is_said_before_the_run(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = write(by_label(columns(20_000)), row_group_size=1_000)
    with pytest.raises(SettingsError, match="--cache-dir"):
        streamsgd.train(data, "y", **SMALL, scheduler="tcp://127.0.0.1:1")
    with pytest.raises(SettingsError, match="is no folder of this machine"):
        streamsgd.train(data, "y", **SMALL, cache_dir="s3://bucket/cache")
    with pytest.raises(SettingsError, match="--unreadable skip leaves some out"):
        streamsgd.train(data, "y", **SMALL, unreadable="skip", shuffle="external")
    with pytest.raises(SettingsError, match="table by table"):
        streamsgd.Trainer("y", shuffle="external")
    assert streamsgd.Trainer("y", shuffle="auto").settings.shuffle == "corgi"
    caplog.clear()
    model = streamsgd.train(data, "y", **SMALL, unreadable="skip")
    assert model.provenance["shuffle"] == "corgi"
    assert len(warnings_of(caplog)) == 1
    monkeypatch.setattr(shuffling.shutil, "disk_usage", lambda _: type("usage", (), {"free": 1000}))
    with pytest.raises(SettingsError, match=r"are free; .*--shuffle corgi"):
        streamsgd.train(data, "y", **SMALL)


def test_tables_are_shuffled_too_and_filters_and_weights_hold(write: Write) -> None:
    rows = by_label(columns(20_000))
    rows["w"] = np.arange(20_000) % 3
    data = write(rows, row_group_size=1_000)
    settings = {**SMALL, "weight": "w", "filter": "x0 > -1"}
    model = streamsgd.train(data, "y", **settings)
    assert model.provenance["shuffle"] == "external"
    assert model.provenance["counts"]["filtered"] == int((rows["x0"] <= -1).sum())
    assert model.provenance["rows_learned"] == 20_000 - model.provenance["counts"]["filtered"]
    in_memory = streamsgd.train(pa.table(rows), "y", **{**settings, "shuffle": "external"})
    assert in_memory.provenance["counts"] == model.provenance["counts"]


def test_a_time_limit_holds_while_rows_are_shuffled(write: Write, tmp_path: Path) -> None:
    data = write(by_label(columns(20_000)), row_group_size=1_000)
    with pytest.raises(Stopped, match="nothing is kept without --checkpoint or --cache-dir"):
        streamsgd.train(data, "y", **SMALL, time_limit=1e-9)
    cache = {"cache_dir": str(tmp_path / "cache"), "time_limit": 1e-9}
    with pytest.raises(Stopped, match=r"shuffled on disk, at [\d,]+ of 20,000: start again"):
        streamsgd.train(data, "y", **SMALL, **cache)
    assert any((tmp_path / "cache").iterdir())


def test_the_look_is_bounded(tmp_path: Path) -> None:
    """No more than a second for 40 row groups of a million rows."""
    y = np.repeat(np.arange(2, dtype=np.int32), 20_000_000)
    pq.write_table(pa.table({"x": pa.array(np.zeros(len(y), np.float32)), "y": y}), tmp_path / "large.parquet")
    settings = make_settings({"target": "y", "memory": "2GB", "chunk_rows": 1 << 21, "shuffle": "corgi"})
    prepare(str(tmp_path), settings)
    began = time.perf_counter()
    job = prepare(str(tmp_path), msg(settings, batch_size="full"))
    without = time.perf_counter() - began
    began = time.perf_counter()
    job = prepare(str(tmp_path), settings)
    assert time.perf_counter() - began < without + 3.0  # 0.5 s on an idle machine
    assert job.order is not None
    assert job.order["risk"]
    assert job.order["rows_read"] <= 24 << 20


def msg(settings: Any, **changed: Any) -> Any:
    return make_settings({**{f: getattr(settings, f) for f in settings.__struct_fields__}, **changed})


def test_the_variance_between_chunks_is_that_of_simulated_ones() -> None:
    """Chunks of n units drawn without replacement, by simulation."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=24)
    look = OrderLook(24, 24, 24_000, 1_000.0, float(means.var(ddof=1)), significant=True)
    drawn = [means[rng.permutation(24)[:5]].mean() for _ in range(20_000)]
    assert look.drift(5_000) == pytest.approx(np.var(drawn), rel=0.05)
    assert look.drift(24_000) == 0.0
    assert look.drift(500) == pytest.approx(look.drift(2_000))  # two by two
    assert look.drift(int(look.needed())) <= 0.0051 < look.drift(int(look.needed() / 1.4))
