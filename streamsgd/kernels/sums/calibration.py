"""One pass over rows of a binary task for calibration: weight, predicted and observed positives by level of the log-odds."""

import math

import numpy as np

from streamsgd.kernels.compile.jit import kernel
from streamsgd.kernels.sums.metrics import HUGE

PER_UNIT = 64
"""Levels of a unit of log-odds: within one, probabilities differ by 1.6 % of themselves."""

FARTHEST = 32
"""Log-odds from which on all are one level: probabilities of 1e-14."""

N_LEVELS = 2 * FARTHEST * PER_UNIT

WEIGHT, PREDICTED, OBSERVED, SQUARES = 0, 1, 2, 3
"""Columns of the levels: sums of weights, of weighted probabilities, targets, and squared differences of the two."""

N_SUMS = 4


@kernel
def tally_levels(y, score, weight, levels):
    """Add n rows to `levels`, float64 (N_LEVELS, N_SUMS), but for those that are not finite; a weight of size 0 means 1."""
    for i in range(y.size):
        s, t = np.float64(score[i]), np.float64(y[i])
        w = np.float64(weight[i]) if weight.size else 1.0
        if w * (abs(s) + abs(t)) < HUGE:
            p = 1.0 / (1.0 + math.exp(-s)) if s >= 0.0 else math.exp(s) / (1.0 + math.exp(s))
            level = np.int64(min(max(s + FARTHEST, 0.0), 2.0 * FARTHEST) * PER_UNIT)
            level = min(level, N_LEVELS - 1)
            levels[level, WEIGHT] += w
            levels[level, PREDICTED] += w * p
            levels[level, OBSERVED] += w * t
            levels[level, SQUARES] += w * (t - p) * (t - p)
