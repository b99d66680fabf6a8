"""Memories that fade by rows: closed forms whatever the batches, and the optimizers of steps at the usual batch."""

import math
from typing import Any

import numpy as np
import pytest

from streamsgd.errors import SettingsError
from streamsgd.kernels.learn.fit import update
from streamsgd.kernels.parts.by_rows import USUAL_BATCH
from streamsgd.kernels.structs.state import SEEN, State, make_state
from streamsgd.kernels.structs.step import StepContext
from streamsgd.settings.registry import BY_ROWS, make, spec_of
from streamsgd.testing.laws import parts_with
from streamsgd.testing.optimizers import check_optimizer
from streamsgd.training.tasks.merge import delta_of, move_by

N = 5
ROWS = [64, 1, 7, 500, 64, 13, 1024, 2, 300]
GRADIENTS = np.random.default_rng(3).normal(size=(len(ROWS), N))
SHORT = {
    "momentum": "half_life=6",
    "nesterov": "half_life=6",
    "rmsprop": "half_life=60",
    "adam": "half_life1=6,half_life2=700",
    "adamw": "half_life1=6,half_life2=700",
}
"""Half-lives for steps of one row."""


def after(optimizer: Any, rows: list[int], gradients: np.ndarray) -> State:
    """Take steps of so many rows, with these mean gradients, from weights of 1."""
    state = make_state(np.ones(N), optimizer.n_slots, np.float64)
    for count, gradient in zip(rows, gradients, strict=True):
        state.grad[:] = gradient * count
        # A batch of `count` rows that is full, at the rate as it is.
        update(parts_with(optimizer=optimizer), state, StepContext(count, N, 0.0, 0.0, 1.0), count, 0.0)
    return state


def left(half_life: float, rows: list[int]) -> np.ndarray:
    """Return what is left of each step once the last one is done, without a recursion."""
    later = np.cumsum([0, *rows[:0:-1]])[::-1]
    return 2.0 ** (-later / half_life)


@pytest.mark.parametrize("name", BY_ROWS)
def test_those_that_fade_by_rows_conform(name: str) -> None:
    check_optimizer(make("optimizer", f"{name}:{SHORT[name]}"))


@pytest.mark.parametrize("name", BY_ROWS)
def test_at_the_usual_batch_they_are_those_that_fade_by_steps(name: str) -> None:
    per_step = make("optimizer", name)
    keys = [key for key in BY_ROWS[name]._fields if key.startswith("half_life")]
    factor = {"half_life": getattr(per_step, "alpha", getattr(per_step, "momentum", 0.0))} | {
        f"half_life{k}": getattr(per_step, f"beta{k}", 0.0) for k in (1, 2)
    }
    rows = make("optimizer", name, **{key: -USUAL_BATCH / math.log2(factor[key]) for key in keys})
    gradients = np.random.default_rng(4).normal(size=(40, N))
    ours, theirs = (after(optimizer, [USUAL_BATCH] * 40, gradients) for optimizer in (rows, per_step))
    np.testing.assert_allclose(ours.weights, theirs.weights, rtol=1e-10)
    defaults = make("optimizer", name, **{keys[0]: BY_ROWS[name]._field_defaults[keys[0]]})
    np.testing.assert_allclose(after(defaults, [USUAL_BATCH] * 40, gradients).weights, theirs.weights, rtol=1e-2)


def test_both_moments_of_adam_are_sums_over_rows_whatever_the_batches() -> None:
    h1, h2 = 300.0, 4000.0
    state = after(make("optimizer", f"adam:half_life1={h1},half_life2={h2},epsilon=0"), ROWS, GRADIENTS)
    expected, rows = np.ones(N), np.array(ROWS)
    for t in range(1, len(ROWS) + 1):
        moments = [
            (left(h, ROWS[:t]) * (1.0 - 2.0 ** (-rows[:t] / h))) @ GRADIENTS[:t] ** power for h, power in ((h1, 1), (h2, 2))
        ]
        first, second = (m / (1.0 - 2.0 ** (-rows[:t].sum() / h)) for m, h in zip(moments, (h1, h2), strict=True))
        expected -= 0.1 * first / np.sqrt(second)
    np.testing.assert_allclose(state.weights, expected, rtol=1e-12)
    assert state.sums[SEEN] == sum(ROWS)


def test_a_velocity_and_a_mean_square_are_sums_over_rows_whatever_the_batches() -> None:
    h, rows = 200.0, np.array(ROWS)
    weights = left(h, ROWS) * (1.0 - 2.0 ** (-rows / h))
    velocity = after(make("optimizer", f"momentum:half_life={h}"), ROWS, GRADIENTS).slots[0]
    np.testing.assert_allclose(velocity, weights @ GRADIENTS / (1.0 - 2.0 ** (-USUAL_BATCH / h)), rtol=1e-12)
    squares = after(make("optimizer", f"rmsprop:half_life={h}"), ROWS, GRADIENTS).slots[0]
    np.testing.assert_allclose(squares, weights @ GRADIENTS**2, rtol=1e-12)


@pytest.mark.parametrize("name", BY_ROWS)
def test_two_steps_leave_the_memory_of_one_that_is_twice_as_large(name: str) -> None:
    optimizer = make("optimizer", f"{name}:{SHORT[name]}")
    fine, coarse = after(optimizer, [3] * 8, np.repeat(GRADIENTS[:4], 2, axis=0)), after(optimizer, [6] * 4, GRADIENTS[:4])
    np.testing.assert_allclose(fine.slots, coarse.slots, rtol=1e-12)


def test_a_steady_gradient_moves_as_far_per_row_in_any_batch() -> None:
    """Once its velocity has come to rest, at a rate that follows the batch."""
    moved = {}
    for b in (16, 64, 256):
        optimizer = make("optimizer", "momentum:half_life=300", learning_rate=0.001 * b / USUAL_BATCH)
        n = 8192 // b
        ends = [after(optimizer, [b] * steps, np.ones((steps, N))).weights[0] for steps in (n, 2 * n)]
        moved[b] = (ends[0] - ends[1]) / 8192
    assert max(moved.values()) / min(moved.values()) == pytest.approx(1.0, rel=1e-6)


def test_of_lanes_the_rows_of_the_one_ahead_count() -> None:
    """Rows that lanes learn side by side age a memory by those of one."""
    optimizer = make("optimizer", "adam:half_life1=100")
    before, shares = make_state(np.ones(N), 2, np.float64), []
    for rows in ([64, 64], [64, 20]):
        lane = after(optimizer, rows, GRADIENTS[:2])
        shares.append(delta_of(optimizer, before, lane, sum(rows), lane.tally))
    move_by(optimizer, before, shares[0].merge(shares[1]))
    assert before.sums[SEEN] == 128.0


def test_a_half_life_is_told_apart_from_a_factor_per_step() -> None:
    assert spec_of("optimizer", make("optimizer", "rmsprop:half_life=500")).startswith(
        "rmsprop:learning_rate=0.03,half_life=500"
    )
    assert make("optimizer", spec_of("optimizer", make("optimizer", "adam:half_life2=9e4"))).half_life2 == 9e4
    for spec, said in {
        "adam:beta1=0.9,half_life2=1000": "beta1 is per step and half_life2 in rows",
        "adam:half_life1=0": "half_life1=0 must be above 0",
        "adam:half_life1=inf": "half_life1=inf must be a finite number above 0",
        "adam:half_life1=x": "not a number of type float",
        "adam:half_life=10": "no field 'half_life'",
        "amsgrad:half_life1=10": "half_life1 is for momentum, nesterov, rmsprop, adam",
    }.items():
        with pytest.raises(SettingsError, match=said):
            make("optimizer", spec)
