"""Penalties: what a weight costs, as plain Python. The intercept is never penalised.

pull(penalty, w)             derivative of the smooth part, added to the gradient
shrink(penalty, w, stride)   proximal step of the kinked part, `stride` being the optimizer's step for this weight

settle(penalty, w, duration) where the whole penalty alone would bring a weight in this time: the flow of its gradient

The objective is  mean row loss + l1 ||w||_1 + l2 / 2 ||w||_2^2  over the weights of the *encoded* columns.
A proximal step makes exact zeros. Its fixed points satisfy the optimality conditions where the stride is what the
optimizer's step comes to for a gradient that stays the same.

Rows that touch a few of millions of weights pay the penalty of the others late, by the flow: two flows one after another are
one flow of both durations, so that paying once is paying after every step.
"""

import math
from typing import NamedTuple


class Free(NamedTuple):
    """No penalty."""

    source = ""

    def pull(penalty, w):
        return 0.0

    def shrink(penalty, w, stride):
        return w

    def settle(penalty, w, duration):
        return w


class Ridge(NamedTuple):
    """l2 / 2 ||w||^2."""

    l2: float = 1e-4

    source = "Hoerl and Kennard 1970"

    def pull(penalty, w):
        return penalty.l2 * w

    def shrink(penalty, w, stride):
        return w

    def settle(penalty, w, duration):
        return w * math.exp(-penalty.l2 * duration)


class Lasso(NamedTuple):
    """l1 ||w||_1, by soft thresholding: w <- sign(w) max(|w| - stride l1, 0)."""

    l1: float = 1e-4

    source = "Tibshirani 1996; Duchi and Singer 2009 (forward-backward splitting)"

    def pull(penalty, w):
        return 0.0

    def shrink(penalty, w, stride):
        t = stride * penalty.l1
        return w - t if w > t else (w + t if w < -t else 0.0)

    def settle(penalty, w, duration):
        t = duration * penalty.l1
        return w - t if w > t else (w + t if w < -t else 0.0)


class ElasticNet(NamedTuple):
    """l1 ||w||_1 + l2 / 2 ||w||^2."""

    l1: float = 1e-4
    l2: float = 1e-4

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
