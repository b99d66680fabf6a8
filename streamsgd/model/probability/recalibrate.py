"""Fits of the log-odds of rows to their scores: Platt's line and isotonic regression, from sums by level of the score.

There are 64 levels in a unit (`model.probability.calibration`), and the mean of a level is known from its mean probability, so
that what is lost is of the order of a square of 1/64.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamsgd.errors import DataError
from streamsgd.kernels.sums.calibration import FARTHEST, N_LEVELS, OBSERVED, PER_UNIT, PREDICTED, WEIGHT
from streamsgd.model.probability.score_map import ScoreMap
from streamsgd.settings.registry import make

if TYPE_CHECKING:
    from streamsgd.model.model import Model

FEWEST = 10
"""Rows of either class that a map is fitted to."""

STEPS = 100

LEAST_SHARE = 1e-300


class Levels(NamedTuple):
    """Rows by their score."""

    score: np.ndarray
    """Mean of the rows, float64 (n,), rising."""
    positive: np.ndarray
    weight: np.ndarray
    """Weight of positives, and of all."""


def levels_of(sums: np.ndarray) -> Levels:
    """Return the levels that have rows, from sums as of `tally_levels`."""
    used = np.flatnonzero(sums[:, WEIGHT] > 0.0)
    weight, positive = sums[used, WEIGHT], sums[used, OBSERVED]
    mean = np.clip(sums[used, PREDICTED] / weight, LEAST_SHARE, 1.0 - 2.0**-53)
    low = used / PER_UNIT - FARTHEST
    score = np.clip(np.log(mean) - np.log1p(-mean), low, low + 1.0 / PER_UNIT)
    score[used == 0], score[used == N_LEVELS - 1] = -float(FARTHEST), float(FARTHEST)
    return Levels(score, np.clip(positive, 0.0, weight), weight)


def fit_map(method: str, sums: np.ndarray) -> tuple[ScoreMap, dict[str, Any]]:
    """Return the map by its name, and what there is to say of it.

    Parameters
    ----------
    method
        platt or isotonic.
    sums
        As of `tally_levels`, of the rows to fit it to.

    Raises
    ------
    DataError
        The rows are too few, or of one class, or their positives have the lower scores.

    """
    levels = levels_of(sums)
    positive, negative = float(levels.positive.sum()), float((levels.weight - levels.positive).sum())
    if min(positive, negative) < FEWEST:
        raise DataError(
            f"--recalibrate {method}: the held-out rows have {positive:,.0f} positives and {negative:,.0f} negatives, and a "
            f"map needs {FEWEST} of each: hold more out with --validation, or leave --recalibrate out"
        )
    found = platt(levels) if method == "platt" else isotonic(levels)
    if (found.method == "platt" and not found.slope > 0.0) or (found.scores and found.log_odds[0] == found.log_odds[-1]):
        raise DataError(
            f"--recalibrate {method}: of the held-out rows positives have no higher scores than negatives, so that there is "
            "nothing to set right: the model has learned nothing; leave --recalibrate out to look at it"
        )
    before, after = log_loss(levels.score, levels), log_loss(found.of(levels.score), levels)
    told = {"method": method, "weight": positive + negative, "positives": positive}
    told |= {"slope": found.slope, "shift": found.shift} if method == "platt" else {"knots": len(found.scores)}
    return found, {**told, "log_loss_before": before, "log_loss": after}


def platt(levels: Levels) -> ScoreMap:
    """Return the line slope * score + shift of least log loss.

    Targets are (n_1 + 1) / (n_1 + 2) and 1 / (n_0 + 2), so that there is a minimum (Platt 1999; Lin, Lin and Weng 2007, Machine
    Learning 68, whose Newton's method with halved steps it is).
    """
    n_one = float(levels.positive.sum())
    n_zero = float(levels.weight.sum()) - n_one
    high, low = (n_one + 1.0) / (n_one + 2.0), 1.0 / (n_zero + 2.0)
    wanted = levels.positive * high + (levels.weight - levels.positive) * low
    line = np.array([0.0, np.log((n_one + 1.0) / (n_zero + 1.0))])
    design = np.column_stack([levels.score, np.ones(len(levels.score))])
    value = _cost(design @ line, wanted, levels.weight)
    for _ in range(STEPS):
        p = _share(design @ line)
        gradient = design.T @ (levels.weight * p - wanted)
        hessian = (design * (levels.weight * p * (1.0 - p))[:, None]).T @ design + 1e-12 * np.eye(2)
        step, size = np.linalg.solve(hessian, gradient), 1.0
        while size > 1e-10 and _cost(design @ (line - size * step), wanted, levels.weight) > value:
            size /= 2.0
        line = line - size * step
        value = _cost(design @ line, wanted, levels.weight)
        if np.abs(step).max() < 1e-10 or size <= 1e-10:
            break
    return ScoreMap("platt", float(line[0]), float(line[1]))


def isotonic(levels: Levels) -> ScoreMap:
    """Return the log-odds of the rising function of least log loss, or squared error, which are one: by pooling neighbours.

    A group of levels that was pooled is constant from its first to its last score (Ayer et al. 1955; Zadrozny and Elkan 2002,
    KDD). Of shares of 0 or 1 a log loss would have no bound: they are half a row of all.
    """
    blocks: list[list[float]] = []  # positive, weight, first and last score
    for score, positive, weight in zip(*(array.tolist() for array in levels), strict=True):
        block = [positive, weight, score, score]
        while blocks and blocks[-1][0] * block[1] >= block[0] * blocks[-1][1]:
            before = blocks.pop()
            block = [before[0] + block[0], before[1] + block[1], before[2], block[3]]
        blocks.append(block)
    least = 0.5 / (float(levels.weight.sum()) + 1.0)
    scores, odds = [], []
    for positive, weight, first, last in blocks:
        share = min(max(positive / weight, least), 1.0 - least)
        value = float(np.log(share / (1.0 - share)))
        scores += [first] if first == last else [first, last]
        odds += [value] if first == last else [value, value]
    return ScoreMap("isotonic", scores=scores, log_odds=odds)


def log_loss(odds: np.ndarray, levels: Levels) -> float:
    """Return the mean log loss of rows whose log-odds are these."""
    return _cost(odds, levels.positive, levels.weight) / float(levels.weight.sum())


def _cost(odds: np.ndarray, positive: np.ndarray, weight: np.ndarray) -> float:
    each = weight * (np.maximum(odds, 0.0) + np.log1p(np.exp(-np.abs(odds)))) - positive * odds
    return float(each.sum())


def _share(odds: np.ndarray) -> np.ndarray:
    tail = np.exp(-np.abs(odds))
    found: np.ndarray = np.where(odds >= 0.0, 1.0, tail) / (1.0 + tail)
    return found


def recalibrated(model: Model, found: ScoreMap | None) -> Model:
    """Return a model whose probabilities are those of the map; its loss is logistic then.

    A line goes into the weights of a linear model, so that nothing else needs to know of it.
    """
    if found is None:
        return model
    model = replace(model, loss=make("loss", "logistic"))
    if found.method != "platt" or not model.is_linear:
        return replace(model, score_map=found)
    weights = model.weights.astype(np.float64) * found.slope
    weights[-1] += found.shift
    return replace(model, weights=weights.astype(model.weights.dtype))
