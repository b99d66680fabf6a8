"""Sums of an evaluation as few bytes, bit for bit: of a histogram the bins that a row fell into.

A group of 1,000 rows fills at most 1,000 of 65,536 bins: 30 kB in the place of 1.7 MB, so that a column may have many values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamsgd.kernels.sums.metrics import EMPTY, TIE

if TYPE_CHECKING:
    from streamsgd.model.metrics import Metrics
    from streamsgd.model.probability.calibration import Calibration
    from streamsgd.model.ranking import Arrays


class Packed(NamedTuple):
    """Sums of one group of rows."""

    small: Arrays
    """Of the metrics, without the histogram."""
    bins_at: np.ndarray
    """int32 (n,): bins that hold rows."""
    bins: np.ndarray
    """float64 (n, 3)."""
    levels_at: np.ndarray
    """int32 (m,): levels of the calibration that hold rows."""
    levels: np.ndarray
    """float64 (m, 4)."""

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return sum(array.nbytes for array in (*self.small.values(), *self[1:]))


def pack(metrics: Metrics, calibration: Calibration | None) -> Packed:
    """Take the sums out; the histogram and the levels are empty afterwards, and nothing else may be used before `unpack`."""
    own = metrics.swap({})
    small = {name: array.copy() for name, array in own.items() if name != "bins"}
    bins = own.get("bins", np.empty((0, 3)))
    bins_at = np.flatnonzero(bins[:, TIE] != EMPTY).astype(np.int32)
    filled = bins[bins_at]
    bins[bins_at] = 0.0, 0.0, EMPTY
    metrics.swap(own)
    levels = np.empty((0, 4)) if calibration is None else calibration.levels
    levels_at = np.flatnonzero(levels.any(axis=1)).astype(np.int32)
    found = levels[levels_at]
    levels[levels_at] = 0.0
    return Packed(small, bins_at, filled, levels_at, found)


def unpack(packed: Packed, metrics: Metrics, calibration: Calibration | None) -> None:
    """Put the sums into new metrics, or into those that they were taken out of."""
    own = metrics.swap({})
    if "bins" in own:
        own["bins"][packed.bins_at] = packed.bins
    metrics.swap(own | {name: array.copy() for name, array in packed.small.items()})
    if calibration is not None:
        calibration.levels[packed.levels_at] = packed.levels
