"""Polishing: the minimum that others find, to all digits, in few passes, the same bytes whatever interrupts it."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression, PoissonRegressor

import streamsgd
from streamsgd.descent import Descent, Hessian
from streamsgd.encode import encode_target
from streamsgd.errors import DivergedError, SettingsError, Stopped
from streamsgd.kernels.rows import OWN
from streamsgd.model import Model
from streamsgd.settings import make_settings
from streamsgd.trainer import Report, train_model

N = 3000
L2 = 1e-3
RNG = np.random.default_rng(8)
X = RNG.normal(size=(N, 6)) @ RNG.normal(size=(6, 6)) + RNG.normal(size=6)
LOGIT = X @ [0.5, -0.4, 0.3, 0.0, 0.2, -0.1] - 0.3
COLOURS = np.array(["red", "green", "blue", "grey", "white"])[RNG.integers(0, 5, N)]
TAGS = [[f"t{k}" for k in np.flatnonzero(RNG.random(30) < 0.1)] for _ in range(N)]
WEIGHTS = RNG.integers(0, 4, N) / 2.0
COLUMNS = {f"x{j}": X[:, j] for j in range(6)}
CLASSES = (np.c_[LOGIT, X[:, 0] / 2, np.zeros(N)] + RNG.gumbel(size=(N, 3))).argmax(axis=1)
TARGETS: dict[str, Any] = {
    "logistic": LOGIT + RNG.logistic(size=N) > 0.0,
    "squared": 100.0 + 20.0 * (LOGIT + RNG.normal(size=N)),
    "huber:delta=0.5": 100.0 + 20.0 * (LOGIT + RNG.standard_t(2, size=N)),
    "poisson": RNG.poisson(np.exp(0.4 * LOGIT)),
    "softmax": np.array(["a", "b", "c"])[CLASSES],
    "squared-hinge": LOGIT + RNG.logistic(size=N) > 0.0,
}
BASE: dict[str, Any] = {
    "precision": "float64",
    "executor": "inline",
    "memory": "2GB",
    "epochs": 1,
    "polish": 100,
    "penalty": f"l2:l2={L2}",
    "transform": "none",
}


def table_of(loss: str, *, wide: bool = False) -> pa.Table:
    further = {"colour": COLOURS, "tags": TAGS} if wide else {}
    return pa.table({**COLUMNS, **further, "y": TARGETS[loss], "h": WEIGHTS})


def train(table: pa.Table, loss: str, **settings: Any) -> Model:
    return streamsgd.train(table, "y", **{**BASE, "loss": loss, "exclude": ["h"], **settings})


def design(model: Model, table: pa.Table) -> np.ndarray:
    """The rows as the model meets them, one column per weight, (n_rows, n_coordinates)."""
    block, pools = model.encode(table)
    rows, width = block.rows, model.encoding.width
    x = np.zeros((table.num_rows, model.encoding.n_coordinates))
    x[:, :width], x[:, -1] = rows.values[:, :width], 1.0
    if hasattr(rows, "ids"):
        for f, by in enumerate(rows.by):
            x[np.arange(len(x)), rows.ids[:, width + OWN + f]] += 1.0 if by < 0 else rows.values[:, by]
        for i, k in np.ndindex(rows.tails.shape[:2]):
            at, n = rows.tails[i, k]
            pool = next(p for p in pools if p.ctypes.data <= at < p.ctypes.data + p.nbytes)
            cells = pool.view(np.uint8).ravel()[at - pool.ctypes.data :][: 8 * n].view([("j", np.int32), ("x", np.float32)])
            np.add.at(x[i], cells["j"], cells["x"])
    return x


def learned(model: Model, table: pa.Table) -> np.ndarray:
    y, usable = encode_target(model.target, table["y"])
    assert usable.all()
    return y


def slopes_of(model: Model, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Derivatives of the losses by the scores, (n_rows, n_outputs), in plain Python."""
    scores, loss = x @ model.weights, model.loss
    if not hasattr(loss, "slopes"):
        return np.array([[loss.slope(t, s)] for t, s in zip(y.tolist(), scores[:, 0].tolist(), strict=True)])
    out = np.empty_like(scores)
    for t, s, row in zip(y.tolist(), scores, out, strict=True):
        loss.slopes(t, s, row)
    return out


def gradient_of(model: Model, table: pa.Table, weight: Any = 1.0) -> np.ndarray:
    """The gradient of mean weighted loss, without penalty."""
    x = design(model, table)
    return x.T @ (slopes_of(model, x, learned(model, table)) * np.reshape(weight, (-1, 1))) / len(x)


def penalised(model: Model, l2: float = L2) -> np.ndarray:
    pull = l2 * model.weights
    pull[-1] = 0.0
    return pull


# --- law: at the end there is no slope left, whatever the loss and the rows


@pytest.mark.parametrize("wide", [False, True], ids=["numbers", "wide"])
@pytest.mark.parametrize("loss", TARGETS)
def test_the_gradient_vanishes(loss: str, wide: bool) -> None:
    table = table_of(loss, wide=wide)
    model = train(table, loss)
    found = model.metrics["polish"]
    assert found["stopped"] == "gradient"
    assert found["passes"] <= 40
    assert found["gradient"] <= 1e-8
    assert np.abs(gradient_of(model, table) + penalised(model)).max() <= 1.1e-8


@pytest.mark.parametrize("loss", ["logistic", "softmax"])
def test_row_weights_and_held_out_rows_are_those_of_training(loss: str) -> None:
    """The mean is over rows, each loss times its weight, as in the gradient of every batch."""
    table = table_of(loss, wide=True)
    model = train(table, loss, weight="h", exclude=[])
    assert np.abs(gradient_of(model, table, WEIGHTS) + penalised(model)).max() <= 1.1e-8
    several = train(table, loss, weight="h", exclude=[], validation=0.25)
    whole = gradient_of(several, table, WEIGHTS) + penalised(several)
    assert np.abs(whole).max() > 1e-4, "a quarter of the rows was not learned from"
    assert several.metrics["polish"]["gradient"] <= 1e-8
    # What was judged last is what was saved.
    again = streamsgd.train(table, "y", **{**BASE, "loss": loss, "weight": "h", "validation": 0.25, "polish": 101})
    assert again.metrics["held_out"] == several.metrics["held_out"]


# --- law: the minimum is the one that others find


@pytest.mark.parametrize("wide", [False, True], ids=["numbers", "wide"])
def test_logistic_is_sklearns(wide: bool) -> None:
    table = table_of("logistic", wide=wide)
    model = train(table, "logistic")
    x, y = design(model, table), learned(model, table)
    theirs = LogisticRegression(C=1.0 / (N * L2), tol=1e-12, max_iter=10_000).fit(x[:, :-1], y)
    np.testing.assert_allclose(model.weights[:-1, 0], theirs.coef_[0], atol=1e-6)
    assert model.weights[-1, 0] == pytest.approx(theirs.intercept_[0], abs=1e-6)


def test_softmax_is_sklearns() -> None:
    table = table_of("softmax", wide=True)
    model = train(table, "softmax")
    x = design(model, table)
    theirs = LogisticRegression(C=1.0 / (N * L2), tol=1e-12, max_iter=10_000).fit(x[:, :-1], learned(model, table))
    np.testing.assert_allclose(model.weights[:-1], theirs.coef_.T, atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(table), theirs.predict_proba(x[:, :-1]), atol=1e-7)


def test_poisson_is_sklearns() -> None:
    table = table_of("poisson")
    model = train(table, "poisson")
    theirs = PoissonRegressor(alpha=L2, solver="newton-cholesky", tol=1e-12).fit(design(model, table)[:, :-1], TARGETS["poisson"])
    np.testing.assert_allclose(model.weights[:, 0], np.append(theirs.coef_, theirs.intercept_), atol=1e-6)


def test_squares_are_solved() -> None:
    table = table_of("squared", wide=True)
    model = train(table, "squared")
    x, y = design(model, table), learned(model, table)
    ridge = np.full(x.shape[1], L2)
    ridge[-1] = 0.0
    solved = np.linalg.solve(x.T @ x / N + np.diag(ridge), x.T @ y / N)
    np.testing.assert_allclose(model.weights[:, 0], solved, atol=1e-6)


def test_single_precision_ends_within_its_rounding() -> None:
    table = table_of("logistic", wide=True)
    exact, rounded = (train(table, "logistic", precision=kind) for kind in ("float64", "float32"))
    assert rounded.weights.dtype == np.float32
    np.testing.assert_allclose(rounded.weights, exact.weights, atol=2e-5)


# --- law: with l1 the right weights are 0, exactly

PENALTIES = {"l1:l1=0.01": (0.01, 0.0), "elastic-net:l1=0.005,l2=0.01": (0.005, 0.01)}


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("loss", TARGETS)
def test_the_conditions_of_optimality_hold(loss: str, penalty: str) -> None:
    """|g| <= l1 where w = 0, g = -l1 sign(w) elsewhere (Karush, Kuhn and Tucker)."""
    l1, l2 = PENALTIES[penalty]
    table = table_of(loss, wide=True)
    model = train(table, loss, penalty=penalty)
    g, w = gradient_of(model, table) + penalised(model, l2), model.weights
    inner_g, inner_w = g[:-1], w[:-1]
    at_zero = inner_w == 0.0
    assert 0 < at_zero.sum() < at_zero.size
    assert np.abs(inner_g[at_zero]).max() <= l1 * (1.0 + 1e-6)
    np.testing.assert_allclose(inner_g[~at_zero], -l1 * np.sign(inner_w[~at_zero]), atol=1.1e-8)
    assert np.abs(g[-1]).max() <= 1.1e-8


@pytest.mark.parametrize("wide", [False, True], ids=["numbers", "wide"])
def test_the_support_is_sagas(wide: bool) -> None:
    table = table_of("logistic", wide=wide)
    model = train(table, "logistic", penalty="l1:l1=0.01")
    x, y = design(model, table), learned(model, table)
    theirs = LogisticRegression(
        C=1.0 / (N * 0.01), l1_ratio=1.0, solver="saga", tol=1e-10, max_iter=100_000, random_state=0
    ).fit(x[:, :-1], y)
    ours = model.weights[:-1, 0]
    assert np.array_equal(ours != 0.0, theirs.coef_[0] != 0.0)
    assert 0 < np.count_nonzero(ours) < len(ours)
    np.testing.assert_allclose(ours, theirs.coef_[0], atol=1e-6)
