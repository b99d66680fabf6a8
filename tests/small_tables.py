"""Small tables whose runs end with passes that nobody asked for, judged by rows held out (`phases.held_judge`)."""

from typing import Any

import numpy as np
import pyarrow as pa

import streamsgd
from streamsgd.model.model import Model

PLAIN: dict[str, Any] = {"executor": "inline", "memory": "1GB", "chunk_rows": 3_000}


def alike(n: int = 6_000, seed: int = 0) -> pa.Table:
    """Twelve columns that are nearly one: a condition number of about 20,000."""
    rng, of_weights = np.random.default_rng(seed), np.random.default_rng(99)
    x = rng.normal(size=(n, 1)) + 0.03 * rng.normal(size=(n, 12))
    y = x @ (8.0 * of_weights.normal(size=12)) + rng.normal(size=n)
    return pa.table({**{f"x{j}": x[:, j] for j in range(12)}, "y": y})


def values(n: int = 4_000, seed: int = 0, columns: int = 6, each: int = 60) -> pa.Table:
    """Columns of so many values each, all of which say a little."""
    rng, of_weights = np.random.default_rng(seed), np.random.default_rng(99)
    codes = rng.integers(0, each, (n, columns))
    scores = of_weights.normal(size=(columns, each))[np.arange(columns), codes].sum(axis=1)
    names = {f"c{j}": [f"v{code}" for code in codes[:, j]] for j in range(columns)}
    return pa.table({**names, "y": scores + rng.logistic(size=n) > 0.0, "z": scores + rng.normal(size=n)})


def train(data: pa.Table, target: str = "y", **settings: Any) -> Model:
    """Train on all columns but the other target."""
    other = {"y": "z", "z": "y"}[target]
    exclude = {"exclude": other} if other in data.column_names else {}
    return streamsgd.train(data, target, **{**PLAIN, **exclude, **settings})
