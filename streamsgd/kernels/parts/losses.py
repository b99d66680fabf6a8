"""Losses: what one row costs, as plain Python.

A loss is a NamedTuple with three functions of the target `y` and the linear output `score`:

value(loss, y, score)   the cost of the row
slope(loss, y, score)   d value / d score
mean(loss, score)       the prediction: the score behind the inverse link

and the class attributes `task` (what kind of target it takes), `title` and `source`, and `smooth = False` if its slope jumps.
`y` is 0 or 1 for binary losses and the index of the class for `Softmax`. A loss with several scores per row has, in the place
of the last two, `slopes(loss, y, scores, out)` and `means(loss, scores, out)`, which fill `out`, of shape (n_outputs,); none
of them may make an array, or call what does (`scores.max()`).

Optionally, for optimizers that learn row by row,

leap(loss, y, score, force)   where infinitely small steps of a total `force` bring the score, less the score: the solution of
                              ds/dt = -slope(s) after that time, in closed form as in Karampatziakis and Langford 2011;
                              -force * slope where a loss has none
confine(loss, score, limits)  the score within reason, given (2,) least and greatest target so far

and the class attributes

curvature   the most that the second derivative by the score can be (of several scores its largest eigenvalue), where there is a
            most: `svrg` works out its rate from it
steep       True if slopes have no bound and grow faster than scores: `confine` holds in batches too then, or a single row ruins
            a model
mixing      how several learners' predictions are mixed (`race`): "likelihood" if the loss is the negative logarithm of one, up
            to a term of y alone, "squares" if it is half a squared error
shiftable   True if all scores may rise together without any change
convex      False if the loss is not convex: what looks for the minimum may end in another one then
moves_target  True if scores at the minimum are not the log-odds of the data: `--recalibrate` gives them back
likelihood  "exact" if the loss is the negative logarithm of one, up to a term of y alone, "scaled" if it is one times an
            unknown variance: what `sample` takes
"""

import math
from typing import Annotated, NamedTuple

from streamsgd.kernels.compile.maths import exp, log1p
from streamsgd.kernels.parts.ranges import AtLeastTwo, Inside, Positive, Range

SMALL = 0.125
"""Steps of logistic regression below which a series of a few terms is exact."""


class Squared(NamedTuple):
    """Half the squared error: (score - y)^2 / 2."""

    task = "regression"
    mixing = "squares"
    curvature = 1.0
    likelihood = "scaled"
    source = "Legendre 1805"

    def value(loss, y, score):
        return 0.5 * (score - y) * (score - y)

    def slope(loss, y, score):
        return score - y

    def mean(loss, score):
        return score

    def leap(loss, y, score, force):
        return (score - y) * math.expm1(-force)

    def confine(loss, score, limits):
        return min(max(score, min(limits[0], 0.0)), max(limits[1], 0.0))


class Huber(NamedTuple):
    """Squared within `delta` of the target, linear beyond: robust to outliers.

    e^2 / 2 if |e| <= delta else delta (|e| - delta / 2), with e = score - y and delta in units of the target.
    """

    delta: Positive = 1.0

    task = "regression"
    curvature = 1.0
    source = "Huber 1964, Annals of Mathematical Statistics 35"

    def value(loss, y, score):
        error = abs(score - y)
        return 0.5 * error * error if error <= loss.delta else loss.delta * (error - 0.5 * loss.delta)

    def slope(loss, y, score):
        return min(max(score - y, -loss.delta), loss.delta)

    def mean(loss, score):
        return score

    def leap(loss, y, score, force):
        error = abs(y - score)
        beyond = max(0.0, error - loss.delta)
        if force * loss.delta <= beyond:
            step = force * loss.delta
        else:
            step = beyond - (error - beyond) * math.expm1(beyond / loss.delta - force)
        return step if y > score else -step


class Quantile(NamedTuple):
    """The pinball loss, whose best constant is the quantile of the target at `level`.

    level * (y - score) where y > score, (1 - level) * (score - y) elsewhere.
    """

    level: Inside = 0.5

    task = "regression"
    smooth = False
    source = "Koenker and Bassett 1978, Econometrica 46"

    def value(loss, y, score):
        error = y - score
        return max(loss.level * error, (loss.level - 1.0) * error)

    def slope(loss, y, score):
        if y > score:
            return -loss.level
        return 1.0 - loss.level if y < score else 0.0

    def mean(loss, score):
        return score

    def leap(loss, y, score, force):
        return min(loss.level * force, y - score) if y > score else -min((1.0 - loss.level) * force, score - y)


class Logistic(NamedTuple):
    """The log loss of a binary target: log(1 + exp(score)) - y score, never overflowing."""

    task = "binary"
    mixing = "likelihood"
    curvature = 0.25
    likelihood = "exact"
    source = "Cox 1958, JRSS B 20"

    def value(loss, y, score):
        return max(score, 0.0) - y * score + log1p(exp(-abs(score)))

    def slope(loss, y, score):
        tail = exp(-abs(score))
        return (1.0 if score >= 0.0 else tail) / (1.0 + tail) - y

    def mean(loss, score):
        tail = exp(-abs(score))
        return (1.0 if score >= 0.0 else tail) / (1.0 + tail)

    def leap(loss, y, score, force):
        sign = 2.0 * y - 1.0
        tail = exp(-abs(score))
        # The root of a x + bend (e^x - 1) = a force, a being the size of the slope and bend = 1 - a; x is at most a force.
        right = sign * score > 0.0
        a, bend = (tail if right else 1.0) / (1.0 + tail), (1.0 if right else tail) / (1.0 + tail)
        goal = a * force
        if goal < SMALL:
            # The series of the root, then a step of Halley, with e^x - 1 by its own series: no row waits for an exp.
            x = goal * (1.0 - goal * bend * (0.5 - goal * (0.5 * bend - 1.0 / 6.0)))
            up = bend * x * (1.0 + x * (1 / 2 + x * (1 / 6 + x * (1 / 24 + x * (1 / 120 + x * (1 / 720 + x / 5040))))))
            over, pitch, curve = a * x + up - goal, a + up + bend, up + bend
            return sign * (x - 2.0 * over * pitch / (2.0 * pitch * pitch - over * curve))
        x = min(goal, math.log1p(force * tail if right else force / tail)) if goal > 1.0 else goal
        for _ in range(20):
            up = bend * exp(1.0 * x)
            over, pitch = a * x + up - bend - goal, a + up
            step = 2.0 * over * pitch / (2.0 * pitch * pitch - over * up)
            x -= step
            if abs(step) <= 1e-3 * x:  # the next one would be of the third power of this
                break
        return sign * x

    def confine(loss, score, limits):
        return min(max(score, -50.0), 50.0)


class Focal(NamedTuple):
    """The log loss times alpha_t (1 - p_t)^gamma, p_t the probability of the row's class: rows that are easy count little.

    alpha_t is `alpha` of positives and 1 - alpha of negatives. Scores at the minimum are not log-odds of the data, and the loss
    is not convex.
    """

    gamma: Annotated[float, Range(0.0, 100.0, with_low=True, with_high=True)] = 2.0
    alpha: Inside = 0.25

    task = "binary"
    convex = False
    moves_target = True
    source = "Lin, Goyal, Girshick, He and Dollar 2017, ICCV, arXiv 1708.02002"

    def value(loss, y, score):
        reach = (2.0 * y - 1.0) * score
        tail = log1p(exp(-abs(reach)))
        # Both logarithms are of one row: -log p_t = near, -log (1 - p_t) = far.
        near, far = max(-reach, 0.0) + tail, max(reach, 0.0) + tail
        return (1.0 - loss.alpha + y * (2.0 * loss.alpha - 1.0)) * exp(-loss.gamma * far) * near

    def slope(loss, y, score):
        sign = 2.0 * y - 1.0
        reach = sign * score
        tail = log1p(exp(-abs(reach)))
        near, far = max(-reach, 0.0) + tail, max(reach, 0.0) + tail
        wrong = exp(-far)
        pull = exp(-loss.gamma * far) * (loss.gamma * (1.0 - wrong) * near + wrong)
        return -sign * (1.0 - loss.alpha + y * (2.0 * loss.alpha - 1.0)) * pull

    def mean(loss, score):
        tail = exp(-abs(score))
        return (1.0 if score >= 0.0 else tail) / (1.0 + tail)


class Hinge(NamedTuple):
    """The loss of the support vector machine: max(0, 1 - s score) with s = 2 y - 1; scores are margins."""

    task = "margin"
    smooth = False
    flat_beyond = True  # of what `confine` keeps: scores are meant to go there
    source = "Cortes and Vapnik 1995"

    def value(loss, y, score):
        return max(0.0, 1.0 - (2.0 * y - 1.0) * score)

    def slope(loss, y, score):
        sign = 2.0 * y - 1.0
        return -sign if sign * score < 1.0 else 0.0

    def mean(loss, score):
        return 1.0 if score > 0.0 else 0.0

    def leap(loss, y, score, force):
        sign = 2.0 * y - 1.0
        return sign * max(0.0, min(force, 1.0 - sign * score))

    def confine(loss, score, limits):
        return min(max(score, -1.0), 1.0)


class SquaredHinge(NamedTuple):
    """The smooth margin loss: max(0, 1 - s score)^2 with s = 2 y - 1."""

    task = "margin"
    curvature = 2.0
    source = "Chang, Hsieh and Lin 2008, JMLR 9"

    def value(loss, y, score):
        short = max(0.0, 1.0 - (2.0 * y - 1.0) * score)
        return short * short

    def slope(loss, y, score):
        sign = 2.0 * y - 1.0
        return -2.0 * sign * max(0.0, 1.0 - sign * score)

    def mean(loss, score):
        return 1.0 if score > 0.0 else 0.0

    def leap(loss, y, score, force):
        sign = 2.0 * y - 1.0
        return -sign * max(0.0, 1.0 - sign * score) * math.expm1(-2.0 * force)


class Poisson(NamedTuple):
    """Counts with a log link: exp(score) - y score, the deviance up to a term of y alone."""

    task = "poisson"
    mixing = "likelihood"
    steep = True
    likelihood = "exact"
    source = "Nelder and Wedderburn 1972"

    def value(loss, y, score):
        return exp(score) - y * score

    def slope(loss, y, score):
        return exp(score) - y

    def mean(loss, score):
        return exp(score)

    def leap(loss, y, score, force):
        # v = e^-score follows dv/dt = 1 - y v.
        if y == 0.0:
            return -math.log1p(force * math.exp(score))
        ratio, gone = math.exp(score) / y, -math.expm1(-y * force)
        growth = (ratio - 1.0) * gone
        # Near 0 the logarithm of a sum of positive numbers keeps what 1 + growth would cancel.
        return -math.log1p(growth) if growth > -0.5 else -math.log(ratio * gone + math.exp(-y * force))

    def confine(loss, score, limits):
        # e times the greatest count so far: one row far from all others would else outweigh a million.
        return min(max(score, -50.0), 1.0 + math.log(max(limits[1], 1.0)))


class Softmax(NamedTuple):
    """Multinomial log loss: log(sum_k exp(score_k)) - score_y over the given number of classes."""

    classes: AtLeastTwo = 3

    task = "multiclass"
    curvature = 0.5
    shiftable = True
    likelihood = "exact"
    source = "Bridle 1990; the bound is of Boehning 1992, Annals of the Institute of Statistical Mathematics 44"

    def value(loss, y, score):
        top = score[0]
        for k in range(1, score.shape[0]):
            top = max(top, score[k])
        total = 0.0
        for k in range(score.shape[0]):
            total += math.exp(score[k] - top)
        return math.log(total) + top - score[int(y)]

    def slopes(loss, y, scores, out):
        top = scores[0]
        for k in range(1, scores.shape[0]):
            top = max(top, scores[k])
        total = 0.0
        for k in range(scores.shape[0]):
            out[k] = math.exp(scores[k] - top)
            total += out[k]
        for k in range(scores.shape[0]):
            out[k] /= total
        out[int(y)] -= 1.0

    def means(loss, scores, out):
        top = scores[0]
        for k in range(1, scores.shape[0]):
            top = max(top, scores[k])
        total = 0.0
        for k in range(scores.shape[0]):
            out[k] = math.exp(scores[k] - top)
            total += out[k]
        for k in range(scores.shape[0]):
            out[k] /= total
