"""Intervals of predictions, against NumPy."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.errors import ModelError, SettingsError
from streamsgd.model.model import Model

USUAL: dict[str, Any] = {"memory": "1GB", "executor": "inline", "polish": 20, "epochs": 1, "precision": "float64"}
Z = 1.6448536269514722


def rows(kind: str, n: int = 500) -> pa.Table:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(n, 2))
    score = x @ [1.0, -0.5] + 0.3
    y: Any = {
        "regression": 3.0 + 2.0 * (score + rng.normal(size=n)),
        "binary": score + rng.logistic(size=n) > 0,
        "multiclass": np.array(["a", "b", "c"])[
            np.argmax(np.stack([score, -score, 0 * score], 1) + rng.gumbel(size=(n, 3)), 1)
        ],
    }[kind]
    return pa.table({"x0": x[:, 0], "x1": x[:, 1], "y": y})


def predicted(model: Model, table: pa.Table, folder: Path, **options: Any) -> dict[str, np.ndarray]:
    pq.write_table(table, folder / "in.parquet")
    streamsgd.predict(model, folder / "in.parquet", folder / "out.parquet", executor="inline", memory="1GB", **options)
    found = pq.read_table(folder / "out.parquet")
    return {name: found.column(name).to_numpy() for name in found.column_names}


def encoded(model: Model, table: pa.Table) -> np.ndarray:
    block, _ = model.encode(table)
    return np.column_stack([block.rows.values[:, :2], np.ones(table.num_rows)]).astype(np.float64)


@pytest.mark.parametrize("kind", ["regression", "binary"])
def test_standard_errors_of_predictions_are_those_of_the_delta_method(tmp_path: Path, kind: str) -> None:
    table = rows(kind)
    model = streamsgd.train(table, "y", standard_errors=True, **USUAL)
    found, x = predicted(model, table, tmp_path, intervals=0.9), encoded(model, table)
    score = x @ model.weights[:, 0]
    sd = np.sqrt(np.einsum("ia,ab,ib->i", x, model.covariance, x))
    link = (lambda s: 1.0 / (1.0 + np.exp(-s))) if kind == "binary" else lambda s: s / model.target.scale + model.target.shift
    slope = link(score) * (1.0 - link(score)) if kind == "binary" else 1.0 / model.target.scale
    np.testing.assert_allclose(found["mean"], link(score), rtol=1e-12)
    np.testing.assert_allclose(found["standard_error"], slope * sd, rtol=1e-5)
    np.testing.assert_allclose(found["lower"], link(score - Z * sd), rtol=1e-10)
    np.testing.assert_allclose(found["upper"], link(score + Z * sd), rtol=1e-10)
    assert (found["prediction"] == model.predict(table)).all()


@pytest.mark.parametrize("kind", ["regression", "binary", "multiclass"])
def test_intervals_of_a_posterior_are_those_of_its_draws(tmp_path: Path, kind: str) -> None:
    table = rows(kind)
    model = streamsgd.sample(table, "y", method="laplace", prior="normal:sd=1", draws=64, **USUAL)
    found, x = predicted(model, table, tmp_path, intervals=0.8), encoded(model, table)
    assert model.draws is not None
    weights = model.draws.samples().reshape(64, 3, model.n_outputs)
    scores = np.einsum("ia,sak->isk", x, weights)
    if kind == "regression":
        means = scores / model.target.scale + model.target.shift
    elif kind == "binary":
        means = 1.0 / (1.0 + np.exp(-scores))
    else:
        means = np.exp(scores) / np.exp(scores).sum(axis=2, keepdims=True)
    for k, end in enumerate([f"_{c}" for c in model.classes] if kind == "multiclass" else [""]):
        np.testing.assert_allclose(found[f"mean{end}"], means[:, :, k].mean(axis=1), rtol=1e-9)
        np.testing.assert_allclose(found[f"standard_error{end}"], means[:, :, k].std(axis=1, ddof=1), rtol=1e-6)
        np.testing.assert_allclose(found[f"lower{end}"], np.quantile(means[:, :, k], 0.1, axis=1), rtol=1e-9)
        np.testing.assert_allclose(found[f"upper{end}"], np.quantile(means[:, :, k], 0.9, axis=1), rtol=1e-9)
    if kind != "regression":
        p = np.concatenate([1.0 - means, means], axis=2) if kind == "binary" else means
        entropy = lambda q, axis: -(q * np.log(q)).sum(axis=axis)  # noqa: E731
        np.testing.assert_allclose(found["total_entropy"], entropy(p.mean(axis=1), 1), rtol=1e-9)
        np.testing.assert_allclose(found["aleatoric_entropy"], entropy(p, 2).mean(axis=1), rtol=1e-9)


def test_draws_of_rows_of_values_are_scored_as_models_of_their_weights(tmp_path: Path) -> None:
    table = rows("binary").append_column("c", pa.array(np.random.default_rng(3).choice(["u", "v", "w"], 500)))
    given: Any = {**USUAL, "precision": "float32"}
    model = streamsgd.sample(table, "y", method="laplace", prior="normal:sd=1", draws=40, **given)
    found = predicted(model, table, tmp_path, intervals=0.8)
    assert model.draws is not None
    block, _ = model.encode(table)
    draws = model.draws.samples().reshape(40, *model.weights.shape).astype(np.float32)
    means = np.column_stack([replace(model, weights=one).score_block(block, 0, 500)[1][:, 0] for one in draws]).astype(float)
    np.testing.assert_allclose(found["mean"], means.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(found["standard_error"], means.std(axis=1, ddof=1), rtol=1e-4)
    np.testing.assert_allclose(found["upper"], np.quantile(means, 0.9, axis=1), rtol=1e-5)


def test_probabilities_of_classes_have_errors_to_first_order(tmp_path: Path) -> None:
    table = rows("multiclass")
    model = streamsgd.train(table, "y", standard_errors=True, penalty="l2:l2=0.01", **USUAL)
    found, x = predicted(model, table.slice(0, 50), tmp_path, intervals=0.9), encoded(model, table.slice(0, 50))
    design = np.einsum("ia,kq->ikaq", x, np.eye(3)).reshape(50, 3, 9)
    scores = x @ model.weights
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    slopes = p[:, :, None] * (np.eye(3) - p[:, None, :])
    spread = np.einsum("ika,ab,iqb->ikq", design, model.covariance, design)
    errors = np.sqrt(np.einsum("ikq,iqr,ikr->ik", slopes, spread, slopes))
    for k, name in enumerate(model.classes):
        np.testing.assert_allclose(found[f"standard_error_{name}"], errors[:, k], rtol=1e-6)
        np.testing.assert_allclose(found[f"mean_{name}"], p[:, k], rtol=1e-9)


def test_rows_with_a_value_that_is_not_determined_have_no_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    table = pa.table({"x0": rng.normal(size=300), "c": rng.choice(["u", "v"], 300), "y": rng.normal(size=300)})
    model = streamsgd.train(table, "y", standard_errors=True, **USUAL)  # u, v and the intercept determine one another in part
    found = predicted(model, table, tmp_path, intervals=0.9)
    assert np.isnan(found["standard_error"]).all()
    assert np.isfinite(found["mean"]).all()


def test_what_has_no_uncertainty_is_refused(tmp_path: Path) -> None:
    table = rows("binary")
    plain = streamsgd.train(table, "y", **USUAL)
    with pytest.raises(ModelError, match="streamsgd sample"):
        predicted(plain, table, tmp_path, intervals=0.9)
    with pytest.raises(SettingsError, match="between 0 and 1"):
        predicted(streamsgd.train(table, "y", standard_errors=True, **USUAL), table, tmp_path, intervals=90.0)
