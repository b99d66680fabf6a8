"""One pass over a block for every metric: tile sums, and the histogram of scores.

Each tally walks the rows in tiles and writes the plain sums of tile t to `tiles[t]`; the caller adds the
tiles with compensation. That is not done here, because kernels may reassociate sums, which cancels
compensation. A weight or loss of size 0 stands for "none given". Rows with a term that is not finite, or so
large that a sum of squares could overflow, are counted in `counts[1]` and left out; the others are counted
in `counts[0]`.

The histogram puts a score into the bin `(key >> shift) & MASK` of a ring, with key a monotone function of the
score and `shift` the smallest for which all keys so far fit on the ring. It depends on the set of scores
alone, not on their order, so histograms of parts merge into the histogram of the whole.
"""

import math
from typing import Any

import numpy as np

from streamsgd.kernels.compile.jit import inline, kernel

TILE = 4096  # rows: two float64 columns of a tile stay in a first-level cache of 64 KiB

N_BINS = 1 << 16

MASK = N_BINS - 1

HUGE = 1e140  # 10^28 squares of terms below it cannot overflow

PROBABILITY_FLOOR = float(np.finfo(np.float64).eps)  # as sklearn.metrics.log_loss

TINY = float(np.finfo(np.float64).tiny)

BITS_OF_ONE = int(np.float64(1.0).view(np.int64))

NEGATIVE, POSITIVE, TIE = 0, 1, 2  # columns of `bins`: weight per class, and the one score of the bin

LOW, HIGH, SHIFT = 0, 1, 2  # entries of `span`: smallest key, largest key, binary digits dropped from a key

EMPTY = math.inf  # the tie of a bin without rows; NaN is the tie of a bin with two scores


@inline
def _key(score):
    # The bits of a float64 grow like its logarithm, linear within an octave: those of 1 + |s| are an asinh
    # for the price of an addition.
    magnitude = np.float64(1.0 + abs(score)).view(np.int64) - BITS_OF_ONE
    # Half of all scores are negative, so a branch here would be mispredicted: minus without one.
    sign = np.float64(score).view(np.int64) >> 63
    return (magnitude ^ sign) - sign


@inline
def _fitting_shift(low, high, shift):
    while (high >> shift) - (low >> shift) >= N_BINS:
        shift += 1
    return shift


@inline
def _join_tie(bins, b, score):
    tie = bins[b, TIE]
    if tie != score:
        bins[b, TIE] = score if tie == EMPTY else math.nan


@inline
def _pour(bins, source, low, high, source_shift, shift):
    """Add the ring `source` to the ring `bins`, whose bins are 2^(shift - source_shift) times as wide."""
    for fine in range(low >> source_shift, (high >> source_shift) + 1):
        a = fine & MASK
        if source[a, TIE] != EMPTY:
            b = (fine >> (shift - source_shift)) & MASK
            bins[b, NEGATIVE] += source[a, NEGATIVE]
            bins[b, POSITIVE] += source[a, POSITIVE]
            _join_tie(bins, b, source[a, TIE])


@inline
def _clear(bins):
    bins[:, NEGATIVE] = 0.0
    bins[:, POSITIVE] = 0.0
    bins[:, TIE] = EMPTY


@inline
def _stretch(bins, span, low, high):
    """Widen the bins until the keys from `low` to `high` fit on the ring as well."""
    wide_low, wide_high = min(low, span[LOW]), max(high, span[HIGH])
    shift = _fitting_shift(wide_low, wide_high, span[SHIFT])
    if shift > span[SHIFT]:
        fine = bins.copy()
        _clear(bins)
        _pour(bins, fine, span[LOW], span[HIGH], span[SHIFT], shift)
    span[LOW], span[HIGH], span[SHIFT] = wide_low, wide_high, shift


def clear_histogram(bins: Any, span: Any) -> None:
    """Empty a histogram. Not a kernel: every run makes some, and most never fill them."""
    bins[:] = 0.0, 0.0, EMPTY
    span[LOW], span[HIGH], span[SHIFT] = np.iinfo(np.int64).max, np.iinfo(np.int64).min, 0


def is_span(low: int, high: int, shift: int) -> bool:
    """Whether keys of a span are within the ring, as those of hostile files may not be: a kernel would never end."""
    empty = (np.iinfo(np.int64).max, np.iinfo(np.int64).min, 0)
    return (low, high, shift) == empty or (0 <= shift < 63 and 0 <= (high >> shift) - (low >> shift) < N_BINS)


@kernel
def merge_histogram(bins, span, other_bins, other_span):
    if other_span[LOW] > other_span[HIGH]:
        return
    _stretch(bins, span, other_span[LOW], other_span[HIGH])
    if other_span[SHIFT] > span[SHIFT]:
        fine = bins.copy()
        _clear(bins)
        _pour(bins, fine, span[LOW], span[HIGH], span[SHIFT], other_span[SHIFT])
        span[SHIFT] = other_span[SHIFT]
    _pour(bins, other_bins, other_span[LOW], other_span[HIGH], other_span[SHIFT], span[SHIFT])


@inline
def _weight(weight, i):
    return np.float64(weight[i]) if weight.size else 1.0


@inline
def _loss(loss, i):
    return np.float64(loss[i]) if loss.size else 0.0


@inline
def _keep_binary(y, s, w, cost):
    return w * (abs(s) + abs(cost) + abs(y)) < HUGE


@inline
def _class_sums(y, score, weight, loss, start, stop, sums):
    kept = 0
    total = positive = correct = total_loss = hard_log_loss = 0.0
    for i in range(start, stop):
        s, w, cost = np.float64(score[i]), _weight(weight, i), _loss(loss, i)
        keep = _keep_binary(y[i], s, w, cost)
        wrong = s * (1.0 - 2.0 * y[i])
        kept += keep
        total += w if keep else 0.0
        positive += w * y[i] if keep else 0.0
        correct += w if keep and wrong < TINY * (1.0 - y[i]) else 0.0  # a score of 0 says class 0
        hard_log_loss += w * (wrong + abs(s)) if keep else 0.0  # max(wrong, 0), doubled
        total_loss += w * cost if keep else 0.0
    sums[0], sums[1], sums[2] = total, total_loss, total if loss.size else 0.0
    sums[3], sums[4], sums[5] = positive, correct, 0.5 * hard_log_loss
    return kept


@inline
def _score_range(y, score, weight, loss, start, stop, clean):
    low, high = math.inf, -math.inf
    for i in range(start, stop):
        s = np.float64(score[i])
        keep = clean or _keep_binary(y[i], s, _weight(weight, i), _loss(loss, i))
        low = s if keep and s < low else low
        high = s if keep and s > high else high
    return low, high


@inline
def _soft_log_loss(y, score, weight, loss, start, stop, clean):
    total = 0.0
    for i in range(start, stop):
        s, w = np.float64(score[i]), _weight(weight, i)
        if clean or _keep_binary(y[i], s, w, _loss(loss, i)):
            total += w * math.log1p(math.exp(-abs(s)))
    return total


@inline
def _fill_histogram(y, score, weight, loss, start, stop, clean, bins, shift):
    for i in range(start, stop):
        s, w = np.float64(score[i]), _weight(weight, i)
        if clean or _keep_binary(y[i], s, w, _loss(loss, i)):
            b = (_key(s) >> shift) & MASK
            bins[b, np.int64(y[i] > 0.5)] += w
            _join_tie(bins, b, s)


@kernel
def tally_binary(y, score, weight, loss, logistic, tiles, counts, bins, span):
    """Fill `tiles` with weight, loss, weight of the losses, positive weight, correct weight and log loss."""
    for t in range(tiles.shape[0]):
        start, stop = t * TILE, min((t + 1) * TILE, y.size)
        kept = _class_sums(y, score, weight, loss, start, stop, tiles[t])
        clean = kept == stop - start
        if kept:
            low, high = _score_range(y, score, weight, loss, start, stop, clean)
            _stretch(bins, span, _key(low), _key(high))
            _fill_histogram(y, score, weight, loss, start, stop, clean, bins, span[SHIFT])
        if logistic:
            tiles[t, 5] += _soft_log_loss(y, score, weight, loss, start, stop, clean)
        counts[0] += kept
        counts[1] += stop - start - kept


@kernel
def tally_multiclass(y, mean, weight, loss, tiles, counts):
    """Fill `tiles` with weight, loss, weight of the losses, correct weight, log loss, and weight by class."""
    n_classes = mean.shape[1]
    for t in range(tiles.shape[0]):
        start, stop = t * TILE, min((t + 1) * TILE, y.size)
        sums, kept = tiles[t], 0
        for i in range(start, stop):
            w, cost = _weight(weight, i), _loss(loss, i)
            size, top = abs(cost), 0
            for k in range(n_classes):
                size += abs(mean[i, k])
                top = k if mean[i, k] > mean[i, top] else top
            if not w * size < HUGE:
                continue
            kept += 1
            target = np.int64(y[i])
            probability = min(max(np.float64(mean[i, target]), PROBABILITY_FLOOR), 1.0 - PROBABILITY_FLOOR)
            sums[0] += w
            sums[1] += w * cost
            sums[3] += w if top == target else 0.0
            sums[4] -= w * math.log(probability)
            sums[5 + target] += w
        sums[2] = sums[0] if loss.size else 0.0
        counts[0] += kept
        counts[1] += stop - start - kept


@inline
def _keep_value(y, m, w, cost):
    # 1 + w limits the values themselves as well, so that their weighted squares are far from overflow.
    return (1.0 + w) * (abs(y) + abs(m) + abs(cost)) < HUGE


@inline
def _keep_count(y, m, w, cost):
    return _keep_value(y, m, w, cost) and y >= 0.0 and m >= 0.0


@inline
def _poisson_deviance(y, m):
    # The floor makes a mean that underflowed to 0 finitely bad, as clipping does for log loss.
    m = max(m, TINY)
    return 2.0 * (m - y + (y * math.log(y / m) if y > 0.0 else 0.0))


@kernel
def tally_regression(y, mean, weight, loss, level, tiles, targets, counts, target_range):
    """Fill `tiles` with weight, loss, weight of the losses, squared, absolute and pinball errors.

    `targets[t]` gets the mean of y in the tile and the sum of the squared distances from it.
    """
    for t in range(tiles.shape[0]):
        start, stop = t * TILE, min((t + 1) * TILE, y.size)
        total = total_y = total_loss = squared = absolute = pinball = 0.0
        kept = 0
        low, high = target_range[0], target_range[1]
        for i in range(start, stop):
            v, m, w, cost = np.float64(y[i]), np.float64(mean[i]), _weight(weight, i), _loss(loss, i)
            keep = _keep_value(v, m, w, cost)
            error = v - m
            kept += keep
            total += w if keep else 0.0
            total_y += w * v if keep else 0.0
            total_loss += w * cost if keep else 0.0
            squared += w * error * error if keep else 0.0
            absolute += w * abs(error) if keep else 0.0
            # max(level error, (level - 1) error), the pinball loss, without a branch.
            pinball += w * ((level - 0.5) * error + 0.5 * abs(error)) if keep else 0.0
            low = v if keep and v < low else low
            high = v if keep and v > high else high
        target_range[0], target_range[1] = low, high
        counts[0] += kept
        counts[1] += stop - start - kept
        tiles[t, 0], tiles[t, 1], tiles[t, 2] = total, total_loss, total if loss.size else 0.0
        tiles[t, 3], tiles[t, 4], tiles[t, 5] = squared, absolute, pinball
        if total > 0.0:
            center, drift, spread = total_y / total, 0.0, 0.0
            for i in range(start, stop):
                v, m, w, cost = np.float64(y[i]), np.float64(mean[i]), _weight(weight, i), _loss(loss, i)
                keep = _keep_value(v, m, w, cost)
                drift += w * (v - center) if keep else 0.0
                spread += w * (v - center) * (v - center) if keep else 0.0
            targets[t, 0] = center + drift / total
            targets[t, 1] = max(spread - drift * drift / total, 0.0)


@kernel
def tally_poisson(y, mean, weight, loss, tiles, targets, counts, target_range):
    """Fill `tiles` with weight, loss, weight of the losses, squared and absolute errors and deviance.

    `targets[t]` gets the mean of y in the tile and the deviance of y from that mean.
    """
    for t in range(tiles.shape[0]):
        start, stop = t * TILE, min((t + 1) * TILE, y.size)
        sums, total_y, kept = tiles[t], 0.0, 0
        for i in range(start, stop):
            v, m, w, cost = np.float64(y[i]), np.float64(mean[i]), _weight(weight, i), _loss(loss, i)
            if not _keep_count(v, m, w, cost):
                continue
            kept += 1
            total_y += w * v
            sums[0] += w
            sums[1] += w * cost
            sums[3] += w * (v - m) * (v - m)
            sums[4] += w * abs(v - m)
            sums[5] += w * _poisson_deviance(v, m)
            target_range[0], target_range[1] = min(target_range[0], v), max(target_range[1], v)
        sums[2] = sums[0] if loss.size else 0.0
        counts[0] += kept
        counts[1] += stop - start - kept
        if sums[0] > 0.0:
            center = total_y / sums[0]
            targets[t, 0] = center
            for i in range(start, stop):
                v, m, w, cost = np.float64(y[i]), np.float64(mean[i]), _weight(weight, i), _loss(loss, i)
                if _keep_count(v, m, w, cost):
                    targets[t, 1] += w * _poisson_deviance(v, center)
