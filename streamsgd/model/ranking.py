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
    negative, positive, tied, _ = _in_order(bins, span)
    result: dict[str, float] = {}
    if negative.any() and positive.any():
        result["auc"], result["auc_error"] = _auc(negative, positive, tied)
    if positive.any():
        value, error = _average_precision(negative[::-1], positive[::-1], tied[::-1])
        result["average_precision"], result["average_precision_error"] = value, error
    return result


def _in_order(bins: Floats, span: NDArray[np.int64]) -> tuple[Floats, Floats, NDArray[np.bool_], NDArray[np.int64]]:
    """Return the weights of negatives and positives of the bins with any, whether each has one score, and its least key."""
    low, high, shift = span.tolist()
    numbers = np.arange(low >> shift, (high >> shift) + 1)
    negative, positive, tie = bins[numbers & tallies.MASK].T
    used = (negative > 0.0) | (positive > 0.0)
    return negative[used], positive[used], ~np.isnan(tie[used]), numbers[used] << shift


def at_precision(bins: Floats, span: NDArray[np.int64], level: float) -> dict[str, float]:
    """Return the largest recall of a threshold with at least this precision, the bound on its error, and the threshold.

    Thresholds between bins are exact. Within a bin of several scores recall may be larger, at best that of all its positives
    ahead of its negatives. `threshold` is a score, of the rows that are taken the least; absent where none has the precision.
    """
    negative, positive, tied, keys = (column[::-1] for column in _in_order(bins, span))
    if not positive.any():
        return {}
    hits, alarms = np.cumsum(positive, dtype=np.float64), np.cumsum(negative, dtype=np.float64)
    good = np.flatnonzero(hits >= level * (hits + alarms))
    best = hits >= level * (hits + alarms - np.where(tied, 0.0, negative))
    recall = float(hits[good[-1]] / hits[-1]) if len(good) else 0.0
    most = float(hits[best].max(initial=0.0) / hits[-1])
    found = {"recall": recall, "error": max(0.0, most - recall)}
    return found | ({"threshold": score_of(int(keys[good[-1]]))} if len(good) else {})


def at_top(bins: Floats, span: NDArray[np.int64], size: float) -> dict[str, float]:
    """Return precision, recall and lift of the rows of highest score that weigh `size`, and the bound on precision's error.

    Of rows with one score that do not all fit, a random part is taken, as on average.
    """
    negative, positive, tied, _ = (column[::-1] for column in _in_order(bins, span))
    total, n_positive = float((negative + positive).sum()), float(positive.sum())
    if not (0.0 < size <= total and n_positive > 0.0):
        return {}
    ends = np.cumsum(negative + positive)
    last = min(int(np.searchsorted(ends, size)), len(ends) - 1)
    p, n = float(positive[last]), float(negative[last])
    left = min(max(size - float(ends[last] - p - n), 0.0), p + n)
    most, least, hits = min(p, left), max(0.0, left - n), float(positive[:last].sum())
    share = p * left / (p + n) if tied[last] else 0.5 * (most + least)
    precision = (hits + share) / size
    return {
        "precision": precision,
        "error": 0.0 if tied[last] else 0.5 * (most - least) / size,
        "recall": (hits + share) / n_positive,
        "lift": precision * total / n_positive,
    }


def score_of(key: int) -> float:
    """Return the score of a key: the inverse of `_key` in `kernels.sums.metrics`."""
    size = float(np.int64(tallies.BITS_OF_ONE + abs(key)).view(np.float64)) - 1.0
    return size if key >= 0 else -size


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
