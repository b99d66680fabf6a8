"""Integers that are names: of many values that repeat, what each says of the target has no order.

Some rows of the first look say so: a mean for each value judges other rows better than means of neighbours do, by more than
these are better than one mean for all.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from streamsgd.features.arrow import as_double
from streamsgd.features.look.bins_pay import ERRORS, FOLD, PAYS, targets_of
from streamsgd.features.look.look_rows import look_rows
from streamsgd.features.numbers import N_BINS, Numbers
from streamsgd.features.unset import leaves_open
from streamsgd.settings.policies import policy_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamsgd.features.roles import Roles
    from streamsgd.features.sample import Sample
    from streamsgd.features.target import Target

MOST_ROWS = 60_000
"""Rows that are compared, ..."""

MOST_NUMBERS = 1_200_000
"""... and values of all columns."""

LEAST_ROWS = 1_000
"""Rows below which no column is an id."""

REPEATS = 3.0
"""Rows per value, of those compared: an id that does not come back says nothing."""

NEIGHBOURS = 64
"""Groups of neighbouring values whose means are the other way: four times the bins that a number gets."""

PRIOR_ROWS = (3.0, 30.0)
"""Rows that the mean of neighbours counts for in the mean of a value; the better one holds."""


class IdGain(NamedTuple):
    """What it brings to take a column of integers by value, in squared error over that of one mean."""

    values: int
    """Distinct ones among the rows compared."""
    rows: int
    by_order: float
    by_value: float
    """Errors by means of neighbours, and of values."""
    error: float
    """Standard error of the difference."""

    @property
    def is_id(self) -> bool:
        """Whether most of what the values say is not in their order."""
        saved = self.by_order - self.by_value
        return saved > PAYS * self.by_order and saved > ERRORS * self.error and saved > 1.0 - self.by_order


def find_ids(look: Sample, roles: Roles, target: Target, profiles: Mapping[str, Any]) -> dict[str, IdGain]:
    """Return the columns of integers that are names, and what that rests on."""
    names = [name for name in roles.kinds if _may_be(look, roles, name, profiles[name])]
    if not leaves_open(look.settings) or not names or look.dataset.n_rows < LEAST_ROWS:
        return {}
    columns, y = look_rows(look, target, names, min(MOST_ROWS, MOST_NUMBERS // len(names)))
    if len(y) < LEAST_ROWS:
        return {}
    [wanted, *_] = targets_of(target, np.log1p(y) if target.task == "poisson" else y, 1)
    gains = {name: compare(as_double(columns[name]), wanted) for name in names}
    return {name: gain for name, gain in gains.items() if gain is not None and gain.is_id}


def _may_be(look: Sample, roles: Roles, name: str, profiles: Mapping[Any, Any]) -> bool:
    """Whether a column is of integers with many values, of which nobody said what they are."""
    numbers = [kind for kind in roles.kinds[name] if isinstance(kind, Numbers)]
    settings = look.settings
    if not numbers or name in roles.asked or not pa.types.is_integer(look.dataset.schema.field(name).type):
        return False
    default = policy_of("transform", settings.transform, name) == "auto" and policy_of("scale", settings.scale, name) != "none"
    kept = profiles[numbers[0].profile].kept
    return default and any(len(np.unique(values[: 4 * N_BINS * N_BINS])) > 2 * N_BINS for values in kept)


def compare(values: np.ndarray, y: np.ndarray) -> IdGain | None:
    """Return what a mean by value is worth beside means of neighbours; None where values do not repeat.

    Parameters
    ----------
    values
        float64 (n,), NaN where missing.
    y
        float64 (n,).

    """
    known = np.isfinite(values)
    values, y = values[known], y[known]
    distinct, codes = np.unique(values, return_inverse=True)
    if len(distinct) <= 2 * N_BINS or len(values) < max(LEAST_ROWS, REPEATS * len(distinct)):
        return None
    judges = np.arange(len(y)) % FOLD == FOLD - 1
    groups = _neighbours(codes, len(distinct))
    whole = y[~judges].mean()
    ordered = _means(groups[~judges], y[~judges], np.full(NEIGHBOURS, whole), 1.0)
    by_order = np.square(y[judges] - ordered[groups[judges]])
    prior = np.zeros(len(distinct))
    prior[codes] = ordered[groups]
    each = [np.square(y[judges] - _means(codes[~judges], y[~judges], prior, rows)[codes[judges]]) for rows in PRIOR_ROWS]
    by_value = min(each, key=lambda errors: float(errors.mean()))
    base = max(float(np.square(y[judges] - whole).mean()), 1e-12)
    error = float((by_order - by_value).std()) / math.sqrt(len(by_order))
    return IdGain(len(distinct), len(y), float(by_order.mean()) / base, float(by_value.mean()) / base, error / base)


def _neighbours(codes: np.ndarray, n_values: int) -> np.ndarray:
    """Return the group of each row: values in their order, groups of about as many rows, of whole values."""
    below = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=n_values))[:-1]])
    groups: np.ndarray = (below * NEIGHBOURS // len(codes))[codes]
    return groups


def _means(codes: np.ndarray, y: np.ndarray, prior: np.ndarray, rows: float) -> np.ndarray:
    """Return the mean by code, the prior counting for so many rows."""
    sums, counts = np.bincount(codes, y, len(prior)), np.bincount(codes, minlength=len(prior))
    means: np.ndarray = (sums + rows * prior) / (counts + rows)
    return means
