"""Checks of an optimizer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from streamsgd.features.layout import Layout, most_entries
from streamsgd.kernels.compile.verbs import prepare
from streamsgd.kernels.learn import coin
from streamsgd.kernels.learn.fit import fit, settled, update
from streamsgd.kernels.parts.by_rows import USUAL_BATCH
from streamsgd.kernels.parts.traits import bets, is_sequential, judges, reduces
from streamsgd.kernels.structs.block import new_scratch
from streamsgd.kernels.structs.step import StepContext
from streamsgd.settings.registry import make
from streamsgd.testing.laws import (
    _RATES,
    DENSE,
    MIXED,
    TARGETS,
    _block,
    _start,
    _state,
    _weights,
    check_fit,
    check_settled,
    check_updates,
    close,
    has,
    parts_with,
    pickles,
    true,
)


def check_optimizer(optimizer: Any) -> None:
    """Check an optimizer: that it converges, strides as it moves, and that a kernel agrees with its Python.

    Parameters
    ----------
    optimizer
        A NamedTuple as `kernels.parts.optimizers` describes.

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
    if judges(optimizer):
        has(optimizer, ("prepare",), ("n_slots",))
        lacking = {"learning_rate", "accept", "alpha", "start"} - {*optimizer._fields}
        true(not lacking, f"{optimizer!r} lacks the fields {', '.join(sorted(lacking))} of what judges its steps")
        pickles(optimizer)
        return
    corrects = reduces(optimizer)
    if corrects and not optimizer.learning_rate:  # which the data says
        optimizer = optimizer._replace(learning_rate=0.1)
    sequential = is_sequential(optimizer)
    has(optimizer, ("prepare",) if sequential else ("prepare", "move"), ("n_slots",))
    true(
        "learning_rate" in optimizer._fields,
        f"{optimizer!r} has no field learning_rate, which schedules scale",
    )
    pickles(optimizer)
    if sequential:
        least, how = (coin.SLOTS, "betting") if bets(optimizer) else (2, "learning row by row")
        enough = f"{optimizer!r}: n_slots is {optimizer.n_slots}; {how} keeps at least {least} numbers per weight"
        true(optimizer.n_slots >= least, enough)
        check_fit(parts_with(optimizer=optimizer), optimizer, MIXED)
        _check_least_squares(optimizer)
    else:
        _check_stride(optimizer)
        check_updates(parts_with(optimizer=optimizer, schedule=make("schedule", "cosine")), optimizer)
        _check_convergence(optimizer)
    if corrects:
        lacking = {"renewal", "tolerance"} - {*optimizer._fields}
        true(not lacking, f"{optimizer!r} lacks the fields {', '.join(sorted(lacking))} of what reduces variance")
        true(optimizer.n_slots >= 2, f"{optimizer!r}: n_slots is {optimizer.n_slots}; a snapshot and its gradient take 2")
        _check_snapshot(optimizer)
        for layout in (DENSE, MIXED):
            for loss in ("logistic", "softmax"):
                both = make("penalty", "elastic-net:l1=0.1,l2=0.3")
                check_fit(parts_with(optimizer=optimizer, loss=make("loss", loss), penalty=both), optimizer, layout)
    if hasattr(optimizer, "stretch"):
        check_settled(parts_with(optimizer=optimizer, penalty=make("penalty", "l2:l2=0.3")), optimizer)


def _prepared(optimizer: Any, step: int) -> Any:
    verb: Any = prepare
    return verb(optimizer, step, USUAL_BATCH, USUAL_BATCH * step)


def _check_stride(optimizer: Any) -> None:
    slots, fresh = np.zeros((optimizer.n_slots, 1)), np.zeros((optimizer.n_slots, 1))
    w, before, stride, eta = 0.0, 0.0, 0.0, optimizer.learning_rate
    try:
        still, _ = optimizer.move(0.0, 0.0, slots, 0, eta, _prepared(optimizer, 1))
        true(still == 0.0, f"{optimizer!r}: a weight of 0 moves to {still} though its gradient is 0")
        slots[:] = 0.0
        for step in range(1, 1001):
            before = w
            w, stride = optimizer.move(before, 1.0, slots, 0, eta, _prepared(optimizer, step))
            true(
                0.0 < stride < math.inf,
                f"{optimizer!r}: the stride of step {step} is {stride}; it must be above 0",
            )
            _check_stretch(optimizer, slots, step, stride)
        # What a weight does without any gradient, as under a decay, is not the gradient's.
        before, _ = optimizer.move(before, 0.0, fresh, 0, eta, _prepared(optimizer, 1000))
    except IndexError as error:
        raise AssertionError(f"{optimizer!r}: uses more slots than n_slots={optimizer.n_slots}: {error}") from error
    message = f"{optimizer!r}: after 1000 gradients of 1 a step moves a weight by"
    close(before - w, stride, 1e-6, f"{message} {before - w!r} and says a stride of {stride!r}; the stride")


def _check_stretch(optimizer: Any, slots: np.ndarray, step: int, stride: float) -> None:
    if hasattr(optimizer, "stretch"):
        told = optimizer.learning_rate * optimizer.stretch(slots, 0, _prepared(optimizer, step))
        close(told, stride, 1e-12, f"{optimizer!r}: the rate times the stretch after step {step}, which is its stride,")


def _check_convergence(optimizer: Any) -> None:
    curvature, best = np.array([1.0, 3.0, 10.0, 2.0]), np.array([0.7, -1.0, 0.4, 1.2])
    n_steps, reached = 500, math.inf
    start = float(curvature @ best**2)
    for rate in _RATES:
        state = _state(4, optimizer.n_slots)
        parts = parts_with(optimizer=optimizer._replace(learning_rate=rate), schedule=make("schedule", "cosine"))
        for step in range(n_steps):
            state.grad[:] = curvature * (state.weights - best)
            update(parts, state, StepContext(1, 4, 0.0, 0.0, 1.0), 1, step / n_steps)
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
        parts = parts_with(optimizer=optimizer._replace(learning_rate=rate))
        state, scratch = _start(optimizer, 5), new_scratch(1, float, most_entries(block, layout))
        for _ in range(n_passes):
            order, heads = np.zeros(n_rows, np.int32), np.zeros(1, np.int64)
            fit(parts, block, order, heads, state, StepContext(n_rows, 4, 0.0, 0.0, 1.0), scratch)
        weights = _weights(parts, state, 5, 4, settled)
        error = float(np.mean((x @ weights[:4] + weights[4] - block.y) ** 2))
        reached = min(reached, error) if math.isfinite(error) else reached
    true(
        reached <= 1e-3 * start,
        f"{optimizer!r}: on a least squares problem with a solution it comes to {reached / start:.2g} of its start "
        f"in {n_passes} passes at the best of the learning rates {_RATES}; 0.001 was expected",
    )


def _check_snapshot(optimizer: Any) -> None:
    for layout in (DENSE, MIXED):
        block, state = _block(layout, TARGETS["binary"]), _start(optimizer, layout.n_coordinates, few=layout.mixed)
        state.slots[0] = state.weights
        parts, pace = parts_with(optimizer=optimizer, loss=make("loss", "logistic")), StepContext(1 << 62, 0, 0.0, 0.0, 1.0)
        order, heads = np.zeros(len(block.y), np.int32), np.zeros(1, np.int64)
        fit(parts, block, order, heads, state, pace, new_scratch(1, float, most_entries(block, layout)))
        most = float(np.abs(state.grad).max())
        true(most <= 1e-12, f"{optimizer!r}: rows have a gradient of {most:.2g} at the snapshot itself; it must be 0")
