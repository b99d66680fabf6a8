"""What a run reports is what it measured, of what it saves."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.optimize import minimize

import streamsgd
from streamsgd.errors import DivergedError, Stopped
from streamsgd.model.baseline import constant_loss_of_rows

PLAIN: dict[str, Any] = {"executor": "inline", "memory": "1GB"}


def table(n: int = 4_000, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))
    return pa.table({**{f"x{j}": x[:, j] for j in range(4)}, "y": x @ [1.0, -2.0, 0.5, 0.0] + rng.normal(size=n)})


def train(data: Any, **settings: Any) -> streamsgd.Model:
    return streamsgd.train(data, "y", **{**PLAIN, **settings})


def test_the_first_pass_is_told_apart_from_later_ones() -> None:
    """The progressive loss of several passes is that of one; training losses are of the last pass alone."""
    constant = {"optimizer": "sgd", "schedule": "constant", "learning_rate": 0.01, "validation": "none"}
    one, two, three = (train(table(), epochs=n, **constant).metrics for n in (1, 2, 3))
    assert "training_loss" not in one
    assert two["progressive_loss"] == three["progressive_loss"] == one["progressive_loss"]
    assert three["training_loss"] < two["training_loss"] < two["progressive_loss"]


def test_losses_of_passes_survive_stops(tmp_path: Path) -> None:
    whole = train(table(), epochs=3, chunk_rows=1_000).metrics
    for _ in range(50):
        try:
            metrics = train(table(), epochs=3, chunk_rows=1_000, checkpoint=str(tmp_path / "c"), time_limit=1e-9).metrics
        except Stopped:
            continue
        break
    assert metrics == whole


def test_tables_that_come_one_by_one_are_all_new() -> None:
    trainer = streamsgd.Trainer("y", **PLAIN, optimizer="adam")
    for seed in range(3):
        trainer.partial_fit(table(1_000, seed))
    assert "training_loss" not in trainer.model.metrics
    assert trainer.model.provenance["epochs"] == 1


def test_patience_reports_the_weights_that_it_keeps(tmp_path: Path) -> None:
    pq.write_table(table(1_000, 1), tmp_path / "valid.parquet")
    settings = {"learning_rate": 0.3, "schedule": "constant", "epochs": 40, "valid": str(tmp_path / "valid.parquet")}
    model = train(table(), **settings, optimizer="adam", patience=3, min_improvement=0.0)
    losses = model.metrics["valid_losses"]
    assert len(losses) < 40
    assert model.metrics["valid"]["loss"] == min(losses) < losses[-1]
    assert streamsgd.evaluate(model, str(tmp_path / "valid.parquet"), executor="inline")["loss"] == pytest.approx(min(losses))
    assert model.provenance["epochs"] == len(losses), "as run"


def counts(n: int = 8_000, seed: int = 0) -> pa.Table:
    """Counts whose features have heavy tails: the score of some row is far from all others."""
    rng = np.random.default_rng(seed)
    x = rng.standard_t(3, size=(n, 8))
    score = 1.0 + np.clip(x @ (rng.normal(size=8) * 0.5), -6.0, 6.0)
    return pa.table({**{f"x{j}": x[:, j] for j in range(8)}, "y": rng.poisson(rng.gamma(1.0, 1.0, n) * np.exp(score))})


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("epochs", [1, "auto"])
def test_poisson_losses_do_not_blow_up_on_one_row(seed: int, epochs: Any) -> None:
    data = counts(seed=seed)
    metrics = train(data, task="poisson", epochs=epochs).metrics
    assert metrics["progressive_loss"] < 0.9 * metrics["best_constant_loss"] < 0.0


def deviance(y: Any, predicted: Any) -> float:
    """Mean Poisson deviance, of counts (n,)."""
    return float(2.0 * np.mean(np.where(y > 0, y * np.log(np.maximum(y, 1) / predicted), 0.0) - (y - predicted)))


@pytest.mark.parametrize("seed", [4, 5, 7])
def test_counts_of_rows_that_nobody_saw_are_not_far_off(seed: int) -> None:
    """Seeds on which adam came to 339, 13,186 and 80: a log link has no bound."""
    data = counts(16_000, seed)
    old, new = data.slice(0, 8_000), data.slice(8_000)
    predicted = np.asarray(train(old, task="poisson").predict(new.drop(["y"])))
    y = new["y"].to_numpy()
    assert deviance(y, predicted) < deviance(y, np.full(len(y), old["y"].to_numpy().mean()))


def test_calm_counts_end_where_statsmodels_does() -> None:
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, 3))
    y = rng.poisson(np.exp(0.3 + x @ [0.4, -0.2, 0.1]))
    model = train(pa.table({**{f"x{j}": x[:, j] for j in range(3)}, "y": y}), task="poisson")
    exact = sm.GLM(y, sm.add_constant(x), family=sm.families.Poisson()).fit()
    predicted = np.asarray(model.predict(pa.table({f"x{j}": x[:, j] for j in range(3)})))
    deviance = sm.families.Poisson().deviance(y, predicted)
    assert deviance == pytest.approx(exact.deviance, rel=2e-3)


def useless() -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table({"x": rng.standard_t(1, size=3_000), "y": rng.normal(size=3_000)})


BAD: dict[str, Any] = {
    "optimizer": "sgd",
    "schedule": "constant",
    "learning_rate": 0.5,
    "epochs": 2,
    "clip_norm": 5.0,
    "batch_size": 1,
    "validation": "none",
}


def test_a_model_worse_than_none_is_said(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    metrics = train(useless(), **BAD).metrics
    assert metrics["training_loss"] > metrics["best_constant_loss"]
    (said,) = [record.getMessage() for record in caplog.records if "worse than none" in record.getMessage()]
    assert f"{metrics['training_loss']:.6g}" in said
    with pytest.raises(DivergedError, match="--strict"):
        train(useless(), **BAD, strict=True, out=tmp_path / "m.sgd")
    assert not (tmp_path / "m.sgd").exists()
    caplog.clear()
    train(table(), strict=True)
    assert not caplog.records


def test_rows_on_which_steps_are_judged_are_no_sign_of_a_bad_model(caplog: pytest.LogCaptureFixture) -> None:
    """The steps end at least squares; their mean loss is that of the way there, on which ten far rows were met."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8_000, 2))
    y = x @ [1.0, 0.5] + 0.3 * rng.normal(size=len(x))
    x[rng.choice(np.arange(4_000, len(x)), 10, replace=False), 0] = 300.0
    rows = pa.table({"a": x[:, 0], "b": x[:, 1], "y": y})
    model = streamsgd.train(rows, "y", optimizer="trust-region", transform="none", executor="inline", validation="none")
    design = np.column_stack([x, np.ones(len(x))])
    least = design @ np.linalg.lstsq(design, y, rcond=None)[0]
    assert np.mean(np.square(model.predict(rows) - y)) == pytest.approx(np.mean(np.square(least - y)), rel=1e-3)
    assert model.metrics["training_loss"] > 2.0 * model.metrics["best_constant_loss"]
    assert "worse than none" not in caplog.text


def test_a_model_no_better_than_a_constant_on_rows_held_out_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(2)
    noise = pa.table({**{f"x{j}": rng.normal(size=12_000) for j in range(20)}, "y": rng.integers(0, 2, 12_000)})
    metrics = train(noise, validation=0.2, optimizer="adam", epochs=2, strict=True).metrics["held_out"]
    assert metrics["best_constant_log_loss"] < metrics["loss"] < 1.01 * metrics["best_constant_log_loss"]
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"{metrics['loss']:.6g} is no better than {metrics['best_constant_log_loss']:.6g}" in said


@pytest.mark.parametrize("how", ["squared", "logistic", "poisson", "hinge", "squared-hinge", "softmax"])
def test_held_out_rows_are_judged_by_their_own_best_constant(how: str) -> None:
    """Which scipy finds: the loss of the constant score that is best for these rows."""
    rng = np.random.default_rng(4)
    x, late = rng.normal(size=6_000), np.arange(6_000) % 3 == 0
    y = {
        "squared": x + rng.normal(size=6_000) * np.where(late, 4.0, 1.0) + late,
        "poisson": rng.poisson(np.exp(0.5 * x + late)),
        "softmax": rng.integers(0, 3, 6_000) * np.where(late, 1, 0),
    }.get(how, (x + rng.logistic(size=6_000) > np.where(late, 0.0, 1.5)).astype(float))
    table = pa.table({"x": x, "late": late.astype(int), "y": y})
    task = {"poisson": "poisson", "softmax": "multiclass"}.get(how, "auto")
    model = train(table, validation="late == 1", exclude=["late"], loss=how, task=task, epochs=2)
    held = y[late]
    classes = np.searchsorted(model.classes, held) if model.classes else (held - model.target.shift) * model.target.scale

    def loss_of(score: np.ndarray) -> float:
        if how == "softmax":
            shares = np.exp(np.append(score, 0.0))
            return float(-np.log(shares / shares.sum())[classes].mean())
        return float(np.mean([model.loss.value(float(one), float(score[0])) for one in classes]))

    start = np.zeros(len(model.classes) - 1 if how == "softmax" else 1)
    exact = min(minimize(loss_of, start + at, method="Nelder-Mead", tol=1e-9).fun for at in (-1.0, 0.0, 1.0))
    assert constant_loss_of_rows(model.loss, model.metrics["held_out"]) == pytest.approx(exact, rel=1e-5)


def test_rows_that_scatter_more_are_no_sign_of_a_bad_model(caplog: pytest.LogCaptureFixture) -> None:
    """Their loss is above that of a constant on other rows, and below that of a constant on themselves."""
    rng, late = np.random.default_rng(5), np.arange(6_000) % 10 == 0
    x = rng.normal(size=6_000)
    table = pa.table({"x": x, "late": late.astype(int), "y": x + rng.normal(size=6_000) * np.where(late, 6.0, 1.0)})
    metrics = train(table, validation="late == 1", exclude=["late"], epochs=2, strict=True).metrics
    assert metrics["held_out"]["loss"] > 1.1 * metrics["best_constant_loss"]
    assert metrics["held_out"]["r2"] > 0.0
    assert not caplog.records


def test_strict_ends_a_command_with_2(tmp_path: Path, command_line: Callable[..., Any]) -> None:
    pq.write_table(useless(), tmp_path / "bad.parquet")
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in {**BAD, **PLAIN, "target": "y"}.items()]
    command = ["train", tmp_path / "bad.parquet", "-o", tmp_path / "m.sgd", *flags]
    done = command_line(*command, "--strict")
    assert (done.returncode, done.stderr.count("worse than none")) == (2, 1)
    done = command_line(*command, "--resume", "never")
    assert done.returncode == 0
    assert "worse than none" in done.stderr
    assert "training loss of the last one" in done.stderr
    assert json.loads(done.stdout)["metrics"]["training_loss"] > 0.6
