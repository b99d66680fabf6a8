"""Priors: what is believed of a weight before any row is seen, as plain Python numbers. That of the intercept is flat."""

import math
from typing import NamedTuple

from streamsgd.kernels.parts.ranges import Positive


class Flat(NamedTuple):
    """No prior: all weights are alike before any row is seen."""

    source = ""

    @property
    def precision(self) -> float:
        """One over the variance."""
        return 0.0


class Normal(NamedTuple):
    """A normal distribution around 0, independent for each weight of the encoded columns."""

    sd: Positive = 1.0

    source = "Hoerl and Kennard 1970, as its mode is ridge regression"

    @property
    def precision(self) -> float:
        """One over the variance."""
        return 1.0 / (self.sd * self.sd) if self.sd > 0.0 else math.nan
