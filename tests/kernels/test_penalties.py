"""Penalties: the points where training rests satisfy the optimality conditions of the stated objective."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import as_columns
from sklearn.linear_model import ElasticNet as SklearnElasticNet

from streamsgd.kernels.learn.fit import update
from streamsgd.kernels.parts.losses import Squared
from streamsgd.kernels.parts.penalties import ElasticNet, Lasso, Ridge
from streamsgd.kernels.parts.schedules import Constant
from streamsgd.kernels.structs.block import Parts
from streamsgd.kernels.structs.state import make_state
from streamsgd.kernels.structs.step import StepContext
from streamsgd.settings.registry import PARTS, make
from streamsgd.testing.penalties import check_penalty

RNG = np.random.default_rng(11)
X = RNG.normal(size=(120, 6)) @ np.diag([1.0, 0.5, 2.0, 1.0, 1.0, 0.7])
Y = X @ [2.0, 0.0, -1.0, 0.0, 0.02, 0.5] + 3.0 + 0.1 * RNG.normal(size=120)
L1, L2 = 0.1, 0.2


# --- law: every penalty that has a name conforms


@pytest.mark.parametrize("name", PARTS["penalty"])
def test_every_penalty_conforms(name: str) -> None:
    check_penalty(make("penalty", name))


# --- law: rest points satisfy the optimality conditions, whichever optimizer came there


def gradient(w: np.ndarray, b: float) -> tuple[np.ndarray, float]:
    """Of half the mean squared error."""
    residual = X @ w + b - Y
    return X.T @ residual / len(Y), float(residual.mean())


def minimise(penalty: Any, optimizer: Any, steps: int = 4000) -> tuple[np.ndarray, float]:
    """Take full-batch steps through the kernel, at a rate that goes down to zero."""
    n = X.shape[1] + 1
    state = make_state(np.zeros(n), optimizer.n_slots, np.float64)
    for step in range(steps):
        now = optimizer._replace(learning_rate=optimizer.learning_rate * (1.0 - step / steps) ** 2)
        state.grad[:-1], state.grad[-1] = gradient(state.weights[:-1], state.weights[-1])
        update(Parts(Squared(), penalty, now, Constant()), state, StepContext(1, n - 1, 0.0, 0.0, 1.0), 1, 0.0)
    return state.weights[:-1], float(state.weights[-1])


def check_optimality(w: np.ndarray, b: float, l1: float, l2: float, tolerance: float) -> None:
    """|g_j| <= l1 where w_j is 0, g_j = -l1 sign(w_j) elsewhere, with the l2 part; 0 for the intercept."""
    g, of_intercept = gradient(w, b)
    g += l2 * w
    zero = w == 0.0
    assert np.abs(g[zero]).max(initial=0.0) <= l1 * (1 + tolerance)
    np.testing.assert_allclose(g[~zero], -l1 * np.sign(w[~zero]), atol=tolerance * max(l1, 0.1))
    assert abs(of_intercept) <= tolerance * 0.1


OPTIMIZERS = {
    "sgd": "sgd:learning_rate=0.2",
    "momentum": "momentum:learning_rate=0.03",
    "nesterov": "nesterov:learning_rate=0.03",
    "adagrad": "adagrad:learning_rate=1",
    "rmsprop": "rmsprop:learning_rate=0.02",
    "adam": "adam:learning_rate=0.05",
    "adamw": "adamw:learning_rate=0.05,weight_decay=0",
    "amsgrad": "amsgrad:learning_rate=0.05",
}


def test_one_optimizer_has_penalties_of_its_own_and_some_make_no_updates() -> None:
    assert {*PARTS["optimizer"]} - {*OPTIMIZERS} == {
        *("ftrl", "normalized", "coin", "race", "svrg", "trust-region", "armijo", "perturbed", "langevin"),
    }


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_l1_solutions_satisfy_the_optimality_conditions(name: str) -> None:
    w, b = minimise(Lasso(L1), make("optimizer", OPTIMIZERS[name]))
    assert (w == 0.0).tolist() == [False, True, False, True, True, False]
    check_optimality(w, b, L1, 0.0, 1e-3)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_elastic_net_solutions_are_optimal_and_those_of_sklearn(name: str) -> None:
    w, b = minimise(ElasticNet(L1, L2), make("optimizer", OPTIMIZERS[name]))
    check_optimality(w, b, L1, L2, 1e-3)
    theirs = SklearnElasticNet(alpha=L1 + L2, l1_ratio=L1 / (L1 + L2), tol=1e-10).fit(X, Y)
    np.testing.assert_allclose(w, theirs.coef_, atol=1e-4)
    assert b == pytest.approx(theirs.intercept_, abs=1e-4)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_l2_solutions_are_the_closed_form_of_ridge_with_a_free_intercept(name: str) -> None:
    w, b = minimise(Ridge(L2), make("optimizer", OPTIMIZERS[name]))
    centred, n = X - X.mean(axis=0), len(Y)
    expected = np.linalg.solve(centred.T @ centred / n + L2 * np.eye(6), centred.T @ (Y - Y.mean()) / n)
    np.testing.assert_allclose(w, expected, atol=1e-5)
    assert b == pytest.approx(Y.mean() - X.mean(axis=0) @ expected, abs=1e-5)


def test_through_files_l1_solutions_satisfy_them_too(write: Callable[..., Any], train: Callable[..., Any]) -> None:
    data = write(as_columns(X, y=Y), row_group_size=50)
    settings = {"batch_size": "full", "penalty": f"l1:l1={L1}", "learning_rate": 0.2, "epochs": 300}
    weights, *_ = train(data, **settings, chunk_rows=100)
    check_optimality(weights[:-1], weights[-1], L1, 0.0, 1e-6)


# --- law: a broken penalty does not pass


class CappedL1(NamedTuple):
    """A penalty of one's own: l1 that keeps every weight within `cap`."""

    l1: float = 0.1
    cap: float = 2.0

    def pull(penalty, w):
        return 0.0

    def shrink(penalty, w, stride):
        t = stride * penalty.l1
        shrunk = w - t if w > t else (w + t if w < -t else 0.0)
        return min(max(shrunk, -penalty.cap), penalty.cap) if stride > 0.0 else shrunk


class Grows(CappedL1):
    def shrink(penalty, w, stride):
        return w * (1.0 + stride)


class Lopsided(CappedL1):
    def shrink(penalty, w, stride):
        return max(w - stride, 0.0)


class Hard(CappedL1):
    """Hard thresholding is no proximal step of a convex penalty: it pulls weights apart."""

    def shrink(penalty, w, stride):
        return w if abs(w) > 0.5 * stride else 0.0


class PullsAway(CappedL1):
    def pull(penalty, w):
        return -w


class Restless(CappedL1):
    def shrink(penalty, w, stride):
        return 0.9 * w


class NoFlow(Ridge):
    """An implicit step: two of them are more than one of both durations."""

    def settle(penalty, w, duration):
        return w / (1.0 + penalty.l2 * duration)


class Hasty(Lasso):
    def settle(penalty, w, duration):
        t = 2.0 * duration * penalty.l1
        return w - t if w > t else (w + t if w < -t else 0.0)


class Unsettled(Ridge):
    def settle(penalty, w, duration):
        return 0.9 * w


class Bare(NamedTuple):
    l1: float = 0.1

    def pull(penalty, w):
        return 0.0


@pytest.mark.parametrize(
    ("penalty", "message"),
    [
        (Grows(), "away from zero"),
        (Lopsided(), "differ in more than the sign"),
        (Hard(), "pulls weights apart"),
        (PullsAway(), "pull falls somewhere"),
        (Restless(), "moves at a stride of 0"),
        (NoFlow(), "which is settle for both at once"),
        (Hasty(), "in a time of 1e-06 settle takes"),
        (Unsettled(), "settle moves in no time"),
        (Bare(), r"Bare lacks shrink\(\.\.\.\)"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_a_broken_penalty_is_found_out(penalty: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_penalty(penalty)


def test_a_penalty_of_ones_own_conforms() -> None:
    check_penalty(CappedL1())
