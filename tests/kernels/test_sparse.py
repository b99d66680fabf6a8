"""Rows that touch a few of many weights: batches, penalties and FTRL move as if every weight were updated at every step."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from streamsgd.features.layout import Layout, most_entries
from streamsgd.kernels.learn.fit import fit, settled
from streamsgd.kernels.parts.losses import Softmax, Squared
from streamsgd.kernels.parts.optimizers import FTRL, SGD, Adagrad, Adam, Momentum, Normalized, RMSprop
from streamsgd.kernels.parts.penalties import ElasticNet, Free, Lasso, Ridge
from streamsgd.kernels.parts.schedules import Constant, InverseScaling
from streamsgd.kernels.parts.traits import is_sequential
from streamsgd.kernels.structs.block import Block, Parts, new_scratch
from streamsgd.kernels.structs.rows import OWN, TAIL
from streamsgd.kernels.structs.state import State, make_state
from streamsgd.kernels.structs.step import StepContext

N, NUMBERS, SLOTS, VALUES, SPACE = 64, 2, 3, 5, 60
SIZE = NUMBERS + SPACE + 1
"""Two numbers, three categories of five values, one of them again times a number, entries anywhere, and the intercept."""

SPARSE = Layout(NUMBERS, by=(-1, -1, -1, 1), n_tails=1, n_coordinates=SIZE, mixed=True)
DENSE = Layout(SIZE - 1, n_coordinates=SIZE)
NOBODY = slice(SIZE - 7, SIZE - 1)
"""Weights that no row touches."""


class Rows:
    """Rows as lists of entries and, the same, as a matrix that has a column for every weight."""

    def __init__(self, seed: int = 0, classes: int = 0) -> None:
        rng = np.random.default_rng(seed)
        numbers = np.where(rng.random((N, NUMBERS)) < 0.3, 0.0, rng.normal(size=(N, NUMBERS)))
        ids = NUMBERS + 5 * np.arange(SLOTS + 1) + rng.integers(0, VALUES, (N, SLOTS + 1))
        counts = rng.integers(0, 6, N)
        self.pool = np.empty((int(counts.sum()), 2), np.int32)
        self.pool[:, 0] = rng.integers(NUMBERS, SIZE - 8, len(self.pool))  # some twice in a row
        self.pool[:, 1].view(np.float32)[:] = rng.normal(size=len(self.pool))
        starts = np.cumsum(counts) - counts
        self.y = rng.integers(0, classes, N).astype(float) if classes else rng.normal(size=N)
        self.weight = rng.uniform(0.2, 2.0, N)
        self.matrix = np.zeros((N, SIZE - 1))
        self.matrix[:, :NUMBERS] = numbers
        for i in range(N):
            for f in range(SLOTS + 1):
                self.matrix[i, ids[i, f]] += numbers[i, 1] if f == SLOTS else 1.0
            for at, factor in self.pool[starts[i] : starts[i] + counts[i]].tolist():
                self.matrix[i, at] += float(np.int32(factor).view(np.float32))
        self.sparse, self.dense = SPARSE.allocate(N, "float64"), DENSE.allocate(N, "float64")
        self.sparse.rows.values[:, :NUMBERS], self.sparse.rows.ids[:, NUMBERS + OWN :] = numbers, ids
        self.sparse.rows.tails[:, 0, 0] = self.pool.ctypes.data + TAIL * starts
        self.sparse.rows.tails[:, 0, 1] = counts
        self.dense.rows.values[:, : SIZE - 1] = self.matrix
        for block in (self.sparse, self.dense):
            block.y[:], block.weight[:] = self.y, self.weight

    @property
    def design(self) -> np.ndarray:
        """The matrix with a column for the intercept."""
        return np.c_[self.matrix, np.ones(N)]


def start(parts: Parts, *, few: bool, outputs: int = 1) -> State:
    kind, lazy, batches = np.float64, bool(parts.penalty._fields), not is_sequential(parts.optimizer)
    return make_state(np.zeros(SIZE * outputs), parts.optimizer.n_slots, kind, few=few, lazy=lazy, batches=batches)


def passes(parts: Parts, block: Block, layout: Layout, state: State, b: int, n: int = 3) -> State:
    """Learn all rows in order, a few times; a batch of the rows of one pass is a full batch."""
    outputs = int(getattr(parts.loss, "classes", 1))
    scratch = new_scratch(outputs, "float64", most_entries(block, layout))
    for epoch in range(n):
        pace = StepContext(b, (SIZE - 1) * outputs, float(epoch), 1 / N, float(n))
        fit(parts, block, np.zeros(N, np.int32), np.zeros(1, np.int64), state, pace, scratch)
    return state


def paid_up(parts: Parts, state: State, outputs: int = 1) -> np.ndarray:
    out = np.empty(state.weights.size)
    settled(parts, state, (SIZE - 1) * outputs, out)
    return out


def batches(b: int, n: int = 3) -> Iterator[slice]:
    return (slice(at, at + b) for _ in range(n) for at in range(0, N, b))


# --- law: the same rows give the same weights, as entries and as a matrix


@pytest.mark.parametrize("b", [1, 8, N])
def test_batches_of_entries_are_those_of_the_matrix(b: int) -> None:
    rows, parts = Rows(), Parts(Squared(), Free(), SGD(0.05), Constant())
    sparse = passes(parts, rows.sparse, SPARSE, start(parts, few=True), b)
    dense = passes(parts, rows.dense, DENSE, start(parts, few=False), b)
    np.testing.assert_allclose(sparse.weights, dense.weights, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(sparse.tally, dense.tally, rtol=1e-12)
    assert sparse.clock[0] == dense.clock[0] == 3 * N // b
    assert not sparse.grad.any()
    assert not sparse.weights[NOBODY].any()


@pytest.mark.parametrize("b", [1, 8, N])
def test_batches_of_several_scores_too(b: int) -> None:
    rows, parts = Rows(classes=4), Parts(Softmax(4), Free(), SGD(0.3), Constant())
    sparse = passes(parts, rows.sparse, SPARSE, start(parts, few=True, outputs=4), b)
    dense = passes(parts, rows.dense, DENSE, start(parts, few=False, outputs=4), b)
    np.testing.assert_allclose(sparse.weights, dense.weights, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(sparse.tally, dense.tally, rtol=1e-12)


@pytest.mark.parametrize("b", [1, 8, N])
def test_a_coordinate_twice_in_a_row_counts_as_the_sum(b: int) -> None:
    """For the score and for the squared gradient: Adagrad remembers (2 g)^2, not 2 g^2."""
    rows, parts = Rows(), Parts(Squared(), Free(), Adagrad(0.3), Constant())
    assert any(len({*pool}) < len(pool) for pool in (_entries(rows, i) for i in range(N)))
    state = passes(parts, rows.sparse, SPARSE, start(parts, few=True), b)
    w, total, design = np.zeros(SIZE), np.zeros(SIZE), rows.design
    for some in batches(b):
        g = _gradient(rows, design, w, some)
        total += g * g
        w -= 0.3 * g / (np.sqrt(total) + 1e-10)
    np.testing.assert_allclose(state.weights, w, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(state.slots[0], total, rtol=1e-12, atol=1e-13)


def _entries(rows: Rows, i: int) -> list[int]:
    at, count = rows.sparse.rows.tails[i, 0]
    first = (int(at) - rows.pool.ctypes.data) // TAIL
    return rows.pool[first : first + int(count), 0].tolist()


def test_gradients_that_cancel_within_a_batch_are_no_gradient() -> None:
    """However often: the list of touched weights is no longer than the weights are many."""
    rows = Rows()
    for block in (rows.sparse, rows.dense):
        block.rows.values[:, : block.rows.values.shape[1] - (0 if block is rows.dense else SLOTS + 1)][:, -OWN:] = 0.0
        values = block.rows.values
        values[:] = values[0]
        block.y[:], block.weight[:] = np.where(np.arange(N) % 2, -1.0, 1.0), 1.0
        block.y[-1] = 5.0
    rows.sparse.rows.tails[:] = rows.sparse.rows.tails[0]
    parts = Parts(Squared(), Free(), SGD(0.05), Constant())
    sparse = passes(parts, rows.sparse, SPARSE, start(parts, few=True), N)
    dense = passes(parts, rows.dense, DENSE, start(parts, few=False), N)
    np.testing.assert_allclose(sparse.weights, dense.weights, rtol=1e-12, atol=1e-13)


# --- law: memories that fade do so only where they are touched


@pytest.mark.parametrize("b", [1, 8])
def test_adam_is_the_sparse_adam_of_torch(b: int) -> None:
    torch = pytest.importorskip("torch")
    # Which adds its epsilon before the correction of the second moment, torch.optim.Adam after it: here it is nothing.
    rows, parts = Rows(), Parts(Squared(), Free(), Adam(0.02, 0.8, 0.99, 1e-14), Constant())
    state = passes(parts, rows.sparse, SPARSE, start(parts, few=True), b)
    w = torch.zeros(SIZE, dtype=torch.float64, requires_grad=True)
    theirs, design = torch.optim.SparseAdam([w], lr=0.02, betas=(0.8, 0.99), eps=1e-14), rows.design
    for some in batches(b):
        gradient = _gradient(rows, design, w.detach().numpy(), some)
        touched = np.flatnonzero(gradient)
        w.grad = torch.sparse_coo_tensor(touched[None, :], gradient[touched], (SIZE,), check_invariants=True)
        theirs.step()
    np.testing.assert_allclose(state.weights, w.detach().numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("b", [1, 8])
def test_momentum_fades_where_it_is_touched(b: int) -> None:
    rows, parts = Rows(), Parts(Squared(), Free(), Momentum(0.01, 0.8), Constant())
    state = passes(parts, rows.sparse, SPARSE, start(parts, few=True), b)
    w, v, design = np.zeros(SIZE), np.zeros(SIZE), rows.design
    for some in batches(b):
        gradient = _gradient(rows, design, w, some)
        v = np.where(gradient != 0.0, 0.8 * v + gradient, v)
        w = np.where(gradient != 0.0, w - 0.01 * v, w)
    np.testing.assert_allclose(state.weights, w, rtol=1e-12, atol=1e-13)


def _gradient(rows: Rows, design: np.ndarray, w: np.ndarray, some: slice) -> np.ndarray:
    a = design[some]
    gradient: np.ndarray = a.T @ (rows.weight[some] * (a @ w - rows.y[some])) / len(a)
    return np.where((a != 0.0).any(axis=0), gradient, 0.0)


# --- law: a penalty paid late is the penalty paid at every step


def flow(w: np.ndarray, duration: Any, penalty: Any) -> np.ndarray:
    """Where d|w|/dt = -(l1 + l2 |w|) brings weights in a time."""
    l1, l2 = getattr(penalty, "l1", 0.0), getattr(penalty, "l2", 0.0)
    kept = np.exp(-l2 * duration)
    fall = l1 * (duration if l2 == 0.0 else -np.expm1(-l2 * duration) / l2)
    return np.sign(w) * np.maximum(np.abs(w) * kept - fall, 0.0)


def eager(optimizer: Any, penalty: Any, rows: Rows, b: int, power: float) -> np.ndarray:
    """Settle every weight after every step; what the optimizer remembers changes where it is touched."""
    w, memory, design = np.zeros(SIZE), np.zeros(SIZE), rows.design
    for step, some in enumerate(batches(b), 1):
        eta = optimizer.learning_rate * step**-power
        g = _gradient(rows, design, w, some)
        touched = g != 0.0
        if isinstance(optimizer, Adagrad):
            memory = memory + g * g
        if isinstance(optimizer, RMSprop):
            memory = np.where(touched, optimizer.alpha * memory + (1 - optimizer.alpha) * g * g, memory)
        stride = np.full(SIZE, eta) if isinstance(optimizer, SGD) else eta / (np.sqrt(memory) + optimizer.epsilon)
        w = np.where(touched, w - stride * g, w)
        w[:-1] = flow(w, stride, penalty)[:-1]
    return w


LAZY = [
    (SGD(0.1), ElasticNet(0.02, 0.0)),
    (SGD(0.1), ElasticNet(0.0, 0.3)),
    (SGD(0.1), ElasticNet(0.02, 0.3)),
    (Adagrad(0.3), ElasticNet(0.02, 0.0)),
    (Adagrad(0.3), ElasticNet(0.0, 0.3)),
    (Adagrad(0.3), ElasticNet(0.01, 0.2)),
    (RMSprop(0.01, 0.9), ElasticNet(0.01, 0.0)),
    (RMSprop(0.01, 0.9), ElasticNet(0.01, 0.3)),
]
"""An elastic net of l1 or of l2 alone stands for those: each class is a kernel, which takes seconds to compile."""


def test_an_elastic_net_of_one_part_pays_as_that_part_alone() -> None:
    for w in (-2.0, 0.3, 1e-9):
        for duration in (0.0, 1e-3, 0.7, 50.0):
            assert ElasticNet(0.02, 0.0).settle(w, duration) == Lasso(0.02).settle(w, duration)
            assert ElasticNet(0.0, 0.3).settle(w, duration) == pytest.approx(Ridge(0.3).settle(w, duration), rel=1e-15)


@pytest.mark.parametrize(("optimizer", "penalty"), LAZY, ids=str)
def test_paid_late_is_paid_at_every_step(optimizer: Any, penalty: Any) -> None:
    rows, parts = Rows(), Parts(Squared(), penalty, optimizer, InverseScaling(0.3))
    free = eager(optimizer, Free(), rows, 4, 0.3)
    for b in (1, 4):
        got = paid_up(parts, passes(parts, rows.sparse, SPARSE, start(parts, few=True), b))
        expected = eager(optimizer, penalty, rows, b, 0.3)
        assert np.abs(got - expected).max() <= 1e-12
        if getattr(penalty, "l1", 0.0):
            assert ((got == 0.0) == (expected == 0.0)).all(), "true zeros"
    assert np.abs(expected - free).max() > 0.01, "the penalty is felt"


def nag_by_hand(rate: float, penalty: Any, rows: Rows, power: float, n: int = 3) -> np.ndarray:
    """The rule of `kernels.learn.nag` for squared loss, all weights settled after every row."""
    w, total, scale = np.zeros((3, SIZE))
    spread, seen, low, high = 0.0, 0.0, 0.0, 0.0
    for step in range(n * N):
        eta = rate * (step + 1) ** -power
        a, y, h = rows.design[step % N], rows.y[step % N], rows.weight[step % N]
        low, high = min(low, y), max(high, y)
        score = min(max(a @ w, low), high)
        g, some = score - y, a != 0.0
        if g == 0.0:  # as where a confined score is the target
            continue
        total += h * g * g * a * a
        grown = np.maximum(scale, np.abs(a))
        w *= np.where(scale > 0.0, scale / np.where(grown > 0.0, grown, 1.0), 1.0)
        scale = grown
        spread += h * float((a[some] ** 2 / scale[some] ** 2).sum())
        seen += h
        m = math.sqrt(seen / spread)
        move = np.zeros(SIZE)
        move[some] = a[some] / (scale[some] * np.sqrt(total[some]))
        w += g * math.expm1(-eta * h * m * float(a @ move)) / float(a @ move) * move
        stretch = np.divide(1.0, scale * np.sqrt(total), out=np.zeros(SIZE), where=total > 0.0)
        w[:-1] = flow(w, eta * h * m * stretch, penalty)[:-1]
    return w


@pytest.mark.parametrize("penalty", [ElasticNet(0.05, 0.0), ElasticNet(0.0, 0.5), ElasticNet(0.03, 0.2)], ids=str)
def test_row_by_row_too(penalty: Any) -> None:
    rows, parts = Rows(), Parts(Squared(), penalty, Normalized(0.5), InverseScaling(0.2))
    _without_doubles(rows)
    state = passes(parts, rows.sparse, SPARSE, start(parts, few=True), 1 << 60)
    got, expected = paid_up(parts, state), nag_by_hand(0.5, penalty, rows, 0.2)
    assert np.abs(got - expected).max() <= 1e-12
    assert ((got == 0.0) == (expected == 0.0)).all()
    assert np.abs(expected - nag_by_hand(0.5, Free(), rows, 0.2)).max() > 0.01


def _without_doubles(rows: Rows) -> None:
    """Leave a row's entries out from the first on that another has named: each has a scale of its own there."""
    for i in range(N):
        own = {int(j) for j in rows.sparse.rows.ids[i, NUMBERS + OWN :]}
        kept, first = 0, (int(rows.sparse.rows.tails[i, 0, 0]) - rows.pool.ctypes.data) // TAIL
        for at, _ in rows.pool[first : first + int(rows.sparse.rows.tails[i, 0, 1])].tolist():
            if at in own:
                break
            own.add(at)
            kept += 1
        for at, factor in rows.pool[first + kept : first + int(rows.sparse.rows.tails[i, 0, 1])].tolist():
            rows.matrix[i, at] -= float(np.int32(factor).view(np.float32))
        rows.sparse.rows.tails[i, 0, 1] = kept
    rows.matrix[np.abs(rows.matrix) < 1e-12] = 0.0


# --- law: FTRL is that of the paper, with true zeros


@pytest.mark.parametrize("hyper", [(0.1, 1.0, 0.0, 0.0), (0.3, 0.5, 0.3, 0.2)])
def test_ftrl_of_entries_is_algorithm_1(hyper: tuple[float, ...]) -> None:
    alpha, beta, l1, l2 = hyper
    rows, parts = Rows(), Parts(Squared(), Free(), FTRL(*hyper), Constant())
    design = rows.design
    for b in (1, 8):
        z, n, w = np.zeros((3, SIZE))
        for some in batches(b):
            g = _gradient(rows, design, w, some)
            sigma = (np.sqrt(n + g * g) - np.sqrt(n)) / alpha
            z, n = z + g - sigma * w, n + g * g
            w = np.where(np.abs(z) <= l1, 0.0, -(z - np.sign(z) * l1) / ((beta + np.sqrt(n)) / alpha + l2))
        state = passes(parts, rows.sparse, SPARSE, start(parts, few=True), b)
        np.testing.assert_allclose(state.weights, w, rtol=1e-10, atol=1e-12)
        assert ((state.weights == 0.0) == (w == 0.0)).all()
    assert (w == 0.0).sum() >= (6 if l1 == 0.0 else 12)
