"""Checks of a penalty."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamsgd.testing.laws import (
    FAR,
    check_drift,
    check_odd_and_rising,
    check_settled,
    check_soon,
    check_updates,
    close,
    has,
    parts_with,
    pickles,
    true,
)


def check_penalty(penalty: Any) -> None:
    """Check a penalty: that `pull` and `shrink` are those of a convex function, least and even at zero.

    Parameters
    ----------
    penalty
        A NamedTuple as `kernels.parts.penalties` describes.

    Raises
    ------
    AssertionError
        Either is not finite, not odd or not increasing; `shrink` moves a weight away from zero, pulls two
        weights apart, or moves at a stride of zero; `settle`, if it has one, does so too, or is not the flow
        of the two: for a short time both of them, for two times one after another their sum; `drift`, if it has
        one, is not the same with a gradient; a kernel gives other numbers; it does not survive pickling.

    """
    has(penalty, ("pull", "shrink"))
    pickles(penalty)
    weights = np.array([-FAR, -3.0, -1.0, -0.1, -1e-9, 0.0, 1e-9, 0.1, 1.0, 3.0, FAR])
    check_odd_and_rising(penalty, "pull", weights, [penalty.pull(w) for w in weights.tolist()])
    for stride in (0.0, 1e-3, 0.1, 2.0):
        shrunk = np.array([penalty.shrink(w, stride) for w in weights.tolist()])
        what = f"shrink with a stride of {stride:g}"
        check_odd_and_rising(penalty, what, weights, shrunk)
        away = np.abs(shrunk) > np.abs(weights)
        true(not away.any(), f"{penalty!r}: {what} moves {weights[away]} away from zero, to {shrunk[away]}")
        apart = np.diff(shrunk) > np.diff(weights) * (1 + 1e-12) + 1e-12
        true(not apart.any(), f"{penalty!r}: {what} pulls weights apart: {weights} become {shrunk}")
        true(stride > 0 or np.array_equal(shrunk, weights), f"{penalty!r}: shrink moves at a stride of 0")
    check_updates(parts_with(penalty=penalty), penalty)
    if hasattr(penalty, "settle"):
        _check_settle(penalty, weights)
    if hasattr(penalty, "drift"):
        check_drift(penalty, weights)
    if hasattr(penalty, "settle"):
        check_settled(parts_with(penalty=penalty), penalty)


def _check_settle(penalty: Any, weights: np.ndarray) -> None:
    def settle(some: np.ndarray, duration: float) -> np.ndarray:
        return np.array([penalty.settle(w, duration) for w in some.tolist()])

    for duration in (0.0, 1e-3, 0.1, 2.0, 1e6):
        what, after = f"settle for {duration:g}", settle(weights, duration)
        check_odd_and_rising(penalty, what, weights, after)
        away = np.abs(after) > np.abs(weights)
        true(not away.any(), f"{penalty!r}: {what} moves {weights[away]} away from zero, to {after[away]}")
        true(duration > 0.0 or np.array_equal(after, weights), f"{penalty!r}: settle moves in no time")
    for some in (np.array([0.01, 0.1]), np.array([1.0, 3.0]), weights):
        for a, b in ((1e-3, 0.1), (0.1, 2.0), (30.0, 500.0)):
            twice, once = settle(settle(some, a), b), settle(some, a + b)
            close(twice, once, 1e-12, f"{penalty!r}: settle for {a:g} then for {b:g}, which is settle for both at once,")
    check_soon(penalty, weights[np.abs(weights) < FAR])
