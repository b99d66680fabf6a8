"""Penalties in a race: each learner pays its own, whoever is penalised next to nothing has the model of who is not."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from test_race import DENSE, WIDE, WIDTH, learn, rows, table

import streamsgd
from streamsgd.errors import SettingsError
from streamsgd.features.layout import Layout
from streamsgd.kernels.learn.fit import settled
from streamsgd.kernels.parts.optimizers import Race
from streamsgd.kernels.structs.block import Parts
from streamsgd.kernels.structs.state import make_state
from streamsgd.model.model import Model
from streamsgd.settings.registry import make
from streamsgd.training import learner
from streamsgd.training import race as racing

PLAIN: dict[str, Any] = {"executor": "inline", "memory": "2GB", "resume": "never", "validation": 0.0}
LISTED = Layout(WIDTH, n_coordinates=WIDTH + 1, mixed=True)


def penalised(penalty: str, loss: str) -> Parts:
    return Parts(make("loss", loss), make("penalty", penalty), Race(0.5), make("schedule", "constant"))


def weights_alone(block: Any, layout: Layout, parts: Parts, rate: float) -> tuple[np.ndarray, float]:
    """Weights, and loss, of one learner of `normalized` that pays late, as lists of entries do."""
    state = make_state(np.zeros(layout.n_coordinates), 2, np.float64, few=True, lazy=True, batches=False)
    parts = parts._replace(optimizer=make("optimizer", "normalized", learning_rate=rate))
    learn(block, layout, parts, state)
    found = np.zeros(layout.n_coordinates)
    settled(parts, state, layout.n_coordinates - 1, found)
    return found, float(state.tally[0])


# --- law: a learner in a race pays what it would pay alone


@pytest.mark.parametrize(("loss", "penalty", "layout"), [
    ("logistic", "l2:l2=0.01", WIDE),
    ("logistic", "l1:l1=0.005", WIDE),
    ("logistic", "elastic-net:l1=0.003,l2=0.01", DENSE),
])  # fmt: skip
def test_every_learner_pays_what_it_would_pay_alone(loss: str, penalty: str, layout: Layout) -> None:
    block, parts = rows(layout, loss, weighted=True), penalised(penalty, loss)
    state = learn(block, layout, parts, racing.start_race(np.zeros(layout.n_coordinates)))
    listed, alike = (rows(LISTED, loss, weighted=True), LISTED) if layout is DENSE else (block, layout)
    for k, rate in enumerate(racing.rates(0.5)):
        expected, total = weights_alone(listed, alike, parts, rate)
        assert racing.losses(state)[k] == pytest.approx(total, rel=1e-9)
        leads = state._replace(sums=state.sums.copy())
        racing.losses(leads)[k] = -1.0
        found = np.zeros(layout.n_coordinates)
        settled(parts, leads, layout.n_coordinates - 1, found)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
        free, _ = weights_alone(listed, alike, penalised("none", loss), rate)
        assert np.abs(found - free).max() > 1e-3, "it is no small penalty"


# --- law: next to no penalty is none, and a penalty leaves the race on


def train(data: pa.Table, **settings: Any) -> Model:
    return streamsgd.train(data, "y", **{**PLAIN, **settings})


@pytest.mark.parametrize("wide", [False, True], ids=["dense", "wide"])
@pytest.mark.parametrize("epochs", [1, "auto"])
def test_next_to_no_penalty_is_none(wide: bool, epochs: Any) -> None:
    data, new = table(wide=wide), table(seed=1, wide=wide)
    plain, tiny = (train(data, epochs=epochs, penalty=spec) for spec in ("none", "l2:l2=1e-12"))
    assert tiny.encoding == plain.encoding
    before, now = (one.provenance["parts"]["optimizer"] for one in (plain, tiny))
    assert before == now
    assert (plain.provenance["race"] is None) == (tiny.provenance["race"] is None)
    assert tiny.evaluate(new)["log_loss"] == pytest.approx(plain.evaluate(new)["log_loss"], rel=1e-3)


def test_bins_and_crosses_stay_where_something_is_penalised() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4_000, 3))
    waves = pa.table({**{f"x{j}": x[:, j] for j in range(3)}, "y": np.sin(3.0 * x[:, 0]) + rng.normal(size=4_000) / 2})
    plain, tiny = train(waves), train(waves, penalty="l2:l2=1e-12")
    assert plain.encoding.categories
    assert tiny.encoding == plain.encoding


def test_dense_rows_go_on_in_batches_with_the_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner, "RACE_ROWS", 5_000)
    data = table(20_000)
    plain, tiny, much = (train(data, epochs=1, penalty=spec) for spec in ("none", "l2:l2=1e-12", "l2:l2=1"))
    assert all("NormalizedBatches" in one.provenance["parts"]["optimizer"] for one in (plain, tiny, much))
    np.testing.assert_allclose(tiny.weights, plain.weights, rtol=1e-4, atol=1e-5)
    assert np.abs(much.weights[:-1]).max() < 0.5 * np.abs(plain.weights[:-1]).max()


# --- law: what is penalised is scikit-learn's


def objective(design: np.ndarray, weights: np.ndarray, y: np.ndarray, l2: float) -> float:
    score = design @ weights[:-1] + weights[-1]
    return float(np.logaddexp(0.0, score).mean() - (y * score).mean() + 0.5 * l2 * weights[:-1] @ weights[:-1])


def test_several_passes_of_a_race_end_at_scikit_learns_minimum() -> None:
    n, l2 = 3_000, 0.02
    data = table(n, wide=True)
    model = train(data, penalty=f"l2:l2={l2}", epochs=60, precision="float64", exclude=["x1", "x2"])
    assert model.provenance["race"] is not None
    sites = np.array([f"s{k}" for k in range(40)])
    x = np.asarray(data["x0"])
    design = np.column_stack([(x - x.mean()) / x.std(), *(np.asarray(data["site"]) == site for site in sites)]).astype(float)
    y = np.asarray(data["y"], float)
    exact = LogisticRegression(C=1.0 / (n * l2), max_iter=10_000, tol=1e-10).fit(design, y)
    theirs = objective(design, np.append(exact.coef_.ravel(), exact.intercept_), y, l2)
    score = model.decision_function(data)
    found = float(np.logaddexp(0.0, score).mean() - (y * score).mean() + 0.5 * l2 * np.square(model.weights[:-1]).sum())
    free = LogisticRegression(C=1e9, max_iter=10_000).fit(design, y)
    assert objective(design, np.append(free.coef_.ravel(), free.intercept_), y, l2) > 1.1 * theirs, "it is no small penalty"
    # Quantile bins beside the number are further weights, which shrink more together: no higher than without them.
    assert found < theirs * 1.002


def test_one_pass_of_dense_rows_comes_near_to_ridge_regression() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(50_000, 4))
    y = x @ [1.0, -2.0, 0.5, 0.0] + 3.0 + rng.normal(size=50_000)
    data = pa.table({**{f"x{j}": x[:, j] for j in range(4)}, "y": y})
    model = train(data, penalty="l2:l2=0.5", epochs=1)
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    exact = Ridge(alpha=0.5 * len(y)).fit(scaled, (y - y.mean()) / y.std())
    np.testing.assert_allclose(model.weights[:-1].ravel(), exact.coef_, atol=0.03)


# --- law: rows that ask for nothing pay as well


def test_a_hinge_pays_for_rows_beyond_its_kink_too() -> None:
    """A penalty weighs against all rows: against those with a slope alone it would be half as much here, or less."""
    data = table(4_000, wide=True)
    settings = {"loss": "squared-hinge", "penalty": "l2:l2=0.05", "precision": "float64", "transform": "none"}
    exact = train(data, **settings, epochs=1, polish=100)
    slow = train(data, **settings, epochs=60, optimizer="normalized")
    half = train(data, **{**settings, "penalty": "l2:l2=0.025"}, epochs=1, polish=100)
    away = np.linalg.norm(slow.weights - exact.weights) / np.linalg.norm(exact.weights)
    assert away < 0.1
    assert np.linalg.norm(half.weights - exact.weights) / np.linalg.norm(exact.weights) > 2.0 * away


# --- law: who asks for a race has one


def test_a_race_that_is_asked_for_has_penalties() -> None:
    assert train(table(500), optimizer="race", penalty="l2:l2=0.1", epochs=1).provenance["race"] is not None
    with pytest.raises(SettingsError, match="--forget with --penalty"):
        train(table(500), optimizer="race", penalty="l2:l2=0.1", epochs=1, forget=1000)
