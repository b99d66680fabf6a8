"""Optima: trained long enough, categories have the weights that a converged solver gives their one-hot encoding."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import OneHotEncoder

import streamsgd
from streamsgd.model.model import Model

RNG = np.random.default_rng(14)
N = 300
FULL = {
    "batch_size": "full",
    "precision": "float64",
    "transform": "none",
    "shuffle": "none",
    "executor": "inline",
    "memory": "2GB",
}


def train(table: pa.Table, target: str, **settings: Any) -> Model:
    return streamsgd.train(table, target, **{**FULL, **settings})


def by_value(model: Model) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for value in model.values():
        found.setdefault(value.column, {})[value.value] = float(value.weights[0])
    return found


# --- law: logistic regression


PROSTATE = {"AGE": -0.01368, "DPROS": 0.55964, "DCAPS": 0.49548, "PSA": 0.02794, "VOL": -0.01104, "GLEASON": 0.97704}
"""Coefficients that R and H2O give, of RACE against its first value R1; to the digits that they print."""

R2, R3, INTERCEPT, DEVIANCE = 0.32337, -0.38028, -8.14867, 378.338


@pytest.mark.shared
def test_prostate_has_the_coefficients_that_r_gives(shared_data: Path) -> None:
    table = pyarrow.csv.read_csv(shared_data / "tabular" / "prostate_cat_replaced.csv").drop_columns(["ID"])
    model = train(table, "CAPSULE", optimizer="adam", learning_rate=0.1, epochs=1500)
    weights, intercepts = model.coefficients()
    race = by_value(model)["RACE"]
    assert dict(zip(model.encoding.names, weights[:, 0].tolist(), strict=True)) == pytest.approx(PROSTATE, abs=6e-6)
    differences = (race["R2"] - race["R1"], race["R3"] - race["R1"], float(intercepts[0]) + race["R1"])
    assert differences == pytest.approx((R2, R3, INTERCEPT), abs=6e-6)
    assert (race["is missing"], race["any other"]) == (0.0, 0.0)
    loss = model.evaluate(table, executor="inline")["log_loss"]
    assert 2 * table.num_rows * loss == pytest.approx(DEVIANCE, abs=6e-4)


COLOURS = np.array(["red", "green", "blue", "grey"])[RNG.integers(0, 4, N)]
SHAPES = np.where(RNG.random(N) < 0.15, None, np.array(["disc", "cube"])[RNG.integers(0, 2, N)])
X = RNG.normal(size=N)


def test_several_classes_come_to_the_optimum_of_sklearn() -> None:
    signal = np.c_[(COLOURS == "red") * 2.0 + X, (SHAPES == "disc") * 1.5 - X, np.zeros(N)] + RNG.gumbel(size=(N, 3))
    y = np.array(["a", "b", "c"])[signal.argmax(axis=1)]
    table = pa.table({"x": X, "colour": COLOURS, "shape": pa.array(SHAPES), "y": y})
    model = train(table, "y", optimizer="sgd", learning_rate=1.0, schedule="constant", epochs=1500)
    raw = np.c_[COLOURS, np.array([s or "is missing" for s in SHAPES])]
    design = np.c_[X, OneHotEncoder(sparse_output=False).fit_transform(raw)]
    theirs = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(design, y)
    np.testing.assert_allclose(model.predict_proba(table), theirs.predict_proba(design), atol=1e-5)


# --- law: least squares


def test_squared_loss_comes_to_least_squares_in_units_of_the_target() -> None:
    """Means of cells, as an analysis of variance has them."""
    y = 1000 + 50 * X + 30.0 * (COLOURS == "red") - 20.0 * (SHAPES == "cube") + 10 * RNG.normal(size=N)
    table = pa.table({"x": X, "colour": COLOURS, "shape": pa.array(SHAPES), "y": y})
    model = train(table, "y", optimizer="sgd", learning_rate=0.5, schedule="constant", epochs=400)
    levels = [c == COLOURS for c in ("blue", "green", "grey", "red")] + [s == SHAPES for s in ("cube", "disc", None)]
    design = np.c_[X, np.array(levels, float).T]
    w, *_ = np.linalg.lstsq(design, y, rcond=None)
    np.testing.assert_allclose(model.predict(table), design @ w, rtol=1e-9)
    weights, _ = model.coefficients()
    assert weights[0, 0] == pytest.approx(w[0], rel=1e-7)
    colour, shape = (by_value(model)[name] for name in ("colour", "shape"))
    assert colour["red"] - colour["blue"] == pytest.approx(w[4] - w[1], rel=1e-7)
    assert shape["cube"] - shape["is missing"] == pytest.approx(w[5] - w[7], rel=1e-7)


def test_rows_of_lists_come_to_least_squares_too() -> None:
    tags = [f"t{k}" for k in range(6)]
    rows = [[tags[k] for k in np.flatnonzero(RNG.random(6) < 0.4)] for _ in range(N)]
    design = np.array([[float(tag in row) for tag in tags] for row in rows])
    y = design @ [3.0, -1.0, 0.5, 2.0, 0.0, -4.0] + 7.0 + RNG.normal(size=N)
    table = pa.table({"tags": rows, "y": y})
    model = train(table, "y", optimizer="sgd", learning_rate=0.5, schedule="constant", epochs=400)
    w, *_ = np.linalg.lstsq(np.c_[design, np.ones(N)], y, rcond=None)
    np.testing.assert_allclose(model.predict(table), np.c_[design, np.ones(N)] @ w, rtol=1e-7)
    assert by_value(model)["tags"] == pytest.approx(dict(zip(tags, w.tolist(), strict=False)), abs=1e-6)
