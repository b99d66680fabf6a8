"""Optimizers that bring noise: variance and escape against closed forms; dropout against torch with the masks drawn."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from streamsgd.features.layout import Layout
from streamsgd.kernels.learn.fit import fit, update
from streamsgd.kernels.learn.modelled import veil
from streamsgd.kernels.learn.stirring import normal_at
from streamsgd.kernels.models.machines import compiled, rows_of
from streamsgd.kernels.models.networks import MLP
from streamsgd.kernels.parts.noisy_optimizers import Heated, Perturbed
from streamsgd.kernels.structs.block import new_scratch
from streamsgd.kernels.structs.state import make_state
from streamsgd.kernels.structs.step import StepContext
from streamsgd.settings.registry import make
from streamsgd.testing.laws import parts_with

torch = pytest.importorskip("torch")


def stepped(optimizer: Any, weights: np.ndarray, gradient: Any, steps: int) -> np.ndarray:
    """Return the weights after every step along a gradient, (steps, n): a batch is one row, whose gradient this is."""
    parts, found = parts_with(optimizer=optimizer), np.zeros((steps, len(weights)))
    state, pace = make_state(weights.copy(), 0, np.float64), StepContext(1, 0, 0.0, 0.0, 1.0)
    for k in range(steps):
        state.grad[:] = gradient(state.weights)
        update(parts, state, pace, 1, 0.0)
        found[k] = state.weights
    return found


def test_numbers_are_normal_and_addressed() -> None:
    numbers = np.array([normal_at(7, step, j) for step in range(40) for j in range(50)])
    assert stats.kstest(numbers, "norm").pvalue > 0.01
    assert normal_at(7, 3, 4) == numbers[3 * 50 + 4]
    assert len(set(numbers)) == len(numbers)


def test_heat_has_the_variance_of_its_temperature() -> None:
    """On a w^2 / 2 the chain is w' = (1 - eta a) w + sqrt(2 eta T) z, of variance T / (a (1 - eta a / 2)): of 4,000 chains."""
    eta, a, temperature, n = 0.1, 2.0, 0.5, 4000
    found = stepped(Heated(eta, temperature).stirred(3), np.zeros(n), lambda w: a * w, 40)[-1]
    expected = temperature / (a * (1.0 - eta * a / 2.0)) * (1.0 - (1.0 - eta * a) ** 80)
    assert abs(found.var() / expected - 1.0) < 4.0 * math.sqrt(2.0 / n)
    assert abs(found.mean()) < 4.0 * math.sqrt(expected / n)


def test_heat_falls_by_half_lives() -> None:
    """Without a gradient the variance of a step is 2 eta T 2^(-step / half_life)."""
    n, moved = 4000, stepped(Heated(0.1, 0.5, 10.0).stirred(3), np.zeros(4000), np.zeros_like, 20)
    for step in (1, 10, 20):
        before = moved[step - 2] if step > 1 else np.zeros(n)
        expected = 2.0 * 0.1 * 0.5 * 0.5 ** (step / 10.0)
        assert abs((moved[step - 1] - before).var() / expected - 1.0) < 4.0 * math.sqrt(2.0 / n)


def test_kicks_leave_a_strict_saddle_where_plain_descent_stays() -> None:
    """At 0 of (x^2 - y^2 + y^4 / 2) / 2, whose minima are y = +-1: plain descent has the same bits after 500 steps."""

    def slope(w: np.ndarray) -> np.ndarray:
        return np.array([w[0], -w[1] + w[1] ** 3])

    still = stepped(make("optimizer", "sgd", learning_rate=0.1), np.zeros(2), slope, 500)
    assert not still.any()
    kicked = stepped(Perturbed(0.1, radius=0.01, threshold=1e-3, every=400).stirred(1), np.zeros(2), slope, 799)
    assert not kicked[:399].any()
    assert np.linalg.norm(kicked[399]) == pytest.approx(0.01, rel=0.11)  # the kick, and a step along the gradient of before
    assert abs(abs(kicked[-1, 1]) - 1.0) < 1e-6
    assert abs(kicked[-1, 0]) < 1e-6


def test_steep_places_are_not_kicked() -> None:
    plain = stepped(make("optimizer", "sgd", learning_rate=0.1), np.ones(3), lambda w: w, 20)
    kicked = stepped(Perturbed(0.1, threshold=1e-3, every=5).stirred(1), np.ones(3), lambda w: w, 20)
    assert np.array_equal(plain, kicked)


@pytest.mark.parametrize(("optimizer", "said"), [(Perturbed(radius=0.0), "radius"), (Heated(temperature=-1.0), "temperature")])
def test_fields_out_of_range_are_refused(optimizer: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        optimizer.stirred(0)


# --- dropout


def test_scores_and_gradients_with_units_left_out_are_those_of_torch() -> None:
    rng, n = np.random.default_rng(1), 5
    form = compiled(MLP("6-4", "tanh", dropout=0.4), 3)
    weights, x = rng.normal(size=(rows_of(form, n + 1), 6)).ravel(), np.append(rng.normal(size=n), 1.0)
    room, out = np.zeros(form.room()), np.zeros((n + 1) * 6 + form.beyond())
    veil(form, room, 0.25, 7, 11)
    masks = 1.0 - room[20:]
    assert set(np.round(masks, 12)) == {0.0, round(1.0 / 0.6, 12)}
    score = form.output(np.arange(n + 1), x, n + 1, weights, room)
    form.derive(np.arange(n + 1), x, n + 1, weights, room, out)
    w = torch.tensor(weights, requires_grad=True)
    first, rest = w[: (n + 1) * 6].reshape(n + 1, 6), w[(n + 1) * 6 :]
    a: Any = torch.tanh(torch.tensor(x) @ first) * torch.tensor(masks[:6])
    a = torch.tanh(a @ rest[:24].reshape(6, 4) + rest[24:28]) * torch.tensor(masks[6:])
    total = a @ rest[28:32] + rest[32]
    total.backward()
    assert abs(score - float(total.detach())) <= 1e-12
    assert np.abs(out - w.grad.numpy()[: out.size]).max() <= 1e-10


def test_masks_are_addressed_and_leave_out_as_many_as_was_asked_for() -> None:
    form = compiled(MLP("10", dropout=0.3))
    masks = np.zeros((600, 10))
    for i in range(600):
        room = np.zeros(form.room())
        veil(form, room, 0.5 + i // 300, i // 100, i % 100)
        masks[i] = room[20:]
    left_out = (masks == 1.0).mean()
    assert abs(left_out - 0.3) < 4.0 * math.sqrt(0.3 * 0.7 / masks.size)
    assert len(np.unique(masks, axis=0)) > 300
    again = np.zeros(form.room())
    veil(form, again, 0.5, 0, 5)
    assert np.array_equal(again[20:], masks[5])


def test_a_kernel_that_learns_leaves_units_out_and_one_of_nought_does_not() -> None:
    rng, n, rows = np.random.default_rng(2), 3, 64
    layout = Layout(n, n_coordinates=n + 1)
    block = layout.allocate(rows, "float64")
    block.rows.values[:, :n], block.y[:] = rng.normal(size=(rows, n)), rng.normal(size=rows)
    ends = []
    for dropout in (0.0, 0.5):
        form = compiled(MLP("5", "tanh", dropout=dropout), 1)
        start = np.zeros((rows_of(form, n + 1), 5))
        form.begin(start, n + 1, 1)
        parts = parts_with(model=form, optimizer=make("optimizer", "sgd", learning_rate=0.1))
        state, scratch = make_state(start.ravel(), 0, np.float64), new_scratch(1, float, layout.entries, form)
        pace = StepContext(rows, 0, 0.0, 1.0 / rows, 1.0)
        fit(parts, block, np.zeros(rows, np.int32), np.zeros(1, np.int64), state, pace, scratch)
        gradient = np.zeros(start.size)
        for i in range(rows):
            room, out = np.zeros(form.room()), np.zeros((n + 1) * 5 + form.beyond())
            veil(form, room, (i // 16 * 16) / rows, 0, i)
            x = np.append(block.rows.values[i, :n], 1.0)
            score = form.output(np.arange(n + 1), x, n + 1, start.ravel(), room)
            form.derive(np.arange(n + 1), x, n + 1, start.ravel(), room, out)
            gradient[: out.size] += (score - block.y[i]) * out / rows
        assert np.abs(state.weights - (start.ravel() - 0.1 * gradient)).max() <= 1e-12
        ends.append(state.weights)
    assert np.abs(ends[0] - ends[1]).max() > 1e-3


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_shares_out_of_range_are_refused(dropout: float) -> None:
    with pytest.raises(ValueError, match="dropout"):
        compiled(MLP(dropout=dropout))
