"""Columns of numbers: shift, scale, logarithm, and what stands for a missing value."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np

from streamsgd.features.arrow import as_float, is_double, nth_item
from streamsgd.kernels.compile.maths import signed_log1p


class NumberColumn(msgspec.Struct, frozen=True):
    """A feature as (value - shift) * scale, with a missing value as `fill` in these units."""

    name: str
    type: str
    shift: float = 0.0
    scale: float = 1.0
    fill: float = 0.0
    indicator: bool = False
    """Whether a second column of the block is 1 where the value is missing."""
    transform: Literal["none", "log1p"] = "none"
    """What is done first: nothing, or sign(value) * log(1 + |value|)."""
    item: int = -1
    """Which number of a fixed-size list it is, or -1."""
    source: str = ""
    """The column that it comes from, if that is not its name."""

    @property
    def column(self) -> str:
        """The column that it comes from."""
        return self.source or self.name


def number_values(column: NumberColumn, values: Any) -> Any:
    """Return a column's values as a float array, transformed; NaN where missing."""
    numbers = as_float(nth_item(values, column.item))
    if column.transform == "none":
        return numbers
    out = np.empty(len(numbers), np.float64 if is_double(numbers) else np.float32)
    signed_log1p(np.asarray(numbers), out)
    return out
