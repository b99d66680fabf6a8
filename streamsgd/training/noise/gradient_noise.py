"""What sums of gradients say: their scatter, the length of their mean, and what batches make of both.

Of n rows with gradients g_i and mean g, S = sum of (g_i - g)(g_i - g)' / (n - 1):

    trace_covariance       tr S
    gradient_norm_squared  |g|^2 - tr S / n, which is unbiased for the squared length of the expected gradient
    noise_scale            tr S / gradient_norm_squared: the batch at which noise and signal of a step are alike (McCandlish,
                           Kaplan, Amodei et al. 2018, arXiv 1812.06162)

In the metric P of an optimizer's step they are tr(P S) and g'Pg - tr(P S)/n. Errors are those of the jackknife over groups of
neighbouring rows, each left out in turn, of whatever size it is (Busing, Meijer and van der Leeden 1999, Statistics and
Computing 9). The interval of the noise scale is one of its logarithm.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamsgd.planning.variance import design_effect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamsgd.training.tasks.noise import Group, NoiseSums

T95 = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604, 2.1448, 2.1314),
    *(2.1199, 2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423),
    2.0395,
)
"""Quantiles of Student's t at 0.975, for 1, 2, 3 ... degrees of freedom."""

IDENTIFIED = 2.0
"""Standard errors that the squared length of the gradient must be above 0 for a ratio to it to mean anything."""


class Ratio(NamedTuple):
    """Noise over signal, with what it is made of."""

    trace: float
    norm: float
    """Squared, unbiased: it may be below 0."""
    norm_error: float | None
    """Its standard error; None of one group alone."""
    scale: float | None
    """None where it is not identified."""
    interval: tuple[float, float] | None
    """95 %."""

    @property
    def identified(self) -> bool:
        """Whether the signal is told from 0."""
        return self.scale is not None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "trace_covariance": self.trace,
            "gradient_norm_squared": self.norm,
            "gradient_norm_squared_error": self.norm_error,
            "noise_scale": self.scale,
            "interval": None if self.interval is None else list(self.interval),
            "identified": self.identified,
        }


def ratio_of(whole: tuple[float, float], without: Sequence[tuple[float, float]], sizes: Sequence[float]) -> Ratio:
    """Return a ratio of trace and norm.

    Parameters
    ----------
    whole
        Trace and norm of all rows.
    without
        Of all rows but those of each group.
    sizes
        Rows of each group.

    """
    trace, norm = max(whole[0], 0.0), whole[1]
    if len(sizes) < 2:
        return Ratio(trace, norm, None, 0.0 if trace == 0.0 else None, None)
    error = jackknife_error(norm, [other[1] for other in without], sizes)
    if trace == 0.0:
        return Ratio(0.0, norm, error, 0.0, (0.0, 0.0))
    if not norm > IDENTIFIED * error or any(other[0] <= 0.0 or other[1] <= 0.0 for other in without):
        return Ratio(trace, norm, error, None, None)
    scale = trace / norm
    spread = jackknife_error(math.log(scale), [math.log(a / b) for a, b in without], sizes)
    factor = math.exp(min(T95[min(len(sizes), len(T95)) - 2] * spread, 700.0))
    return Ratio(trace, norm, error, scale, (scale / factor, scale * factor))


def jackknife_error(whole: float, without: Sequence[float], sizes: Sequence[float]) -> float:
    """Return the standard error of an estimate, given those without each group, of so many rows."""
    share = np.asarray(sizes, np.float64) / math.fsum(sizes)
    left = np.asarray(without, np.float64)
    center = len(share) * whole - math.fsum((1.0 - share) * left)
    pseudo = whole / share - (1.0 / share - 1.0) * left
    return math.sqrt(math.fsum(np.square(pseudo - center) / (1.0 / share - 1.0)) / len(share))


# --- of sums of gradients at one place


def covariance_diagonal(group: Group) -> np.ndarray:
    """Return the variance of every coordinate of a row's gradient, float64 (n_places,)."""
    n = group.rows
    if n < 2.0:
        return np.zeros_like(group.sums)
    return np.maximum(group.squares - group.sums * (group.sums / n), 0.0) / (n - 1.0)


def moments(group: Group, reference: np.ndarray, metric: np.ndarray | float = 1.0) -> tuple[float, float]:
    """Return the trace of the covariance and the squared length of the mean gradient, unbiased, in a diagonal metric."""
    variances = covariance_diagonal(group)
    mean = reference + group.sums / group.rows
    trace = math.fsum(metric * variances)
    return trace, math.fsum(metric * mean * mean) - trace / group.rows


def ratio_at(sums: NoiseSums, metric: np.ndarray | float = 1.0) -> Ratio:
    """Return the ratio of all rows."""
    total, numbers = sums.total, sorted(sums.groups)
    others = [_without(total, sums.groups[k]) for k in numbers] if len(numbers) > 1 else []
    return ratio_of(
        moments(total, sums.reference, metric),
        [moments(other, sums.reference, metric) for other in others],
        [sums.groups[k].rows for k in numbers],
    )


def _without(total: Group, group: Group) -> Group:
    return type(total)(total.tally - group.tally, total.sums - group.sums, total.squares - group.squares)


def step_metric(sums: NoiseSums, batch: int) -> np.ndarray:
    """Return one over the root of the mean squared gradient of a batch, by weight, float64: the step of Adam and its kin."""
    total = sums.total
    mean = sums.reference + total.sums / total.rows
    squares = mean * mean + covariance_diagonal(total) / min(float(batch), total.rows)
    return np.divide(1.0, np.sqrt(squares), out=np.zeros_like(squares), where=squares > 0.0)


class Mixing(NamedTuple):
    """How rows come into batches."""

    batch: int
    """Rows of one."""
    n_chunks: int
    permutes: bool
    """Whether the units of a chunk are drawn at random."""
    mixes: bool
    """Whether its rows are."""
    replaces: bool = False
    """Whether all rows are drawn with replacement."""


def effect_of(sums: NoiseSums, mixing: Mixing) -> tuple[float | None, float]:
    """Return the design effect of batches, None where rows are not mixed, and the variance between units over that of rows.

    The design effect is the variance of a batch's mean gradient over that of as many rows drawn independently; see
    `planning.variance`. Units are those read in the order of the data, slices where one is larger than a chunk.
    """
    total, (units, of_units, chunks, of_chunks) = sums.total, sums.spread.tolist()
    n = total.rows
    variance = math.fsum(covariance_diagonal(total)) * (n - 1.0) / n
    if variance <= 0.0:
        return (1.0 if mixing.mixes else None), 0.0
    if mixing.replaces:
        return 1.0, 0.0
    center = math.fsum(np.square(total.sums / n))
    between = max(0.0, of_units / n - center) * units / max(1.0, units - 1.0) / variance
    if not mixing.mixes:
        return None, between
    if mixing.permutes:
        return design_effect(between, units, units / mixing.n_chunks, n / units, mixing.batch), between
    # Chunks are what they are: their means vary as measured, and no other units could have come together.
    apart, rows = max(0.0, of_chunks / n - center) / variance, max(2.0, n / chunks)
    b = min(float(mixing.batch), rows)
    return b * (apart + (1.0 / b - 1.0 / rows) * rows / (rows - 1.0) * (1.0 - apart)), between
