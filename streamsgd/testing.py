"""Conformance: what every part must hold, for streamsgd's own parts and for yours.

>>> from streamsgd.testing import check_loss
>>> from streamsgd.kernels.losses import Huber
>>> check_loss(Huber(delta=2.0))

Each check returns nothing and raises AssertionError with what was expected, what came, and at which point.
All are deterministic and take a few seconds, which is the compilation of the part.
"""

from __future__ import annotations

import math
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.kernels import coin
from streamsgd.kernels.loops import Parts, end_batch, fit, learn, new_scratch, score, settled, update
from streamsgd.kernels.pace import Pace
from streamsgd.kernels.rows import OWN
from streamsgd.kernels.state import ETA, FILLED, STEPS, State, make_state
from streamsgd.layout import Layout, most_entries
from streamsgd.planning import Plan, make_plan
from streamsgd.racing import is_race, leader, start_race, weights_of
from streamsgd.registry import make

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from streamsgd.kernels.loops import Block

TARGETS: dict[str, tuple[float, ...]] = {
    "regression": (-3.0, 0.0, 0.7, 2.0),
    "binary": (0.0, 1.0),
    "margin": (0.0, 1.0),
    "poisson": (0.0, 1.0, 2.0, 7.0),
}
"""Targets of each task that a loss is tried with; those of `multiclass` are the classes of the loss."""

FAR = 500.0
"""Scores up to here, either side of zero, must give finite numbers."""

_RATES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)

_STARTS = (-30.0, -8.0, -1.7, -0.4, 0.0, 0.3, 0.95, 2.2, 8.0, 30.0)
"""Scores from which a loss leaps ..."""

_FORCES = (1e-6, 1e-3, 0.1, 1.0, 3.0, 30.0, 1000.0)
"""... and how far, in time."""

_DENSE = Layout(3, n_coordinates=4)
"""Three numbers and the intercept."""

_MIXED = Layout(2, by=(-1, 0), n_coordinates=9, mixed=True)
"""Two numbers, a category of three values, another one times the first number, and the intercept."""


def check_loss(loss: Any) -> None:
    """Check a loss: its slope, convexity, range, and that a kernel computes what its Python says.

    Parameters
    ----------
    loss
        A NamedTuple as `kernels.losses` describes.

    Raises
    ------
    AssertionError
        The slope is not the derivative of the value to 1e-6; the value is not convex, or not finite for
        scores within 500 of zero; a mean is not finite; `leap`, if it has one, does not end where small steps
        do, to 1e-5, or falls back as the force grows; `confine`, if it has one, moves a score away from zero or
        past it, or a second time; a kernel gives other numbers; it does not survive pickling.

    """
    several = hasattr(loss, "slopes")
    _has(loss, ("value", "slopes", "means") if several else ("value", "slope", "mean"), ("task",))
    tasks = (*TARGETS, "multiclass")
    _true(loss.task in tasks, f"{loss!r}: task is {loss.task!r}; it must be one of {', '.join(tasks)}")
    _pickles(loss)
    for y in _targets(loss):
        try:
            (_check_slopes if several else _check_slope)(loss, y)
        except ArithmeticError as error:
            raise AssertionError(f"{loss!r}: at y={y:g} and a score within {FAR:g} of 0: {error}") from error
        if hasattr(loss, "leap"):
            _check_leap(loss, y)
    if hasattr(loss, "confine"):
        _check_confine(loss)
    _check_fit(_parts(loss=loss, optimizer=make("optimizer", "sgd:learning_rate=0.05")), loss, _DENSE)
    _check_fit(_parts(loss=loss, optimizer=make("optimizer", "nag")), loss, _MIXED)


def check_optimizer(optimizer: Any) -> None:
    """Check an optimizer: that it converges, strides as it moves, and that a kernel agrees with its Python.

    Parameters
    ----------
    optimizer
        A NamedTuple as `kernels.optimizers` describes.

    Raises
    ------
    AssertionError
        No learning rate brings a quadratic of condition 10 to a thousandth in 500 steps, or, if it is
        sequential, a solvable least squares problem in 50 passes; a stride is not a positive number, or not
        what the weight comes to move by for a steady gradient of 1; `stretch`, if it has one, is not that
        stride per unit of the rate; a weight of 0 that never saw a gradient moves; it uses more slots than
        `n_slots`, or keeps less than two if it is sequential or reduces variance, five if it bets; if it reduces variance, rows
        have a gradient at the snapshot itself; a kernel gives other numbers; it does not survive pickling.

    """
    reduces = bool(getattr(optimizer, "reduces", False))
    if reduces and not optimizer.learning_rate:  # which the data says
        optimizer = optimizer._replace(learning_rate=0.1)
    sequential = bool(getattr(optimizer, "sequential", False))
    _has(optimizer, ("prepare",) if sequential else ("prepare", "move"), ("n_slots",))
    _true(
        "learning_rate" in optimizer._fields,
        f"{optimizer!r} has no field learning_rate, which schedules scale",
    )
    _pickles(optimizer)
    if sequential:
        least, how = (coin.SLOTS, "betting") if getattr(optimizer, "bets", False) else (2, "learning row by row")
        enough = f"{optimizer!r}: n_slots is {optimizer.n_slots}; {how} keeps at least {least} numbers per weight"
        _true(optimizer.n_slots >= least, enough)
        _check_fit(_parts(optimizer=optimizer), optimizer, _MIXED)
        _check_least_squares(optimizer)
    else:
        _check_stride(optimizer)
        _check_updates(_parts(optimizer=optimizer, schedule=make("schedule", "cosine")), optimizer)
        _check_convergence(optimizer)
    if reduces:
        lacking = {"renewal", "tolerance"} - {*optimizer._fields}
        _true(not lacking, f"{optimizer!r} lacks the fields {', '.join(sorted(lacking))} of what reduces variance")
        _true(optimizer.n_slots >= 2, f"{optimizer!r}: n_slots is {optimizer.n_slots}; a snapshot and its gradient take 2")
        _check_snapshot(optimizer)
        for layout in (_DENSE, _MIXED):
            for loss in ("logistic", "softmax"):
                both = make("penalty", "elastic-net:l1=0.1,l2=0.3")
                _check_fit(_parts(optimizer=optimizer, loss=make("loss", loss), penalty=both), optimizer, layout)
    if hasattr(optimizer, "stretch"):
        _check_settled(_parts(optimizer=optimizer, penalty=make("penalty", "l2:l2=0.3")), optimizer)


def check_penalty(penalty: Any) -> None:
    """Check a penalty: that `pull` and `shrink` are those of a convex function, least and even at zero.

    Parameters
    ----------
    penalty
        A NamedTuple as `kernels.penalties` describes.

    Raises
    ------
    AssertionError
        Either is not finite, not odd or not increasing; `shrink` moves a weight away from zero, pulls two
        weights apart, or moves at a stride of zero; `settle`, if it has one, does so too, or is not the flow
        of the two: for a short time both of them, for two times one after another their sum; `drift`, if it has
        one, is not the same with a gradient; a kernel gives other numbers; it does not survive pickling.

    """
    _has(penalty, ("pull", "shrink"))
    _pickles(penalty)
    weights = np.array([-FAR, -3.0, -1.0, -0.1, -1e-9, 0.0, 1e-9, 0.1, 1.0, 3.0, FAR])
    _check_odd_and_rising(penalty, "pull", weights, [penalty.pull(w) for w in weights.tolist()])
    for stride in (0.0, 1e-3, 0.1, 2.0):
        shrunk = np.array([penalty.shrink(w, stride) for w in weights.tolist()])
        what = f"shrink with a stride of {stride:g}"
        _check_odd_and_rising(penalty, what, weights, shrunk)
        away = np.abs(shrunk) > np.abs(weights)
        _true(not away.any(), f"{penalty!r}: {what} moves {weights[away]} away from zero, to {shrunk[away]}")
        apart = np.diff(shrunk) > np.diff(weights) * (1 + 1e-12) + 1e-12
        _true(not apart.any(), f"{penalty!r}: {what} pulls weights apart: {weights} become {shrunk}")
        _true(stride > 0 or np.array_equal(shrunk, weights), f"{penalty!r}: shrink moves at a stride of 0")
    _check_updates(_parts(penalty=penalty), penalty)
    if hasattr(penalty, "settle"):
        _check_settle(penalty, weights)
    if hasattr(penalty, "drift"):
        _check_drift(penalty, weights)
    if hasattr(penalty, "settle"):
        _check_settled(_parts(penalty=penalty), penalty)


def check_schedule(schedule: Any) -> None:
    """Check a schedule: finite factors of at least zero, a warm-up that is linear, and a kernel that agrees.

    Parameters
    ----------
    schedule
        A NamedTuple as `kernels.schedules` describes.

    Raises
    ------
    AssertionError
        A factor is negative or not finite; all are zero; a field `warmup` does not multiply by
        min(1, step / warmup); a kernel gives other numbers; it does not survive pickling.

    """
    _has(schedule, ("factor",))
    _pickles(schedule)
    places = [(step, epoch, 5.0) for step in (1, 2, 10, 10**4, 10**9) for epoch in (0.0, 0.25, 1.0, 4.999, 5.0)]
    factors = [schedule.factor(*place) for place in places]
    for place, got in zip(places, factors, strict=True):
        where = "step {}, epoch {} of {}".format(*place)
        _true(
            0.0 <= got < math.inf,
            f"{schedule!r}: the factor at {where} is {got}; it must be finite and not negative",
        )
    _true(any(factors), f"{schedule!r}: every factor is 0, so nothing would be learned")
    if "warmup" in schedule._fields:
        for step in (1, 2, 7, 8, 9, 100):
            cold = schedule._replace(warmup=0).factor(step, 0.5, 5.0)
            warm = schedule._replace(warmup=8).factor(step, 0.5, 5.0)
            _close(
                warm,
                cold * min(1.0, step / 8),
                1e-12,
                f"{schedule!r} with warmup=8: the factor of step {step}",
            )
    _check_updates(_parts(schedule=schedule), schedule)


def check_sampler(sampler: Any) -> None:
    """Check a sampler: permutations that depend on the seeds alone, and plans that read every row once.

    Parameters
    ----------
    sampler
        A NamedTuple as `samplers` describes.

    Raises
    ------
    AssertionError
        An order is not a permutation, or not the same for the same seeds; a plan made with it breaks a law of
        `check_plan`; it does not survive pickling.

    """
    _has(sampler, ("order",), ("mixes_rows", "side_by_side"))
    _pickles(sampler)
    for n in (0, 1, 2, 7, 1000):
        order, again = (np.asarray(sampler.order(n, np.random.SeedSequence([3, n]))) for _ in range(2))
        is_permutation = order.shape == (n,) and np.array_equal(np.sort(order), np.arange(n))
        _true(
            is_permutation,
            f"{sampler!r}: the order of {n} units is not a permutation of 0 .. {n - 1}: {order[:20]}",
        )
        _true(np.array_equal(order, again), f"{sampler!r}: two orders of {n} units from the same seeds differ")
    rng = np.random.default_rng(1)
    for high, chunk_rows in ((2, 1), (5, 40), (50, 40), (300, 100), (1000, 7)):
        rows = rng.integers(0, high, 60)
        file = np.sort(rng.integers(0, 4, 60))
        plan = make_plan(rows, file, row_bytes=8, chunk_rows=chunk_rows, tile_rows=16, sampler=sampler, seed=chunk_rows)
        for epoch in (0, 3):
            check_plan(plan, rows, file, epoch)


def check_plan(plan: Plan, rows: np.ndarray, file: np.ndarray, epoch: int) -> None:
    """Check one epoch of a plan.

    Parameters
    ----------
    plan
        As of `make_plan`.
    rows, file
        int64 (n_row_groups,): rows of each row group, and the file it is in.
    epoch
        Which.

    Raises
    ------
    AssertionError
        A row is read twice or never; a chunk is larger than `plan.chunk_rows` or has gaps; a piece joins two
        files or cuts into a run of row groups; slices of a row group are not in order; the plan gives other
        chunks when it is asked for one alone or has been pickled.

    """
    begins = np.concatenate([[0], np.cumsum(rows)])
    seen = np.zeros(int(begins[-1]), np.int64)
    reached = np.zeros(len(rows), np.int64)
    before = 0
    chunks = list(plan.chunks(epoch))
    for number, chunk in enumerate(chunks):
        _true((chunk.epoch, chunk.number) == (epoch, number), f"chunk {number} of epoch {epoch} says {chunk}")
        _true(
            0 < chunk.rows <= plan.chunk_rows,
            f"{chunk} has {chunk.rows} rows; a chunk has 1 to {plan.chunk_rows}",
        )
        _true(plan.rows_before(epoch, number) == before, f"rows before chunk {number} are not {before}")
        before += chunk.rows
        at = 0
        for position, piece in enumerate(chunk.pieces):
            _true((piece.number, piece.rows_before) == (position, at), f"{piece} is not at {position}, row {at}")
            at += piece.rows
            inside = file[piece.first : piece.last]
            _true(len(set(inside.tolist())) == 1, f"{piece} joins files {sorted(set(inside.tolist()))}")
            whole = int(begins[piece.last] - begins[piece.first])
            alone = piece.last == piece.first + 1
            _true(
                alone or piece.rows == whole,
                f"{piece} cuts into a run of {piece.last - piece.first} row groups",
            )
            _true(
                piece.start == reached[piece.first],
                f"{piece} does not begin where row {reached[piece.first]} is next",
            )
            reached[piece.first] = piece.stop
            first = int(begins[piece.first])
            seen[first + piece.start : first + piece.stop] += 1
    _true(
        bool((seen == 1).all()),
        f"epoch {epoch}: {(seen == 0).sum()} rows never read, {(seen > 1).sum()} more than once",
    )
    _true(plan.n_rows == len(seen), f"the plan says {plan.n_rows} rows, there are {len(seen)}")
    _true(plan.n_chunks(epoch) == len(chunks), f"n_chunks says {plan.n_chunks(epoch)}, there are {len(chunks)}")
    copy = pickle.loads(pickle.dumps(plan))  # noqa: S301  made one line above
    for number in (0, len(chunks) // 2, len(chunks) - 1) if chunks else ():
        _true(
            copy.chunk(epoch, number) == chunks[number],
            f"chunk {number} alone, of a copy, is {copy.chunk(epoch, number)}",
        )
        _true(
            copy.key(epoch, number) == plan.key(epoch, number),
            f"the key of chunk {number} of a copy is another",
        )


CHECKS: dict[str, Callable[[Any], None]] = {
    "loss": check_loss,
    "penalty": check_penalty,
    "optimizer": check_optimizer,
    "schedule": check_schedule,
    "shuffle": check_sampler,
}
"""The check of every kind of part, by its name in `registry.PARTS`."""


# --- losses


def _targets(loss: Any) -> tuple[float, ...]:
    return tuple(map(float, range(loss.classes))) if loss.task == "multiclass" else TARGETS[loss.task]


def _check_slope(loss: Any, y: float) -> None:
    rng = np.random.default_rng(0)
    far = np.linspace(-FAR, FAR, 401)
    for s in [*rng.uniform(-4, 4, 60).tolist(), *rng.uniform(-30, 30, 20).tolist()]:
        h = 1e-5 * max(1.0, abs(s))
        low, here, high = (loss.value(y, s + step) for step in (-h, 0.0, h))
        left, right, got = (here - low) / h, (high - here) / h, loss.slope(y, s)
        tolerance = 1e-6 * max(1.0, abs(got))
        if right - left > 1e-3 * max(1.0, abs(got)):  # a kink: any subgradient will do
            good = left - tolerance <= got <= right + tolerance
        else:
            good = abs(got - 0.5 * (left + right)) <= tolerance
        difference = (high - low) / (2 * h)
        _true(
            good,
            f"{loss!r}: at y={y:g}, score={s:g} the slope is {got!r}, but the value rises by {difference!r}",
        )
    values = np.array([loss.value(y, s) for s in far.tolist()])
    slopes = np.array([loss.slope(y, s) for s in far.tolist()])
    means = np.array([loss.mean(s) for s in far.tolist()])
    for name, numbers in (("value", values), ("slope", slopes), ("mean", means)):
        wrong = far[~np.isfinite(numbers)]
        _true(not len(wrong), f"{loss!r}: at y={y:g} the {name} is not finite for scores {wrong[:5]}")
    falls = far[1:][np.diff(slopes) < -1e-12 * np.abs(slopes[1:])]
    _true(
        not len(falls),
        f"{loss!r}: at y={y:g} the slope falls at scores {falls[:5]}, so the loss is not convex",
    )


def _check_slopes(loss: Any, y: float) -> None:
    rng = np.random.default_rng(0)
    n, h = loss.classes, 1e-5
    for size in (1.0, 5.0, FAR):
        for _ in range(20):
            scores = rng.uniform(-size, size, n)
            got, means = np.full(n, np.nan), np.full(n, np.nan)
            loss.slopes(y, scores, got)
            loss.means(scores, means)
            value = loss.value(y, scores)
            finite = np.isfinite([value, *got, *means]).all()
            _true(
                finite,
                f"{loss!r}: at y={y:g}, {scores} value {value}, slopes {got} or means {means} are not finite",
            )
            if size == FAR:
                continue
            for k in range(n):
                step = h * np.eye(n)[k]
                rise = (loss.value(y, scores + step) - loss.value(y, scores - step)) / (2 * h)
                where = f"at y={y:g}, scores={scores} slope {k} is {got[k]!r}, but the value rises by {rise!r}"
                _true(abs(got[k] - rise) <= 1e-6 * max(1.0, abs(rise)), f"{loss!r}: {where}")
    for _ in range(50):
        a, b = rng.uniform(-5, 5, (2, n))
        middle, ends = loss.value(y, (a + b) / 2), [loss.value(y, end) for end in (a, b)]
        _true(
            middle <= np.mean(ends) + 1e-9,
            f"{loss!r}: at y={y:g} the value is not convex between {a} and {b}",
        )


def _check_leap(loss: Any, y: float) -> None:
    for start in _STARTS:
        slope = loss.slope(y, start)
        reached = 0.0
        for force in (0.0, *_FORCES):
            where = f"{loss!r}: at y={y:g}, score={start:g} the leap of force {force:g}"
            try:
                leap = loss.leap(y, start, force)
            except (ArithmeticError, ValueError) as error:
                raise AssertionError(f"{where} has no value: {error}") from error
            expected = _flow(loss, y, start, force) - start
            allowed = 1e-5 * abs(expected) + 1e-11 * max(1.0, abs(start))
            _true(
                abs(leap - expected) <= allowed,
                f"{where} is {leap!r}; small steps come to {expected!r} (allowed {allowed:.2g})",
            )
            _true(leap * slope <= 0.0, f"{where} is {leap!r}, up the slope of {slope!r}")
            _true(
                abs(leap) >= abs(reached) - 1e-12 * abs(reached),
                f"{where} is {leap!r}, less than the {reached!r} of a smaller force",
            )
            reached = leap


def _flow(loss: Any, y: float, score: float, duration: float) -> float:
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


def _check_confine(loss: Any) -> None:
    limits = np.array([min(0.0, *_targets(loss)), max(0.0, *_targets(loss))])
    scores = np.linspace(-FAR, FAR, 2001)
    confined = np.array([loss.confine(s, limits) for s in scores.tolist()])
    again = np.array([loss.confine(s, limits) for s in confined.tolist()])
    _true(np.array_equal(again, confined), f"{loss!r}: confine moves what it has confined: {confined} to {again}")
    strays = (confined * scores < 0.0) | (np.abs(confined) > np.abs(scores))
    what = f"{loss!r}: confine moves {scores[strays][:5]} to {confined[strays][:5]}, which is not between them and 0"
    _true(not strays.any(), what)
    _true(bool((np.diff(confined) >= 0.0).all()), f"{loss!r}: confine falls somewhere: it is {confined}")


# --- optimizers


def _check_stride(optimizer: Any) -> None:
    slots, fresh = np.zeros((optimizer.n_slots, 1)), np.zeros((optimizer.n_slots, 1))
    w, before, stride, eta = 0.0, 0.0, 0.0, optimizer.learning_rate
    try:
        still, _ = optimizer.move(0.0, 0.0, slots, 0, eta, optimizer.prepare(1))
        _true(still == 0.0, f"{optimizer!r}: a weight of 0 moves to {still} though its gradient is 0")
        slots[:] = 0.0
        for step in range(1, 1001):
            before = w
            w, stride = optimizer.move(before, 1.0, slots, 0, eta, optimizer.prepare(step))
            _true(
                0.0 < stride < math.inf,
                f"{optimizer!r}: the stride of step {step} is {stride}; it must be above 0",
            )
            _check_stretch(optimizer, slots, step, stride)
        # What a weight does without any gradient, as under a decay, is not the gradient's.
        before, _ = optimizer.move(before, 0.0, fresh, 0, eta, optimizer.prepare(1000))
    except IndexError as error:
        raise AssertionError(f"{optimizer!r}: uses more slots than n_slots={optimizer.n_slots}: {error}") from error
    message = f"{optimizer!r}: after 1000 gradients of 1 a step moves a weight by"
    _close(before - w, stride, 1e-6, f"{message} {before - w!r} and says a stride of {stride!r}; the stride")


def _check_stretch(optimizer: Any, slots: np.ndarray, step: int, stride: float) -> None:
    if hasattr(optimizer, "stretch"):
        told = optimizer.learning_rate * optimizer.stretch(slots, 0, optimizer.prepare(step))
        _close(told, stride, 1e-12, f"{optimizer!r}: the rate times the stretch after step {step}, which is its stride,")


def _check_convergence(optimizer: Any) -> None:
    curvature, best = np.array([1.0, 3.0, 10.0, 2.0]), np.array([0.7, -1.0, 0.4, 1.2])
    n_steps, reached = 500, math.inf
    start = float(curvature @ best**2)
    for rate in _RATES:
        state = _state(4, optimizer.n_slots)
        parts = _parts(optimizer=optimizer._replace(learning_rate=rate), schedule=make("schedule", "cosine"))
        for step in range(n_steps):
            state.grad[:] = curvature * (state.weights - best)
            update(parts, state, Pace(1, 4, 0.0, 0.0, 1.0), 1, step / n_steps)
            if not np.abs(state.weights).max() < 1e6:
                break
        else:
            reached = min(reached, float(curvature @ (state.weights - best) ** 2))
        if reached <= 1e-3 * start:
            return
    raise AssertionError(
        f"{optimizer!r}: on a quadratic of condition 10 it comes to {reached / start:.2g} of its start "
        f"in {n_steps} steps at the best of the learning rates {_RATES}, going down to 0; 0.001 was expected"
    )


def _check_least_squares(optimizer: Any) -> None:
    layout, n_rows, n_passes = Layout(4, n_coordinates=5, mixed=True), 64, 50
    block = layout.allocate(n_rows, "float64")
    x = np.random.default_rng(6).normal(size=(n_rows, 4)) * [1.0, 100.0, 0.01, 1.0]
    block.rows.values[:, :4], block.y[:] = x, x @ [1.0, -0.02, 50.0, 0.3] + 2.0
    start, reached = float(np.mean(block.y**2)), math.inf
    for rate in _RATES:
        parts = _parts(optimizer=optimizer._replace(learning_rate=rate))
        state, scratch = _start(optimizer, 5), new_scratch(1, float, most_entries(block, layout))
        for _ in range(n_passes):
            order, heads = np.zeros(n_rows, np.int32), np.zeros(1, np.int64)
            fit(parts, block, order, heads, state, Pace(n_rows, 4, 0.0, 0.0, 1.0), scratch)
        weights = _weights(parts, state, 5, 4, settled)
        error = float(np.mean((x @ weights[:4] + weights[4] - block.y) ** 2))
        reached = min(reached, error) if math.isfinite(error) else reached
    _true(
        reached <= 1e-3 * start,
        f"{optimizer!r}: on a least squares problem with a solution it comes to {reached / start:.2g} of its start "
        f"in {n_passes} passes at the best of the learning rates {_RATES}; 0.001 was expected",
    )


def _check_snapshot(optimizer: Any) -> None:
    for layout in (_DENSE, _MIXED):
        block, state = _block(layout, TARGETS["binary"]), _start(optimizer, layout.n_coordinates, few=layout.mixed)
        state.slots[0] = state.weights
        parts, pace = _parts(optimizer=optimizer, loss=make("loss", "logistic")), Pace(1 << 62, 0, 0.0, 0.0, 1.0)
        order, heads = np.zeros(len(block.y), np.int32), np.zeros(1, np.int64)
        fit(parts, block, order, heads, state, pace, new_scratch(1, float, most_entries(block, layout)))
        most = float(np.abs(state.grad).max())
        _true(most <= 1e-12, f"{optimizer!r}: rows have a gradient of {most:.2g} at the snapshot itself; it must be 0")


# --- penalties


def _check_drift(penalty: Any, weights: np.ndarray) -> None:
    def drift(some: np.ndarray, g: float, duration: float) -> np.ndarray:
        return np.array([penalty.drift(w, g, duration) for w in some.tolist()])

    if hasattr(penalty, "settle"):
        for duration in (0.0, 0.1, 2.0):
            alone = np.array([penalty.settle(w, duration) for w in weights.tolist()])
            _close(drift(weights, 0.0, duration), alone, 1e-12, f"{penalty!r}: drift without a gradient, which is settle,")
    soon, some = 1e-6, weights[np.abs(weights) < FAR]
    for g in (-2.0, -0.3, -1e-5, 1e-5, 0.3, 2.0):
        what = f"{penalty!r}: drift along {g:g}"
        for a, b in ((0.0, 0.5), (1e-3, 0.1), (0.1, 2.0), (30.0, 500.0)):
            once = drift(weights, g, a + b)
            twice = drift(drift(weights, g, a), g, b)
            _close(twice, once, 1e-11, f"{what} for {a:g} then for {b:g}, which is for both at once,")
            _close(-drift(-weights, -g, a + b), once, 1e-12, f"{what} of the other sign")
        expected = np.array([penalty.shrink(w - soon * (penalty.pull(w) + g), soon) for w in some.tolist()])
        error = np.abs(drift(some, g, soon) - expected)
        _true(
            bool((error <= 1e-3 * soon * abs(g) + 1e-11 * np.maximum(1.0, np.abs(some))).all()),
            f"{what} for {soon:g} brings {some} to {drift(some, g, soon)}, pull, g and shrink to {expected}",
        )


def _check_settle(penalty: Any, weights: np.ndarray) -> None:
    def settle(some: np.ndarray, duration: float) -> np.ndarray:
        return np.array([penalty.settle(w, duration) for w in some.tolist()])

    for duration in (0.0, 1e-3, 0.1, 2.0, 1e6):
        what, after = f"settle for {duration:g}", settle(weights, duration)
        _check_odd_and_rising(penalty, what, weights, after)
        away = np.abs(after) > np.abs(weights)
        _true(not away.any(), f"{penalty!r}: {what} moves {weights[away]} away from zero, to {after[away]}")
        _true(duration > 0.0 or np.array_equal(after, weights), f"{penalty!r}: settle moves in no time")
    for some in (np.array([0.01, 0.1]), np.array([1.0, 3.0]), weights):
        for a, b in ((1e-3, 0.1), (0.1, 2.0), (30.0, 500.0)):
            twice, once = settle(settle(some, a), b), settle(some, a + b)
            _close(twice, once, 1e-12, f"{penalty!r}: settle for {a:g} then for {b:g}, which is settle for both at once,")
    _check_soon(penalty, weights[np.abs(weights) < FAR])


def _check_soon(penalty: Any, weights: np.ndarray) -> None:
    """Compare what a short time settles with a step of both parts of the penalty."""
    soon = 1e-6
    for w in weights.tolist():
        got = w - penalty.settle(w, soon)
        expected = w - penalty.shrink(w - soon * penalty.pull(w), soon)
        _true(
            abs(got - expected) <= 1e-3 * abs(expected) + 1e-15 * abs(w),
            f"{penalty!r}: in a time of {soon:g} settle takes {got!r} off a weight of {w:g}, pull and shrink {expected!r}",
        )


# --- what they share


def _parts(**own: Any) -> Parts:
    usual = {"loss": "squared", "penalty": "none", "optimizer": "sgd", "schedule": "constant"}
    return Parts(**{kind: own[kind] if kind in own else make(kind, name) for kind, name in usual.items()})


def _check_updates(parts: Parts, part: Any) -> None:
    """Give kernel and plain Python the same gradients for 50 steps."""
    n, results = 6, []
    for run in (update, _plain(update)):
        state = _state(n, parts.optimizer.n_slots)
        state.weights[:] = np.random.default_rng(2).normal(size=n)
        for step in range(50):
            state.grad[:] = np.random.default_rng([5, step]).normal(size=n)
            _call(run, part, parts, state, Pace(4, n - 1, 0.0, 0.0, 5.0), 3, step / 10)
        results.append(state)
    for name in ("weights", "slots"):
        got, expected = (getattr(state, name) for state in results)
        _close(got, expected, 1e-10, f"{part!r}: the kernel's {name} after 50 updates")


def _check_fit(parts: Parts, part: Any, layout: Layout) -> None:
    """Let kernel and plain Python learn the same rows, and score them."""
    block, n_outputs = _block(layout, _targets(parts.loss)), int(getattr(parts.loss, "classes", 1))
    n_rows, results = len(block.y), []
    scratch = new_scratch(n_outputs, float, most_entries(block, layout))
    for run, settle, read in ((fit, settled, score), (_fit_plainly, _plain(settled), _plain(score))):
        state = _start(parts.optimizer, layout.n_coordinates * n_outputs, few=layout.mixed)
        pace = Pace(5, (layout.n_coordinates - 1) * n_outputs, 0.0, 1.0 / n_rows, 1.0)
        order, heads = np.zeros(n_rows, np.int32), np.zeros(1, np.int64)
        _call(run, part, parts, block, order, heads, state, pace, scratch)
        weights = _weights(parts, state, layout.n_coordinates * n_outputs, pace.n_penalised, settle)
        scores, means, losses = np.zeros((n_rows, n_outputs)), np.zeros((n_rows, n_outputs)), np.zeros(n_rows)
        _call(read, part, parts.loss, block, 0, n_rows, weights, scores, means, losses, scratch)
        results.append({"weights": weights, "state": state.weights, "tally": state.tally, "means": means, "losses": losses})
    for name, numbers in results[0].items():
        _close(numbers, results[1][name], 1e-9, f"{part!r}: the kernel's {name} after {n_rows} rows")


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
        step, epoch = int(state.clock[STEPS]) + 1, pace.epoch + pace.epoch_per_row * i
        value, weight = learn_row(parts, block, [i], 1, state, pace, epoch, parts.optimizer.prepare(step), scratch)
        state.tally[:] += value, weight, 1.0
        state.clock[FILLED] += 1
        if state.clock[FILLED] == pace.batch_size:
            end(parts, state, pace, int(state.clock[FILLED]), pace.epoch)


def _check_settled(parts: Parts, part: Any) -> None:
    """Let a kernel pay what weights owe, and work it out in Python."""
    n, rng = 6, np.random.default_rng(4)
    state = make_state(rng.normal(size=n), parts.optimizer.n_slots, np.float64, few=True, lazy=True)
    state.slots[:] = rng.uniform(0.5, 2.0, state.slots.shape)
    state.paid[:], state.sums[ETA], state.clock[STEPS] = rng.uniform(0.0, 2.0, n), 3.0, 7
    got, expected, shared = np.zeros(n), state.weights.copy(), parts.optimizer.prepare(7)
    _call(settled, part, parts, state, n - 1, got)
    for j in range(n - 1):
        duration = (state.sums[ETA] - state.paid[j]) * parts.optimizer.stretch(state.slots, j, shared)
        expected[j] = parts.penalty.settle(expected[j], duration)
    _close(got, expected, 1e-12, f"{part!r}: the kernel's weights after all that was owed was paid")


def _start(optimizer: Any, n_weights: int, *, few: bool = False) -> State:
    if getattr(optimizer, "reduces", False):
        start, snapshot, whole = np.random.default_rng(8).normal(size=(3, n_weights))
        state = make_state(start, optimizer.n_slots, np.float64, few=few, lazy=few)
        state.slots[0], state.slots[1] = snapshot, whole
        return state
    return start_race(np.zeros(n_weights)) if is_race(optimizer) else _state(n_weights, optimizer.n_slots)


def _weights(parts: Parts, state: State, n: int, n_penalised: int, settle: Any) -> np.ndarray:
    """Return what the weights, (n,), are once everything is paid, or those of the learner that leads."""
    if is_race(parts.optimizer):
        return weights_of(state, leader(state))
    weights = np.zeros(n)
    _call(settle, parts.optimizer, parts, state, n_penalised, weights)
    return weights


def _state(n_weights: int, n_slots: int) -> State:
    return make_state(np.zeros(n_weights), n_slots, np.float64)


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


def _has(part: Any, functions: Iterable[str], attributes: Iterable[str] = ()) -> None:
    missing = [f"{name}(...)" for name in functions if not callable(getattr(part, name, None))]
    missing += [name for name in attributes if not hasattr(part, name)]
    named = hasattr(part, "_fields")
    _true(named, f"{part!r} is not a NamedTuple; a part is one, with its hyper-parameters as fields")
    _true(not missing, f"{type(part).__name__} lacks {', '.join(missing)}")


def _pickles(part: Any) -> None:
    try:
        copy = pickle.loads(pickle.dumps(part))  # noqa: S301  made on this line
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise AssertionError(f"{part!r} cannot be pickled: {error}; define its class at the top of a module") from error
    _true(copy == part and type(copy) is type(part), f"{part!r} comes back from pickling as {copy!r}")


def _check_odd_and_rising(part: Any, what: str, weights: np.ndarray, got: Any) -> None:
    got = np.asarray(got, np.float64)
    _true(bool(np.isfinite(got).all()), f"{part!r}: {what} of {weights} is {got}, not finite")
    _close(
        got,
        -got[::-1],
        1e-12,
        f"{part!r}: {what} of w and of -w differ in more than the sign; of {weights} it",
    )
    _true(bool((np.diff(got) >= 0).all()), f"{part!r}: {what} falls somewhere: of {weights} it is {got}")


def _close(got: Any, expected: Any, tolerance: float, what: str) -> None:
    got, expected = np.asarray(got), np.asarray(expected)
    scale = max(1e-300, float(np.abs(expected).max(initial=0.0)))
    error = float(np.abs(got - expected).max(initial=0.0)) / scale
    _true(
        error <= tolerance,
        f"{what} is {got}, {expected} was expected (difference {error:.2g}, allowed {tolerance:g})",
    )


def _true(holds: Any, message: str) -> None:
    if not holds:
        raise AssertionError(message)
