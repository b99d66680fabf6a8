"""Made rows of every usual kind of column and target, for kernels to be compiled with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

GROUP_ROWS = 20_000


def write_made_rows(path: Path, task: str, n_rows: int, *, of_numbers: bool) -> None:
    """Write numbers of the usual types, some of them missing, with categories and texts unless only numbers are wanted.

    The target `y` is of a task: binary, regression, multiclass or poisson.
    """
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, n_rows))
    columns: dict[str, Any] = {
        "a": pa.array(a.astype(np.float32)),
        "b": pa.array(b, mask=rng.random(n_rows) < 0.01),
        "c": pa.array(rng.integers(0, 1000, n_rows)),
    }
    if not of_numbers:
        words = [" ".join(f"w{k}" for k in row) for row in rng.integers(0, 300, (500, 5)).tolist()]
        columns["place"] = _taken([f"p{k}" for k in range(200)], n_rows, rng)
        columns["said"] = _taken(words, n_rows, rng)
    score = a + np.nan_to_num(b) + rng.logistic(size=n_rows)
    y = {"binary": score > 0, "regression": score, "multiclass": np.digitize(score, [-1, 1])}
    columns["y"] = y[task] if task in y else rng.poisson(np.exp(np.clip(0.3 * score, -3, 3)))
    if task == "multiclass":
        columns["y"] = pa.array(["a", "b", "c"]).take(pa.array(columns["y"]))
    pq.write_table(pa.table(columns), path, row_group_size=GROUP_ROWS)


def _taken(values: Sequence[str], n_rows: int, rng: np.random.Generator) -> pa.Array:
    return pa.array(values).take(pa.array(rng.integers(0, len(values), n_rows)))
