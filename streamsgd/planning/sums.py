"""Sums whose bits follow from the numbers, not from how many processors there are."""

from __future__ import annotations

from typing import Any

import numpy as np

BLOCK = 4096
"""Products that BLAS adds up at a time: from 10,000 on OpenBLAS shares them out among threads, and rounds by their number."""


def dot(a: Any, b: Any) -> float:
    """Return the sum of the products of two vectors, block by block."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(sum(float(a[k : k + BLOCK] @ b[k : k + BLOCK]) for k in range(0, len(a), BLOCK)))
