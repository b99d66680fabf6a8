"""Conformal prediction: intervals and sets of labels that hold the outcome with a given chance, whatever the distribution.

Of n rows that the weights have not seen, a score each: how far the outcome is from the prediction. For a row like them, the
score is within the ceil((n + 1)(1 - a))-th smallest of theirs with a chance of at least 1 - a (Vovk, Gammerman and Shafer 2005;
Lei et al. 2018, JASA 113). Of classes, each has scores and a quantile of its own, so that this holds for rows of every class.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from streamsgd.model.probability.sketch import LEAST_MEAN, MOST_BINS, ScoreSketch, Spread, new_sketch, odds_against
from streamsgd.settings.registry import make

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from streamsgd.kernels.structs.block import Block
    from streamsgd.model.predictor import Predictor

ROWS_AT_A_TIME = MOST_BINS
"""Whose scores are sorted together."""


def sketch_rows(model: Predictor, block: Block, runs: Iterable[tuple[int, int]]) -> ScoreSketch:
    """Return the sketch of the scores of the rows of runs, start to stop each, which have their targets."""
    sketch = new_sketch()
    for some in _at_a_time(runs):
        parts = [_scores_of(model, block, start, stop) for start, stop in some]
        classes, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
        sketch = sketch.merge(ScoreSketch.of(classes, scores))
    return sketch


def _at_a_time(runs: Iterable[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Yield the same rows in runs of `ROWS_AT_A_TIME` together: what is made of scores must not grow with a block."""
    some, left = [], ROWS_AT_A_TIME
    for first, stop in runs:
        start = first
        while start < stop:
            end = min(stop, start + left)
            some.append((start, end))
            start, left = end, left - (end - start)
            if not left:
                yield some
                some, left = [], ROWS_AT_A_TIME
    if some:
        yield some


def _scores_of(model: Predictor, block: Block, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the class and the score of rows start to stop."""
    raw, means, _ = model.score_block(block, start, stop)
    y = block.y[start:stop]
    if not model.classes:
        outcome, center = (model.in_target_units(values.astype(np.float64)) for values in (y, means[:, 0]))
        return np.zeros(len(y), np.int64), np.abs(outcome - center) / spread_of(model, block, start, stop, means)
    labels = y.astype(np.int64)
    return labels, odds_against(fits_of(model, raw, means)[np.arange(len(y)), labels])


def spread_of(model: Predictor, block: Block, start: int, stop: int, means: np.ndarray) -> np.ndarray:
    """Return what residuals of rows start to stop are divided by: what was learned, of counts the root of the mean, or 1."""
    if model.spread is not None:
        return _learned_spread(model.spread, model, block, start, stop)
    if model.target.task != "poisson":
        return np.ones(len(means))
    found: np.ndarray = np.sqrt(np.maximum(means[:, 0].astype(np.float64), LEAST_MEAN))
    return found


def fits_of(model: Predictor, scores: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Return how well each class fits each row, from 0 to 1, float64 (n, n_classes): the probability, if there are any."""
    if model.n_outputs > 1:
        return means.astype(np.float64)
    right = means[:, 0].astype(np.float64)
    if not model.has_probabilities:
        right = 1.0 / (1.0 + np.exp(-np.clip(scores[:, 0].astype(np.float64), -700.0, 700.0)))
    return np.column_stack([1.0 - right, right])


def _learned_spread(spread: Spread, model: Predictor, block: Block, start: int, stop: int) -> np.ndarray:
    """Return how large residuals of rows start to stop are, float64 (n,)."""
    linear = replace(model, weights=spread.weights[:, None], loss=make("loss", "squared"))  # type: ignore[type-var]
    scores, _, _ = linear.score_block(block, start, stop)
    found: np.ndarray = np.maximum(scores[:, 0], spread.least)
    return found
