"""What cross-validation in one decode costs: one run, K folds and the model of all rows together, and the same one by one.

    python scripts/bench_folds.py [--rows 2000000] [--folds 5]

Prints a table of seconds of whole calls and of processors, and, as the last line, JSON. Every model is compared with its solo
run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import streamsgd

if TYPE_CHECKING:
    from collections.abc import Callable

COLUMNS = 28


def write(path: Path, rows: int) -> None:
    """Write numbers, and a label that half of them decide."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, COLUMNS)).astype(np.float32)
    y = x @ np.linspace(-1, 1, COLUMNS) + rng.logistic(size=rows) > 0
    columns = {f"x{k}": x[:, k] for k in range(COLUMNS)}
    pq.write_table(pa.table({**columns, "y": y.astype(np.int8)}), path, row_group_size=max(1000, rows // 16))


def timed(run: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return what a call returns, its seconds, and those of processors."""
    began, spent = time.perf_counter(), time.process_time()
    found = run()
    return found, time.perf_counter() - began, time.process_time() - spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--folds", type=int, default=5)
    given = parser.parse_args()
    settings: dict[str, Any] = {"optimizer": "adam", "batch_size": 256, "epochs": 1, "memory": "2GB", "executor": "threads"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "d.parquet"
        write(path, given.rows)

        def alone(validation: str) -> Any:
            return streamsgd.train(path, "y", validation=validation, **settings)

        alone("none")  # compiles
        whole, *one = timed(lambda: alone("none"))
        found, *together = timed(lambda: streamsgd.cross_validate(path, "y", folds=given.folds, **settings))
        each, *apart = timed(lambda: [alone(f"fold:{k}/{given.folds}") for k in range(1, given.folds + 1)])
    same = [a.to_bytes() == b.to_bytes() for a, b in zip([*found.folds, found.model], [*each, whole], strict=True)]
    times = {"one run": one, f"--folds {given.folds}": together, "one by one": [a + b for a, b in zip(apart, one, strict=True)]}
    for name, (seconds, spent) in times.items():
        print(f"{name:12} {seconds:8.2f} s {spent:8.2f} s of processors {seconds / one[0]:6.2f} times one run")
    print(json.dumps({"seconds": times, "same": same, "log_loss": found.metrics["log_loss"]._asdict()}))


if __name__ == "__main__":
    main()
