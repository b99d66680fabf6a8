"""Schedules: torch's and scikit-learn's rates, step by step, also as training applies them."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from streamsgd.kernels.parts.schedules import Constant, Cosine, InverseScaling, Step, WarmUp
from streamsgd.settings.registry import PARTS, make
from streamsgd.testing.schedules import check_schedule

torch = pytest.importorskip("torch")
lr_scheduler = torch.optim.lr_scheduler

EPOCHS, PER_EPOCH = 6, 5


def torch_rates(scheduler: Callable[[Any], Any], n: int, *, every: int = 1) -> list[float]:
    """Rates of n updates from 1, the scheduler moving after every so many."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    moving, rates = scheduler(optimizer), []
    for step in range(1, n + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step % every == 0:
            moving.step()
    return rates


def our_rates(schedule: Any, n: int = EPOCHS * PER_EPOCH) -> list[float]:
    """Factors of n updates, each at the part of an epoch that was done before it."""
    return [schedule.factor(step, (step - 1) / PER_EPOCH, float(EPOCHS)) for step in range(1, n + 1)]


# --- law: every schedule that has a name conforms


@pytest.mark.parametrize("name", PARTS["schedule"])
def test_every_schedule_conforms(name: str) -> None:
    check_schedule(make("schedule", name))


# --- law: rates are those of torch and of scikit-learn


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_cosine_is_that_of_torch(floor: float) -> None:
    n = EPOCHS * PER_EPOCH
    expected = torch_rates(lambda o: lr_scheduler.CosineAnnealingLR(o, n, eta_min=floor), n)
    np.testing.assert_allclose(our_rates(Cosine(floor)), expected, rtol=1e-12, atol=1e-15)


def test_step_is_that_of_torch() -> None:
    n = EPOCHS * PER_EPOCH
    expected = torch_rates(lambda o: lr_scheduler.StepLR(o, 2, gamma=0.3), n, every=PER_EPOCH)
    np.testing.assert_allclose(our_rates(Step(gamma=0.3, every=2.0)), expected, rtol=1e-12)


@pytest.mark.parametrize("schedule", [WarmUp(8), Constant(8)])
def test_warm_up_is_that_of_torch(schedule: Any) -> None:
    expected = torch_rates(lambda o: lr_scheduler.LinearLR(o, 1 / 8, 1.0, total_iters=7), 20)
    np.testing.assert_allclose(our_rates(schedule, 20), expected, rtol=1e-12)


@pytest.mark.parametrize("warmup", [1, 8])
def test_a_cosine_may_warm_up_as_torch_chains_the_two(warmup: int) -> None:
    n = EPOCHS * PER_EPOCH

    def chained(optimizer: Any) -> Any:
        rising = lr_scheduler.LinearLR(optimizer, 1 / warmup, 1.0, total_iters=warmup - 1)
        return lr_scheduler.ChainedScheduler([rising, lr_scheduler.CosineAnnealingLR(optimizer, n)])

    np.testing.assert_allclose(our_rates(Cosine(warmup=warmup)), torch_rates(chained, n), rtol=1e-12, atol=1e-15)


def test_inverse_scaling_is_the_formula_of_sklearn() -> None:
    rates = our_rates(InverseScaling(0.4))
    np.testing.assert_allclose(rates, [1 / t**0.4 for t in range(1, len(rates) + 1)], rtol=1e-14)


# --- law: training applies the rate of where each batch begins


ROWS, BATCH = 20, 4


@pytest.mark.parametrize("spec", ["cosine", "cosine:warmup=4", "step:gamma=0.5,every=1"])
@pytest.mark.parametrize("batch_size", [BATCH, 6, "full"])
def test_a_run_moves_by_the_sum_of_the_rates(
    spec: str, batch_size: Any, write: Callable[..., Any], train: Callable[..., Any]
) -> None:
    """All targets are far above, so an update moves the intercept by half its rate; a short one less."""
    data = write({"x": np.zeros(ROWS), "y": np.full(ROWS, 1e6) + np.arange(ROWS)}, row_group_size=5)
    settings = {"task": "regression", "loss": "quantile:level=0.5", "learning_rate": 0.1, "epochs": 3, "shuffle": "corgi"}
    weights, _, report = train(data, schedule=spec, batch_size=batch_size, chunk_rows=10, **settings)
    schedule, b = make("schedule", spec), ROWS if batch_size == "full" else int(batch_size)
    expected, step = 0.0, 0
    for epoch in range(3):
        for first in range(0, ROWS, b):
            step += 1
            share = min(b, ROWS - first) / b
            expected += 0.1 * 0.5 * share * schedule.factor(step, epoch + first / ROWS, 3.0)
    assert report.steps == step
    assert weights[-1] == pytest.approx(expected, rel=1e-9)


# --- law: a broken schedule does not pass


class Triangle(NamedTuple):
    """A schedule of one's own."""

    def factor(schedule, step, epoch, epochs):
        done = epoch / epochs
        return 2.0 * done if done < 0.5 else 2.0 * (1.0 - done)


class Negative(NamedTuple):
    def factor(schedule, step, epoch, epochs):
        return 1.0 - epoch


class Infinite(NamedTuple):
    def factor(schedule, step, epoch, epochs):
        return 1.0 / epoch if epoch > 0.0 else math.inf


class Asleep(NamedTuple):
    def factor(schedule, step, epoch, epochs):
        return 0.0


class Cold(NamedTuple):
    warmup: int = 0

    def factor(schedule, step, epoch, epochs):
        return 1.0


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (Negative(), "must be finite and not negative"),
        (Infinite(), "must be finite and not negative"),
        (Asleep(), "every factor is 0"),
        (Cold(), "with warmup=8: the factor of step 1"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_a_broken_schedule_is_found_out(schedule: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_schedule(schedule)


def test_a_schedule_of_ones_own_conforms() -> None:
    check_schedule(Triangle())
