"""Models that are not linear: scores are the sums of their definition, gradients are torch's, and broken ones are found out."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from streamsgd.errors import SettingsError
from streamsgd.features.layout import Layout
from streamsgd.kernels.learn.factors import FACTORS, START_SQUARES, born
from streamsgd.kernels.learn.fit import fit
from streamsgd.kernels.learn.pair_factors import PAIR_RATE, PAIR_SQUARES
from streamsgd.kernels.models.factored import NormalizedFactors
from streamsgd.kernels.models.machines import FM, Factored, Linear, compiled, rows_of, spread
from streamsgd.kernels.models.pairs import MOST_COLUMNS, FwFM
from streamsgd.kernels.structs.block import new_scratch
from streamsgd.kernels.structs.state import make_state
from streamsgd.kernels.structs.step import StepContext
from streamsgd.settings.registry import PARTS, make
from streamsgd.testing import check_model
from streamsgd.testing.laws import parts_with

torch = pytest.importorskip("torch")

MODELS = [name for name in PARTS["model"] if name != "linear"]

SMALL = {"mlp": "mlp:hidden=6-5-4"}
"""Of those that have thousands of parameters: each is moved by itself, in Python."""


# --- law: every model conforms


@pytest.mark.parametrize("name", MODELS)
def test_every_model_conforms(name: str) -> None:
    check_model(make("model", SMALL.get(name, name)))


def test_a_machine_without_its_linear_part_conforms() -> None:
    check_model(FM(k=1, linear="none"))


class Wrong(Factored):
    def derive(model, index, x, count, weights, room, out):  # type: ignore[no-untyped-def]  # as kernels are
        for e in range(count):
            for f in range(1 + model.k):
                out[e * (1 + model.k) + f] = x[e]


class Restless(Factored):
    def begin(model, weights: np.ndarray, n_coordinates: int, seed: int) -> None:
        weights[:] = np.random.default_rng().normal(size=weights.shape)


class Short(NamedTuple):
    def width(model):  # type: ignore[no-untyped-def]
        return 1


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Wrong(*compiled(FM(2))), "differences of scores"),
        (Restless(*compiled(FM(2))), "other numbers the second time"),
        (Short(), "lacks beyond"),
        (Linear(), "says that it is linear"),
    ],
)
def test_broken_models_are_found_out(model: Any, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_model(model)


# --- law: a machine is its definition


def rows(rng: np.random.Generator, n: int) -> Any:
    """Yield rows of up to 12 entries of n coordinates, the intercept's last."""
    for _ in range(20):
        count = int(rng.integers(1, 13))
        index = np.append(rng.choice(n - 1, count - 1, replace=False), n - 1)
        yield index, np.append(rng.normal(size=count - 1), 1.0)


@pytest.mark.parametrize("k", [1, 8, 13])
def test_the_score_is_the_sum_over_all_pairs(k: int) -> None:
    rng, n, form = np.random.default_rng(k), 30, compiled(FM(k))
    weights = rng.normal(size=(n, 1 + k))
    for index, x in rows(rng, n):
        expected = float(weights[index, 0] @ x)
        for i in range(len(index) - 1):
            for j in range(i):
                expected += float(weights[index[i], 1:] @ weights[index[j], 1:]) * x[i] * x[j]
        got = form.output(index, x, len(index), weights.ravel(), np.zeros(2 * k))
        assert abs(got - expected) <= 1e-12 * max(1.0, abs(expected))


def test_gradients_are_those_of_torch() -> None:
    rng, n, k = np.random.default_rng(0), 30, 8
    form, weights = compiled(FM(k)), rng.normal(size=(n, 1 + k))
    for index, x in rows(rng, n):
        parameters = torch.tensor(weights, requires_grad=True)
        used, factors = parameters[torch.tensor(index)], torch.tensor(x)
        products = used[:-1, 1:] * factors[:-1, None]
        score = (used[:, 0] * factors).sum() + 0.5 * (products.sum(0) ** 2 - (products**2).sum(0)).sum()
        score.backward()
        room, out = np.zeros(2 * k), np.zeros((len(index), 1 + k))
        form.output(index, x, len(index), weights.ravel(), room)
        form.derive(index, x, len(index), weights.ravel(), room, out.reshape(-1))
        assert np.abs(out - parameters.grad.numpy()[index]).max() <= 1e-10


def paired_rows(rng: np.random.Generator, n: int, columns: int) -> Any:
    """Yield rows as `rows`, some of whose entries share a place; places never fall, and the intercept has none."""
    for index, x in rows(rng, n):
        yield index, np.append(np.sort(rng.integers(0, columns, len(index) - 1)), columns), x


def numbers_of(weights: np.ndarray, columns: int, n: int) -> np.ndarray:
    """Return the weights of pairs as a symmetric matrix, from behind the coordinates."""
    r = np.zeros((columns, columns))
    r[np.triu_indices(columns)] = weights.ravel()[n * weights.shape[1] :][: columns * (columns + 1) // 2]
    return r + np.triu(r, 1).T


@pytest.mark.parametrize("k", [1, 8, 13])
def test_the_score_of_a_field_weighted_machine_is_the_sum_over_all_pairs(k: int) -> None:
    rng, n, columns = np.random.default_rng(k), 30, 5
    form = compiled(FwFM(k), 0, columns)
    weights = rng.normal(size=(rows_of(form, n), 1 + k))
    r = numbers_of(weights, columns, n)
    for index, places, x in paired_rows(rng, n, columns):
        expected = float(weights[index, 0] @ x)
        for i in range(len(index) - 1):
            for j in range(i):
                expected += r[places[i], places[j]] * float(weights[index[i], 1:] @ weights[index[j], 1:]) * x[i] * x[j]
        got = form.output(np.append(index, places), x, len(index), weights.ravel(), np.zeros(0))
        assert abs(got - expected) <= 1e-12 * max(1.0, abs(expected))


def test_gradients_of_a_field_weighted_machine_are_those_of_torch() -> None:
    rng, n, k, columns = np.random.default_rng(0), 30, 8, 5
    form = compiled(FwFM(k), 0, columns)
    weights, n_pairs = rng.normal(size=(rows_of(form, n), 1 + k)), columns * (columns + 1) // 2
    for index, places, x in paired_rows(rng, n, columns):
        parameters = torch.tensor(weights, requires_grad=True)
        upper = parameters[n:].reshape(-1)[:n_pairs]
        r = torch.zeros((columns, columns), dtype=torch.float64)
        r[np.triu_indices(columns)] = upper
        r = r + torch.triu(r, 1).T
        used, factors, at = parameters[torch.tensor(index)], torch.tensor(x), torch.tensor(places[:-1])
        z = used[:-1, 1:] * factors[:-1, None]
        products = (z @ z.T) * r[at][:, at]
        ((used[:, 0] * factors).sum() + torch.triu(products, 1).sum()).backward()
        out = np.full(len(index) * (1 + k) + n_pairs, np.nan)
        form.derive(np.append(index, places), x, len(index), weights.ravel(), np.zeros(0), out)
        got = out[:-n_pairs].reshape(-1, 1 + k)
        assert np.abs(got - parameters.grad.numpy()[index]).max() <= 1e-10
        assert np.abs(out[-n_pairs:] - parameters.grad.numpy()[n:].reshape(-1)[:n_pairs]).max() <= 1e-10


def test_it_begins_as_a_machine_of_the_same_seed() -> None:
    """Weights of pairs begin at 1: every score is that of fm."""
    rng, n, columns = np.random.default_rng(2), 30, 5
    form, plain = compiled(FwFM(4), 7, columns), compiled(FM(4), 7)
    weights, others = np.zeros((rows_of(form, n), 5)), np.zeros((n, 5))
    form.begin(weights, n, 7)
    plain.begin(others, n, 7)
    assert np.array_equal(weights[:n], others)
    for index, places, x in paired_rows(rng, n, columns):
        room, count = np.zeros(8), len(index)
        got = form.output(np.append(index, places), x, count, weights.ravel(), room)
        assert abs(got - plain.output(index, x, count, others.ravel(), room)) <= 1e-15


def test_a_field_weighted_machine_of_too_many_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="take fm, or leave columns out"):
        compiled(FwFM(), 0, MOST_COLUMNS + 1)


def test_factors_are_born_as_they_begin_in_batches() -> None:
    form = compiled(FM(3, start=0.2), seed=5)
    at_once = spread(form.key, np.arange(300), form.start)
    assert np.array_equal(at_once, [born(form, c // 3, c % 3) for c in range(300)])
    assert abs(at_once.mean()) < 0.03
    assert abs(at_once.std() - 0.2) < 0.02


@pytest.mark.parametrize("spec", ["fm:k=0", "fm:k=999", "fm:linear=maybe", "fm:rate=0", "fm:start=-1"])
def test_fields_out_of_range_are_refused(spec: str) -> None:
    with pytest.raises((ValueError, SettingsError), match=spec.partition(":")[2].partition("=")[0]):
        compiled(make("model", spec))


# --- law: rows one by one move as the formulas say


def reference(form: Any, rows: list[tuple[Any, ...]], n: int, rate: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Learn rows of squared losses as `kernels.learn.pair_factors` writes it, in NumPy: weights, factors, weights of pairs."""
    k, columns = form.k, form.columns
    w, G, s = np.zeros(n), np.zeros(n), np.zeros(n)
    v, A, r, B = np.zeros((n, k)), np.zeros(n), np.ones((columns + 1, columns + 1)), np.zeros((columns + 1, columns + 1))
    seen = spread_sum = low = high = 0.0
    for index, places, x, y in rows:
        inner = len(index) - 1
        for j in index[:-1]:
            if A[j] == 0.0 and G[j] > 0.0:
                A[j], v[j] = START_SQUARES, spread(form.key, j * k + np.arange(k), form.start)
        z, at = v[index[:-1]] * x[:-1, None], places[:-1]
        mixed = r[at][:, at] * (1.0 - np.eye(inner))
        low, high = min(low, y), max(high, y)
        score = min(max(w[index] @ x + 0.5 * np.sum(z * (mixed @ z)), low), high)
        g = score - y
        G[index] += g * g * x * x
        grown = np.abs(x) > s[index]
        w[index[grown & (s[index] > 0)]] *= (s[index] / np.abs(x))[grown & (s[index] > 0)]
        s[index] = np.maximum(s[index], np.abs(x))
        moves = x / s[index] / np.sqrt(G[index])
        spread_sum, seen = spread_sum + np.sum((x / s[index]) ** 2), seen + 1.0
        pull = rate * np.sqrt(seen / spread_sum)
        u = x[:-1, None] * (mixed @ z)
        alive = A[index[:-1]] > 0.0
        A[index[:-1]] += np.where(alive, g * g * (u * u).sum(1) / k, 0.0)
        scales = np.where(alive, 1.0 / np.sqrt(np.where(alive, A[index[:-1]], 1.0)), 0.0)
        of_pairs = np.zeros_like(r)
        for b in range(1, inner):
            for a in range(b):
                of_pairs[at[a], at[b]] += z[a] @ z[b]
        B += np.where(of_pairs != 0.0, g * g * of_pairs**2, 0.0)
        steps = of_pairs / np.sqrt(PAIR_SQUARES + B)
        force = pull * (x @ moves) + form.rate * ((u * u).sum(1) @ scales) + PAIR_RATE * np.sum(of_pairs * steps)
        step = -g * -np.expm1(-force) / force  # the implicit step of a squared loss
        w[index] += step * pull * moves
        v[index[:-1]] += step * form.rate * scales[:, None] * u
        r += step * PAIR_RATE * steps
        r = np.triu(r) + np.triu(r, 1).T
    return w, v, r[:columns, :columns]


def test_a_field_weighted_machine_moves_row_by_row_as_its_formulas_say() -> None:
    """Against NumPy: numbers, of which some are 0, and values of two categories, of which some come once."""
    rng, k, n_rows = np.random.default_rng(4), 3, 40
    layout = Layout(2, by=(-1, -1), n_coordinates=13, mixed=True)
    form, block = compiled(FwFM(k, start=0.3), 5, 4), layout.allocate(n_rows, "float64")
    rows = []
    for i in range(n_rows):
        numbers, ids = rng.normal(size=2) * (rng.random(2) < 0.8), [2 + rng.integers(0, 4), 6 + rng.integers(0, 6)]
        block.rows.values[i, :2], block.rows.ids[i, 4:], block.y[i] = numbers, ids, rng.normal()
        there = np.flatnonzero(numbers)
        index, places = np.array([*there, *ids, 12]), np.array([*there, 2, 3, 4])
        rows.append((index, places, np.array([*numbers[there], 1.0, 1.0, 1.0]), block.y[i]))
    optimizer = NormalizedFactors(0.5, k)
    parts = parts_with(model=form, optimizer=optimizer, loss=make("loss", "squared"))
    start = np.concatenate([np.zeros(13), np.ones(form.beyond())])
    state, scratch = make_state(start, optimizer.n_slots, np.float64, few=True, batches=False), new_scratch(1, float, 5, form)
    fit(parts, block, np.zeros(n_rows, np.int32), np.zeros(1, np.int64), state, StepContext(1, 12, 0.0, 0.0, 1.0), scratch)
    w, v, r = reference(form, rows, 13, 0.5)
    assert np.abs(state.weights[:13] - w).max() <= 1e-9
    assert np.abs(state.slots[FACTORS : FACTORS + k, :13].T - v).max() <= 1e-9
    assert np.abs(state.weights[13:] - r[np.triu_indices(4)]).max() <= 1e-9
    assert np.abs(r - 1.0).max() > 0.01
    assert np.abs(v).max() > 0.3
