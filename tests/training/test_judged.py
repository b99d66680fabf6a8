"""Steps that are judged: they reach the minimum, decide as all rows would, are the same bytes anywhere, or are refused."""

from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import finish_chunk_by_chunk
from test_polish import design, learned, slopes_of, table_of

import streamsgd
from streamsgd.errors import SettingsError
from streamsgd.model.model import Model
from streamsgd.settings.make import make_settings
from streamsgd.training.judged.paired_test import evidence, quantile
from streamsgd.training.judged.quadratic import within_radius
from streamsgd.training.prepare import prepare

PLAIN: dict[str, Any] = {"precision": "float64", "executor": "inline", "memory": "2GB"}
JUDGING = ("trust-region", "armijo")


def rows_of(n: int, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5)) @ rng.normal(size=(5, 5))
    return pa.table({**{f"x{j}": x[:, j] for j in range(5)}, "y": x.sum(axis=1) + rng.normal(size=n)})


def found(model: Model) -> dict[str, Any]:
    return dict(model.metrics["epochs"])


def gradient(model: Model, table: pa.Table) -> np.ndarray:
    x, y = design(model, table), learned(model, table)
    return x.T @ slopes_of(model, x, y) / len(y)


# --- law: without a rate or a size of batches it ends at the minimum


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_a_trust_region_ends_at_the_minimum(loss: str) -> None:
    table = table_of(loss)
    model = streamsgd.train(
        table, "y", **PLAIN, loss=loss, exclude=["h"], optimizer="trust-region:start=16", epochs=30, transform="none"
    )
    assert found(model)["at_rest"]
    assert np.abs(gradient(model, table)).max() < 1e-4
    assert model.provenance["rows_learned"] < 30 * table.num_rows


def test_the_minimum_is_that_of_loss_and_penalty() -> None:
    table, l2 = rows_of(3000), 0.3
    model = streamsgd.train(table, "y", **PLAIN, optimizer="trust-region", penalty=f"l2:l2={l2}", epochs=20)
    x, y = design(model, table), learned(model, table)
    ridge = l2 * np.diag([*np.ones(x.shape[1] - 1), 0.0])
    best = np.linalg.solve(x.T @ x / len(y) + ridge, x.T @ y / len(y))
    np.testing.assert_allclose(model.weights[:, 0], best, atol=1e-5)


@pytest.mark.parametrize(("loss", "wide"), [("logistic", True), ("softmax", False)])
@pytest.mark.parametrize("optimizer", JUDGING)
def test_every_layout_learns(loss: str, wide: bool, optimizer: str) -> None:
    model = streamsgd.train(
        table_of(loss, wide=wide), "y", **PLAIN, loss=loss, exclude=["h"], optimizer=f"{optimizer}:start=16", epochs=10
    )
    assert model.metrics["training_loss"] < model.metrics["best_constant_loss"]
    assert found(model)["accepted"] > 3


# --- law: a decision is that of all rows


def test_the_ledger_has_every_decision_and_what_it_rests_on() -> None:
    model = streamsgd.train(rows_of(20_000), "y", **PLAIN, optimizer="armijo", epochs=3)
    told = {key: np.array(value) for key, value in model.provenance["ledger"].items() if key != "every"}
    assert len(told["proposal"]) == found(model)["proposals"] - (1 if told["proposal"][-1] < found(model)["proposals"] else 0)
    np.testing.assert_allclose(told["threshold"], 0.1 * told["predicted"], rtol=1e-12)
    off = told["measured"] - told["threshold"]
    assert ((off >= 0.0) == told["accepted"]).all()
    assert (np.abs(off) >= told["half_width"] * (1.0 - 1e-12)).all()
    assert told["accepted"].sum() == found(model)["accepted"] == model.provenance["steps"]
    assert told["rows"].max() == found(model)["largest_gradient"] > told["rows"][0]


def test_equal_rows_are_judged_at_first_sight() -> None:
    """All differences are the same, whatever their value; the one other row, for a target must vary, comes last."""
    table = pa.table({"x": np.full(4000, 0.1), "z": np.full(4000, -3.7), "y": np.full(4000, 0.3)})
    other = pa.table({"x": [0.1], "z": [-3.7], "y": [0.4]})
    how: dict[str, Any] = {**PLAIN, "scale": ["none"], "transform": "none", "shuffle": "none", "epochs": 1}
    model = streamsgd.train(pa.concat_tables([table, other]), "y", **how, optimizer="armijo:start=16,learning_rate=0.01")
    assert set(model.provenance["ledger"]["looks"]) == {1}
    assert max(abs(half) for half in model.provenance["ledger"]["half_width"]) < 1e-6


@pytest.mark.parametrize("mean", [0.0, 0.1, -0.1])
def test_few_sequential_decisions_are_wrong(mean: float) -> None:
    """Of 1,000 normal samples no more than alpha, at any distance from the threshold."""
    rng, n_wrong = np.random.default_rng(0), 0
    for _ in range(1000):
        d, n, look = rng.normal(mean, 1.0, 1 << 15), 64, 1
        while n < len(d):
            verdict = evidence(d[:n].sum(), np.square(d[:n]).sum(), n, quantile(0.05, look)).verdict(mean - 0.02)
            if verdict is not None:
                n_wrong += not verdict
                break
            n, look = 2 * n, look + 1
    assert n_wrong <= 50


# --- law: the model within the radius is NumPy's


def test_steps_are_newtons_within_the_radius_and_no_longer_beyond() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(size=(6, 6))
    matrix, g = a @ a.T + 0.1 * np.eye(6), rng.normal(size=6)
    newton = within_radius(g, np.diagonal(matrix).copy(), np.tril(matrix), 1e9, 1e9)
    np.testing.assert_allclose(newton.step, -np.linalg.solve(matrix, g), rtol=1e-4)
    for radius in np.geomspace(1e-3, 2.0 * newton.length, 12):
        some = within_radius(g, np.diagonal(matrix).copy(), np.tril(matrix), 1e9, radius)
        assert some.length <= radius * (1.0 + 1e-12)
        falls = -(g @ some.step) - 0.5 * some.step @ matrix @ some.step
        assert some.predicted == pytest.approx(falls, rel=1e-5)
        assert 0.0 < some.predicted <= newton.predicted * (1.0 + 1e-6)


# --- law: the same bits


@pytest.mark.parametrize("optimizer", JUDGING)
def test_it_is_the_same_bytes_on_threads_and_resumed(tmp_path: Path, optimizer: str) -> None:
    path = tmp_path / "d.parquet"
    pq.write_table(table_of("logistic"), path, row_group_size=100)
    settings: dict[str, Any] = {"exclude": ["h"], "memory": "1GB", "optimizer": f"{optimizer}:start=16", "epochs": 6}
    settings |= {"chunk_rows": 250, "precision": "float64"}
    alone = streamsgd.train(path, "y", executor="inline", **settings).to_bytes()
    assert streamsgd.train(path, "y", executor="threads", threads=2, **settings).to_bytes() == alone
    run, places = partial(streamsgd.train, path, "y", **settings), cycle([{"executor": "inline"}, {"threads": 2}])
    resumed, stops = finish_chunk_by_chunk(run, tmp_path / "saved", places)
    assert stops > 3
    assert resumed.to_bytes() == alone


# --- law: what makes no sense is refused, and said


@pytest.mark.parametrize(
    ("fields", "settings", "words"),
    [
        (":accept=1", {}, "accept=1 must be above 0 and below 1"),
        (":alpha=0", {}, "alpha=0"),
        (":start=1", {}, "a decision needs 2 rows"),
        ("", {"batch_size": 64}, "leave --batch-size out"),
        ("", {"rate_scaling": "linear"}, "leave --rate-scaling out"),
        ("", {"clip_norm": 1.0}, "--clip-norm"),
        ("", {"schedule": "cosine"}, "leave --schedule out"),
        ("", {"average": "auto"}, "leave --average out"),
        ("", {"noise": True}, "--noise"),
        ("", {"lanes": 2}, "leave --lanes out"),
        ("", {"shuffle": "iid"}, "leave --shuffle iid out"),
        ("", {"keep_memory": True}, "leave --keep-memory"),
        ("", {"loss": "quantile"}, "needs a loss without kinks, and Quantile has some"),
        ("", {"penalty": "l1"}, "knows --penalty l2 only, not l1"),
        ("", {"steps": 5}, "--steps counts updates by batches"),
        (":acept=0.2", {}, "did you mean 'accept'"),
    ],
)
@pytest.mark.parametrize("optimizer", JUDGING)
def test_bad_input_says_what_to_do(optimizer: str, fields: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as error:
        prepare(rows_of(500), make_settings({"target": "y", "memory": "2GB", "optimizer": optimizer + fields, **settings}))
    assert words in str(error.value)


def test_tables_that_come_one_by_one_are_refused() -> None:
    with pytest.raises(SettingsError, match="needs all the data at once"):
        streamsgd.Trainer("y", optimizer="trust-region")
