"""Area under the ROC curve, and average precision, of binned scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamsgd.kernels.sums import metrics as tallies

Floats = NDArray[np.floating[Any]]

Arrays = dict[str, np.ndarray[Any, Any]]


def ranking(bins: Floats, span: NDArray[np.int64]) -> dict[str, float]:
    """Return AUC and average precision with their bounds, from the ring of bins."""
    low, high, shift = span.tolist()
    order = np.arange(low >> shift, (high >> shift) + 1) & tallies.MASK
    negative, positive, tie = bins[order].T
    used = (negative > 0.0) | (positive > 0.0)
    negative, positive, tied = negative[used], positive[used], ~np.isnan(tie[used])
    result: dict[str, float] = {}
    if negative.any() and positive.any():
        result["auc"], result["auc_error"] = _auc(negative, positive, tied)
    if positive.any():
        value, error = _average_precision(negative[::-1], positive[::-1], tied[::-1])
        result["average_precision"], result["average_precision_error"] = value, error
    return result


def _auc(negative: Floats, positive: Floats, tied: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the area under the ROC curve and its error bound; bins in ascending order of score.

    AUC = sum_b p_b (N_b + n_b / 2) / (P N), with N_b the negative weight below bin b (Mann and Whitney 1947).
    In a bin with several scores all pairs may be right or all wrong: sum_b p_b n_b / (2 P N).
    """
    below = np.cumsum(negative) - negative
    pairs = positive.sum() * negative.sum()
    area = (positive * (below + 0.5 * negative)).sum() / pairs
    error = (positive * negative)[~tied].sum() / (2.0 * pairs)
    return float(area), float(error)


def _average_precision(negative: Floats, positive: Floats, tied: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the middle of the interval that must hold the average precision and half its width.

    Bins come in descending order of score, with T positive and F negative weight above. At best the p
    positives of a bin come first and at once: p (T + p) / (T + p + F). At worst its n negatives come first
    and then the positives one by one: the integral of (T + t) / (T + t + F + n) for t in 0 ... p, a lower
    bound for any weights. A tie is p (T + p) / (T + p + F + n) exactly, as
    sklearn.metrics.average_precision_score has it.
    """
    hits, alarms = np.cumsum(positive), np.cumsum(negative)
    has = positive > 0.0
    p, n, hits, alarms, tied = positive[has], negative[has], hits[has], alarms[has], tied[has]
    tie = p * hits / (hits + alarms)
    best = p * hits / (hits + alarms - n)
    ahead = hits - p + alarms
    gain = np.log1p(np.divide(p, ahead, out=np.zeros_like(p), where=ahead > 0.0))
    worst = p - alarms * gain
    most = np.where(tied, tie, best).sum() / hits[-1]
    least = np.where(tied, tie, worst).sum() / hits[-1]
    return float(0.5 * (most + least)), float(max(0.5 * (most - least), 0.0))
