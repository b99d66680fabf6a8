"""Losses: slopes are derivatives, kernels are the Python, and broken losses are found out."""

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from sklearn.metrics import mean_pinball_loss, mean_poisson_deviance

from streamsgd.kernels.parts.losses import Focal, Hinge, Huber, Logistic, Poisson, Quantile, Softmax, Squared, SquaredHinge
from streamsgd.kernels.sums.adjusted import AdjustedLogistic
from streamsgd.settings.registry import PARTS, make, spec_of
from streamsgd.testing.losses import check_loss

torch = pytest.importorskip("torch")
functional = torch.nn.functional

SCORES = np.concatenate([np.linspace(-40, 40, 81), [-700.0, 700.0]])


# --- law: every loss that has a name conforms


@pytest.mark.parametrize("name", PARTS["loss"])
def test_every_loss_conforms(name: str) -> None:
    check_loss(make("loss", name))


@pytest.mark.parametrize("kind", PARTS)
def test_every_part_is_built_again_from_its_spec(kind: str) -> None:
    for name in PARTS[kind]:
        part = make(kind, name)
        assert make(kind, spec_of(kind, part)) == part
        assert type(make(kind, spec_of(kind, part))) is type(part)
        assert spec_of(kind, part).startswith(name)


# --- law: values and slopes are torch's and scikit-learn's


def of_torch(function: Any, y: float, score: float) -> tuple[float, float]:
    s = torch.tensor(score, dtype=torch.float64, requires_grad=True)
    value = function(s, torch.tensor(y, dtype=torch.float64))
    value.backward()
    return float(value.detach()), float(s.grad)


def focal_of_torch(alpha: float, gamma: float) -> Any:
    """As torchvision writes it: alpha_t (1 - p_t)^gamma times the cross entropy."""

    def value(s: Any, y: Any) -> Any:
        p = torch.sigmoid(s)
        p_t, alpha_t = p * y + (1 - p) * (1 - y), alpha * y + (1 - alpha) * (1 - y)
        return alpha_t * (1 - p_t) ** gamma * functional.binary_cross_entropy_with_logits(s, y)

    return value


def adjusted_of_torch(s: Any, y: Any) -> Any:
    return functional.binary_cross_entropy_with_logits(s + 0.5 * -6.0, y)


ORACLES = {
    "adjusted-logistic": (AdjustedLogistic(0.5, -6.0), adjusted_of_torch, (0.0, 1.0)),
    "squared": (Squared(), lambda s, y: 0.5 * functional.mse_loss(s, y), (-1.5, 0.0, 3.0)),
    "huber": (Huber(2.5), lambda s, y: functional.huber_loss(s, y, delta=2.5), (-1.5, 0.25)),
    "logistic": (Logistic(), functional.binary_cross_entropy_with_logits, (0.0, 1.0)),
    "poisson": (Poisson(), lambda s, y: functional.poisson_nll_loss(s, y, log_input=True), (0.0, 4.0)),
}


@pytest.mark.parametrize("name", ORACLES)
def test_values_and_slopes_are_those_of_torch(name: str) -> None:
    loss, function, targets = ORACLES[name]
    for y in targets:
        for s in SCORES[np.abs(SCORES) <= 40].tolist():
            value, slope = of_torch(function, y, s)
            assert loss.value(y, s) == pytest.approx(value, rel=1e-12, abs=1e-14)
            assert loss.slope(y, s) == pytest.approx(slope, rel=1e-9, abs=1e-14)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.9, 0.5), (0.5, 0.0)])
def test_focal_is_that_of_torch(alpha: float, gamma: float) -> None:
    """Within 15 of 0: beyond, 1 - p_t of torch has lost its digits, and ours is checked against differences."""
    for y in (0.0, 1.0):
        for s in np.linspace(-15, 15, 61).tolist():
            value, slope = of_torch(focal_of_torch(alpha, gamma), y, s)
            assert Focal(gamma, alpha).value(y, s) == pytest.approx(value, rel=1e-8, abs=1e-14)
            assert Focal(gamma, alpha).slope(y, s) == pytest.approx(slope, rel=1e-8, abs=1e-10)
            h = 1e-4
            fifth = [Focal(gamma, alpha).value(y, s + k * h) for k in (-2, -1, 1, 2)]
            difference = (fifth[0] - 8 * fifth[1] + 8 * fifth[2] - fifth[3]) / (12 * h)
            assert Focal(gamma, alpha).slope(y, s) == pytest.approx(difference, abs=1e-10)


def test_focal_without_focus_is_half_the_log_loss() -> None:
    for s in SCORES.tolist():
        for y in (0.0, 1.0):
            assert Focal(0.0, 0.5).slope(y, s) == pytest.approx(0.5 * Logistic().slope(y, s), abs=1e-15)


def test_softmax_is_the_cross_entropy_of_torch() -> None:
    rng = np.random.default_rng(0)
    loss = Softmax(4)
    for y in range(4):
        for size in (1.0, 30.0, 1000.0):
            scores = rng.normal(size=4) * size
            s = torch.tensor(scores, requires_grad=True)
            value = functional.cross_entropy(s[None], torch.tensor([y]))
            value.backward()
            slopes, means = np.zeros(4), np.zeros(4)
            loss.slopes(y, scores, slopes)
            loss.means(scores, means)
            assert loss.value(y, scores) == pytest.approx(float(value.detach()), rel=1e-12, abs=1e-14)
            np.testing.assert_allclose(slopes, s.grad.numpy(), rtol=1e-10, atol=1e-14)
            np.testing.assert_allclose(means, torch.softmax(s, 0).detach().numpy(), rtol=1e-12, atol=1e-300)


def test_margin_losses_are_their_formulas_at_signed_targets() -> None:
    for y, sign in ((0.0, -1.0), (1.0, 1.0)):
        for s in SCORES.tolist():
            short = max(0.0, 1.0 - sign * s)
            assert Hinge().value(y, s) == short
            assert SquaredHinge().value(y, s) == pytest.approx(short**2)


def test_quantile_and_poisson_are_the_metrics_of_sklearn() -> None:
    rng = np.random.default_rng(3)
    y, s = rng.poisson(3.0, 50).astype(float), rng.normal(size=50)
    for level in (0.1, 0.5, 0.9):
        mine = np.mean([Quantile(level).value(*pair) for pair in zip(y, s, strict=True)])
        assert mine == pytest.approx(mean_pinball_loss(y, s, alpha=level))
    saturated = [Poisson().value(t, math.log(t)) if t else 0.0 for t in y]
    mine = [Poisson().value(*pair) for pair in zip(y, s, strict=True)]
    assert 2 * (np.mean(mine) - np.mean(saturated)) == pytest.approx(mean_poisson_deviance(y, np.exp(s)))


def test_logistic_is_finite_and_exact_far_out() -> None:
    for s in (-700.0, 700.0, -1e300, 1e300):
        assert Logistic().value(1.0, s) == pytest.approx(max(-s, 0.0))
        assert Logistic().slope(0.0, s) == pytest.approx(float(s > 0), abs=1e-300)


# --- law: a broken loss does not pass


class Good(NamedTuple):
    """log cosh: smooth, convex, and not one of ours."""

    scale: float = 1.0
    task = "regression"

    def value(loss, y, score):
        e = abs(score - y) / loss.scale
        return loss.scale * (e + math.log1p(math.exp(-2.0 * e)) - math.log(2.0))

    def slope(loss, y, score):
        return math.tanh((score - y) / loss.scale)

    def mean(loss, score):
        return score


class NotItsSlope(NamedTuple):
    task = "regression"

    def value(loss, y, score):
        return (score - y) * (score - y)

    def slope(loss, y, score):
        return score - y

    def mean(loss, score):
        return score


class NotConvex(NamedTuple):
    task = "regression"

    def value(loss, y, score):
        return math.log1p((score - y) * (score - y))

    def slope(loss, y, score):
        return 2.0 * (score - y) / (1.0 + (score - y) * (score - y))

    def mean(loss, score):
        return score


class Overflows(NamedTuple):
    task = "binary"

    def value(loss, y, score):
        return math.log(1.0 + math.exp(2.0 * score)) / 2.0 - y * score

    def slope(loss, y, score):
        return 1.0 / (1.0 + math.exp(-2.0 * score)) - y

    def mean(loss, score):
        return 1.0 / (1.0 + math.exp(-2.0 * score))


class NoMean(NamedTuple):
    task = "regression"

    def value(loss, y, score):
        return 0.5 * (score - y) * (score - y)

    def slope(loss, y, score):
        return score - y


class WrongTask(Good):
    task = "ranking"


class OtherNames(NamedTuple):
    task = "regression"

    def value(loss, target, prediction):
        return 0.5 * (prediction - target) * (prediction - target)

    def slope(loss, y, score):
        return score - y

    def mean(loss, score):
        return score


class Overshoots(Squared):
    """A step along the first slope, however far."""

    def leap(loss, y, score, force):
        return -force * loss.slope(y, score)


class PastTheKink(Quantile):
    def leap(loss, y, score, force):
        return -force * loss.slope(y, score)


class NoLeapFarOut(Poisson):
    def leap(loss, y, score, force):
        return math.log(0.0 * force)


class Halves(Squared):
    def confine(loss, score, limits):
        return 0.5 * score


class Elsewhere(Squared):
    def confine(loss, score, limits):
        return min(max(score, 1.0), 2.0)


class SkewSoftmax(NamedTuple):
    classes: int = 3
    task = "multiclass"
    value = Softmax.value
    means = Softmax.means

    def slopes(loss, y, scores, out):
        Softmax.slopes(loss, y, scores, out)
        out[0] += 1e-3


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (NotItsSlope(), "the slope is .* but the value rises by"),
        (NotConvex(), "so the loss is not convex"),
        (Overflows(), "score within 500 of 0"),
        (NoMean(), r"lacks mean\(\.\.\.\)"),
        (WrongTask(), "task is 'ranking'; it must be one of regression"),
        (OtherNames(), "does not run in a kernel"),
        (Overshoots(), r"the leap of force 0\.001 is .*; small steps come to"),
        (PastTheKink(), "the leap of force 1000 is 500.0; small steps come to 2"),
        (NoLeapFarOut(), "the leap of force 0 has no value"),
        (Halves(), "confine moves what it has confined"),
        (Elsewhere(), "which is not between them and 0"),
        (SkewSoftmax(), "slope 0 is .* but the value rises by"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_a_broken_loss_is_found_out(loss: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_loss(loss)


def test_a_loss_that_cannot_be_pickled_is_found_out() -> None:
    class Local(Good):
        pass

    with pytest.raises(AssertionError, match="cannot be pickled"):
        check_loss(Local())


def test_a_loss_of_ones_own_conforms_and_is_named_by_its_module() -> None:
    check_loss(Good(2.0))
    spec = f"{__name__}:Good,scale=3"
    assert make("loss", spec) == Good(3.0)
    assert make("loss", spec_of("loss", Good(3.0))) == Good(3.0)
