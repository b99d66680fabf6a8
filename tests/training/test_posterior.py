"""Draws against what they must be: exact equations of the walk, integrals on a grid, the inverse of the curvature."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import streamsgd
from streamsgd.errors import DataError, ModelError, SettingsError
from streamsgd.model.model import Model
from streamsgd.settings.registry import make
from streamsgd.training.posterior import choose_walk, inflation_of

USUAL: dict[str, Any] = {"memory": "1GB", "executor": "inline", "polish": 20, "epochs": 1, "precision": "float64"}


def table_of(x: np.ndarray, y: Any) -> pa.Table:
    return pa.table({**{f"x{j}": x[:, j] for j in range(x.shape[1])}, "y": y})


@pytest.fixture(scope="module")
def line() -> tuple[np.ndarray, np.ndarray]:
    """Return 400 rows of three columns, of which two depend on each other, and a noisy line."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 3))
    x[:, 1] += 0.8 * x[:, 0]
    return x, x @ [1.0, -0.5, 0.25] + 0.5 + rng.normal(size=400)


class Exact:
    """The posterior of a linear model, in the units of the encoded rows, and the exact law of a walk through it."""

    def __init__(self, model: Model, x: np.ndarray, y: np.ndarray) -> None:
        block, _ = model.encode(table_of(x, y))
        self.n = len(y)
        self.rows = np.column_stack([block.rows.values[:, : x.shape[1]], np.ones(self.n)])
        self.y = (y - model.target.shift) * model.target.scale
        self.noise = model.metrics["posterior"]["noise_variance"]
        self.prior = np.diag([1.0] * x.shape[1] + [0.0])
        self.precision = self.rows.T @ self.rows / self.noise + self.prior
        self.covariance = np.linalg.inv(self.precision)
        self.mode = self.covariance @ self.rows.T @ self.y / self.noise

    def stationary(self, h: float, batch: int, *, plain: bool, noisy: bool) -> np.ndarray:
        """Solve S = (I - hPL) S (I - hPL)' + h^2/b (E[A S A'] - mean + C) + 2hP, with P the inverse of L."""
        p, d = self.covariance, len(self.mode)
        moves = np.einsum("ab,ib,ic->iac", p, self.rows, self.rows) * self.n / self.noise
        mean, drift = moves.mean(axis=0), (1.0 - h) * np.eye(d)
        spread = np.einsum("iab,icd->acbd", moves, moves) / self.n - np.einsum("ab,cd->acbd", mean, mean)
        gradients = self.rows * (self.rows @ self.mode - self.y)[:, None] * self.n / self.noise
        kicks = p @ np.cov(gradients.T, bias=True) @ p
        right = 2.0 * h * p * noisy + h * h / batch * kicks * plain
        left = np.eye(d * d) - np.kron(drift, drift) - h * h / batch * spread.reshape(d * d, d * d)
        return np.linalg.solve(left, right.ravel()).reshape(d, d)


WALKS = {
    "sgld-cv": (0.1, 10, {"plain": False, "noisy": True}),
    "sgld": (0.05, 10, {"plain": True, "noisy": True}),
    "constant-sgd": (0.1, 20, {"plain": True, "noisy": False}),
}


@pytest.mark.parametrize("method", WALKS)
def test_variances_are_those_of_the_exact_equation_of_the_walk(line: Any, method: str) -> None:
    x, y = line
    h, batch, kind = WALKS[method]
    spec = f"{method}:step={h},batch={batch},steps=400000,burn_in=1000,thin=1"
    model = streamsgd.sample(table_of(x, y), "y", method=spec, prior="normal:sd=1", draws=400, **USUAL)
    truth = Exact(model, x, y)
    wanted = truth.stationary(h, batch, **kind)
    assert model.draws is not None
    np.testing.assert_allclose(model.draws.variance, np.diagonal(wanted), rtol=0.03)
    np.testing.assert_allclose(model.draws.variance.sum(), np.trace(wanted), rtol=0.03)
    np.testing.assert_allclose(model.draws.mean, truth.mode, atol=0.05 * np.sqrt(np.diagonal(truth.covariance)).min())
    if method == "sgld-cv":  # at this step the discretisation alone widens variances by 5 %
        np.testing.assert_allclose(model.draws.variance, 1.0 / (1.0 - h / 2.0) * np.diagonal(truth.covariance), rtol=0.04)


def test_the_default_walk_has_the_posterior_of_a_linear_model(line: Any) -> None:
    x, y = line
    model = streamsgd.sample(table_of(x, y), "y", prior="normal:sd=1", **USUAL)
    truth = Exact(model, x, y)
    assert model.draws is not None
    sd = np.sqrt(np.diagonal(truth.covariance))
    np.testing.assert_allclose(np.sqrt(model.draws.variance), sd, rtol=0.05)
    assert (np.abs(model.draws.mean - truth.mode) < 0.1 * sd).all()
    np.testing.assert_allclose(model.weights.ravel(), truth.mode, atol=0.1 * sd.min())
    said = model.metrics["posterior"]
    assert said["r_hat"] < 1.02
    assert said["ess"] > 800


def test_laplace_draws_are_of_the_normal_distribution_at_the_mode(line: Any) -> None:
    x, y = line
    model = streamsgd.sample(table_of(x, y), "y", method="laplace", prior="normal:sd=1", temperature=2.0, **USUAL)
    truth = Exact(model, x, y)
    assert model.draws is not None
    assert model.draws.covariance is not None
    np.testing.assert_allclose(model.draws.covariance, 2.0 * truth.covariance, rtol=1e-6, atol=1e-12)
    found = np.cov(model.draws.samples().reshape(-1, 4).T)
    np.testing.assert_allclose(np.diagonal(found), 2.0 * np.diagonal(truth.covariance), rtol=0.1)


def test_momentum_comes_to_the_same_posterior(line: Any) -> None:
    x, y = line
    spec = "sghmc:batch=32,steps=100000,burn_in=1000"
    model = streamsgd.sample(table_of(x, y), "y", method=spec, prior="normal:sd=1", **USUAL)
    truth = Exact(model, x, y)
    assert model.draws is not None
    np.testing.assert_allclose(np.sqrt(model.draws.variance), np.sqrt(np.diagonal(truth.covariance)), rtol=0.08)


def test_a_skewed_posterior_of_few_rows_is_that_of_a_grid() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(40, 1))
    y = x[:, 0] + rng.logistic(size=40) > 0.5
    spec = "sgld-cv:step=0.02,batch=40,steps=100000,burn_in=2000,thin=10"
    model = streamsgd.sample(table_of(x, y), "y", method=spec, prior="normal:sd=2", **USUAL)
    block, _ = model.encode(table_of(x, y))
    z = block.rows.values[:, 0].astype(float)
    w, b = np.meshgrid(np.linspace(-6, 8, 281), np.linspace(-5, 4, 241), indexing="ij")
    scores = w[:, :, None] * z + b[:, :, None]
    log = -(np.logaddexp(0.0, scores) - y * scores).sum(axis=2) - w**2 / 8.0
    mass = np.exp(log - log.max())
    mass /= mass.sum()
    assert model.draws is not None
    for found, sd, grid in zip(model.draws.mean, np.sqrt(model.draws.variance), (w, b), strict=True):
        mean = (mass * grid).sum()
        truth = np.sqrt((mass * (grid - mean) ** 2).sum())
        assert abs(found - mean) < 0.1 * truth
        assert sd / truth == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize("task", ["poisson", "multiclass"])
def test_other_likelihoods_have_about_the_curvature_of_many_rows(task: str) -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(4000, 2))
    score = x @ [0.5, -0.3]
    if task == "poisson":
        y: Any = rng.poisson(np.exp(score))
    else:
        y = np.array(["a", "b", "c"])[np.argmax(np.stack([score, 0.0 * score, -score], 1) + rng.gumbel(size=(4000, 3)), 1)]
    model = streamsgd.sample(table_of(x, y), "y", task=task, prior="normal:sd=3", **USUAL)
    low, high = model.metrics["posterior"]["sd_over_curvature"]
    assert 0.93 < low <= high < 1.07
    assert model.metrics["posterior"]["r_hat"] < 1.03


def test_classes_need_no_prior_for_what_differs_between_them() -> None:
    """That all scores may rise together is held by nothing, and changes no difference."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 1))
    scores = np.column_stack([x[:, 0], 0.0 * x[:, 0], -x[:, 0]]) + rng.gumbel(size=(300, 3))
    table = table_of(x, np.array(["a", "b", "c"])[scores.argmax(axis=1)])
    model = streamsgd.sample(table, "y", method="laplace", draws=16, **USUAL)
    block, _ = model.encode(table)
    rows = np.column_stack([block.rows.values[:, :1], np.ones(300)])
    assert model.draws is not None
    weights = model.draws.mode.reshape(2, 3)
    np.testing.assert_allclose(weights.sum(axis=1), 0.0, atol=1e-6)
    p = np.exp(rows @ weights)
    p /= p.sum(axis=1, keepdims=True)
    blocks = np.einsum("ik,kq->ikq", p, np.eye(3)) - np.einsum("ik,iq->ikq", p, p)
    fisher = np.einsum("ia,ib,ikq->akbq", rows, rows, blocks).reshape(6, 6)
    first = np.kron(np.eye(2), np.eye(3)[:, :2])  # the last class is the reference
    differ = np.kron(np.eye(2), np.array([[1.0, 0.0, -1.0], [0.0, 1.0, -1.0]]))
    truth = np.linalg.inv(first.T @ fisher @ first)
    np.testing.assert_allclose(differ @ model.draws.covariance @ differ.T, truth, rtol=1e-5, atol=1e-9)


# --- what is kept


def test_a_model_file_keeps_the_draws(line: Any, tmp_path: Path) -> None:
    model = streamsgd.sample(table_of(*line), "y", method="laplace", prior="normal:sd=1", draws=64, **USUAL)
    model.save(tmp_path / "posterior.sgd")
    again = streamsgd.load(tmp_path / "posterior.sgd")
    assert again.draws is not None
    assert again.draws.store.shape == (4, 16, 4)
    assert again.to_bytes() == model.to_bytes()


def test_a_chain_does_not_depend_on_how_many_there_are(line: Any) -> None:
    spec = "sgld-cv:steps=400,batch=4,burn_in=100,thin=10"
    found = [
        streamsgd.sample(table_of(*line), "y", method=spec, prior="normal:sd=1", chains=chains, draws=30 * chains, **USUAL)
        for chains in (1, 3)
    ]
    assert found[0].draws is not None
    assert found[1].draws is not None
    np.testing.assert_array_equal(found[0].draws.store[0], found[1].draws.store[0])


def test_many_weights_have_variances_alone(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(3)
    table = pa.table({"site": [f"s{k}" for k in rng.integers(0, 3000, 4000)], "y": rng.random(4000) < 0.4})
    with caplog.at_level(logging.WARNING, "streamsgd"):
        model = streamsgd.sample(
            table,
            "y",
            bits=12,
            values=False,
            method="laplace",
            draws=64,
            prior="normal:sd=1",
            **{**USUAL, "precision": "float32"},
        )
    assert model.draws is not None
    assert model.draws.covariance is None
    assert (model.draws.variance > 0.0).all()
    assert "no covariance" in caplog.text


# --- what is refused


def refused(error: type[Exception], words: str, table: pa.Table, **settings: Any) -> None:
    with pytest.raises(error, match=words):
        streamsgd.sample(table, "y", **{**USUAL, **settings})


def test_separable_rows_without_a_prior_are_refused() -> None:
    x = np.linspace(-1.0, 1.0, 200)[:, None]
    refused(DataError, "separate", table_of(x, x[:, 0] > 0.1))
    assert streamsgd.sample(table_of(x, x[:, 0] > 0.1), "y", method="laplace", prior="normal:sd=2", **USUAL).draws is not None


def test_chunks_that_differ_alike_from_all_rows_are_seen_to() -> None:
    """Sorted rows that are not shuffled: the first chunks have much in common that the others have not."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(24_000, 2))
    y = x @ [1.0, -0.5] + rng.normal(size=24_000)
    found = {}
    for name, rows in (("as they come", np.arange(24_000)), ("sorted", np.argsort(x[:, 0]))):
        few = {"method": "sgld-cv:steps=800", "prior": "normal:sd=1", "chunk_rows": 3000, "shuffle": "none"}
        sampled = streamsgd.sample(table_of(x[rows], y[rows]), "y", **few, **USUAL)
        found[name] = sampled.metrics["posterior"]["chunks_widen_variance"]
    assert found["as they come"] < 0.01
    assert found["sorted"] > 0.2


@pytest.mark.parametrize("worst", [1e2, 1e5, 1e7, 1e9])
def test_a_weight_of_few_rows_slows_chains_and_does_not_stop_them(worst: float) -> None:
    """What single rows move it by is beyond what the rows of all passes make up for: the walk is stable nonetheless."""
    kicks = np.array([1.0, worst])
    chosen = {"n_rows": 3_000_000, "noise": 1.0, "temperature": 1.0, "n_chains": 4, "n_draws": 1000, "spread": 1.0}
    law = choose_walk(make("method", "sgld-cv"), **chosen, kicks=kicks, plain=None).law
    assert (inflation_of(law, 3_000_000, kicks, None) < (2.1 if worst > 1e5 else 3.0)).all()


def test_columns_that_depend_on_others_need_a_prior(line: Any) -> None:
    x, y = line
    refused(DataError, "do not determine the weight of", table_of(np.column_stack([x, x[:, 0]]), y))


def test_what_is_no_posterior_is_refused(line: Any) -> None:
    x, y = line
    sides = table_of(x, y > 0)
    refused(SettingsError, "likelihood, and Hinge is none", sides, loss="hinge")
    refused(SettingsError, "count twice", sides, penalty="l2:l2=0.1", prior="normal:sd=1")
    refused(SettingsError, "above 0", sides, prior="normal:sd=0")
    refused(SettingsError, "unknown method", sides, method="mcmc")
    refused(SettingsError, "draws every row from all", sides, method="sgld", prior="normal:sd=1", chunk_rows=100)
    refused(SettingsError, "run away", sides, method="sgld-cv:step=0.9,batch=1", prior="normal:sd=1")
    with pytest.raises(SettingsError, match="streamsgd sample"):
        streamsgd.train(sides, "y", prior="normal:sd=1", memory="1GB")
    with pytest.raises(SettingsError, match="all the data at once"):
        streamsgd.Trainer("y", method="laplace")


def test_a_file_that_was_changed_is_refused(line: Any, tmp_path: Path) -> None:
    from streamsgd.model import store  # noqa: PLC0415

    model = streamsgd.sample(table_of(*line), "y", method="laplace", prior="normal:sd=1", draws=64, **USUAL)
    header, arrays = store.unpack("model", model.to_bytes(), "m")
    for name, wrong in {"posterior.mean": np.zeros(9), "posterior.store": np.full((4, 16, 4), np.nan, np.float32)}.items():
        (tmp_path / "m.sgd").write_bytes(store.pack("model", header, {**arrays, name: wrong}))
        with pytest.raises(ModelError, match=name.partition(".")[2]):
            streamsgd.load(tmp_path / "m.sgd")
