"""Sums whose bits follow from the numbers, not from how many processors there are."""

from __future__ import annotations

from typing import Any

import numpy as np

BLOCK = 4096
"""Products that BLAS adds up at a time: from 10,000 on OpenBLAS shares them out among threads, and rounds by their number."""


def dot(a: Any, b: Any) -> float:
    """Return the sum of the products of two vectors, block by block.

    Raises
    ------
    ValueError
        One is longer than the other.

    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"products of vectors of {a.shape} and {b.shape}")
    total = 0.0
    for k in range(0, len(a), BLOCK):  # not `sum`, which makes up for rounding from Python 3.12 on: its bits are others
        total += float(a[k : k + BLOCK] @ b[k : k + BLOCK])
    return total
