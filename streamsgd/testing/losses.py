"""Checks of a loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamsgd.settings.registry import make
from streamsgd.testing.laws import (
    DENSE,
    FAR,
    FORCES,
    MIXED,
    STARTS,
    TARGETS,
    check_fit,
    flow,
    has,
    parts_with,
    pickles,
    targets,
    true,
)


def check_loss(loss: Any) -> None:
    """Check a loss: its slope, convexity, range, and that a kernel computes what its Python says.

    Parameters
    ----------
    loss
        A NamedTuple as `kernels.parts.losses` describes.

    Raises
    ------
    AssertionError
        The slope is not the derivative of the value to 1e-6; the value is not convex (unless `convex` is False), or not
        finite for scores within 500 of zero; a mean is not finite; `leap`, if it has one, does not end where small steps
        do, to 1e-5, or falls back as the force grows; `confine`, if it has one, moves a score away from zero or
        past it, or a second time; a kernel gives other numbers; it does not survive pickling.

    """
    several = hasattr(loss, "slopes")
    has(loss, ("value", "slopes", "means") if several else ("value", "slope", "mean"), ("task",))
    tasks = (*TARGETS, "multiclass")
    true(loss.task in tasks, f"{loss!r}: task is {loss.task!r}; it must be one of {', '.join(tasks)}")
    pickles(loss)
    for y in targets(loss):
        try:
            (_check_slopes if several else _check_slope)(loss, y)
        except ArithmeticError as error:
            raise AssertionError(f"{loss!r}: at y={y:g} and a score within {FAR:g} of 0: {error}") from error
        if hasattr(loss, "leap"):
            _check_leap(loss, y)
    if hasattr(loss, "confine"):
        _check_confine(loss)
    check_fit(parts_with(loss=loss, optimizer=make("optimizer", "sgd:learning_rate=0.05")), loss, DENSE)
    check_fit(parts_with(loss=loss, optimizer=make("optimizer", "normalized")), loss, MIXED)


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
        true(
            good,
            f"{loss!r}: at y={y:g}, score={s:g} the slope is {got!r}, but the value rises by {difference!r}",
        )
    values = np.array([loss.value(y, s) for s in far.tolist()])
    slopes = np.array([loss.slope(y, s) for s in far.tolist()])
    means = np.array([loss.mean(s) for s in far.tolist()])
    for name, numbers in (("value", values), ("slope", slopes), ("mean", means)):
        wrong = far[~np.isfinite(numbers)]
        true(not len(wrong), f"{loss!r}: at y={y:g} the {name} is not finite for scores {wrong[:5]}")
    falls = far[1:][np.diff(slopes) < -1e-12 * np.abs(slopes[1:])]
    true(
        not len(falls) or not getattr(loss, "convex", True),
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
            true(
                finite,
                f"{loss!r}: at y={y:g}, {scores} value {value}, slopes {got} or means {means} are not finite",
            )
            if size == FAR:
                continue
            for k in range(n):
                step = h * np.eye(n)[k]
                rise = (loss.value(y, scores + step) - loss.value(y, scores - step)) / (2 * h)
                where = f"at y={y:g}, scores={scores} slope {k} is {got[k]!r}, but the value rises by {rise!r}"
                true(abs(got[k] - rise) <= 1e-6 * max(1.0, abs(rise)), f"{loss!r}: {where}")
    for _ in range(50):
        a, b = rng.uniform(-5, 5, (2, n))
        middle, ends = loss.value(y, (a + b) / 2), [loss.value(y, end) for end in (a, b)]
        true(
            middle <= np.mean(ends) + 1e-9,
            f"{loss!r}: at y={y:g} the value is not convex between {a} and {b}",
        )


def _check_leap(loss: Any, y: float) -> None:
    for start in STARTS:
        slope = loss.slope(y, start)
        reached = 0.0
        for force in (0.0, *FORCES):
            where = f"{loss!r}: at y={y:g}, score={start:g} the leap of force {force:g}"
            try:
                leap = loss.leap(y, start, force)
            except (ArithmeticError, ValueError) as error:
                raise AssertionError(f"{where} has no value: {error}") from error
            expected = flow(loss, y, start, force) - start
            allowed = 1e-5 * abs(expected) + 1e-11 * max(1.0, abs(start))
            true(
                abs(leap - expected) <= allowed,
                f"{where} is {leap!r}; small steps come to {expected!r} (allowed {allowed:.2g})",
            )
            true(leap * slope <= 0.0, f"{where} is {leap!r}, up the slope of {slope!r}")
            true(
                abs(leap) >= abs(reached) - 1e-12 * abs(reached),
                f"{where} is {leap!r}, less than the {reached!r} of a smaller force",
            )
            reached = leap


def _check_confine(loss: Any) -> None:
    limits = np.array([min(0.0, *targets(loss)), max(0.0, *targets(loss))])
    scores = np.linspace(-FAR, FAR, 2001)
    confined = np.array([loss.confine(s, limits) for s in scores.tolist()])
    again = np.array([loss.confine(s, limits) for s in confined.tolist()])
    true(np.array_equal(again, confined), f"{loss!r}: confine moves what it has confined: {confined} to {again}")
    strays = (confined * scores < 0.0) | (np.abs(confined) > np.abs(scores))
    what = f"{loss!r}: confine moves {scores[strays][:5]} to {confined[strays][:5]}, which is not between them and 0"
    true(not strays.any(), what)
    true(bool((np.diff(confined) >= 0.0).all()), f"{loss!r}: confine falls somewhere: it is {confined}")
