"""What the checks of several kinds of parts share."""

from __future__ import annotations

import math
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.features.layout import Layout, most_entries
from streamsgd.kernels.compile.verbs import prepare
from streamsgd.kernels.learn.fit import end_batch, fit, learn, settled, update
from streamsgd.kernels.parts.traits import is_race, is_sequential, reduces
from streamsgd.kernels.structs.block import Parts, new_scratch
from streamsgd.kernels.structs.rows import OWN
from streamsgd.kernels.structs.state import ETA, FILLED, SEEN, STEPS, State, make_state
from streamsgd.kernels.structs.step import StepContext
from streamsgd.kernels.sums.score import score
from streamsgd.settings.registry import make
from streamsgd.training.race import leader, start_race, weights_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streamsgd.kernels.structs.block import Block


TARGETS: dict[str, tuple[float, ...]] = {
    "regression": (-3.0, 0.0, 0.7, 2.0),
    "binary": (0.0, 1.0),
    "margin": (0.0, 1.0),
    "poisson": (0.0, 1.0, 2.0, 7.0),
}
"""Targets of each task that a loss is tried with; those of `multiclass` are the classes of the loss."""

_RATES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)

FAR = 500.0
"""Scores up to here, either side of zero, must give finite numbers."""

STARTS = (-30.0, -8.0, -1.7, -0.4, 0.0, 0.3, 0.95, 2.2, 8.0, 30.0)
"""Scores from which a loss leaps ..."""

FORCES = (1e-6, 1e-3, 0.1, 1.0, 3.0, 30.0, 1000.0)
"""... and how far, in time."""

DENSE = Layout(3, n_coordinates=4)
"""Three numbers and the intercept."""

MIXED = Layout(2, by=(-1, 0), n_coordinates=9, mixed=True)
"""Two numbers, a category of three values, another one times the first number, and the intercept."""


def targets(loss: Any) -> tuple[float, ...]:
    """Return the targets that a loss is tried with."""
    return tuple(map(float, range(loss.classes))) if loss.task == "multiclass" else TARGETS[loss.task]


def flow(loss: Any, y: float, score: float, duration: float) -> float:
    """Follow ds/dt = -slope(s) by Runge and Kutta's rule, by steps of which two halves agree with the whole.

    The way down a convex loss never turns back: steps that would are too long, and where none is short enough the score rests.
    """
    done, step = 0.0, duration
    while done < duration and (slope := loss.slope(y, score)):
        step = min(step, duration - done, 0.5 / abs(slope))
        if step * abs(slope) <= 1e-14 * max(1.0, abs(score)):
            break
        whole = _step(loss, y, score, step)
        half = _step(loss, y, _step(loss, y, score, 0.5 * step), 0.5 * step)
        if abs(whole - half) <= 1e-9 * abs(half - score) + 1e-14 * max(1.0, abs(score)):
            score, done, step = half, done + step, 2.0 * step
        else:
            step *= 0.5
    return score


def _step(loss: Any, y: float, score: float, duration: float) -> float:
    """Return where one step leads, NaN if the slope changes its sign on the way."""
    first = loss.slope(y, score)
    second = loss.slope(y, score - 0.5 * duration * first)
    third = loss.slope(y, score - 0.5 * duration * second)
    last = loss.slope(y, score - duration * third)
    if min(first * second, first * third, first * last) <= 0.0:
        return math.nan
    return float(score - duration / 6.0 * (first + 2.0 * second + 2.0 * third + last))


def check_drift(penalty: Any, weights: np.ndarray) -> None:
    """Check that a penalty's drift is many small steps of it."""

    def drift(some: np.ndarray, g: float, duration: float) -> np.ndarray:
        return np.array([penalty.drift(w, g, duration) for w in some.tolist()])

    if hasattr(penalty, "settle"):
        for duration in (0.0, 0.1, 2.0):
            alone = np.array([penalty.settle(w, duration) for w in weights.tolist()])
            close(drift(weights, 0.0, duration), alone, 1e-12, f"{penalty!r}: drift without a gradient, which is settle,")
    soon, some = 1e-6, weights[np.abs(weights) < FAR]
    for g in (-2.0, -0.3, -1e-5, 1e-5, 0.3, 2.0):
        what = f"{penalty!r}: drift along {g:g}"
        for a, b in ((0.0, 0.5), (1e-3, 0.1), (0.1, 2.0), (30.0, 500.0)):
            once = drift(weights, g, a + b)
            twice = drift(drift(weights, g, a), g, b)
            close(twice, once, 1e-11, f"{what} for {a:g} then for {b:g}, which is for both at once,")
            close(-drift(-weights, -g, a + b), once, 1e-12, f"{what} of the other sign")
        expected = np.array([penalty.shrink(w - soon * (penalty.pull(w) + g), soon) for w in some.tolist()])
        error = np.abs(drift(some, g, soon) - expected)
        true(
            bool((error <= 1e-3 * soon * abs(g) + 1e-11 * np.maximum(1.0, np.abs(some))).all()),
            f"{what} for {soon:g} brings {some} to {drift(some, g, soon)}, pull, g and shrink to {expected}",
        )


def check_soon(penalty: Any, weights: np.ndarray) -> None:
    """Compare what a short time settles with a step of both parts of the penalty."""
    soon = 1e-6
    for w in weights.tolist():
        got = w - penalty.settle(w, soon)
        expected = w - penalty.shrink(w - soon * penalty.pull(w), soon)
        true(
            abs(got - expected) <= 1e-3 * abs(expected) + 1e-15 * abs(w),
            f"{penalty!r}: in a time of {soon:g} settle takes {got!r} off a weight of {w:g}, pull and shrink {expected!r}",
        )


def parts_with(**own: Any) -> Parts:
    """Return plain parts but for those given."""
    usual = {"loss": "squared", "penalty": "none", "optimizer": "sgd", "schedule": "constant"}
    return Parts(**{kind: make(kind, name) for kind, name in usual.items()} | own)


def check_updates(parts: Parts, part: Any) -> None:
    """Give kernel and plain Python the same gradients for 50 steps."""
    n, results = 6, []
    for run in (update, _plain(update)):
        state = _state(n, parts.optimizer.n_slots)
        state.weights[:] = np.random.default_rng(2).normal(size=n)
        for step in range(50):
            state.grad[:] = np.random.default_rng([5, step]).normal(size=n)
            _call(run, part, parts, state, StepContext(4, n - 1, 0.0, 0.0, 5.0), 3, step / 10)
        results.append(state)
    for name in ("weights", "slots"):
        got, expected = (getattr(state, name) for state in results)
        close(got, expected, 1e-10, f"{part!r}: the kernel's {name} after 50 updates")


def check_fit(parts: Parts, part: Any, layout: Layout) -> None:
    """Let kernel and plain Python learn the same rows, and score them."""
    block, n_outputs = _block(layout, targets(parts.loss)), int(getattr(parts.loss, "classes", 1))
    n_rows, results = len(block.y), []
    scratch = new_scratch(n_outputs, float, most_entries(block, layout))
    for run, settle, read in ((fit, settled, score), (_fit_plainly, _plain(settled), _plain(score))):
        state = _start(parts.optimizer, layout.n_coordinates * n_outputs, few=layout.mixed)
        pace = StepContext(5, (layout.n_coordinates - 1) * n_outputs, 0.0, 1.0 / n_rows, 1.0)
        order, heads = np.zeros(n_rows, np.int32), np.zeros(1, np.int64)
        _call(run, part, parts, block, order, heads, state, pace, scratch)
        weights = _weights(parts, state, layout.n_coordinates * n_outputs, pace.n_penalised, settle)
        scores, means, losses = np.zeros((n_rows, n_outputs)), np.zeros((n_rows, n_outputs)), np.zeros(n_rows)
        _call(read, part, parts.loss, block, 0, n_rows, weights, scores, means, losses, scratch)
        results.append({"weights": weights, "state": state.weights, "tally": state.tally, "means": means, "losses": losses})
    for name, numbers in results[0].items():
        close(numbers, results[1][name], 1e-9, f"{part!r}: the kernel's {name} after {n_rows} rows")


def _block(layout: Layout, targets: tuple[float, ...]) -> Block:
    """Return 24 rows of random numbers, categories that have three values each, and weights."""
    n_rows, rng = 24, np.random.default_rng(7)
    block = layout.allocate(n_rows, "float64")
    block.rows.values[:, : layout.width] = rng.normal(size=(n_rows, layout.width))
    block.y[:], block.weight[:] = np.resize(targets, n_rows), rng.uniform(0.5, 2.0, n_rows)
    for k in range(len(layout.by)):
        block.rows.ids[:, layout.width + OWN + k] = layout.width + 3 * k + rng.integers(0, 3, n_rows)
    return block


def _fit_plainly(parts: Any, block: Any, *rest: Any) -> None:
    """Do what `fit` does for a block of one tile in order, as Python; prefetching cannot be."""
    order, _heads, state, pace, scratch = rest
    learn_row: Any = learn
    end: Any = end_batch
    for i in range(len(order)):
        step, filled, epoch = int(state.clock[STEPS]) + 1, int(state.clock[FILLED]) + 1, pace.epoch + pace.epoch_per_row * i
        shared = _prepared(parts.optimizer, step, filled, state.sums[SEEN] + filled)
        value, weight = learn_row(parts, block, [i], 1, state, pace, epoch, shared, scratch)
        state.tally[:] += value, weight, 1.0
        state.clock[FILLED] += 1
        if state.clock[FILLED] == pace.batch_size:
            end(parts, state, pace, int(state.clock[FILLED]), pace.epoch)


def check_settled(parts: Parts, part: Any) -> None:
    """Let a kernel pay what weights owe, and work it out in Python."""
    n, rng = 6, np.random.default_rng(4)
    state = make_state(rng.normal(size=n), parts.optimizer.n_slots, np.float64, few=True, lazy=True)
    state.slots[:] = rng.uniform(0.5, 2.0, state.slots.shape)
    state.paid[:], state.sums[[ETA, SEEN]], state.clock[STEPS] = rng.uniform(0.0, 2.0, n), (3.0, 448.0), 7
    got, expected, shared = np.zeros(n), state.weights.copy(), _prepared(parts.optimizer, 7, 0, state.sums[SEEN])
    _call(settled, part, parts, state, n - 1, got)
    for j in range(n - 1):
        duration = (state.sums[ETA] - state.paid[j]) * parts.optimizer.stretch(state.slots, j, shared)
        expected[j] = parts.penalty.settle(expected[j], duration)
    close(got, expected, 1e-12, f"{part!r}: the kernel's weights after all that was owed was paid")


def _start(optimizer: Any, n_weights: int, *, few: bool = False) -> State:
    if reduces(optimizer):
        start, snapshot, whole = np.random.default_rng(8).normal(size=(3, n_weights))
        state = make_state(start, optimizer.n_slots, np.float64, few=few, lazy=few)
        state.slots[0], state.slots[1] = snapshot, whole
        return state
    if is_race(optimizer):
        return start_race(np.zeros(n_weights))
    return make_state(np.zeros(n_weights), optimizer.n_slots, np.float64, few=few, batches=not is_sequential(optimizer))


def _weights(parts: Parts, state: State, n: int, n_penalised: int, settle: Any) -> np.ndarray:
    """Return what the weights, (n,), are once everything is paid, or those of the learner that leads."""
    if is_race(parts.optimizer):
        return weights_of(state, leader(state))
    weights = np.zeros(n)
    _call(settle, parts.optimizer, parts, state, n_penalised, weights)
    return weights


def _state(n_weights: int, n_slots: int) -> State:
    return make_state(np.zeros(n_weights), n_slots, np.float64)


def _prepared(*args: Any) -> Any:
    verb: Any = prepare
    return verb(*args)


def _call(kernel: Any, part: Any, *args: Any) -> None:
    try:
        with np.errstate(all="ignore"):  # as kernels do
            kernel(*args)
    except Exception as error:
        how = "in a kernel" if hasattr(kernel, "py_func") else "in Python"
        raise AssertionError(f"{part!r} does not run {how}: {error}") from error


def _plain(kernel: Any) -> Any:
    """Return the Python function that a kernel was compiled from."""
    return getattr(kernel, "py_func", kernel)


def has(part: Any, functions: Iterable[str], attributes: Iterable[str] = ()) -> None:
    """Check that a part has what its kind must have."""
    missing = [f"{name}(...)" for name in functions if not callable(getattr(part, name, None))]
    missing += [name for name in attributes if not hasattr(part, name)]
    named = hasattr(part, "_fields")
    true(named, f"{part!r} is not a NamedTuple; a part is one, with its hyper-parameters as fields")
    true(not missing, f"{type(part).__name__} lacks {', '.join(missing)}")


def pickles(part: Any) -> None:
    """Check that a part survives pickling."""
    try:
        copy = pickle.loads(pickle.dumps(part))  # noqa: S301  made on this line
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise AssertionError(f"{part!r} cannot be pickled: {error}; define its class at the top of a module") from error
    true(copy == part and type(copy) is type(part), f"{part!r} comes back from pickling as {copy!r}")


def check_odd_and_rising(part: Any, what: str, weights: np.ndarray, got: Any) -> None:
    """Check that a function of weights is odd and never falls."""
    got = np.asarray(got, np.float64)
    true(bool(np.isfinite(got).all()), f"{part!r}: {what} of {weights} is {got}, not finite")
    close(
        got,
        -got[::-1],
        1e-12,
        f"{part!r}: {what} of w and of -w differ in more than the sign; of {weights} it",
    )
    true(bool((np.diff(got) >= 0).all()), f"{part!r}: {what} falls somewhere: of {weights} it is {got}")


def close(got: Any, expected: Any, tolerance: float, what: str) -> None:
    """Check that two results agree."""
    got, expected = np.asarray(got), np.asarray(expected)
    scale = max(1e-300, float(np.abs(expected).max(initial=0.0)))
    error = float(np.abs(got - expected).max(initial=0.0)) / scale
    true(
        error <= tolerance,
        f"{what} is {got}, {expected} was expected (difference {error:.2g}, allowed {tolerance:g})",
    )


def true(holds: Any, message: str) -> None:
    """Raise AssertionError with the message unless something holds."""
    if not holds:
        raise AssertionError(message)
