"""What a model file holds."""

from __future__ import annotations

import numpy as np


def packed(weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return the arrays of a model file: all weights, or, where most are zero, the rows that are not, and their places."""
    used = np.flatnonzero((weights != 0.0).any(axis=1))
    if 2 * len(used) >= len(weights):
        return {"weights": np.ascontiguousarray(weights)}
    return {"used": used, "used_weights": np.ascontiguousarray(weights[used]), "shape": np.array(weights.shape)}


def unpacked(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Return the weights from the arrays of a model file."""
    if "weights" in arrays:
        return arrays["weights"]
    weights = np.zeros(tuple(arrays["shape"].tolist()), arrays["used_weights"].dtype)
    weights[arrays["used"]] = arrays["used_weights"]
    return weights


def folded(covariance: np.ndarray | None) -> dict[str, np.ndarray]:
    """Return the lower triangle of a covariance, row by row."""
    return {} if covariance is None else {"covariance": covariance[np.tri(len(covariance), dtype=bool)]}


def unfolded(arrays: dict[str, np.ndarray]) -> np.ndarray | None:
    """Return the covariance from the arrays of a model file; None if it has none."""
    if "covariance" not in arrays:
        return None
    size = int((2 * len(arrays["covariance"])) ** 0.5)
    whole = np.zeros((size, size))
    whole[np.tri(size, dtype=bool)] = arrays["covariance"]
    whole += np.tril(whole, -1).T
    return whole
