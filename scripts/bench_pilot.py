"""Pilots against the exact recursion of least squares, and what five branches of one decode cost.

    python scripts/bench_pilot.py [--seeds N] [--rows N] [--small] [--json]

Rows of two numbers, drawn with replacement, plain SGD at a constant rate: the mean loss after T steps of B rows is known
exactly (moments of the distance from the minimum). `a`, `c` are those of the pilot over those of the same fit to the exact
losses, `size` the recommended size over that by the exact ones, and `covered` the share of pilots of three seeds each whose
interval holds the exact c. `cost` is the time of five branches of one seed over as many rows in one decode, over that of
one run alone.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import streamsgd
from streamsgd.settings.make import make_settings
from streamsgd.training.together.pilot import Branch, run_pilot, run_seed
from streamsgd.training.together.pilot_fit import fit_losses, recommended, straight_line

SIZES = np.array([4, 16, 64, 256])
STEPS, RATE, N = 60, 0.1, 2048
SETTINGS: dict[str, Any] = {
    "target": "y",
    "optimizer": "sgd",
    "learning_rate": RATE,
    "precision": "float64",
    "scale": ["none"],
    "transform": "none",
    "shuffle": "iid",
    "validation": 0.0,
    "memory": "2GB",
    "executor": "inline",
}


def problem() -> tuple[np.ndarray, np.ndarray]:
    """Return features, an intercept's 1 among them, and targets."""
    rng = np.random.default_rng(9)
    x = rng.normal(size=(N, 2)) @ [[1.0, 0.3], [0.0, 0.7]]
    return np.column_stack([x, np.ones(N)]), x @ [1.0, -2.0] + 2.0 * rng.normal(size=N)


def exact(x: np.ndarray, y: np.ndarray, size: int) -> float:
    """Return the mean loss after all steps from zero weights."""
    best = np.linalg.lstsq(x, y, rcond=None)[0]
    rest, h = y - x @ best, x.T @ x / len(x)
    m, s = -best, np.outer(best, best)
    c = (x * np.square(rest)[:, None]).T @ x / len(x)
    for _ in range(STEPS):
        of_distance = np.einsum("ni,ij,nj->n", x, s, x)
        scatter = (x * (of_distance - 2.0 * rest * (x @ m))[:, None]).T @ x / len(x) + c
        s = s - RATE * (h @ s + s @ h) + RATE**2 * (h @ s @ h + (scatter - h @ s @ h) / size)
        m = m - RATE * h @ m
    return float(0.5 * np.square(rest).mean() + 0.5 * np.trace(h @ s))


def accuracy(seeds: int) -> dict[str, Any]:
    """Compare pilots with the recursion."""
    x, y = problem()
    table = pa.table({"a": x[:, 0], "b": x[:, 1], "y": y})
    found, _made = run_pilot(table, {**SETTINGS, "steps": STEPS}, SIZES.tolist(), seeds=seeds)
    lines = [line for line in found["branches"] if line["comparison"] == "steps"]
    losses, truth = np.array([line["losses"] for line in lines]).T, np.array([exact(x, y, int(b)) for b in SIZES])
    sizes, fit = SIZES.astype(float), found["fit"]
    a, c = straight_line(sizes, truth, (sizes / sizes[0]) ** 2)
    errors = losses.std(axis=0, ddof=1) / np.sqrt(seeds)
    groups = [fit_losses(sizes, losses[k : k + 3]) for k in range(0, seeds - 2, 3)]
    held = [one.interval[0] <= c <= one.interval[1] for one in groups if one.interval is not None]
    by_truth = recommended(fit_losses(sizes, truth[None, :])._replace(a=a, c=c), sizes)
    return {
        "seeds": seeds,
        "a": fit["a"] / a,
        "c": fit["c"] / c,
        "away": float(np.max(np.abs(losses.mean(axis=0) - truth) / errors)),
        "size": recommended(fit_losses(sizes, losses)._replace(loss_se=0.0), sizes) / by_truth,
        "covered": float(np.mean(held)),
        "pilots": len(held),
    }


def cost(rows: int) -> float:
    """Return the time of five branches over that of one run, the least of three of each."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(rows, 20)).astype(np.float32)
    y = x.sum(axis=1) + rng.normal(size=rows)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "d.parquet"
        pq.write_table(pa.table({**{f"x{j}": x[:, j] for j in range(20)}, "y": y}), path, row_group_size=1 << 17)
        given = {"target": "y", "optimizer": "sgd", "memory": "2GB", "validation": 0.0, "shuffle": "corgi"}
        branches = [Branch(size, None, rows // size, 0) for size in (16, 64, 256, 1024, 4096)]
        settings = make_settings({**given, "batch_size": 64, "steps": rows // 64})
        together, alone = list[float](), list[float]()
        for _ in range(3):
            began = time.perf_counter()
            run_seed(path, settings, branches)
            together.append(time.perf_counter() - began)
            began = time.perf_counter()
            streamsgd.train(path, **{**given, "batch_size": 64, "steps": rows // 64})
            alone.append(time.perf_counter() - began)
    return min(together) / min(alone)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=900)
    parser.add_argument("--rows", type=int, default=2_000_000, help="of the table whose cost is measured")
    parser.add_argument("--small", action="store_true", help="60 seeds, and no cost")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = accuracy(60 if options.small else options.seeds)
    print(
        f"{found['seeds']} seeds: a {found['a']:.4f} and c {found['c']:.3f} of the exact ones, losses within "
        f"{found['away']:.1f} standard errors, size {found['size']:g} times the exact one; of {found['pilots']} pilots of "
        f"three seeds {found['covered']:.1%} of the intervals hold c"
    )
    if not options.small:
        found["cost"] = cost(options.rows)
        print(f"five branches of one decode take {found['cost']:.2f} times as long as one run")
    if options.json:
        print(json.dumps({"results": found}))


if __name__ == "__main__":
    main()
