"""Weights by column and value, in the units of the columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Value:
    """The weight of one value of a column."""

    column: str
    value: str
    weights: np.ndarray
    """(n_outputs,)."""
    rows: int
    """How many of the rows that were counted in training had it; 0 where none were."""
    errors: np.ndarray | None = None
    """Standard errors of the weights, (n_outputs,), if the model has them."""


@dataclass(frozen=True)
class HashedUse:
    """How full a hashed space is."""

    slots: int
    used: int
    """Slots whose weight is not 0."""
    values: int
    """Distinct values that took them, estimated."""
    collisions: float
    """Share of the values that share their slot with another one, estimated."""
