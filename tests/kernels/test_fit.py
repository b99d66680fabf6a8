"""The training loop: textbook gradient descent to rounding, however rows are cut into chunks and batches."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import EXACT, as_columns
from sklearn.linear_model import SGDClassifier, SGDRegressor

from streamsgd.compute.executors import Inline
from streamsgd.settings.make import make_settings
from streamsgd.stream.stream import Stream
from streamsgd.training.prepare import prepare

EPOCHS = 200
LAYOUTS = {
    "one chunk": (64, None),
    "row groups of 7, chunks of 16": (7, 16),
    "a row group in slices": (64, 5),
    "slices side by side": (11, 4),
    "single rows merged": (1, 20),
}
"""Rows of a row group, and of a chunk."""

N, D, K = 22, 3, 3
RNG = np.random.default_rng(5)
X = RNG.normal(size=(N, D))
SIGNAL = X @ [1.0, -2.0, 0.5] + 0.3
TARGETS = {
    "squared": SIGNAL + RNG.normal(size=N),
    "logistic": (SIGNAL + RNG.logistic(size=N) > 0).astype(np.int64),
    "poisson": RNG.poisson(np.exp(0.3 * SIGNAL)),
    "softmax": np.arange(N) % K,
}
RATES = {"squared": 0.2, "logistic": 0.5, "poisson": 0.05, "softmax": 0.3}
WEIGHTS = RNG.uniform(0.1, 2.0, N)

Write = Callable[..., Path]
Train = Callable[..., Any]


def slopes_of(loss: str, scores: np.ndarray, y: np.ndarray) -> np.ndarray:
    """d loss / d score, shape (n, n_outputs), as a textbook has it."""
    if loss == "softmax":
        exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
        return exponents / exponents.sum(axis=1, keepdims=True) - np.eye(scores.shape[1])[y]
    means = {"squared": scores, "logistic": 1 / (1 + np.exp(-scores)), "poisson": np.exp(scores)}[loss]
    return means - y[:, None]


def descend(loss: str, batches: list[np.ndarray], size: int | None, h: np.ndarray | None = None) -> np.ndarray:
    """Take one step per batch of row numbers: w <- w - rate |B|/b mean over B of h_i gradient_i."""
    design = np.c_[X, np.ones(N)]
    y, rate = TARGETS[loss], RATES[loss]
    h = np.ones(N) if h is None else h
    w = np.zeros((D + 1, K if loss == "softmax" else 1))
    for batch in batches:
        a = design[batch]
        gradient = a.T @ (h[batch, None] * slopes_of(loss, a @ w, y[batch]))
        w -= rate * gradient / (len(batch) if size is None else size)
    return w.ravel()


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


def full(loss: str, data: Path, train: Train, chunk_rows: int | None, **settings: Any) -> Any:
    settings = {
        "batch_size": "full",
        "epochs": EPOCHS,
        "learning_rate": RATES[loss],
        "loss": loss,
        **settings,
    }
    return train(data, chunk_rows=chunk_rows, **settings)


# --- law: full batch is gradient descent, whatever the chunking


@pytest.mark.parametrize("layout", LAYOUTS)
def test_full_batch_is_gradient_descent_whatever_the_chunking(layout: str, write: Write, train: Train) -> None:
    group, chunk_rows = LAYOUTS[layout]
    data = write(as_columns(X, y=TARGETS["logistic"]), row_group_size=group)
    weights, _, report = full("logistic", data, train, chunk_rows)
    assert report.steps == EPOCHS
    assert difference(weights, descend("logistic", [np.arange(N)] * EPOCHS, None)) <= 1e-12


@pytest.mark.parametrize("loss", TARGETS)
def test_full_batch_with_row_weights_is_gradient_descent(loss: str, write: Write, train: Train) -> None:
    data = write(as_columns(X, y=TARGETS[loss], h=WEIGHTS), row_group_size=7, files=2)
    expected = descend(loss, [np.arange(N)] * EPOCHS, None, WEIGHTS)
    for chunk_rows in (4, 16) if loss == "squared" else (16,):
        weights, *_ = full(loss, data, train, chunk_rows, weight="h")
        assert difference(weights, expected) <= 1e-12


# --- law: mini-batches are those of the order, the last one of an epoch weighted by its size


def order_of(data: Path, **settings: Any) -> list[list[int]]:
    """Numbers of the rows (column `id`) in the order in which each epoch learns them."""
    job = prepare(data, make_settings({**EXACT, **settings}))
    column = [c.name for c in job.encoding.columns].index("id")
    epochs: list[list[int]] = [[] for _ in range(job.epochs)]
    for filled in Stream(job.recipe, job.plan, Inline()).chunks(0, 0, job.epochs):
        heads = filled.starts.copy()
        for tile in filled.order:
            epochs[filled.chunk.epoch].append(round(filled.block.rows.values[heads[tile], column]))
            heads[tile] += 1
    return epochs


@pytest.mark.parametrize("shuffle", ["none", "corgi"])
@pytest.mark.parametrize("b", [1, 5, 8, N, 64])
def test_mini_batches_are_a_plain_loop_in_the_same_order(shuffle: str, b: int, write: Write, train: Train) -> None:
    y, epochs = TARGETS["logistic"], 3
    settings = {"shuffle": shuffle, "batch_size": b, "epochs": epochs, "chunk_rows": 9, "learning_rate": 0.5}
    data = write(as_columns(X, id=np.arange(N), y=y), row_group_size=4)
    orders = order_of(data, loss="logistic", **settings)
    assert all(sorted(order) == list(range(N)) for order in orders)
    assert (orders == [list(range(N))] * epochs) == (shuffle == "none")
    weights, _, report = train(data, loss="logistic", id="id", **settings)
    batches = [np.array(order[i : i + b]) for order in orders for i in range(0, N, b)]
    assert report.steps == len(batches) == epochs * math.ceil(N / b)
    assert report.rows == epochs * N
    assert difference(weights, descend("logistic", batches, b)) <= 1e-12


@pytest.mark.parametrize(("group", "chunk_rows"), [(64, None), (64, 5), (3, 7), (1, 16)])
def test_steps_and_rows_do_not_depend_on_chunks(group: int, chunk_rows: int, write: Write, train: Train) -> None:
    data = write(as_columns(X, y=TARGETS["logistic"]), row_group_size=group)
    for b in (1, 6, 8):
        _, _, report = train(data, loss="logistic", batch_size=b, epochs=2, chunk_rows=chunk_rows)
        assert (report.steps, report.rows) == (2 * math.ceil(N / b), 2 * N)


# --- law: pure SGD without shuffling is scikit-learn's


@pytest.mark.parametrize("chunk_rows", [5, 40])
@pytest.mark.parametrize("loss", ["squared", "logistic", "hinge"])
def test_pure_sgd_is_that_of_sklearn(loss: str, chunk_rows: int, write: Write, train: Train) -> None:
    """To 1e-10 in every weight, also where row groups are larger than a chunk."""
    rng, epochs, rate = np.random.default_rng(8), 4, 0.03
    x = rng.normal(size=(100, 4))
    signal = x @ [1.0, 0.5, -1.0, 0.0] + 0.2
    options = {"penalty": None, "learning_rate": "constant", "eta0": rate, "shuffle": False}
    options |= {"tol": None, "max_iter": epochs}
    if loss == "squared":
        y = signal + 0.1 * rng.normal(size=100)
        theirs = SGDRegressor(**options).fit(x, y)
    else:
        y = (signal > 0).astype(np.int64)
        theirs = SGDClassifier(loss={"logistic": "log_loss"}.get(loss, loss), **options).fit(x, y)
    data = write(as_columns(x, y=y), row_group_size=9)
    settings = {"loss": loss, "batch_size": 1, "shuffle": "none", "epochs": epochs, "learning_rate": rate}
    weights, *_ = train(data, chunk_rows=chunk_rows, **settings)
    expected = np.append(theirs.coef_.ravel(), theirs.intercept_)
    assert np.abs(weights / expected - 1).max() <= 1e-10


# --- law: identical rows and row weights


@pytest.mark.parametrize("b", [1, 2, 8, 24, "full"])
def test_of_identical_rows_every_batch_size_walks_the_same_way(b: Any, write: Write, train: Train) -> None:
    x, y, n, steps = np.array([0.5, -1.0, 2.0]), 3.0, 24, 24
    columns = as_columns(np.tile(x, (n, 1)), y=np.full(n, y))
    columns["y"][0] += 1e-13  # a constant target is refused
    data = write(columns, row_group_size=5)
    size = n if b == "full" else int(b)
    settings = {"loss": "squared", "batch_size": b, "epochs": steps * size // n, "learning_rate": 0.05}
    weights, _, report = train(data, chunk_rows=10, **settings)
    w, a = np.zeros(4), np.append(x, 1.0)
    for _ in range(steps):
        w -= 0.05 * (a @ w - y) * a
    assert report.steps == steps
    np.testing.assert_allclose(weights, w, rtol=1e-11)


def test_a_row_weight_of_two_is_the_row_twice(write: Write, train: Train) -> None:
    """The gradient is the sum of weighted row gradients over the number of rows: rates differ by that."""
    twice = np.arange(N) % 3 == 0
    some = {"loss": "squared", "batch_size": "full", "epochs": 50, "chunk_rows": 8}
    data = write(as_columns(X, y=TARGETS["squared"], h=np.where(twice, 2.0, 1.0)), row_group_size=4)
    weighted, *_ = train(data, weight="h", learning_rate=0.1, **some)
    rows = np.concatenate([np.arange(N), np.flatnonzero(twice)])
    data = write(as_columns(X[rows], y=TARGETS["squared"][rows]), row_group_size=4)
    repeated, *_ = train(data, learning_rate=0.1 * len(rows) / N, **some)
    assert difference(weighted, repeated) <= 1e-12


def test_a_row_weight_of_zero_is_no_row(write: Write, train: Train) -> None:
    used = np.arange(N) % 4 > 0
    some = {"loss": "squared", "batch_size": "full", "epochs": 50}
    data = write(as_columns(X, y=TARGETS["squared"], h=used.astype(float)), row_group_size=4)
    weighted, *_ = train(data, weight="h", learning_rate=0.1, **some)
    data = write(as_columns(X[used], y=TARGETS["squared"][used]), row_group_size=4)
    fewer, *_ = train(data, learning_rate=float(0.1 * used.sum() / N), **some)
    assert difference(weighted, fewer) <= 1e-12
