"""Optimizers: torch's and the papers' to the letter, kernels as the Python, and broken ones found out."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from streamsgd.kernels.learn.fit import update
from streamsgd.kernels.parts import optimizers as ours
from streamsgd.kernels.parts.losses import Squared
from streamsgd.kernels.parts.penalties import Free, Ridge
from streamsgd.kernels.parts.schedules import Constant
from streamsgd.kernels.structs.block import Parts
from streamsgd.kernels.structs.state import State, make_state
from streamsgd.kernels.structs.step import StepContext
from streamsgd.settings.registry import PARTS, make
from streamsgd.testing.optimizers import check_optimizer

torch = pytest.importorskip("torch")

TORCH: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "sgd": (ours.SGD(0.03), torch.optim.SGD, {"lr": 0.03}),
    "momentum": (ours.Momentum(0.01, 0.8), torch.optim.SGD, {"lr": 0.01, "momentum": 0.8}),
    "nesterov": (ours.Nesterov(0.01, 0.7), torch.optim.SGD, {"lr": 0.01, "momentum": 0.7, "nesterov": True}),
    "adagrad": (ours.Adagrad(0.1), torch.optim.Adagrad, {"lr": 0.1}),
    "rmsprop": (ours.RMSprop(0.005, 0.95), torch.optim.RMSprop, {"lr": 0.005, "alpha": 0.95}),
    "adam": (
        ours.Adam(0.02, 0.8, 0.99, 1e-6),
        torch.optim.Adam,
        {"lr": 0.02, "betas": (0.8, 0.99), "eps": 1e-6},
    ),
    "adamw": (ours.AdamW(0.02, weight_decay=0.1), torch.optim.AdamW, {"lr": 0.02, "weight_decay": 0.1}),
    "amsgrad": (ours.AMSGrad(0.02, 0.8, 0.95), torch.optim.Adam, {"lr": 0.02, "betas": (0.8, 0.95), "amsgrad": True}),
}
STEPS, N = 1000, 7
START = np.random.default_rng(1).normal(size=N)
GRADIENTS = np.random.default_rng(2).normal(size=(STEPS, N)) * np.geomspace(1e-3, 1e3, N)


def ours_after(
    optimizer: Any, gradients: np.ndarray, kind: str = "float64", penalty: Any = None, start: np.ndarray = START
) -> np.ndarray:
    parts = Parts(Squared(), Free() if penalty is None else penalty, optimizer, Constant())
    state = make_state(start.astype(kind), optimizer.n_slots, kind)
    for gradient in gradients:
        state.grad[:] = gradient
        update(parts, state, StepContext(1, N, 0.0, 0.0, 1.0), 1, 0.0)
    return state.weights


def torch_after(kind: Any, options: dict[str, Any], gradients: np.ndarray) -> np.ndarray:
    w = torch.tensor(START, requires_grad=True)
    optimizer = kind([w], **options)
    for gradient in gradients:
        w.grad = torch.tensor(gradient)
        optimizer.step()
    return w.detach().numpy()


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.max(np.abs(a - b) / np.abs(b)))


# --- law: every optimizer that has a name conforms, and is torch's, or that of its paper


@pytest.mark.parametrize("name", PARTS["optimizer"])
def test_every_optimizer_conforms(name: str) -> None:
    check_optimizer(make("optimizer", name))


def test_torch_has_all_but_those_that_learn_from_clicks() -> None:
    assert {*PARTS["optimizer"]} - {*TORCH} == {
        *("ftrl", "normalized", "coin", "race", "svrg", "trust-region", "armijo", "perturbed", "langevin"),
    }


@pytest.mark.parametrize("name", TORCH)
def test_a_thousand_steps_are_those_of_torch(name: str) -> None:
    optimizer, kind, options = TORCH[name]
    for count in (1, 10, STEPS):
        expected = torch_after(kind, options, GRADIENTS[:count])
        assert difference(ours_after(optimizer, GRADIENTS[:count]), expected) <= 1e-10


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_in_float32_a_hundred_steps_are_roughly_those_of_torch(name: str) -> None:
    optimizer, kind, options = TORCH[name]
    mine = ours_after(optimizer, GRADIENTS[:100], "float32")
    assert mine.dtype == np.float32
    expected = torch_after(kind, options, GRADIENTS[:100])
    np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_ridge_is_what_torch_calls_weight_decay(name: str) -> None:
    optimizer, kind, options = TORCH[name]
    mine = ours_after(optimizer, GRADIENTS, penalty=Ridge(0.3))
    assert difference(mine, torch_after(kind, {**options, "weight_decay": 0.3}, GRADIENTS)) <= 1e-10


def test_defaults_other_than_the_rate_are_those_of_torch() -> None:
    for name, kind in {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}.items():
        mine, theirs = make("optimizer", name), kind([torch.zeros(1, requires_grad=True)]).defaults
        assert ((mine.beta1, mine.beta2), mine.epsilon) == (theirs["betas"], theirs["eps"])


# --- law: FTRL is that of McMahan et al. 2013


def mcmahan_after(gradients: np.ndarray, alpha: float, beta: float, l1: float, l2: float) -> np.ndarray:
    """Algorithm 1, all coordinates at once."""
    z, n, w = np.zeros((3, N))
    for g in gradients:
        sigma = (np.sqrt(n + g * g) - np.sqrt(n)) / alpha
        z, n = z + g - sigma * w, n + g * g
        w = np.where(np.abs(z) <= l1, 0.0, -(z - np.sign(z) * l1) / ((beta + np.sqrt(n)) / alpha + l2))
    return w


@pytest.mark.parametrize("hyper", [(0.1, 1.0, 0.0, 0.0), (0.3, 0.5, 0.0, 2.0), (0.05, 1.0, 3.0, 0.5), (0.1, 0.0, 0.02, 0.0)])
def test_a_thousand_steps_of_ftrl_are_those_of_the_paper(hyper: tuple[float, ...]) -> None:
    for count in (1, 10, STEPS):
        expected = mcmahan_after(GRADIENTS[:count], *hyper)
        mine = ours_after(ours.FTRL(*hyper), GRADIENTS[:count], start=np.zeros(N))
        assert ((mine == 0.0) == (expected == 0.0)).all()
        some = expected != 0.0
        assert difference(mine[some], expected[some]) <= 1e-10


def test_ftrl_makes_true_zeros_of_small_gradients_alone_and_takes_them_back() -> None:
    optimizer = ours.FTRL(0.1, l1=10.0)
    weights = ours_after(optimizer, GRADIENTS, start=np.zeros(N))
    assert (weights == 0.0).tolist() == [True, True, True, False, False, False, False]
    agreeing = np.concatenate([GRADIENTS, np.ones((20, N))])
    assert (ours_after(optimizer, agreeing, start=np.zeros(N)) < 0.0)[:3].all()


def test_ftrl_starts_where_it_is_told_to() -> None:
    """With any l1 and l2, and again if it meets no gradient."""
    for hyper in ((0.1, 1.0, 0.0, 0.0), (0.1, 1.0, 3.0, 0.5)):
        np.testing.assert_allclose(ours_after(ours.FTRL(*hyper), np.zeros((3, N))), START, rtol=1e-14)


# --- law: what an update does besides moving


def test_an_update_clears_the_gradient_counts_itself_and_weighs_a_short_batch_less() -> None:
    parts = Parts(Squared(), Free(), ours.SGD(0.5), Constant())
    state = State(np.zeros(N), np.zeros((1, N)), np.full(N, 6.0), np.array([4, 3, 0]), np.zeros(3))
    update(parts, state, StepContext(8, N - 1, 0.0, 0.0, 1.0), 3, 0.0)
    assert state.clock.tolist() == [5, 0, 0]
    assert not state.grad.any()
    np.testing.assert_allclose(state.weights, -0.5 * 3 / 8 * 6.0 / 3, rtol=1e-15)


# --- law: a broken optimizer does not pass


class SignSGD(NamedTuple):
    """An optimizer of one's own."""

    learning_rate: float = 0.01
    n_slots = 0

    def prepare(optimizer, step):
        return 0.0, 0.0

    def move(optimizer, w, g, slots, j, eta, shared):
        stride = eta / (abs(g) + 1e-12)
        return w - stride * g, stride


class Uphill(NamedTuple):
    learning_rate: float = 0.01
    n_slots = 0

    def prepare(optimizer, step):
        return 0.0, 0.0

    def move(optimizer, w, g, slots, j, eta, shared):
        return w + eta * g, eta


class Lame(NamedTuple):
    learning_rate: float = 0.01
    n_slots = 0

    def prepare(optimizer, step):
        return 0.0, 0.0

    def move(optimizer, w, g, slots, j, eta, shared):
        stride = 1e-6 * eta
        return w - stride * g, stride


class ShortStride(NamedTuple):
    """Momentum whose stride forgets the momentum: an l1 penalty would weigh a tenth of what it says."""

    learning_rate: float = 0.01
    n_slots = 1

    def prepare(optimizer, step):
        return 0.0, 0.0

    def move(optimizer, w, g, slots, j, eta, shared):
        slots[0, j] = 0.9 * slots[0, j] + g
        return w - eta * slots[0, j], eta


class NoStride(SignSGD):
    def move(optimizer, w, g, slots, j, eta, shared):
        return w - eta * g, 0.0


class Drifts(SignSGD):
    def move(optimizer, w, g, slots, j, eta, shared):
        return w - eta * (g + 0.1), eta


class Greedy(SignSGD):
    n_slots = 1

    def move(optimizer, w, g, slots, j, eta, shared):
        slots[1, j] += 1.0
        return w - eta * g, eta


class Overstretched(SignSGD):
    """Its stride is that of the last gradient, which no memory tells."""

    def stretch(optimizer, slots, j, shared):
        return 2.0


class NoRate(NamedTuple):
    n_slots = 0

    def prepare(optimizer, step):
        return 0.0, 0.0

    def move(optimizer, w, g, slots, j, eta, shared):
        return w - eta * g, eta


class RowByRow(NamedTuple):
    """One that moves by the rule of `kernels.learn.nag`, which needs no `move`."""

    learning_rate: float = 0.5
    n_slots = 2
    rule = "nag"

    def prepare(optimizer, step):
        return 0.0, 0.0


class Forgetful(RowByRow):
    n_slots = 1


class Broke(RowByRow):
    """One that bets, which takes more memory."""

    rule = "coin"
    n_slots = 4


class Needs(SignSGD):
    prepare = None


class Uncompiled(SignSGD):
    def prepare(optimizer, step):
        return eval("0.0"), 0.0


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (Uphill(), "says a stride of"),
        (Lame(), "on a quadratic of condition 10 it comes to"),
        (ShortStride(), "says a stride of 0.01"),
        (NoStride(), "must be above 0"),
        (Drifts(), "moves to .* though its gradient is 0"),
        (Greedy(), "uses more slots than n_slots=1"),
        (Overstretched(), "the rate times the stretch after step 1"),
        (NoRate(), "no field learning_rate"),
        (Forgetful(), "learning row by row keeps at least 2 numbers"),
        (Broke(), "betting keeps at least 5 numbers"),
        (Needs(), r"Needs lacks prepare\(\.\.\.\)"),
        (Uncompiled(), "does not run in a kernel"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_a_broken_optimizer_is_found_out(optimizer: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_optimizer(optimizer)


def test_an_optimizer_of_ones_own_conforms() -> None:
    check_optimizer(SignSGD())
    check_optimizer(RowByRow())
