"""Row by row: the progressive loss is that of Vowpal Wabbit, units of columns do not matter, and no step overshoots."""

import itertools
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from vowpal import DATA, PLAIN, Data, N, progressive_loss_of_vowpal_wabbit, scales_and_categories, targets, weighted

import streamsgd
from streamsgd.kernels.parts.losses import Hinge, Huber, Logistic, Poisson, Quantile, Squared, SquaredHinge
from streamsgd.model.model import Model

SPECS = {
    "squared": "squared",
    "logistic": "logistic",
    "hinge": "hinge",
    "quantile": "quantile:level=0.3",
    "poisson": "poisson",
}


def train(table: pa.Table, loss: str, **settings: Any) -> Model:
    return streamsgd.train(table, "y", loss=SPECS.get(loss, loss), **{**PLAIN, **settings})


def theirs(loss: str, data: Data, y: np.ndarray) -> float:
    return progressive_loss_of_vowpal_wabbit("--quantile_tau 0.3" if loss == "quantile" else "", loss, data, y)


def ours(loss: str, data: Data, y: np.ndarray) -> float:
    """The same of streamsgd, on their scale: squared losses are twice ours, counts are told by their deviance."""
    model = train(pa.table({**data.columns, "y": y}), loss, **data.settings)
    found = float(model.metrics["progressive_loss"])
    if loss == "poisson":
        of_y = np.where(y > 0, y * np.log(np.maximum(y, 1)) - y, 0.0)
        return 2 * (found + float(np.average(of_y, weights=data.weight)))
    return 2 * found if loss == "squared" else found


# --- law: it is the default of Vowpal Wabbit


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("loss", SPECS)
def test_the_progressive_loss_is_that_of_vowpal_wabbit(loss: str, name: str) -> None:
    data = DATA[name]()
    y = targets(loss, data.signal)
    assert ours(loss, data, y) == pytest.approx(theirs(loss, data, y), rel=1e-5)


# --- law: units do not matter


@pytest.fixture(scope="module")
def plain() -> tuple[dict[str, Any], np.ndarray]:
    data = scales_and_categories()
    columns = {k: v.astype(float) if isinstance(v, np.ndarray) else v for k, v in data.columns.items()}
    return columns, targets("logistic", data.signal)


def scores(columns: dict[str, Any], y: np.ndarray, name: str, unit: float) -> np.ndarray:
    table = pa.table({**columns, name: columns[name] * unit, "y": y})
    return train(table, "logistic").decision_function(table)


@pytest.mark.parametrize("unit", [2.0**-14, 2.0, 2.0**13])
def test_a_column_in_a_unit_of_a_power_of_two_gives_the_same_bits(unit: float, plain: Any) -> None:
    for name in ("x0", "x5"):
        assert np.array_equal(scores(*plain, name, unit), scores(*plain, name, 1.0))


@pytest.mark.parametrize("unit", [1e-4, 1e4, -1.0, 1e8])
def test_in_any_other_unit_the_same_to_rounding(unit: float, plain: Any) -> None:
    before, after = scores(*plain, "x3", 1.0), scores(*plain, "x3", unit)
    np.testing.assert_allclose(after, before, rtol=1e-9, atol=1e-9)


# --- law: a leap ends where infinitely many small steps do


SMOOTH = [Squared(), Logistic(), Poisson(), SquaredHinge(), Huber(0.7)]
KINKED = [Hinge(), Quantile(0.3)]
STARTS = (-50.0, -7.0, -0.9, 0.0, 0.4, 3.0, 12.0)
FORCES = (1e-9, 1e-4, 0.05, 1.0, 8.0, 300.0)


def targets_of(loss: Any) -> tuple[float, ...]:
    return {"regression": (-2.0, 0.0, 1.5), "poisson": (0.0, 1.0, 6.0)}.get(loss.task, (0.0, 1.0))


@pytest.mark.parametrize("loss", SMOOTH, ids=lambda loss: type(loss).__name__)
def test_a_leap_is_the_solution_of_the_differential_equation(loss: Any) -> None:
    for y, start, force in itertools.product(targets_of(loss), STARTS, FORCES):
        if abs(loss.slope(y, start)) * force < 1e-8 or (isinstance(loss, Poisson) and start > 5):
            continue  # too little, or too stiff, to be told from the integrator's errors
        solved = solve_ivp(
            lambda _t, s, y=y: [-loss.slope(y, float(s[0]))], (0.0, force), [start], "LSODA", rtol=1e-9, atol=1e-11
        )
        assert loss.leap(y, start, force) == pytest.approx(solved.y[0, -1] - start, rel=1e-5, abs=1e-7), (y, start, force)


def test_the_logistic_leap_is_the_root_of_its_equation() -> None:
    """x + e^s (e^x - 1) = force, s the margin: to 1e-8 of the step, and of the smallest ones too."""
    for margin, force in itertools.product(
        (-50.0, -20.0, -1.0, 0.0, 2.0, 10.0, 30.0, 50.0), (1e-12, 1e-6, 1e-3, 0.1, 1, 30, 1e4)
    ):
        odds = math.exp(margin)
        most = min(force, math.log1p(force / odds))
        root = brentq(lambda x, o=odds, f=force: x + o * math.expm1(x) - f, 0.0, most, xtol=1e-300, rtol=1e-14)
        for y in (0.0, 1.0):
            sign = 2 * y - 1
            assert Logistic().leap(y, sign * margin, force) * sign == pytest.approx(root, rel=1e-8), (margin, force)


@pytest.mark.parametrize("loss", KINKED, ids=lambda loss: type(loss).__name__)
def test_a_leap_over_a_kinked_loss_stops_at_the_kink(loss: Any) -> None:
    for y, start, force in itertools.product(targets_of(loss), STARTS, FORCES):
        slope = loss.slope(y, start)
        kink = y if isinstance(loss, Quantile) else 2 * y - 1
        expected = math.copysign(min(abs(slope) * force, abs(kink - start)), -slope) if slope else 0.0
        assert loss.leap(y, start, force) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("loss", SMOOTH + KINKED, ids=lambda loss: type(loss).__name__)
def test_a_row_of_weight_four_is_the_row_four_times(loss: Any) -> None:
    """As far as nothing adapts: a leap of four times the force is four leaps."""
    for y, start, force in itertools.product(targets_of(loss), STARTS, (1e-5, 0.01, 1.0)):
        score = start
        for _ in range(4):
            score += loss.leap(y, score, force)
        assert start + loss.leap(y, start, 4 * force) == pytest.approx(score, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("loss", SMOOTH + KINKED, ids=lambda loss: type(loss).__name__)
def test_no_leap_overshoots_or_leaves_the_finite_numbers(loss: Any) -> None:
    for y, start, force in itertools.product(targets_of(loss), (*STARTS, 50.0), (*FORCES, 1e15)):
        after = start + loss.leap(y, start, force)
        assert math.isfinite(after)
        slope = loss.slope(y, after)
        assert slope * loss.slope(y, start) >= 0.0 or abs(slope) < 1e-9, (y, start, force)


# --- law: a row that says nothing changes nothing


@pytest.mark.parametrize("loss", ["logistic", "squared"])
def test_rows_of_weight_zero_are_no_rows(loss: str) -> None:
    data = weighted()
    y, rng = targets(loss, data.signal), np.random.default_rng(5)
    used = rng.random(N) < 0.6
    table = pa.table({**data.columns, "h": np.where(used, data.weight, 0.0), "y": y})
    with_them, without = (train(t, loss, weight="h") for t in (table, table.filter(pa.array(used))))
    assert np.array_equal(with_them.weights, without.weights)
    assert with_them.metrics["progressive_loss"] == pytest.approx(without.metrics["progressive_loss"], rel=1e-12)


def test_not_even_if_their_targets_are_beyond_all_others() -> None:
    """Scores are confined to the range of the targets so far; a weight of 0 is how people leave rows out."""
    tags = [["a"], ["b"]] * 20 + [["c"], ["a", "b"], ["c"]]
    table = pa.table({"tags": tags, "y": [1.0] * 40 + [50.0, 0.5, 0.7], "h": [1.0] * 40 + [0.0, 1.0, 1.0]})
    with_it, without = (train(t, "squared", weight="h") for t in (table, table.filter(pa.array(table["h"]).cast(pa.bool_()))))
    assert np.array_equal(with_it.weights, without.weights)


@pytest.mark.parametrize("loss", ["squared", "quantile"])
def test_rows_without_slope_are_no_rows(loss: str) -> None:
    """Those whose target is the score, as 0 is at the start."""
    data = scales_and_categories()
    table = pa.table({**data.columns, "y": np.where(np.arange(N) < 200, 0.0, targets(loss, data.signal))})
    whole, rest = train(table, loss), train(table[200:], loss)
    assert np.array_equal(whole.weights, rest.weights)
    assert whole.metrics["progressive_loss"] * N == pytest.approx(rest.metrics["progressive_loss"] * (N - 200), rel=1e-12)


def test_entries_of_zero_are_no_entries() -> None:
    """Numbers of a map may be 0, or null, which counts as 0; also where a key comes for the first time."""
    rng = np.random.default_rng(6)
    full = [[("k0", 1.0), *((f"k{k}", (None, 0.0, 2.0, -1.5)[rng.integers(0, 4)]) for k in range(1, 6))] for _ in range(300)]
    sparse = [[(key, value) for key, value in row if value] for row in full]
    y = np.array([sum(value for _, value in row) for row in sparse])
    models = [
        train(pa.table({"m": [[{"key": k, "value": v} for k, v in row] for row in rows], "y": y}), "squared", bits=18)
        for rows in (full, sparse)
    ]
    assert np.array_equal(models[0].weights, models[1].weights)


# --- law: nothing blows up


@pytest.mark.parametrize("times", [10, 300])
def test_a_word_that_a_text_repeats_is_learned_as_well_as_one_that_it_does_not(times: int) -> None:
    """No step overshoots: the entries of one coordinate move its weight together."""
    rng = np.random.default_rng(7)
    kinds = rng.integers(0, 5, 300)
    y, errors = kinds + rng.normal(size=300) / 10, []
    for repeated in (1, times):
        table = pa.table({"t": [" ".join([f"word{k}"] * repeated) for k in kinds], "y": y})
        model = train(table, "squared", text=["t"], bits=18)
        errors.append(float(np.sqrt(np.mean((model.predict(table) - y) ** 2))))
    assert errors[1] < 2 * errors[0]


def test_values_that_share_a_coordinate_do_not_overshoot_either() -> None:
    """Eighty columns of many values in 256 coordinates."""
    rng = np.random.default_rng(8)
    columns = {f"c{k}": [f"v{v}" for v in rng.integers(0, 2000, 3000)] for k in range(80)}
    y = 100.0 + rng.normal(size=3000)
    model = train(pa.table({**columns, "y": y}), "squared", bits=8)
    assert np.sqrt(np.mean((model.predict(pa.table(columns)) - y) ** 2)) < 1.5


def test_the_rate_is_that_of_the_row_however_rows_are_cut_into_chunks() -> None:
    data = scales_and_categories()
    table = pa.table({**data.columns, "y": data.signal})
    settings = {"schedule": "inverse-scaling:power=0.5", "shuffle": "none"}
    whole, cut = train(table, "squared", **settings), train(table, "squared", chunk_rows=100, **settings)
    np.testing.assert_allclose(cut.weights, whole.weights, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rate", [1e-6, 1e3, 1e12])
@pytest.mark.parametrize("loss", SPECS)
def test_at_any_rate_the_weights_stay_finite(loss: str, rate: float) -> None:
    data = weighted()
    y = targets(loss, data.signal)
    columns = {**data.columns, "x0": np.where(np.arange(N) % 100 == 0, 1e6, 1e-6), "h": data.weight * 1e3}
    model = train(pa.table({**columns, "y": y}), loss, weight="h", learning_rate=rate, epochs=2)
    assert np.isfinite(model.weights).all()
    assert math.isfinite(model.metrics["progressive_loss"])


def test_several_classes_are_learned_in_any_unit() -> None:
    data = scales_and_categories()
    y = np.digitize(data.signal, np.quantile(data.signal, [0.25, 0.5, 0.75]))
    columns = {k: v.astype(float) if isinstance(v, np.ndarray) else v for k, v in data.columns.items()}
    table = pa.table({**columns, "y": [f"class {k}" for k in y]})
    model = train(table, "softmax", epochs=3)
    assert model.weights.shape[1] == 4
    assert np.isfinite(model.weights).all()
    rows = model.predict_proba(table)[np.arange(N), y]
    assert -np.log(rows).mean() < model.metrics["progressive_loss"] < math.log(4)
    assert (model.predict(table) == np.array(table["y"])).mean() > 0.6
    other = pa.table({**columns, "x2": columns["x2"] * 2.0**9, "y": table["y"]})
    np.testing.assert_allclose(train(other, "softmax", epochs=3).predict_proba(other), model.predict_proba(table), rtol=1e-9)
