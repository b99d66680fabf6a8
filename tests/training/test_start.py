"""Runs that go on from a model: days learned one by one are days learned in one run."""

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd import serving
from streamsgd.errors import DataError, ModelError, SettingsError, Stopped
from streamsgd.training.resuming.start import lineage_of

ROWS = 2000


def day(number: int, rows: int = ROWS) -> pa.Table:
    """Return a day of clicks; each day brings values that no day before had."""
    rng = np.random.default_rng(number)
    x, site = rng.normal(size=rows), rng.choice(["a", "b", "c", f"new {number}"], rows)
    user = np.array([f"{value:x}" for value in rng.integers(0, 50_000, rows)])
    score = x + (site == "a") - 0.5 * np.array([int(value, 16) % 3 for value in user])
    return pa.table({"x": x, "site": site, "user": user, "y": (rng.random(rows) < 1 / (1 + np.exp(-score))).astype(int)})


@pytest.fixture
def days(tmp_path: Path) -> list[str]:
    paths = [str(tmp_path / f"day {k}.parquet") for k in range(4)]
    for k, path in enumerate(paths):
        pq.write_table(day(k), path, row_group_size=500)
    return paths


FIXED = {"shuffle": "none", "epochs": 1, "executor": "inline", "chunk_rows": 700}


def bits(model: streamsgd.Model) -> tuple[bytes, ...]:
    assert model.memory is not None
    return (model.weights.tobytes(), *(array.tobytes() for array in model.memory))


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "normalized"},
        {"optimizer": "normalized", "penalty": "l2:l2=1e-4"},
        {"optimizer": "coin"},
        {"optimizer": "ftrl", "batch_size": 20},
        {"optimizer": "adam", "schedule": "constant", "batch_size": 20},
        {"optimizer": "sgd", "schedule": "constant", "batch_size": 20, "precision": "float64"},
        {"optimizer": "normalized", "features": ["x"]},
        {"optimizer": "adagrad", "schedule": "constant", "features": ["x"], "batch_size": 20},
    ],
    ids=str,
)
def test_days_one_by_one_are_the_same_bytes_as_days_in_one_run(
    settings: dict[str, Any], days: list[str], tmp_path: Path
) -> None:
    first = streamsgd.train(days[0], "y", keep_memory=True, **settings, **FIXED)
    first.save(tmp_path / "0")
    whole = streamsgd.train(days[1:], "y", start=str(tmp_path / "0"), **FIXED)
    for k in (1, 2, 3):
        one = streamsgd.train(days[k], "y", start=str(tmp_path / f"{k - 1}"), **FIXED)
        one.save(tmp_path / f"{k}")
    assert bits(streamsgd.load(tmp_path / "3")) == bits(whole)
    assert not np.array_equal(whole.weights, first.weights)
    assert [run["rows_learned"] for run in lineage_of(one)] == [ROWS] * 4
    assert lineage_of(whole)[0]["fingerprint"] == first.provenance["fingerprint"]


def test_defaults_lose_little_by_coming_day_by_day(tmp_path: Path) -> None:
    """A race of the first day included; progressive loss over ten days against one run in the same order."""
    tables = [day(k, 8000) for k in range(10)]
    for k, table in enumerate(tables):
        pq.write_table(table, tmp_path / f"{k}.parquet")
    given = {"epochs": 1, "executor": "inline"}
    together = streamsgd.train([str(tmp_path / f"{k}.parquet") for k in range(10)], "y", shuffle="none", **given)
    model = streamsgd.train(str(tmp_path / "0.parquet"), "y", keep_memory=True, shuffle="none", **given)
    losses = [model.metrics["progressive_loss"]]
    for k in range(1, 10):
        model.save(tmp_path / "model")
        model = streamsgd.train(str(tmp_path / f"{k}.parquet"), "y", start=str(tmp_path / "model"), shuffle="none", **given)
        losses.append(model.metrics["progressive_loss"])
    assert np.mean(losses) == pytest.approx(together.metrics["progressive_loss"], rel=0.005)


def test_a_run_that_goes_on_can_be_stopped_and_resumed(days: list[str], tmp_path: Path) -> None:
    streamsgd.train(days[0], "y", keep_memory=True, optimizer="normalized", **FIXED).save(tmp_path / "0")
    given = {**FIXED, "start": str(tmp_path / "0"), "checkpoint": str(tmp_path / "kept"), "chunk_rows": 500}
    whole = streamsgd.train(days[1:], "y", **{**given, "checkpoint": None})
    starts = 0
    while True:
        try:
            again = streamsgd.train(days[1:], "y", time_limit=1e-6, **given)
            break
        except Stopped:
            starts += 1
    assert starts > 3
    assert bits(again) == bits(whole)
    assert lineage_of(again) == lineage_of(whole)


def test_a_trainer_goes_on_as_if_it_had_never_been_saved(tmp_path: Path) -> None:
    for settings in ({"optimizer": "normalized", "shuffle": "none"}, {}):
        trainer = streamsgd.Trainer("y", keep_memory=True, **settings).partial_fit(day(0))
        trainer.save(tmp_path / "t.sgd")
        again = streamsgd.Trainer.load(tmp_path / "t.sgd", shuffle="none").partial_fit(day(1))
        if settings:  # a race goes on in one and is over in the other
            assert bits(again.model) == bits(trainer.partial_fit(day(1)).model)
        assert again.model.memory is not None


# --- law: columns


def test_new_values_are_learned_and_new_columns_are_not(days: list[str], tmp_path: Path) -> None:
    streamsgd.train(days[0], "y", keep_memory=True, categorical=["site"], values=False, **FIXED).save(tmp_path / "0")
    wider = day(1).append_column("more", pa.array(np.arange(ROWS)))
    model = streamsgd.train(wider, "y", start=str(tmp_path / "0"), **FIXED)
    assert set(model.encoding.sources) == {"x", "site", "user"}
    seen, unseen = (model.decision_function({"x": 0.0, "site": site, "user": "5"}) for site in ("new 1", "never seen"))
    assert seen[0] != unseen[0]


def test_a_lost_column_and_one_of_another_type_are_refused_by_name(days: list[str], tmp_path: Path) -> None:
    streamsgd.train(days[0], "y", keep_memory=True, **FIXED).save(tmp_path / "0")
    given = {"start": str(tmp_path / "0"), **FIXED}
    with pytest.raises(DataError, match="'site'"):
        streamsgd.train(day(1).drop(["site"]), "y", **given)
    with pytest.raises(DataError, match="'x'"):
        streamsgd.train(day(1).set_column(0, "x", day(1)["site"]), "y", **given)


# --- law: what does not fit is refused


def test_what_cannot_be_gone_on_from_is_refused(days: list[str], tmp_path: Path) -> None:
    streamsgd.train(days[0], "y", **FIXED).save(tmp_path / "forgot")
    with pytest.raises(ModelError, match="--keep-memory"):
        streamsgd.train(days[1], "y", start=str(tmp_path / "forgot"), **FIXED)
    with pytest.raises(ModelError, match="no such file"):
        streamsgd.train(days[1], "y", start=str(tmp_path / "nothing"), **FIXED)
    streamsgd.train(days[0], "y", keep_memory=True, loss="logistic", optimizer="normalized", **FIXED).save(tmp_path / "0")
    given = {"start": str(tmp_path / "0"), **FIXED}
    with pytest.raises(SettingsError, match="predicts 'y'"):
        streamsgd.train(days[1], "x", **given)
    for name, value in (("optimizer", "adam"), ("loss", "hinge"), ("bits", 20), ("exclude", ["x"]), ("penalty", "l2")):
        with pytest.raises(SettingsError, match=f"--{name}"):
            streamsgd.train(days[1], "y", **{name: value}, **given)
    said = r"^--exclude 'x' --exclude 'u\*': the model .* was trained without --exclude; leave it out$"
    with pytest.raises(SettingsError, match=said):
        streamsgd.train(days[1], "y", exclude=["x", "u*"], **given)
    for name, value in (("polish", 5), ("average", 0.5)):
        with pytest.raises(SettingsError, match="--keep-memory"):
            streamsgd.train(days[1], "y", keep_memory=True, **{name: value}, **FIXED)


def test_memory_of_another_shape_is_refused_by_array(days: list[str], tmp_path: Path) -> None:
    model = streamsgd.train(days[0], "y", keep_memory=True, **FIXED)
    assert model.memory is not None
    good = model.memory
    for wrong, match in (
        (good._replace(sums=good.sums[:2]), "sums"),
        (good._replace(steps=good.steps.astype(np.float64)), "steps"),
        (good._replace(cells=good.cells[:-1]), "memory|used|weights"),
    ):
        model.memory = wrong
        model.save(tmp_path / "wrong")
        with pytest.raises(ModelError, match=match):
            streamsgd.load(tmp_path / "wrong")
    model.memory = good._replace(cells=good.cells[:, :1])
    model.save(tmp_path / "wrong")
    with pytest.raises(ModelError, match="remembers"):
        streamsgd.train(days[1], "y", start=str(tmp_path / "wrong"), **FIXED)


def test_no_file_makes_us_import_code(days: list[str], tmp_path: Path) -> None:
    model = streamsgd.train(days[0], "y", keep_memory=True, optimizer="normalized", **FIXED)
    place, parts = "antigravity:Class", model.provenance["parts"]
    for name in ("loss", "penalty", "optimizer", "schedule", "column_kind"):
        wrong = {**model.settings, name: [place] if name == "column_kind" else place}
        streamsgd.Model(**{**vars(model), "settings": wrong}).save(tmp_path / "wrong")
        with pytest.raises(ModelError, match="import code"):
            streamsgd.train(days[1], "y", start=str(tmp_path / "wrong"), **FIXED)
    model.provenance = {**model.provenance, "parts": {**parts, "optimizer": place}}
    model.save(tmp_path / "wrong")
    with pytest.raises(ModelError, match="import code"):
        streamsgd.train(days[1], "y", start=str(tmp_path / "wrong"), **FIXED)
    assert "antigravity" not in sys.modules


def test_a_model_that_keeps_its_memory_predicts_and_is_served_as_any(days: list[str], tmp_path: Path) -> None:
    plain, kept = (streamsgd.train(days[0], "y", keep_memory=keeps, **FIXED) for keeps in (False, True))
    assert np.array_equal(plain.weights, kept.weights)
    assert plain.memory is None
    assert "keep_memory" not in plain.settings
    kept.save(tmp_path / "kept")
    row = {"x": 0.3, "site": "a", "user": "5"}
    assert serving.load(tmp_path / "kept").predict_proba(row)[1] == pytest.approx(kept.predict_proba(row)[0, 1], abs=1e-6)
    assert bits(streamsgd.load(tmp_path / "kept")) == bits(kept)


# --- law: the command line


def test_a_daily_job(days: list[str], tmp_path: Path, command_line: Callable[..., Any]) -> None:
    def run(*arguments: str, code: int = 0, **environ: str) -> Any:
        done = command_line(*arguments, **environ)
        assert done.returncode == code, done.stderr
        return done.stdout

    common = ("--shuffle", "none", "--epochs", "1", "--executor", "inline")
    first = ("train", days[0], "--target", "y", "--keep-memory", *common, "-o", str(tmp_path / "0.sgd"))
    second = ("train", days[1], "--target", "y", "--from", str(tmp_path / "0.sgd"), *common, "-o", str(tmp_path / "1.sgd"))
    for command in (first, second):
        assert json.loads(run(*command, "--skip-if-done").splitlines()[-1])["status"] == "done"
        assert json.loads(run(*command, "--skip-if-done").splitlines()[-1])["status"] == "already done"
    run(*second, "--skip-if-done", "--skip-code", "99", code=99)
    assert json.loads(run(*second, "--skip-if-done", "--seed", "5").splitlines()[-1])["status"] == "done"
    third = ("train", days[2], "--target", "y", *common, "-o", str(tmp_path / "2.sgd"))
    run(*third, STREAMSGD_START=str(tmp_path / "1.sgd"))
    lines = run("show", str(tmp_path / "2.sgd"), "--lineage").splitlines()
    assert len(lines) == 4
    found = json.loads(run("show", str(tmp_path / "2.sgd"), "--lineage", "--json"))["lineage"]
    assert [one["rows"] for one in found] == [ROWS] * 3


def job_of_the_day(day: str, folder: Path, **settings: Any) -> streamsgd.Model:
    """Train as a daily job does, whose output has one name."""
    return streamsgd.train(day, "y", out=folder / "model.sgd", optimizer="normalized", **{**FIXED, **settings})


def stop_early(day: str, folder: Path, **settings: Any) -> None:
    with pytest.raises(Stopped):
        job_of_the_day(day, folder, time_limit=1e-6, **settings)


def test_a_checkpoint_of_another_day_is_dropped_and_that_is_said(
    days: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the run goes on from another model now, and where the file has the same name in another folder."""
    alone = job_of_the_day(days[1], tmp_path)
    stop_early(days[0], tmp_path, keep_memory=True)
    with caplog.at_level("WARNING", "streamsgd"):
        assert np.array_equal(job_of_the_day(days[1], tmp_path).weights, alone.weights)
    assert "is of other files, none of which is among the 1 of this run: the run starts anew" in caplog.text
    other = tmp_path / "other" / Path(days[0]).name
    other.parent.mkdir()
    pq.write_table(day(1), other, row_group_size=500)
    stop_early(days[0], tmp_path)
    assert np.array_equal(job_of_the_day(str(other), tmp_path).weights, alone.weights)
    assert not (tmp_path / "model.sgd.ckpt").exists()


def test_a_checkpoint_that_shares_a_file_is_refused_if_one_changed_or_is_gone(days: list[str], tmp_path: Path) -> None:
    stop_early(days[:2], tmp_path)
    for others in (days[1:3], days[:3], days[1]):
        with pytest.raises(ModelError, match="the data changed since the checkpoint"):
            job_of_the_day(others, tmp_path)
    pq.write_table(day(7), days[0], row_group_size=500)
    with pytest.raises(ModelError, match="the data changed since the checkpoint"):
        job_of_the_day(days[:2], tmp_path)
    with pytest.raises(ModelError, match="the data changed since the checkpoint"):
        job_of_the_day(days[3], tmp_path, resume="always")
    assert (tmp_path / "model.sgd.ckpt").exists()


def test_tables_have_no_names_to_tell_days_by(tmp_path: Path) -> None:
    stop_early(day(0), tmp_path)
    with pytest.raises(ModelError, match="the data changed since the checkpoint"):
        job_of_the_day(day(1, ROWS + 1), tmp_path)


def test_files_that_were_moved_go_on(days: list[str], tmp_path: Path) -> None:
    alone = job_of_the_day(days[0], tmp_path)
    stop_early(days[0], tmp_path)
    moved = tmp_path / "moved" / Path(days[0]).name
    moved.parent.mkdir()
    Path(days[0]).rename(moved)
    assert job_of_the_day(str(moved), tmp_path).to_bytes() == alone.to_bytes()


# --- law: in memory


def test_a_model_learns_on_as_a_trainer_does(days: list[str], tmp_path: Path) -> None:
    for settings in ({"optimizer": "normalized"}, {"penalty": "l2:l2=1e-4"}):
        model = streamsgd.train(days[0], "y", keep_memory=True, **settings, **FIXED)
        model.save(tmp_path / "0")
        trainer = streamsgd.Trainer.load(tmp_path / "0", shuffle="none")
        assert model.partial_fit(day(1), shuffle="none") is model
        assert bits(model) == bits(trainer.partial_fit(day(1)).model)
        assert [run["rows_learned"] for run in lineage_of(model)] == [ROWS] * 2
        model.partial_fit(day(2), shuffle="none").save(tmp_path / "2")
        assert bits(streamsgd.load(tmp_path / "2")) == bits(trainer.partial_fit(day(2)).model)


def test_a_model_that_cannot_learn_on_says_why_and_stays(days: list[str]) -> None:
    with pytest.raises(ModelError, match="--keep-memory"):
        streamsgd.train(days[0], "y", **FIXED).partial_fit(day(1))
    model = streamsgd.train(days[0], "y", keep_memory=True, **FIXED)
    before = model.to_bytes()
    with pytest.raises(DataError, match="'site'"):
        model.partial_fit(day(1).drop(["site"]))
    with pytest.raises(SettingsError, match="--loss"):
        model.partial_fit(day(1), loss="hinge")
    assert model.to_bytes() == before


@pytest.mark.parametrize("settings", [{}, {"optimizer": "normalized", "keep_memory": True}, {"validation": 0.2}], ids=str)
def test_a_trainer_pickles_without_rows_and_goes_on_with_the_same_bits(settings: dict[str, Any]) -> None:
    """Between all tables, also while a race is on, which ends within the third table here."""
    trainer = streamsgd.Trainer("y", **settings)
    again = pickle.loads(pickle.dumps(trainer))
    for k in range(4):
        trainer.partial_fit(day(k))
        again.partial_fit(day(k))
        raw = pickle.dumps(again)
        again = pickle.loads(raw)
        assert again.model.to_bytes() == trainer.model.to_bytes()
    assert day(3)["x"].chunk(0).buffers()[1].to_pybytes()[:800] not in raw
