"""Betting on every weight: Vowpal Wabbit's --coin, in any unit, and no bet loses everything."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from vowpal import DATA, PLAIN, Data, N, progressive_loss_of_vowpal_wabbit, scales_and_categories, targets, weighted

import streamsgd
from streamsgd.errors import SettingsError
from streamsgd.features.layout import Layout, most_entries
from streamsgd.kernels.learn.coin import SLOTS, bet
from streamsgd.kernels.learn.fit import fit, settled
from streamsgd.kernels.parts.losses import Squared
from streamsgd.kernels.parts.optimizers import Coin
from streamsgd.kernels.parts.penalties import Free
from streamsgd.kernels.parts.schedules import Constant
from streamsgd.kernels.structs.block import Parts, new_scratch
from streamsgd.kernels.structs.rows import OWN
from streamsgd.kernels.structs.state import make_state
from streamsgd.kernels.structs.step import StepContext
from streamsgd.model.model import Model


def train(table: pa.Table, loss: str, **settings: Any) -> Model:
    return streamsgd.train(table, "y", loss=loss, **{**PLAIN, "optimizer": "coin", **settings})


def ours(loss: str, data: Data, y: np.ndarray, wealth: float, beta: float) -> float:
    """Progressive loss on their scale: squared losses and their slopes are twice ours."""
    twice = 2.0 if loss == "squared" else 1.0
    optimizer = f"coin:learning_rate={wealth / twice},beta={beta / twice}"
    model = train(pa.table({**data.columns, "y": y}), loss, optimizer=optimizer, **data.settings)
    return twice * float(model.metrics["progressive_loss"])


# --- law: it is the --coin of Vowpal Wabbit


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("loss", ["squared", "logistic", "hinge"])
@pytest.mark.parametrize(("wealth", "beta"), [(4.0, 1.0), (0.5, 0.1)])
def test_the_progressive_loss_is_that_of_vowpal_wabbit(loss: str, name: str, wealth: float, beta: float) -> None:
    """1e-6 in all of them; they reckon in float32."""
    data = DATA[name]()
    y = targets(loss, data.signal)
    arguments = f"--coin --ftrl_alpha {wealth} --ftrl_beta {beta}"
    expected = progressive_loss_of_vowpal_wabbit(arguments, loss, data, y)
    assert ours(loss, data, y, wealth, beta) == pytest.approx(expected, rel=1e-5)


def test_the_defaults_are_those_of_vowpal_wabbit() -> None:
    data = scales_and_categories()
    y = targets("logistic", data.signal)
    expected = progressive_loss_of_vowpal_wabbit("--coin", "logistic", data, y)
    assert ours("logistic", data, y, *Coin()) == pytest.approx(expected, rel=1e-5)


# --- law: units do not matter


@pytest.mark.parametrize("unit", [2.0**-14, 2.0**13, 1e-6, 1e6, -1.0])
def test_a_column_may_be_in_any_unit(unit: float) -> None:
    data = scales_and_categories()
    columns = {k: v.astype(float) if isinstance(v, np.ndarray) else v for k, v in data.columns.items()}
    y, found = targets("logistic", data.signal), []
    for factor in (1.0, unit):
        table = pa.table({**columns, "x3": columns["x3"] * factor, "y": y})
        found.append(train(table, "logistic").decision_function(table))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-9, atol=1e-9)


# --- law: rows count as they weigh, entries as their sum


@pytest.mark.parametrize("loss", ["logistic", "squared"])
def test_rows_of_weight_zero_are_no_rows(loss: str) -> None:
    data = weighted()
    used = np.random.default_rng(5).random(N) < 0.6
    table = pa.table({**data.columns, "h": np.where(used, data.weight, 0.0), "y": targets(loss, data.signal)})
    with_them, without = (train(t, loss, weight="h") for t in (table, table.filter(pa.array(used))))
    assert np.array_equal(with_them.weights, without.weights)
    assert with_them.metrics["progressive_loss"] == pytest.approx(without.metrics["progressive_loss"], rel=1e-12)


def test_a_word_that_every_text_repeats_is_the_word_once() -> None:
    """Its number is 300 in all of them, which is a unit."""
    rng = np.random.default_rng(7)
    kinds = rng.integers(0, 5, 300)
    y, found = kinds + rng.normal(size=300) / 10, []
    for times in (1, 300):
        table = pa.table({"t": [" ".join([f"word{k}"] * times) for k in kinds], "y": y})
        found.append(train(table, "squared", text=["t"], bits=18).predict(table))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-9)


# --- law: several outputs bet as one does


@pytest.mark.parametrize("doubles", [False, True])
def test_every_class_bets_by_its_own_slopes(doubles: bool) -> None:
    """The formula of the module, all weights of all classes at once."""
    rng = np.random.default_rng(3)
    n, width, values, classes = 400, 2, 4, 3
    x = np.zeros((n, width + values + 1))
    x[:, :width], x[:, -1] = rng.normal(size=(n, width)) * [1.0, 30.0], 1.0
    ids = width + rng.integers(0, values, (n, 2))
    for i in range(n):
        for j in ids[i]:
            x[i, j] += 1.0
    if not doubles:
        ids[:, 1] = width + (ids[:, 0] - width + 1) % values
        x[:, width:-1] = 0.0
        x[np.arange(n)[:, None], ids] = 1.0
    y, h = rng.integers(0, classes, n), rng.uniform(0.5, 2.0, n)
    layout = Layout(width, by=(-1, -1), n_coordinates=x.shape[1], mixed=True, doubles=doubles)
    block = layout.allocate(n, "float64")
    block.rows.values[:, :width], block.rows.ids[:, width + OWN :] = x[:, :width], ids
    block.y[:], block.weight[:] = y, h
    loss = streamsgd.settings.registry.make("loss", f"softmax:classes={classes}")
    parts = Parts(loss, Free(), Coin(3.0, 0.5), Constant())
    state = make_state(np.zeros(x.shape[1] * classes), SLOTS, np.float64, few=True, batches=False)
    pace = StepContext(1 << 62, state.weights.size - classes, 0.0, 1 / n, 1.0)
    fit(
        parts,
        block,
        np.zeros(n, np.int32),
        np.zeros(1, np.int64),
        state,
        pace,
        new_scratch(classes, float, most_entries(block, layout)),
    )
    got = np.empty(state.weights.size)
    settled(parts, state, 0, got)

    z, sizes, won, steep, largest = np.zeros((5, x.shape[1], classes))
    spread = seen = total = 0.0
    for i in range(n):
        here = x[i] != 0.0
        largest[here] = np.maximum(largest[here], np.abs(x[i, here, None]))
        units = x[i, here] / largest[here, 0]
        spread, seen = spread + h[i] * units @ units, seen + h[i]
        norm = (spread + 1e-6) / seen
        scores = x[i] @ shares(z, sizes, won, steep, largest) / norm
        p = np.exp(scores - scores.max())
        p /= p.sum()
        total -= h[i] * math.log(p[y[i]])
        g = h[i] * (p - np.eye(classes)[y[i]])
        new = here[:, None] & (np.abs(g) > steep)
        steep = np.where(new, np.maximum(np.abs(g), 0.5), steep)
        part = x[i][:, None] * g
        won -= part * shares(z, sizes, won, steep, largest)
        z, sizes = z - part, sizes + np.abs(part)
    expected = shares(z, sizes, won, steep, largest) / norm
    np.testing.assert_allclose(got.reshape(-1, classes), expected, rtol=1e-9)
    np.testing.assert_allclose(state.tally, [total, h.sum(), n], rtol=1e-12)


def shares(z: np.ndarray, sizes: np.ndarray, won: np.ndarray, steep: np.ndarray, largest: np.ndarray) -> np.ndarray:
    most = steep * largest
    return np.where(most > 0.0, (3.0 + won) * z / np.where(most > 0.0, most * (most + sizes), 1.0), 0.0)


# --- law: nothing blows up, and no bet loses everything


@pytest.mark.parametrize("wealth", [1e-6, 1e6])
@pytest.mark.parametrize(
    ("loss", "precision"),
    [("squared", "float32"), ("logistic", "float32"), ("hinge", "float32"), ("quantile", "float32"), ("poisson", "float64")],
)
def test_with_any_wealth_the_weights_stay_finite(loss: str, wealth: float, precision: str) -> None:
    data = weighted()
    columns = {**data.columns, "x0": np.where(np.arange(N) % 100 == 0, 1e12, 1e-12), "h": data.weight * 1e3}
    table = pa.table({**columns, "y": targets(loss, data.signal)})
    model = train(table, loss, weight="h", learning_rate=wealth, epochs=2, precision=precision)
    assert np.isfinite(model.weights).all()
    assert math.isfinite(model.metrics["progressive_loss"])


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_who_always_loses_does_not_lose_all_of_the_wealth(kind: Any) -> None:
    """Gradients of any size that are against every bet; what is left falls as one over a root of their number."""
    slots, wealth, rng = np.zeros((SLOTS, 1), kind), 4.0, np.random.default_rng(1)
    slots[3:] = 1.0
    for _ in range(10_000):
        share = bet(wealth, slots, 0, slots[3, 0], slots[4, 0])
        g = math.copysign(min(1.0, rng.lognormal(-1.0, 3.0)), share)
        slots[2, 0] -= g * share
        slots[0, 0] -= g
        slots[1, 0] += abs(g)
    assert 1e-3 * wealth < wealth + slots[2, 0] < wealth


def test_wealth_beyond_the_finite_numbers_is_found_out() -> None:
    """Though squared losses confine scores to the range of the targets."""
    layout = Layout(1, n_coordinates=2, mixed=True)
    block = layout.allocate(4, "float32")
    block.rows.values[:, 0], block.y[:] = 1.0, [1.0, 2.0, 3.0, 4.0]
    state = make_state(np.zeros(2, np.float32), SLOTS, np.float32, few=True, batches=False)
    state.slots[:, 0] = 1.0, 1.0, 3e38, 1e-3, 1.0
    scratch = new_scratch(1, "float32", most_entries(block, layout))
    parts = Parts(Squared(), Free(), Coin(), Constant())
    fit(parts, block, np.zeros(4, np.int32), np.zeros(1, np.int64), state, StepContext(1 << 62, 1, 0.0, 0.25, 1.0), scratch)
    assert not np.isfinite(state.tally[0])


# --- law: what a run keeps


def test_where_the_weights_started_is_kept() -> None:
    """Intercepts start at the best constant; bets are on what is to be added."""
    table = pa.table({"c": ["a", "b"] * 200, "y": [0, 1, 1, 1] * 100})
    model = train(table, "logistic", scale="standard", optimizer="coin:learning_rate=1e-9")
    assert model.weights[-1, 0] == pytest.approx(math.log(3.0), rel=0.02)


def test_a_penalty_is_refused() -> None:
    table = pa.table({"c": ["a", "b"] * 20, "y": [0, 1] * 20})
    with pytest.raises(SettingsError, match=r"--penalty l2 with --optimizer coin needs stretch"):
        train(table, "logistic", penalty="l2")
