"""The loss by which the shares of two classes say nothing: logit adjustment, a constant beside the score while learning."""

from typing import Annotated, NamedTuple

from streamsgd.kernels.compile.jit import lean
from streamsgd.kernels.compile.maths import exp, log1p
from streamsgd.kernels.parts.losses import Logistic
from streamsgd.kernels.parts.ranges import Range

_leap = lean(Logistic.leap)


class AdjustedLogistic(NamedTuple):
    """The log loss of score + adjust * log_odds: what is learned is free of the shares of the classes.

    `log_odds` is log(positives / negatives) of the data; training counts them where it is 0. With `adjust` 1 scores are
    log-odds as if both classes were as frequent, by which the balanced error is least; they are not those of the data.
    """

    adjust: Annotated[float, Range(-10.0, 10.0, with_low=True, with_high=True)] = 1.0
    log_odds: Annotated[float, Range(-50.0, 50.0, with_low=True, with_high=True)] = 0.0

    task = "binary"
    mixing = "likelihood"
    curvature = 0.25
    moves_target = True
    source = "Menon et al. 2021, ICLR, arXiv 2007.07314"

    def value(loss, y, score):
        reach = score + loss.adjust * loss.log_odds
        return max(reach, 0.0) - y * reach + log1p(exp(-abs(reach)))

    def slope(loss, y, score):
        reach = score + loss.adjust * loss.log_odds
        tail = exp(-abs(reach))
        return (1.0 if reach >= 0.0 else tail) / (1.0 + tail) - y

    def mean(loss, score):
        tail = exp(-abs(score))
        return (1.0 if score >= 0.0 else tail) / (1.0 + tail)

    def leap(loss, y, score, force):
        return _leap(loss, y, score + loss.adjust * loss.log_odds, force)

    def confine(loss, score, limits):
        return min(max(score, -50.0), 50.0)
