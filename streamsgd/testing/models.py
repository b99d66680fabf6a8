"""Checks of a model: how the entries of a row become a score."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamsgd.kernels.compile import verbs
from streamsgd.kernels.learn.fit import fit
from streamsgd.kernels.models.machines import by_columns, compiled, is_linear, rows_of
from streamsgd.kernels.structs.block import new_scratch
from streamsgd.kernels.structs.state import make_state
from streamsgd.kernels.structs.step import StepContext
from streamsgd.kernels.sums.noise import new_scatter, scatter_modelled
from streamsgd.kernels.sums.score import score_modelled
from streamsgd.settings.registry import make
from streamsgd.testing.laws import DENSE, MIXED, TARGETS, _block, _call, close, has, parts_with, pickles, true

VERBS = ("width", "beyond", "room", "output", "derive", "begin")

ROWS = (
    ((0, 1, 2), (1.0, -0.7, 1.0)),
    ((4, 0, 8), (1.0, 2.5, 1.0)),
    ((3, 3, 5, 8), (1.0, 0.5, -1.5, 1.0)),
    ((8,), (1.0,)),
)
"""Coordinates and factors of rows, the intercept's last, one coordinate twice in one of them; of the first there are others."""

listed_by: Any = verbs.listed

NEAR = 1e-6
"""By how much a parameter moves to find a derivative."""

UNTOUCHED = -77.0
"""What stands where a model must not write."""


def check_model(model: Any) -> None:
    """Check a model that is not linear: that it derives what it puts out, starts from addressed numbers, and compiles.

    Parameters
    ----------
    model
        A NamedTuple as `kernels.models.machines` describes, as people name it or as kernels take it.

    Raises
    ------
    AssertionError
        A verb is missing; a size is no whole number, or none; a score, a derivative or a start is not finite, or a start is
        another one the second time; a derivative is not the difference of scores; `derive` writes beyond its room; a kernel,
        of learning, scoring or measuring noise, gives other numbers than Python; it does not survive pickling.

    """
    pickles(model)
    form = compiled(model, 3, MIXED.width + len(MIXED.by))
    true(not is_linear(form), f"{model!r} says that it is linear, and then it needs no check")
    has(form, VERBS)
    sizes = [form.width(), form.beyond(), form.room()]
    true(all(type(size) is int and size >= 0 for size in sizes), f"{model!r}: width, beyond and room are {sizes}")
    true(sizes[0] >= 1, f"{model!r}: width is {sizes[0]}, and a coordinate has at least one parameter")
    n = MIXED.n_coordinates
    weights = _check_start(model, form, n)
    weights += 0.4 * np.random.default_rng(3).normal(size=weights.shape)
    for index, x in ROWS:
        places = np.arange(len(index)) if by_columns(form) else np.zeros(0, np.int64)
        entries = np.append(np.array([*index[:-1], n - 1], np.int64), np.minimum(places, MIXED.width + len(MIXED.by) - 1))
        _check_row(model, form, weights.ravel(), entries, np.array(x))
    for layout in (MIXED, DENSE):
        _check_kernels(model, form, layout)


def _check_start(model: Any, form: Any, n: int) -> np.ndarray:
    starts = np.zeros((2, rows_of(form, n), form.width()))
    for start in starts:
        start[n - 1, 0] = 0.25
        form.begin(start, n, 3)
    true(np.isfinite(starts).all(), f"{model!r}: begin leaves what is not finite")
    true(np.array_equal(*starts), f"{model!r}: begin gives other numbers the second time: they must follow from the seed alone")
    found: np.ndarray = starts[0]
    return found


def _check_row(model: Any, form: Any, weights: np.ndarray, index: np.ndarray, x: np.ndarray) -> None:
    """Compare derivatives with differences of scores."""
    count = len(x)
    size = count * form.width() + form.beyond()
    room, out = np.zeros(form.room()), np.full(size + 3, UNTOUCHED)
    score = form.output(index, x, count, weights, room)
    true(np.isfinite(score), f"{model!r}: the score of {index}, {x} is {score}")
    form.derive(index, x, count, weights, room, out)
    true((out[size:] == UNTOUCHED).all(), f"{model!r}: derive writes beyond {size} numbers for a row of {count} entries")
    got, places = np.zeros(len(weights)), np.empty(size, np.int64)
    for e in range(count):
        places[e * form.width() : (e + 1) * form.width()] = index[e] * form.width() + np.arange(form.width())
    places[count * form.width() :] = (index[count - 1] + 1) * form.width() + np.arange(form.beyond())
    np.add.at(got, places, out[:size])
    expected = np.zeros_like(got)
    for j in range(len(weights)):
        ends = [form.output(index, x, count, _moved(weights, j, by), np.zeros(form.room())) for by in (NEAR, -NEAR)]
        expected[j] = (ends[0] - ends[1]) / (2.0 * NEAR)
    error = np.abs(got - expected).max()
    true(
        error <= 1e-7 * max(1.0, np.abs(expected).max()),
        f"{model!r}: derivatives of the row {index}, {x} are {got}, differences of scores {expected}",
    )


def _moved(weights: np.ndarray, j: int, by: float) -> np.ndarray:
    moved = weights.copy()
    moved[j] += by
    return moved


def _check_kernels(model: Any, form: Any, layout: Any) -> None:
    """Let kernels make one step with all rows, score them, and measure their gradients; then do the same in Python."""
    parts = parts_with(model=form, optimizer=make("optimizer", "sgd", learning_rate=0.1))
    block, n = _block(layout, TARGETS["regression"]), layout.n_coordinates
    start = np.zeros((rows_of(form, n), form.width()))
    form.begin(start, n, 3)
    start += 0.3 * np.random.default_rng(5).normal(size=start.shape)
    scratch, n_rows = new_scratch(1, float, layout.entries, form), len(block.y)
    state = make_state(start.ravel(), 0, np.float64, few=layout.mixed)
    pace = StepContext(n_rows, (n - 1) * form.width(), 0.0, 0.0, 1.0)
    order, heads = np.zeros(n_rows, np.int32), np.zeros(1, np.int64)
    _call(fit, model, parts, block, order, heads, state, pace, scratch)
    before = np.ascontiguousarray(start.ravel())
    scores, means, losses = np.zeros((n_rows, 1)), np.zeros((n_rows, 1)), np.zeros(n_rows)
    _call(score_modelled, model, parts.loss, form, block, 0, n_rows, before, scores, means, losses, scratch)
    gradients, expected = np.zeros((n_rows, start.size)), np.zeros(n_rows)
    for i in range(n_rows):
        index, x = np.zeros(2 * layout.entries, np.int64), np.zeros(layout.entries)
        count = listed_by(form, block.rows, i, index, x)
        room, out = np.zeros(form.room()), np.zeros(count * form.width() + form.beyond())
        expected[i] = form.output(index, x, count, before, room)
        form.derive(index, x, count, before, room, out)
        slope = block.weight[i] * parts.loss.slope(block.y[i], expected[i])
        for e in range(count):
            at = index[e] * form.width()
            gradients[i, at : at + form.width()] += slope * out[e * form.width() : (e + 1) * form.width()]
        gradients[i, n * form.width() : n * form.width() + form.beyond()] += slope * out[count * form.width() :]
    close(scores[:, 0], expected, 1e-12, f"{model!r}: the kernel's scores")
    close(state.weights - before, -0.1 * gradients.sum(axis=0) / n_rows, 1e-9, f"{model!r}: the kernel's step")
    scatter, every = new_scatter(start.size, 0), np.arange(n_rows)
    _call(scatter_modelled, model, parts.loss, form, block, every, before, np.zeros(0), scatter, scratch)
    away = gradients - scatter.reference
    close(scatter.reference, gradients[0], 1e-9, f"{model!r}: the gradient of a row, whose noise is measured,")
    close(scatter.sums, away.sum(axis=0), 1e-9, f"{model!r}: sums of gradients of rows, whose noise is measured,")
    close(
        scatter.squares, np.square(away).sum(axis=0), 1e-9, f"{model!r}: squares of gradients of rows, whose noise is measured,"
    )
