"""Networks: gradients are torch's, and steps those of scikit-learn's MLPClassifier and MLPRegressor."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier, MLPRegressor

from streamsgd.features.layout import Layout
from streamsgd.kernels.learn.fit import fit
from streamsgd.kernels.models.machines import compiled, rows_of
from streamsgd.kernels.models.networks import MLP
from streamsgd.kernels.structs.block import new_scratch
from streamsgd.kernels.structs.state import make_state
from streamsgd.kernels.structs.step import StepContext
from streamsgd.settings.registry import make
from streamsgd.testing import check_model
from streamsgd.testing.laws import parts_with

torch = pytest.importorskip("torch")

SHAPES = ["5", "6-4", "5-4-3"]


@pytest.mark.parametrize("activation", ["tanh", "logistic", "identity"])
def test_networks_of_every_activation_conform(activation: str) -> None:
    check_model(MLP("4-3-2" if activation == "tanh" else "3", activation))


def flat(matrices: list[np.ndarray], biases: list[np.ndarray]) -> np.ndarray:
    """Lay layers out as networks have them: rows of the first, then its biases as those of the intercept, then the others."""
    parts = [part.ravel() for pair in zip(matrices, biases, strict=True) for part in pair]
    width = matrices[0].shape[1]
    whole = np.concatenate(parts)
    return np.append(whole, np.zeros(-whole.size % width))


def random_layers(rng: np.random.Generator, n: int, hidden: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    sizes = [n, *map(int, hidden.split("-")), 1]
    matrices = [rng.normal(size=(a, b)) / np.sqrt(a) for a, b in pairwise(sizes)]
    return matrices, [0.1 * rng.normal(size=b) for b in sizes[1:]]


@pytest.mark.parametrize("hidden", SHAPES)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_gradients_are_those_of_torch(hidden: str, activation: str) -> None:
    rng, n = np.random.default_rng(1), 7
    matrices, biases = random_layers(rng, n, hidden)
    form, weights = compiled(MLP(hidden, activation)), flat(matrices, biases)
    x = np.append(rng.normal(size=n), 1.0)
    index, room = np.arange(n + 1), np.zeros(form.room())
    out = np.zeros((n + 1) * form.width() + form.beyond())
    score = form.output(index, x, n + 1, weights, room)
    form.derive(index, x, n + 1, weights, room, out)
    tensors = [[torch.tensor(some, requires_grad=True) for some in kind] for kind in (matrices, biases)]
    a: Any = torch.tensor(x[:n])
    for layer, (matrix, bias) in enumerate(zip(*tensors, strict=True)):
        a = a @ matrix + bias
        if layer < len(matrices) - 1:
            a = torch.relu(a) if activation == "relu" else torch.tanh(a)
    a.sum().backward()
    expected = flat(*([tensor.grad.numpy() for tensor in kind] for kind in tensors))
    assert abs(score - float(a.detach().sum())) <= 1e-12
    assert np.abs(out - expected[: out.size]).max() <= 1e-10


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("activation", ["relu", "logistic"])
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_steps_are_those_of_scikit_learn(kind: Any, activation: str) -> None:
    rng, n, rows, batch = np.random.default_rng(2), 6, 320, 32
    x = rng.normal(size=(rows, n))
    y = (x[:, 0] * x[:, 1] > 0).astype(float) if kind is MLPClassifier else x[:, 0] * x[:, 1]
    theirs = kind(
        hidden_layer_sizes=(8, 5), activation=activation, solver="sgd", alpha=0.0, batch_size=batch, momentum=0.0,
        nesterovs_momentum=False, learning_rate_init=0.3, shuffle=False, max_iter=3, tol=0.0, random_state=0,
    )  # fmt: skip
    matrices, biases = random_layers(rng, n, "8-5")
    classes = {"classes": [0.0, 1.0]} if kind is MLPClassifier else {}
    theirs.partial_fit(x[:batch], y[:batch], **classes)
    theirs.coefs_, theirs.intercepts_ = [m.copy() for m in matrices], [b.copy() for b in biases]
    theirs._optimizer.params = theirs.coefs_ + theirs.intercepts_
    for _ in range(3):
        for first in range(0, rows, batch):
            theirs.partial_fit(x[first : first + batch], y[first : first + batch], **classes)
    form, layout = compiled(MLP("8-5", activation)), Layout(n, n_coordinates=n + 1)
    block = layout.allocate(rows, "float64")
    block.rows.values[:, :n], block.y[:] = x, y
    start = flat(matrices, biases)
    assert start.size == rows_of(form, n + 1) * form.width()
    loss = "logistic" if kind is MLPClassifier else "squared"
    parts = parts_with(model=form, loss=make("loss", loss), optimizer=make("optimizer", "sgd", learning_rate=0.3))
    state, scratch = make_state(start, 0, np.float64), new_scratch(1, float, layout.entries, form)
    for _ in range(3):
        order, heads = np.zeros(rows, np.int32), np.zeros(1, np.int64)
        fit(parts, block, order, heads, state, StepContext(batch, 0, 0.0, 0.0, 1.0), scratch)
    assert np.abs(state.weights - flat(theirs.coefs_, theirs.intercepts_)).max() <= 1e-8
    assert np.abs(state.weights - start).max() > 0.05


def test_units_that_begin_alike_stay_alike() -> None:
    """The noise of data never tells two units apart that it found alike: bits, not numbers; see docs/interactions.md."""
    rng, n, rows = np.random.default_rng(4), 3, 200
    form, layout = compiled(MLP("2", "tanh")), Layout(n, n_coordinates=n + 1)
    block = layout.allocate(rows, "float64")
    block.rows.values[:, :n] = rng.normal(size=(rows, n))
    block.y[:] = rng.normal(size=rows)
    start = np.full(rows_of(form, n + 1) * 2, 0.3)
    parts = parts_with(model=form, optimizer=make("optimizer", "sgd", learning_rate=0.1))
    state, scratch = make_state(start, 0, np.float64), new_scratch(1, float, layout.entries, form)
    fit(parts, block, np.zeros(rows, np.int32), np.zeros(1, np.int64), state, StepContext(1, 0, 0.0, 0.0, 1.0), scratch)
    units = state.weights[: 2 * (n + 1)].reshape(-1, 2)
    assert np.array_equal(units[:, 0], units[:, 1])
    assert not np.array_equal(units, start[: 2 * (n + 1)].reshape(-1, 2))


def learned(form: Any, cuts: list[int], *, together: bool) -> np.ndarray:
    """Learn 40 rows of 5 numbers in batches of 24, in calls that end at these rows; one row at a time unless `together`."""
    rng, n, rows = np.random.default_rng(5), 5, 40
    layout = Layout(n, n_coordinates=n + 1)
    block = layout.allocate(rows, "float64")
    block.rows.values[:, :n] = rng.normal(size=(rows, n))
    block.y[:], block.weight[:] = rng.normal(size=rows), rng.integers(0, 3, rows)
    start = np.zeros((rows_of(form, n + 1), form.width()))
    form.begin(start, n + 1, 0)
    parts = parts_with(model=form, optimizer=make("optimizer", "sgd", learning_rate=0.1))
    # Gradients of another type than weights are added up entry by entry.
    state = make_state(start.ravel(), 0, np.float64 if together else np.float32)
    scratch, pace, heads = new_scratch(1, float, layout.entries, form), StepContext(24, 0, 0.0, 0.0, 1.0), np.zeros(1, np.int64)
    for first, last in pairwise([0, *cuts, rows]):
        fit(parts, block, np.zeros(last - first, np.int32), heads, state, pace, scratch)
    fit(parts, block, np.zeros(0, np.int32), heads, state, pace, scratch)
    return np.asarray(state.weights)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic"])
@pytest.mark.parametrize("hidden", ["5", "17-9", "8-5-4"])
def test_layers_learn_what_rows_one_by_one_teach(hidden: str, activation: str, dropout: float) -> None:
    form = compiled(MLP(hidden, activation, dropout=dropout))
    together, alone = (learned(form, [], together=together) for together in (True, False))
    assert np.abs(together - alone).max() <= 1e-6
    whole = learned(compiled(MLP(hidden, activation)), [], together=True)
    assert (np.abs(together - whole).max() > 1e-3) == (dropout > 0.0)


def test_bits_of_a_network_do_not_depend_on_where_chunks_end() -> None:
    form = compiled(MLP("17-9"))
    assert np.array_equal(learned(form, [], together=True), learned(form, [3, 20, 21, 37], together=True))
