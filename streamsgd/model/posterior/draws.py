"""Draws from the posterior of a model's weights, as a model file keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.model.format import folded, unfolded
from streamsgd.model.posterior.diagnostics import effective_size, r_hat
from streamsgd.model.validate import ArraySpec, check_arrays, refuse

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_CHECKED = 2048
"""Weights whose R-hat and effective sample size are worked out, of more an even choice: each takes a millisecond."""

PREFIX = "posterior."
"""Of the arrays in a file."""


@dataclass(frozen=True)
class Draws:
    """What sampling found of n weights, [coordinate][output].

    Attributes
    ----------
    mode, mean, variance
        float64 (n,): of all that was recorded, not of the draws that are kept alone.
    covariance
        float64 (n, n); None where pairs of weights are too many.
    store
        float32 (n_chains, n_draws, n): draws less the mode.
    r_hat, ess
        float64 (n,): split R-hat and bulk effective sample size of the draws that are kept; NaN where they are too few, and of
        some of very many weights.

    """

    mode: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    covariance: np.ndarray | None
    store: np.ndarray
    r_hat: np.ndarray
    ess: np.ndarray

    @classmethod
    def of(cls, mode: np.ndarray, mean: np.ndarray, covariance: np.ndarray, store: np.ndarray) -> Draws:
        """Return draws with their diagnostics; `covariance` is (n, n), or (1, n) variances."""
        whole = len(covariance) == len(mode) and len(mode) > 1
        variance = np.diagonal(covariance).copy() if whole or len(mode) == 1 else covariance[0].copy()
        checks = np.full((2, len(mode)), np.nan)
        some = np.unique(np.linspace(0, len(mode) - 1, min(len(mode), MOST_CHECKED)).round().astype(np.int64))
        found = store[:, :, some].astype(np.float64)
        checks[0, some], checks[1, some] = r_hat(found), effective_size(found)
        return cls(mode, mean, variance, covariance if whole else None, store, *checks)

    @cached_property
    def sorted(self) -> np.ndarray:
        """float64 (n_chains * n_draws, n): each weight's draws in ascending order."""
        return np.sort(self.samples().reshape(-1, len(self.mode)), axis=0)

    def samples(self) -> np.ndarray:
        """Return the draws that are kept, float64 (n_chains, n_draws, n)."""
        return self.mode + self.store.astype(np.float64)

    def quantiles(self, *levels: float) -> np.ndarray:
        """Return quantiles of each weight, float64 (n_levels, n), of the draws that are kept (Hyndman and Fan 1996, type 7)."""
        places = np.array(levels) * (len(self.sorted) - 1)
        low = np.floor(places).astype(np.int64)
        high = np.minimum(low + 1, len(self.sorted) - 1)
        found: np.ndarray = self.sorted[low] + (places - low)[:, None] * (self.sorted[high] - self.sorted[low])
        return found

    def numbers(self) -> dict[str, Any]:
        """Return what there is to say of chains, as JSON values."""
        known = np.isfinite(self.r_hat)
        return {
            "chains": int(self.store.shape[0]),
            "draws": int(self.store.shape[0] * self.store.shape[1]),
            "r_hat": float(self.r_hat[known].max()) if known.any() else None,
            "ess": float(self.ess[known].min()) if known.any() else None,
        }


def draws_arrays(draws: Draws | None) -> dict[str, np.ndarray]:
    """Return the arrays of a model file."""
    if draws is None:
        return {}
    names = ("mode", "mean", "variance", "store", "r_hat", "ess")
    found = {name: getattr(draws, name) for name in names} | folded(draws.covariance)
    return {f"{PREFIX}{key}": np.ascontiguousarray(array) for key, array in found.items()}


def split_draws(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the arrays of a model file without those of draws, and those."""
    rest = {key: array for key, array in arrays.items() if not key.startswith(PREFIX)}
    return rest, {key.removeprefix(PREFIX): array for key, array in arrays.items() if key.startswith(PREFIX)}


def read_draws(arrays: dict[str, np.ndarray], n_weights: int, name: str) -> Draws | None:
    """Return the draws of so many weights from the arrays of a file, all of which are checked.

    Raises
    ------
    ModelError
        They are none of ours; the message names the file and the array.

    """
    if not arrays:
        return None
    vector = ArraySpec(("float64",), (n_weights,))
    wanted = dict.fromkeys(("mode", "mean", "variance", "r_hat", "ess"), vector)
    wanted["store"] = ArraySpec(("float32",), (None, None, n_weights))
    if "covariance" in arrays:
        wanted["covariance"] = ArraySpec(("float64",), (n_weights * (n_weights + 1) // 2,))
    check_arrays(arrays, wanted, name)
    for key in ("mode", "mean", "variance", "store"):
        if not np.isfinite(arrays[key]).all():
            refuse(name, f"array '{PREFIX}{key}'", "holds what is no finite number")
    if not (arrays["variance"] >= 0.0).all() or not arrays["store"].size:
        refuse(name, f"array '{PREFIX}variance'", "is not that of draws")
    return Draws(covariance=unfolded(arrays), **{key: arrays[key] for key in wanted if key != "covariance"})
