"""Pilots: each branch is its solo run to the byte; the line in 1/B is the known one; what compares nothing is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats
from test_polish import table_of

import streamsgd
from streamsgd.errors import BudgetError, DivergedError, SettingsError
from streamsgd.training.together.pilot import run_pilot
from streamsgd.training.together.pilot_fit import f_tail, fit_losses, recommended
from streamsgd.training.together.pilot_time import between_neighbours, falling, least_time, on_the_way, relative_line, same_loss

SETTINGS: dict[str, Any] = {"target": "y", "optimizer": "adam", "exclude": ["h"], "memory": "2GB", "executor": "inline"}


def written(folder: Path) -> Path:
    path = folder / "d.parquet"
    pq.write_table(table_of("logistic"), path, row_group_size=100)
    return path


def rows_of(n: int) -> pa.Table:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 3))
    return pa.table({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "y": x.sum(axis=1) + rng.normal(size=n)})


# --- law: a branch is what train makes alone


@pytest.mark.parametrize(("executor", "shuffle"), [("inline", "auto"), ("threads", "corgi")])
def test_every_branch_is_its_solo_run_to_the_byte(executor: str, shuffle: str, tmp_path: Path) -> None:
    """Several chunks, held-out rows, two rates, two seeds; branches end at different times, some after several epochs, some on
    the way."""
    path, settings = written(tmp_path), {**SETTINGS, "chunk_rows": 500, "executor": executor, "shuffle": shuffle}
    found, made = run_pilot(path, {**settings, "steps": 13}, [16, 256], rates=[0.01, 0.1], seeds=2)
    assert [one.branch.steps for one in made[:5]] == [1, 3, 6, 13, 13 * 16]
    assert len(made) == 2 * 2 * (5 + 4)
    for one in made:
        size, rate, steps, seed = one.branch
        own = {**settings, "batch_size": size, "learning_rate": rate, "steps": steps, "seed": seed, "validation": 0.1}
        assert one.model is not None
        assert streamsgd.train(path, **own).to_bytes() == one.model.to_bytes(), one.branch
        assert one.model.provenance["steps"] == steps
    assert {line["steps"] * line["batch_size"] for line in found["branches"] if line["comparison"] == "rows"} == {13 * 256}


def test_the_losses_are_those_of_evaluate() -> None:
    """Without held-out rows, of all rows; the branch of the largest size is the same in both comparisons."""
    table = rows_of(2000)
    settings = {**SETTINGS, "exclude": [], "validation": 0.0, "precision": "float64"}
    found, made = run_pilot(table, settings, [16, 64], seeds=1)
    for line in found["branches"]:
        [one] = [m for m in made if m.branch[:3:2] == (line["batch_size"], line["steps"])]
        assert one.model is not None
        error = streamsgd.evaluate(one.model, table, memory="2GB", executor="inline")["rmse"] * one.model.target.scale
        truth = 0.5 * error**2
        np.testing.assert_allclose(line["loss"], truth, rtol=1e-9)
    assert found["fit"]["interval"] is None


def test_a_rate_that_diverges_takes_no_other_along() -> None:
    settings = {**SETTINGS, "exclude": [], "optimizer": "sgd"}
    found, made = run_pilot(rows_of(2000), settings, [16, 64], rates=[0.01, 1e30], seeds=1)
    assert {one.branch.learning_rate for one in made if one.model is None} == {1e30}
    assert {line["learning_rate"] for line in found["branches"] if np.isinf(line["loss"])} == {1e30}
    assert found["recommended"] >= 16
    with pytest.raises(DivergedError, match="pass smaller ones"):
        run_pilot(rows_of(2000), settings, [16, 64], rates=[1e30], seeds=1)


def test_the_command_says_what_to_take(tmp_path: Path, command_line: Callable[..., Any]) -> None:
    command = ["pilot", written(tmp_path), "--target", "y", "--exclude", "h"]
    command += ["--batch-size", "16,64,256", "--seeds", "2", "--optimizer", "adam", "--memory", "1GB"]
    command += ["--report", tmp_path / "r.html"]
    done = command_line(*command)
    assert done.returncode == 0
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["recommended"] & (said["recommended"] - 1) == 0
    assert {"a", "c", "se", "interval"} <= said["fit"].keys()
    assert len(said["branches"]) == 6
    assert "recommended: --batch-size" in done.stderr
    assert said["steps"] == 16  # of 256 rows, in several epochs: all rows at once are no more than 9
    assert 16.0 <= said["least_time"] <= 256.0
    assert len(said["same_loss"]["seconds"]) == 3
    page = (tmp_path / "r.html").read_text()
    assert page.count("<svg") == 2
    assert "microseconds to a loss of" in page


# --- law: the arithmetic is known


def test_a_straight_line_is_found_and_what_follows_from_it() -> None:
    sizes = np.array([16.0, 64.0, 256.0, 1024.0])
    rng = np.random.default_rng(3)
    losses = 0.5 + 2.0 / sizes + rng.normal(size=(4000, 4)) * 0.1 / sizes
    fit = fit_losses(sizes, losses)
    np.testing.assert_allclose([fit.a, fit.c], [0.5, 2.0], rtol=0.01)
    held = [fit_losses(sizes, losses[k : k + 3]).interval for k in range(0, 3999, 3)]
    assert 0.89 < np.mean([low <= 2.0 <= high for low, high in (pair for pair in held if pair)]) < 0.98
    assert fit.lack_of_fit is not None
    assert fit.lack_of_fit["p"] > 1e-3
    bent = fit_losses(sizes, losses + 0.05 / np.sqrt(sizes)).lack_of_fit
    assert bent is not None
    assert bent["p"] < 1e-6
    exact = fit_losses(sizes, (0.5 + 2.0 / sizes)[None, :])
    assert recommended(exact, sizes) == 512  # 2 / (2 * 0.005 * 0.5) = 400
    assert recommended(exact._replace(c=-1.0), sizes) == 16


@pytest.mark.parametrize("power", [0.7, 1.0, 1.5, 2.0])
def test_intervals_hold_however_variances_fall(power: float) -> None:
    """By weights of 1/B^2 alone those of 1/B are too wide, by weights of 1/B alone 77 % of those of 1/B^2 hold."""
    sizes, rng = np.array([16.0, 64.0, 256.0, 1024.0]), np.random.default_rng(1)
    losses = 0.5 + 2.0 / sizes + rng.normal(size=(6000, 4)) * 0.1 * sizes ** (-power / 2.0)
    held = [fit_losses(sizes, losses[k : k + 3]).interval for k in range(0, 6000, 3)]
    assert np.mean([low <= 2.0 <= high for low, high in (pair for pair in held if pair)]) > 0.89
    assert fit_losses(sizes, losses).fall == pytest.approx(max(1.0, power), abs=0.05)


def test_more_seeds_recommend_no_larger_batch() -> None:
    """It is enough where a doubling gains less than one run differs from another, not than the mean of 300 is known to."""
    sizes, rng = np.array([16.0, 64.0, 256.0, 1024.0]), np.random.default_rng(5)
    losses = 0.01 + 3.0 / sizes + rng.normal(size=(300, 4)) * 0.12 / np.sqrt(sizes)
    by_many = recommended(fit_losses(sizes, losses), sizes)
    assert by_many == 128  # c/2 over the root mean variance is 1.5 / 0.0173 = 87
    by_three = [recommended(fit_losses(sizes, losses[k : k + 3]), sizes) for k in range(0, 300, 3)]
    assert np.mean([0.5 <= size / by_many <= 2.0 for size in by_three]) > 0.9


def test_the_time_of_steps_and_the_size_of_least_time() -> None:
    """The check of the derivation: alpha 2 ms, beta 1 us, 500 rows: 1000."""
    sizes = np.array([16.0, 64.0, 256.0])
    np.testing.assert_allclose(relative_line(sizes, 2e-3 + 1e-6 * sizes), [2e-3, 1e-6], rtol=1e-9)
    np.testing.assert_allclose(relative_line(sizes, 1e-6 * sizes - 1e-5)[0], 0.0)
    assert least_time(2e-3, 1e-6, 500.0) == pytest.approx(1000.0)
    assert least_time(0.0, 1e-6, 500.0) == 0.0
    assert least_time(2e-3, 0.0, 500.0) == np.inf
    seconds = np.array([3.0, 2.0, 2.5])
    assert between_neighbours(70.0, sizes, seconds) == 70.0
    assert between_neighbours(2.0, sizes, seconds) == 32.0, "the middle of the one before and the fastest"
    assert between_neighbours(np.inf, sizes, seconds) == 128.0


def test_the_steps_to_the_same_loss_are_those_of_the_curves() -> None:
    """Losses that fall in a straight line, twice as fast at most; where all rest, noise on the way decides nothing."""
    steps, sizes = [*on_the_way(128), 128], np.array([16.0, 64.0, 256.0])
    assert steps == [2, 4, 8, 16, 32, 64, 128]
    speed = 2.0 / (1.0 + 32.0 / sizes)
    same = same_loss(1.0, sizes, steps, 1.0 - np.outer(speed, steps) / 512.0)
    assert same is not None
    assert same.loss == pytest.approx(1.0 - 0.75 * speed[0] * 0.25)
    np.testing.assert_allclose(same.steps, 0.75 * 128 * speed[0] / speed, rtol=1e-9)
    assert same.critical == pytest.approx(32.0)
    assert same_loss(1.0, sizes, steps, np.ones((3, 7))) is None
    np.testing.assert_allclose(falling(np.array([5.0, 1.0, 3.0, 2.0, 0.0])), [5.0, 2.0, 2.0, 2.0, 0.0])


@pytest.mark.parametrize(("f", "d1", "d2"), [(0.3, 2, 8), (1.0, 1, 4), (4.5, 3, 12), (30.0, 2, 2), (0.0, 2, 3)])
def test_the_tail_of_f_is_scipys(f: float, d1: int, d2: int) -> None:
    assert f_tail(f, d1, d2) == pytest.approx(stats.f.sf(f, d1, d2), rel=1e-10)


# --- law: what compares nothing is refused


@pytest.mark.parametrize(
    ("sizes", "settings", "words"),
    [
        ([64], {}, "pass two or more"),
        ([64, 64], {}, "pass two or more"),
        ([16, 4096], {}, "leave the largest sizes out"),
        ([16, 64], {"workers": 2}, "leave --workers out"),
        ([16, 64], {"valid": "x"}, "leave --valid out"),
        ([16, 64], {"optimizer": "normalized"}, "--batch-size"),
    ],
)
def test_bad_input_says_what_to_do(sizes: list[int], settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as error:
        run_pilot(rows_of(500), {**SETTINGS, "exclude": [], **settings}, sizes)
    assert words in str(error.value)


def test_branches_that_memory_does_not_hold_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamsgd.training.together.pilot.together_bytes", lambda *_: 10**12)
    with pytest.raises(BudgetError, match="branches learn at once and take"):
        run_pilot(rows_of(500), {**SETTINGS, "exclude": []}, [4, 16], rates=[0.1], seeds=1)
