"""Penalties: what a weight costs, as plain Python. The intercept is never penalised.

pull(penalty, w)             derivative of the smooth part, added to the gradient
shrink(penalty, w, stride)   proximal step of the kinked part, `stride` being the optimizer's step for this weight

settle(penalty, w, duration) where the whole penalty alone would bring a weight in this time: the flow of its gradient
drift(penalty, w, g, duration)   where penalty and a gradient g that stays the same would bring it: the flow of both

The objective is  mean row loss + l1 ||w||_1 + l2 / 2 ||w||_2^2  over the weights of the *encoded* columns.
A proximal step makes exact zeros. Its fixed points satisfy the optimality conditions where the stride is what the
optimizer's step comes to for a gradient that stays the same.

Rows that touch a few of millions of weights pay the penalty of the others late, by the flow: two flows one after another are
one flow of both durations, so that paying once is paying after every step.
"""

import math
from typing import NamedTuple

from streamsgd.kernels.parts.ranges import NotNegative


class Free(NamedTuple):
    """No penalty."""

    source = ""

    def pull(penalty, w):
        return 0.0

    def shrink(penalty, w, stride):
        return w

    def settle(penalty, w, duration):
        return w

    def drift(penalty, w, g, duration):
        return w - g * duration


class Ridge(NamedTuple):
    """l2 / 2 ||w||^2."""

    l2: NotNegative = 1e-4

    source = "Hoerl and Kennard 1970"

    def pull(penalty, w):
        return penalty.l2 * w

    def shrink(penalty, w, stride):
        return w

    def settle(penalty, w, duration):
        return w * math.exp(-penalty.l2 * duration)

    def drift(penalty, w, g, duration):
        # dw/dt = -(g + l2 w)
        fall = duration if penalty.l2 == 0.0 else -math.expm1(-penalty.l2 * duration) / penalty.l2
        return w * math.exp(-penalty.l2 * duration) - g * fall


class Lasso(NamedTuple):
    """l1 ||w||_1, by soft thresholding: w <- sign(w) max(|w| - stride l1, 0)."""

    l1: NotNegative = 1e-4

    source = "Tibshirani 1996; Duchi and Singer 2009 (forward-backward splitting)"

    def pull(penalty, w):
        return 0.0

    def shrink(penalty, w, stride):
        t = stride * penalty.l1
        return w - t if w > t else (w + t if w < -t else 0.0)

    def settle(penalty, w, duration):
        t = duration * penalty.l1
        return w - t if w > t else (w + t if w < -t else 0.0)

    def drift(penalty, w, g, duration):
        # |w| falls at this speed until 0, and beyond it w goes on only against a gradient that is more than l1.
        side = math.copysign(1.0, w if w != 0.0 else -g)
        force, beyond = side * g + penalty.l1, abs(g) - penalty.l1
        size = abs(w) - force * duration
        if size >= 0.0:
            return side * size
        return 0.0 if beyond <= 0.0 else -math.copysign(beyond * (duration - abs(w) / force), g)


class ElasticNet(NamedTuple):
    """l1 ||w||_1 + l2 / 2 ||w||^2."""

    l1: NotNegative = 1e-4
    l2: NotNegative = 1e-4

    source = "Zou and Hastie 2005"

    def pull(penalty, w):
        return penalty.l2 * w

    def shrink(penalty, w, stride):
        t = stride * penalty.l1
        return w - t if w > t else (w + t if w < -t else 0.0)

    def settle(penalty, w, duration):
        # |w| of d|w|/dt = -(l1 + l2 |w|)
        kept = math.exp(-penalty.l2 * duration)
        fall = duration if penalty.l2 == 0.0 else -math.expm1(-penalty.l2 * duration) / penalty.l2
        size = abs(w) * kept - penalty.l1 * fall
        return 0.0 if size <= 0.0 else (size if w > 0.0 else -size)

    def drift(penalty, w, g, duration):
        # As of l1 alone, but d|w|/dt = -(force + l2 |w|).
        l2, side = penalty.l2, math.copysign(1.0, w if w != 0.0 else -g)
        force, beyond = side * g + penalty.l1, abs(g) - penalty.l1
        fall = duration if l2 == 0.0 else -math.expm1(-l2 * duration) / l2
        size = abs(w) * math.exp(-l2 * duration) - force * fall
        if size >= 0.0:
            return side * size
        if beyond <= 0.0:
            return 0.0
        rest = duration - (abs(w) / force if l2 == 0.0 else math.log1p(l2 * abs(w) / force) / l2)
        return -math.copysign(beyond * (rest if l2 == 0.0 else -math.expm1(-l2 * rest) / l2), g)
