"""Noise of gradients on real tables: what `--noise` costs, and whether batches scatter as `streamsgd noise` says.

    python scripts/bench_noise.py [--data FOLDER] [--only diamonds,adult,flights] [--rows N] [--repeat N] [--json]

`cost` is the least CPU time of some runs with `--noise` over the least of as many without it, taken in turn; their weights
are compared too. `slope` is that of log tr Var(mean gradient) on log b over b = 1 to 512 of independent draws (-1 in theory),
by NumPy, at the weights that were learned; `level` is that variance times b over the trace that `noise` tells; `fpc` the worst
of the same without replacement over what the design effect makes of it, at b of 1, 50 and 90 % of the rows.
"""

from __future__ import annotations

import argparse
import json
import runpy
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import streamsgd
from streamsgd.features.target import encode_target

if TYPE_CHECKING:
    from streamsgd.model.model import Model

ROOT = Path(__file__).resolve().parents[1]
TABLES = runpy.run_path(str(ROOT / "scripts" / "bench_tables.py"))
PROBLEMS = {
    "diamonds": (TABLES["diamonds"], "price"),
    "adult": (TABLES["adult"], "income"),
    "flights": (TABLES["flights"], "delay"),
}
MEMORY = "4GB"
SIZES = 2 ** np.arange(10)
DRAWS = 1 << 22


def cost(path: Path, target: str, repeat: int, **settings: Any) -> float:
    """Return the CPU time with noise over that without, after a run of each that compiles."""
    times: dict[bool, list[float]] = {False: [], True: []}
    weights = set()
    for _ in range(repeat + 1):
        for noise, spent in times.items():
            began = time.process_time()
            model = streamsgd.train(path, target, memory=MEMORY, noise=noise, **settings)
            spent.append(time.process_time() - began)
            weights.add(model.weights.tobytes())
    if len(weights) > 1:
        raise AssertionError("--noise changed the weights")
    return min(times[True][1:]) / min(times[False][1:])


def gradients(model: Model, table: pa.Table) -> np.ndarray:
    """Return those of all rows of numbers, (n_rows, n_weights), in plain Python."""
    block, _ = model.encode(table)
    x = np.column_stack([block.rows.values[:, : model.encoding.width].astype(np.float64), np.ones(table.num_rows)])
    y, _ = encode_target(model.target, table[model.target.name])
    scores = x @ model.weights[:, 0].astype(np.float64)
    slopes = [model.loss.slope(t, s) for t, s in zip(y.tolist(), scores.tolist(), strict=True)]
    found: np.ndarray = x * np.array(slopes)[:, None]
    return found


def scatter(path: Path, table: pa.Table, target: str) -> dict[str, float]:
    """Return slope, level and finite-population ratio of one table's columns of numbers."""
    model = streamsgd.train(path, target, memory=MEMORY, epochs=1, optimizer="adam", precision="float64")
    g, rng, n = gradients(model, table), np.random.default_rng(0), table.num_rows
    mean, told = g.mean(axis=0), streamsgd.noise(path, at=model, memory=MEMORY, shuffle="iid", chunk_rows=n)
    found = []
    for b in SIZES:
        means = [g[rng.integers(0, n, (1 << 18) // b * b)].reshape(-1, b, g.shape[1]).mean(axis=1) for _ in range(DRAWS >> 18)]
        found.append(np.square(np.concatenate(means) - mean).sum(axis=1).mean())
    slope = np.polyfit(np.log(SIZES), np.log(found), 1)[0]
    worst = 1.0
    for share in (0.01, 0.5, 0.9):
        b = int(share * n)
        effect = streamsgd.noise(path, at=model, memory=MEMORY, chunk_rows=n, batch_size=b, optimizer="sgd")["design_effect"]
        drawn = np.mean([np.square(g[rng.permutation(n)[:b]].mean(axis=0) - mean).sum() for _ in range(DRAWS >> 10)])
        ratio = drawn / (effect * told["trace_covariance"] / b)
        worst = ratio if abs(ratio - 1.0) > abs(worst - 1.0) else worst
    level = float(np.mean(np.array(found) * SIZES) / told["trace_covariance"])
    return {"slope": float(slope), "level": level, "fpc": float(worst), "noise_scale": told["noise_scale"]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=TABLES["SHARED"])
    parser.add_argument("--only", default=",".join(PROBLEMS))
    parser.add_argument("--rows", type=int, default=1 << 20, help="most rows of a table")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = []
    print(f"{'data':9} {'rows':>9} {'cost adam':>9} {'cost auto':>9} {'slope':>7} {'level':>6} {'fpc':>6}")
    for name in options.only.split(","):
        make, target = PROBLEMS[name]
        table = make(options.data).slice(0, options.rows)
        numbers = [
            column
            for column in table.column_names
            if pa.types.is_integer(table[column].type) or pa.types.is_floating(table[column].type)
        ]
        narrow = table.select(list(dict.fromkeys([*numbers, target]))).slice(0, 1 << 13)
        with tempfile.TemporaryDirectory() as scratch:
            path, small = Path(scratch) / "all.parquet", Path(scratch) / "numbers.parquet"
            pq.write_table(table, path, row_group_size=1 << 14)
            pq.write_table(narrow, small)
            found = {
                "data": name,
                "rows": table.num_rows,
                "cost_adam": cost(path, target, options.repeat, optimizer="adam", epochs=3),
                "cost_auto": cost(path, target, options.repeat),
                **scatter(small, narrow, target),
            }
        print(
            f"{name:9} {found['rows']:>9,} {found['cost_adam']:>9.3f} {found['cost_auto']:>9.3f} {found['slope']:>7.3f} "
            f"{found['level']:>6.3f} {found['fpc']:>6.3f}",
            flush=True,
        )
        results.append(found)
    if options.json:
        print(json.dumps({"results": results}))


if __name__ == "__main__":
    main()
