"""What a field of a part may be: its type, with the range that a spec of it is checked against.

A part says so where it declares the field (`momentum: Decay = 0.9`); kernels see plain numbers. A user's own part may use
them as well: `Annotated[float, Range(0.0, 2.0, with_low=True)]`.
"""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple


class Range(NamedTuple):
    """An interval of finite numbers."""

    low: float
    high: float = math.inf
    with_low: bool = False
    with_high: bool = False

    def holds(self, value: float) -> bool:
        """Whether the value is a finite number of it."""
        above = value >= self.low if self.with_low else value > self.low
        below = value <= self.high if self.with_high else value < self.high
        return math.isfinite(value) and above and below

    def __str__(self) -> str:
        """Return it in words."""
        low = f"{'at least' if self.with_low else 'above'} {self.low:g}"
        return low + (f" and {'at most' if self.with_high else 'below'} {self.high:g}" if math.isfinite(self.high) else "")


Positive = Annotated[float, Range(0.0)]
NotNegative = Annotated[float, Range(0.0, with_low=True)]
Decay = Annotated[float, Range(0.0, 1.0, with_low=True)]
"""The share of a memory that a step keeps."""
Inside = Annotated[float, Range(0.0, 1.0)]
"""A level or share, neither 0 nor 1."""
Share = Annotated[float, Range(0.0, 1.0, with_low=True, with_high=True)]
Probability = Annotated[float, Range(0.0, 1.0, with_high=True)]
"""A probability of something that happens."""
Whole = Annotated[int, Range(0.0, with_low=True)]
AtLeastOne = Annotated[int, Range(1.0, with_low=True)]
AtLeastTwo = Annotated[int, Range(2.0, with_low=True)]
