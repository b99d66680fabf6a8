"""What draws say of predictions, row by row, is what NumPy says of them, wherever a row stands."""

import math
from typing import Any, NamedTuple

import numpy as np
import pytest

from streamsgd.kernels.algebra.sorting import selection_network, sorting_network
from streamsgd.kernels.compile.memory import LINE
from streamsgd.kernels.parts.losses import Logistic, Poisson, Softmax, Squared
from streamsgd.kernels.structs.block import Block, new_scratch
from streamsgd.kernels.structs.rows import OWN, Dense, Mixed
from streamsgd.kernels.sums.draws import DrawnWeights, DrawRoom, draw_spread

N_ROWS, WIDTH = 53, 5


class OwnLogistic(NamedTuple):
    """The logistic loss as somebody else may have written it."""

    task = "binary"

    def value(loss, y, score):
        return math.log1p(math.exp(-abs(score))) + max(score, 0.0) - y * score

    def slope(loss, y, score):
        return 1.0 / (1.0 + math.exp(-score)) - y

    def mean(loss, score):
        return 1.0 / (1.0 + math.exp(-score))


class OwnSoftmax(NamedTuple):
    """Likewise of three classes."""

    task = "multiclass"

    def means(loss, scores, out):
        total = 0.0
        for k in range(scores.shape[0]):
            out[k] = math.exp(scores[k])
            total += out[k]
        for k in range(scores.shape[0]):
            out[k] /= total


def softmax(s: np.ndarray) -> np.ndarray:
    e = np.exp(s - s.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


LINKS: dict[type, Any] = {
    Logistic: lambda s: 1.0 / (1.0 + np.exp(-s)),
    OwnLogistic: lambda s: 1.0 / (1.0 + np.exp(-s)),
    Squared: lambda s: s,
    Poisson: np.exp,
    Softmax: softmax,
    OwnSoftmax: softmax,
}


def block_of(kind: type, layout: str) -> tuple[Block, np.ndarray]:
    """Return rows of five numbers, or four and a category, and their matrix, the intercept last."""
    values = np.random.default_rng(1).normal(size=(N_ROWS, WIDTH + OWN)).astype(kind)
    values[::7, 1] = 0.0
    if layout == "dense":
        dense = np.column_stack([values[:, :WIDTH], np.ones(N_ROWS)])
        return Block(Dense(values), values[:, WIDTH], values[:, WIDTH + 1]), dense.astype(np.float64)
    whole = np.int32 if kind is np.float32 else np.int64
    n_numbers = WIDTH - 1
    chosen = np.arange(N_ROWS) % 3
    values[:, n_numbers + OWN] = (n_numbers + chosen).astype(whole).view(kind)
    by, tails = np.full(1, -1, np.int32), np.zeros((N_ROWS, 0, 2), np.int64)
    rows = Mixed(values, values.view(whole), by, tails, n_numbers, 1, n_numbers + 3, False)
    mixed = np.column_stack([values[:, :n_numbers], np.eye(3)[chosen], np.ones(N_ROWS)]).astype(np.float64)
    return Block(rows, values[:, n_numbers], values[:, n_numbers + 1]), mixed


def drawn(x: np.ndarray, kind: type, n: int, outputs: int, level: float) -> tuple[DrawnWeights, np.ndarray]:
    """Return n draws for the kernel, and as (n_coordinates, n_outputs, n)."""
    length = LINE // np.dtype(kind).itemsize
    draws = (0.7 * np.random.default_rng(2).normal(size=(x.shape[1], outputs, n))).astype(kind)
    padded = np.zeros((x.shape[1], outputs, n + -n % (2 * length)), kind)
    padded[:, :, :n] = draws
    place = (1.0 - level) / 2.0 * (n - 1)
    outer, inner = math.floor(place), min(math.floor(place) + 1, n - 1)
    ends = (outer, inner, n - 1 - outer, n - 1 - inner)
    found = DrawnWeights(padded.ravel(), n, outputs, selection_network(n, ends), np.array(ends), place % 1.0)
    return found, draws.astype(np.float64)


def told(loss: Any, block: Block, start: int, stop: int, draws: DrawnWeights, *, doubts: bool) -> np.ndarray:
    """Return what the kernel says of rows, one a line."""
    kind, length = draws.values.dtype, LINE // draws.values.itemsize
    size = (draws.number + -draws.number % (2 * length)) * length
    many = draws.outputs * size
    room = DrawRoom(*(np.zeros(n, kind) for n in (WIDTH * length, many, many, size, 3 * many, 2 * length)))
    out, entropies = np.full((draws.outputs, 4, stop - start), np.nan), np.full((2 * doubts, stop - start), np.nan)
    draw_spread(loss, block, start, stop, draws, out, entropies, room, new_scratch(1, kind, WIDTH + 3))
    return np.concatenate([out.reshape(-1, stop - start), entropies]).T


def truth_of(loss: Any, x: np.ndarray, draws: np.ndarray, level: float, *, doubts: bool) -> np.ndarray:
    """Return the same by NumPy."""
    means = LINKS[type(loss)](np.einsum("ij,jkm->ikm", x, draws))
    low, high = (1.0 - level) / 2.0, (1.0 + level) / 2.0
    ends = [np.quantile(means, q, axis=2) for q in (low, high)]
    parts = np.stack([means.mean(axis=2), *ends, means.std(axis=2, ddof=1)], axis=2).reshape(len(x), -1)
    if not doubts:
        return parts
    p = means if means.shape[1] > 1 else np.concatenate([means, 1.0 - means], axis=1)
    entropy = lambda q, axis: -(q * np.log(q)).sum(axis=axis)  # noqa: E731
    return np.column_stack([parts, entropy(p.mean(axis=2), 1), entropy(p, 1).mean(axis=1)])


@pytest.mark.parametrize(
    ("make", "kind", "layout"),
    [
        (Logistic, np.float32, "dense"),
        (Logistic, np.float64, "dense"),
        (OwnLogistic, np.float32, "mixed"),
        (Squared, np.float64, "mixed"),
        (Poisson, np.float32, "dense"),
        (Softmax, np.float32, "dense"),
        (OwnSoftmax, np.float32, "dense"),
    ],
)
def test_what_is_told_is_what_numpy_says(make: Any, kind: type, layout: str) -> None:
    loss, (block, x) = make(), block_of(kind, layout)
    outputs, doubts = 3 if hasattr(loss, "means") else 1, loss.task in ("binary", "multiclass")
    for n, level in ((64, 0.9), (10, 0.5), (2, 0.99)):
        draws, values = drawn(x, kind, n, outputs, level)
        found = told(loss, block, 0, N_ROWS, draws, doubts=doubts)
        truth = truth_of(loss, x, values, level, doubts=doubts)
        close = {"rtol": 3e-6, "atol": 3e-6} if kind is np.float32 else {"rtol": 1e-12, "atol": 1e-13}
        np.testing.assert_allclose(found, truth, **close, err_msg=f"{n} draws")


@pytest.mark.parametrize("layout", ["dense", "mixed"])
def test_a_row_has_the_same_bits_wherever_it_stands(layout: str) -> None:
    block, x = block_of(np.float32, layout)
    draws, _ = drawn(x, np.float32, 64, 1, 0.9)
    whole = told(Logistic(), block, 0, N_ROWS, draws, doubts=True)
    for size in (1, 3, 16, 17):
        parts = [told(Logistic(), block, k, min(k + size, N_ROWS), draws, doubts=True) for k in range(0, N_ROWS, size)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()


@pytest.mark.parametrize("n", [1, 2, 3, 7, 16, 37, 64])
def test_a_network_sorts(n: int) -> None:
    """Whatever the numbers are: it sorts zeros and ones, so it sorts all (Knuth, 5.3.4, theorem Z)."""
    rng = np.random.default_rng(n)
    values = rng.random((20_000, n)) < rng.random((20_000, 1))
    for a, b in sorting_network(n):
        assert a < b
        values[:, [a, b]] = np.sort(values[:, [a, b]], axis=1)
    assert (np.diff(values.astype(int), axis=1) >= 0).all()


def test_a_part_of_it_puts_what_is_asked_for_in_its_place() -> None:
    numbers, places = np.random.default_rng(1).normal(size=(5000, 64)), (3, 4, 59, 60)
    truth = np.sort(numbers, axis=1)
    pairs = selection_network(64, places)
    assert len(pairs) < len(sorting_network(64)) == 543
    for a, b in pairs:
        numbers[:, [a, b]] = np.sort(numbers[:, [a, b]], axis=1)
    assert (numbers[:, places] == truth[:, places]).all()
    assert not (numbers == truth).all()
