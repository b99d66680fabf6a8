"""Many models from one decode: each is its solo run to the byte; halving drops the worst; stops change nothing."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from test_polish import table_of

import streamsgd
from streamsgd.cli.main import main
from streamsgd.errors import BudgetError, DivergedError, ModelError, SettingsError, Stopped
from streamsgd.model.model import Model
from streamsgd.planning.halving import rungs
from streamsgd.settings.grid import configurations, parse_grid
from streamsgd.settings.make import make_settings
from streamsgd.training.prepare import prepare_many
from streamsgd.training.together.learn import groups_of
from streamsgd.training.together.many import ManyRuns

COMMON: dict[str, Any] = {
    "optimizer": "adam",
    "exclude": ["h"],
    "epochs": 2,
    "chunk_rows": 300,
    "validation": 0.1,
    "memory": "2GB",
    "executor": "inline",
}
GRID: dict[str, list[Any]] = {"learning_rate": [0.001, 0.01, 0.1], "penalty": ["none", "l2:l2=1e-3"]}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("many") / "d.parquet"
    pq.write_table(table_of("logistic"), path, row_group_size=100)
    return path


def solo(path: Path, **settings: Any) -> Model:
    return streamsgd.train(path, "y", **{**COMMON, **settings})


# --- law: a model is what train makes alone


@pytest.mark.parametrize("executor", ["inline", "threads"])
def test_every_model_is_its_solo_run_to_the_byte(executor: str, path: Path) -> None:
    """Of other rates, penalties, batches, epochs, steps, means and patience; some end long before others."""
    each: list[dict[str, Any]] = [
        *({"learning_rate": rate} for rate in (0.001, 0.1)),
        {"penalty": "l2:l2=1e-3", "batch_size": 16},
        {"epochs": 3},
        {"epochs": "auto", "steps": 7},
        {"average": 0.5},
        {"epochs": 4, "patience": 1, "learning_rate": 3.0},
        {},
    ]
    models = streamsgd.train_many(path, "y", each, **{**COMMON, "executor": executor})
    for own, model in zip(each, models, strict=True):
        assert isinstance(model, Model)
        assert model.to_bytes() == solo(path, **own).to_bytes(), own


def test_runs_of_other_forms_of_rows_and_losses_learn_in_groups(path: Path) -> None:
    """Rows that are learned one by one with a penalty are lists of entries: another stream, said so, with the same bytes."""
    each = [{}, {"optimizer": "normalized", "penalty": "l2:l2=1e-3"}, {"loss": "hinge"}]
    models = streamsgd.train_many(path, "y", each, **COMMON)
    assert [m.to_bytes() for m in models if isinstance(m, Model)] == [solo(path, **own).to_bytes() for own in each]


def test_one_that_diverges_takes_no_other_along() -> None:
    x = np.random.default_rng(0).normal(size=(500, 2))
    table = pa.table({"a": x[:, 0], "b": x[:, 1], "y": x.sum(axis=1)})
    settings = {**COMMON, "exclude": [], "optimizer": "sgd"}
    lost, model = streamsgd.train_many(table, "y", [{"learning_rate": 1e30}, {"learning_rate": 0.01}], **settings)
    assert isinstance(lost, DivergedError)
    assert "lower --learning-rate" in str(lost)
    assert isinstance(model, Model)
    with pytest.raises(DivergedError, match="every configuration"):
        streamsgd.tune(table, "y", {"learning_rate": [1e30, 1e31]}, **settings)


def test_runs_that_memory_does_not_hold_go_in_groups(path: Path) -> None:
    made = [make_settings({**COMMON, "target": "y", "learning_rate": rate}) for rate in (0.1, 0.2, 0.3, 0.4)]
    jobs = prepare_many(path, made)
    assert groups_of(jobs) == [[0, 1, 2, 3]]
    room = (jobs[0].budget.limit - jobs[0].budget.needed) // 3
    large = [replace(job, budget=replace(job.budget, model=job.budget.model + room)) for job in jobs]
    assert groups_of(large) == [[0, 1], [2, 3]]
    with pytest.raises(BudgetError, match="give --memory"):
        groups_of([replace(job, budget=replace(job.budget, model=10**10)) for job in jobs])


# --- law: tuning finds the least loss, and halving drops the worst at its rungs


def test_the_best_has_the_least_held_out_loss_of_all_solo_runs(path: Path, tmp_path: Path) -> None:
    out, table = tmp_path / "best.sgd", tmp_path / "tried.parquet"
    tuned = streamsgd.tune(path, "y", GRID, out=out, table=table, **COMMON)
    losses = [solo(path, **own).metrics["held_out"]["loss"] for own in configurations(GRID)]
    assert [line["loss"] for line in tuned.table] == losses
    assert tuned.best == int(np.argmin(losses))
    assert streamsgd.load(out).to_bytes() == solo(path, **tuned.settings).to_bytes() == tuned.model.to_bytes()
    assert pq.read_table(table).to_pylist() == tuned.table
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.sgd", "tried.parquet"]


def test_progressive_losses_compare_where_nothing_is_held_out(path: Path) -> None:
    settings = {**COMMON, "epochs": 1, "validation": 0.0}
    tuned = streamsgd.tune(path, "y", GRID, **settings)
    texts = [f"{name}={','.join(map(str, values))}" for name, values in GRID.items()]
    assert streamsgd.tune(path, "y", texts, **settings).table == tuned.table  # as the command line takes them
    alone = [streamsgd.train(path, "y", **settings, **own) for own in configurations(GRID)]
    assert [line["loss"] for line in tuned.table] == [model.metrics["progressive_loss"] for model in alone]


def test_halving_drops_the_worst_where_the_rungs_say(path: Path) -> None:
    """Progress has how many go on at each rung, and the best of them then; who is left is its solo run."""
    seen: list[Any] = []
    grid = {"learning_rate": [0.0001, 0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]}
    tuned = streamsgd.tune(path, "y", grid, halving=3, on_progress=seen.append, **COMMON)
    assert [rung.keeps for rung in rungs(9, 3)] == [3, 1]
    dropped = [[line for line in tuned.table if line["rung"] == k] for k in (1, 2)]
    assert [len(some) for some in dropped] == [6, 2]
    n = 2700 * 2
    for rung, some in zip(rungs(9, 3), dropped, strict=True):
        assert {line["status"] for line in some} == {"halved"}
        assert all(rung.share * n * 0.85 < line["rows"] < rung.share * n + 310 for line in some), some
        best = next(one.loss for one in seen if one.going == rung.keeps)
        assert all(line["loss"] > best for line in some)
    assert {one.going for one in seen} >= {3, 1}
    assert tuned.model.to_bytes() == solo(path, **tuned.settings).to_bytes()


def test_rungs_cost_about_the_same_and_end_with_one() -> None:
    for n, times in ((100, 3.0), (20, 2.0), (7, 1.5), (1, 3.0), (2, 10.0)):
        found = rungs(n, times)
        keeps = [n, *(rung.keeps for rung in found)]
        assert keeps[-1] == 1
        assert all(a > b for a, b in pairwise(keeps))
        assert all(0.0 < a.share < b.share < 1.0 for a, b in pairwise(found))
        shares = [0.0, *(rung.share for rung in found), 1.0]
        cost = sum(k * (b - a) for k, a, b in zip(keeps, shares, shares[1:], strict=False))
        assert cost <= (len(found) + 1) * times


# --- law: a stop changes nothing


@pytest.mark.parametrize("halving", [None, 2])
def test_stopped_after_every_chunk_it_comes_to_the_same_bytes(halving: float | None, path: Path, tmp_path: Path) -> None:
    def tuned(name: str, **more: Any) -> Any:
        places = {"out": tmp_path / f"{name}.sgd", "table": tmp_path / f"{name}.csv"}
        return streamsgd.tune(path, "y", {**GRID, "epochs": [1, 2]}, halving=halving, **places, **{**COMMON, **more})

    tuned("whole")
    stops = until_done(lambda: tuned("parts", time_limit=1e-9))
    assert stops >= 4
    for ending in ("sgd", "csv"):
        assert (tmp_path / f"whole.{ending}").read_bytes() == (tmp_path / f"parts.{ending}").read_bytes()
    assert not (tmp_path / "parts.sgd.ckpt").exists()
    assert pa_csv.read_csv(tmp_path / "parts.csv").num_rows == 12


def test_numbers_get_bins_where_they_would_alone(tmp_path: Path) -> None:
    """A look decides of bins where nothing about the descent is set: two encodings of one decode, also after every stop."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4_000, 2))
    waves = np.sin(3.0 * x[:, 0]) + (x[:, 1] > 0.5) + rng.normal(size=4_000) / 2
    table = pa.table({"a": x[:, 0], "b": x[:, 1], "y": waves})
    pq.write_table(table, tmp_path / "d.parquet")
    free: list[dict[str, Any]] = [{}, {"penalty": "l2:l2=1e-3"}]
    each: list[dict[str, Any]] = [*free, {"learning_rate": 0.1}, {"epochs": 1}, {"patience": 5}]
    common: dict[str, Any] = {"executor": "inline", "memory": "2GB", "chunk_rows": 1_000, "epochs": 2, "validation": 0.1}
    kept = {"checkpoint": str(tmp_path / "saved"), "time_limit": 1e-9}
    found: list[Any] = []
    assert until_done(lambda: found.extend(streamsgd.train_many(tmp_path / "d.parquet", "y", each, **{**common, **kept}))) >= 4
    for own, model in zip(each, found, strict=True):
        assert bool(model.encoding.categories) == (own in (*free, {"patience": 5}))
        assert model.to_bytes() == streamsgd.train(tmp_path / "d.parquet", "y", **{**common, **own}).to_bytes(), own


def test_losses_of_other_tasks_take_the_target_as_they_would_alone() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=1_000)
    table = pa.table({"a": x, "b": rng.normal(size=1_000), "y": rng.poisson(np.exp(0.3 * x)).astype(float)})
    common: dict[str, Any] = {"executor": "inline", "memory": "2GB", "optimizer": "adam", "epochs": 2, "validation": 0.1}
    each: list[dict[str, Any]] = [{}, {"loss": "poisson"}]
    for own, model in zip(each, streamsgd.train_many(table, "y", each, **common), strict=True):
        assert model.to_bytes() == streamsgd.train(table, "y", **common, **own).to_bytes(), own


def until_done(run: Callable[[], Any]) -> int:
    """Call until nothing stops it; return how often something did."""
    for stops in range(100):
        try:
            run()
        except Stopped:
            continue
        else:
            return stops
    raise AssertionError("it does not come to an end")


def test_groups_that_ended_are_not_learned_again(path: Path, tmp_path: Path) -> None:
    """Two groups, stopped after every chunk: models of the first wait in the checkpoint."""
    each = [{}, {"optimizer": "normalized", "penalty": "l2:l2=1e-3"}, {"learning_rate": 0.1}]
    settings = {**COMMON, "checkpoint": tmp_path / "c"}
    found: list[Any] = []
    stops = until_done(lambda: found.extend(streamsgd.train_many(path, "y", each, **settings, time_limit=1e-9)))
    assert stops >= 8
    assert [model.to_bytes() for model in found] == [solo(path, **own).to_bytes() for own in each]


def test_a_checkpoint_of_others_is_refused(path: Path, tmp_path: Path) -> None:
    settings = {**COMMON, "checkpoint": tmp_path / "c"}
    with pytest.raises(Stopped):
        streamsgd.train_many(path, "y", [{}, {"learning_rate": 0.1}], **settings, time_limit=1e-9)
    with pytest.raises(ModelError, match="now there are 1"):
        streamsgd.train_many(path, "y", [{}], **settings)
    with pytest.raises(ModelError, match=r"--learning-rate 0.1, this run is with --learning-rate 0.2"):
        streamsgd.train_many(path, "y", [{}, {"learning_rate": 0.2}], **settings)
    with pytest.raises(ModelError, match="several runs"):
        streamsgd.train(path, "y", **settings)
    with pytest.raises(Stopped):
        streamsgd.train(path, "y", **{**settings, "resume": "never", "time_limit": 1e-9})
    with pytest.raises(ModelError, match="a single run"):
        streamsgd.train_many(path, "y", [{}], **settings)


# --- law: what compares nothing is refused, in words that say what to do


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["learning_rte=0.1"], "did you mean 'learning_rate'"),
        (["learning_rate"], "write it as SETTING=VALUE"),
        (["learning_rate="], "has no value"),
        (["learning_rate=0.1,0.10"], "configurations 0 and 1 are the same"),
        (["learning_rate=0.1,-1"], "learning_rate of configuration 1: '-1' is not a number above 0"),
        (["learning-rate=0.1", "learning_rate=0.2"], "comes twice"),
        (["precision=float32,float64"], "how they are encoded"),
        (["validation=0.1,0.2"], "which rows are learned"),
        (["seed=1,2"], "which rows are learned"),
        (["polish=0,10"], "what passes there are"),
        (["memory=1GB,2GB"], "decides no bit"),
        (["loss=logistic,hinge"], "not compared by one loss"),
        (["optimizer=adm"], "did you mean 'adam'"),
        (["steps=" + ",".join(map(str, range(1, 200))), "epochs=" + ",".join(map(str, range(1, 200)))], "pass --random"),
    ],
)
def test_a_bad_grid_says_what_to_do(
    texts: list[str], words: str, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["tune", str(path), "--target", "y", "-o", str(tmp_path / "b.sgd")]
    assert main([*command, *(part for text in texts for part in ("--grid", text))]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"halving": 1.0}, "above 1"),
        ({"table": "t.txt"}, "ends with .parquet or .csv"),
        ({"polish": 5}, "leave --polish out"),
        ({"valid": "x"}, "leave --valid out"),
        ({"optimizer": "svrg"}, "svrg makes passes"),
        ({"lanes": 2}, "pass --lanes 1"),
        ({"validation": 0.0}, "pass --epochs 1"),
    ],
)
def test_what_runs_of_one_decode_cannot_do_is_refused(more: dict[str, Any], words: str, path: Path) -> None:
    with pytest.raises(SettingsError, match=words):
        streamsgd.tune(path, "y", {"learning_rate": [0.1, 0.2]}, **{**COMMON, **more})


def test_drawn_configurations_are_of_the_grid_each_once_and_the_same_again() -> None:
    grid = parse_grid(["learning_rate=0.1,0.2,0.3", 'optimizer=sgd,"adam:beta1=0.8,beta2=0.9"', "epochs=1,2,3,4"])
    assert grid["optimizer"] == ["sgd", "adam:beta1=0.8,beta2=0.9"]
    whole = configurations(grid)
    assert len(whole) == 24
    drawn = configurations(grid, 10, seed=3)
    assert drawn == configurations(grid, 10, seed=3) != configurations(grid, 10, seed=4)
    assert [one for one in whole if one in drawn] == drawn
    assert configurations(grid, 100) == whole


# --- others drive it


def test_optuna_asks_and_tells(path: Path) -> None:
    """As docs/tuning.md has it."""
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=1))
    for _ in range(2):
        trials = [study.ask() for _ in range(4)]
        each = [{"learning_rate": trial.suggest_float("rate", 1e-4, 1.0, log=True)} for trial in trials]
        for trial, model in zip(trials, streamsgd.train_many(path, "y", each, **COMMON), strict=True):
            assert isinstance(model, Model)
            study.tell(trial, model.metrics["held_out"]["loss"])
    assert study.best_value == solo(path, learning_rate=study.best_params["rate"]).metrics["held_out"]["loss"]


def test_the_command_says_what_it_found(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json  # noqa: PLC0415

    out, table = tmp_path / "best.sgd", tmp_path / "t.csv"
    command = ["tune", str(path), "--target", "y", "--exclude", "h", "--optimizer", "adam", "--memory", "1GB", "--epochs", "1"]
    command += ["--grid", "learning_rate=0.001,0.1", "--grid", "batch-size=16,64", "--halving", "2", "--chunk-rows", "300"]
    page = tmp_path / "tuned.html"
    assert main([*command, "-o", str(out), "--table", str(table), "--report", str(page)]) == 0
    section = page.read_text().partition("Configurations")[2].partition("Learning curve")[0]
    assert section.count("<svg") == 2  # loss by rate, and by rows per step
    assert "Loss by learning_rate" in section
    assert section.count("<circle") == 2 * sum(line["loss"] is not None for line in pa_csv.read_csv(table).to_pylist())
    shown = capsys.readouterr()
    said = json.loads(shown.out.splitlines()[-1])
    assert said["configurations"] == 4
    assert said["best"]["best"]
    assert streamsgd.load(out).metrics == said["metrics"]
    assert f"best: configuration {said['best']['configuration']}" in shown.err
    assert "4 configurations" in shown.err


def test_runs_that_have_nothing_to_learn_say_so(path: Path) -> None:
    with pytest.raises(SettingsError, match="nothing to learn"):
        streamsgd.train_many(path, "y", [], **COMMON)
    with pytest.raises(SettingsError, match="same"):
        streamsgd.train_many(path, "y", [{}, {}], **COMMON)
    runs = ManyRuns(path, [make_settings({**COMMON, "target": "y"})])
    assert [one.status for one in runs.run()] == ["done"]
