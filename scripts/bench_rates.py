"""Plain SGD against the exact recursion of least squares: equal compute in any batch, and rates that follow the batch.

    python scripts/bench_rates.py [--seeds 200] [--small] [--json]

Rows of twenty numbers are drawn with replacement (`--shuffle iid`), at a constant rate; the mean loss after so many steps of b
rows is known exactly, by moments of the distance from the minimum.

equal compute  the mean loss after one epoch in batches of 1, 8, 64 and all rows, over seeds, by how many standard errors it is
               off; the batch of all rows, which has no noise, by how much
linear         the mean excess of `--rate-scaling linear` at (2 eta, 2 b) over that at (eta, b), both as measured and by the
               recursion, and by how many standard errors they are off, while eta times the largest curvature is at most 0.05

The exit code is 1 where a promise is not kept: 3 standard errors, 5 %, and 1e-9 of the full batch.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from typing import Any

import numpy as np
import pyarrow as pa

import streamsgd

N, D = 1024, 20
SETTINGS: dict[str, Any] = {
    "optimizer": "sgd",
    "schedule": "constant",
    "precision": "float64",
    "scale": ["none"],
    "transform": "none",
    "shuffle": "iid",
    "memory": "2GB",
    "executor": "inline",
    "validation": 0.0,
    "chunk_rows": N,
}


def problem() -> tuple[np.ndarray, np.ndarray]:
    """Return features, an intercept's 1 among them, and targets; the largest curvature is about 1.3."""
    rng = np.random.default_rng(9)
    x = rng.normal(size=(N, D))
    return np.column_stack([x, np.ones(N)]), x @ rng.normal(size=D) * 0.5 + 2.0 * rng.normal(size=N)


def best_of(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the minimum."""
    return np.linalg.lstsq(x, y, rcond=None)[0]


def exact(x: np.ndarray, y: np.ndarray, rate: float, b: int, steps: int) -> float:
    """Return the mean excess after steps from zero weights; b of all rows is the full batch, without noise."""
    best = best_of(x, y)
    rest, h = y - x @ best, x.T @ x / len(x)
    m, s = -best, np.outer(best, best)
    c = (x * np.square(rest)[:, None]).T @ x / len(x)
    for _ in range(steps):
        of_distance = ((x @ s) * x).sum(axis=1)
        scatter = (x * (of_distance - 2.0 * rest * (x @ m))[:, None]).T @ x / len(x) + c - h @ s @ h
        s = s - rate * (h @ s + s @ h) + rate**2 * (h @ s @ h + (0.0 if b == N else 1.0) * scatter / b)
        m = m - rate * h @ m
    return float(0.5 * np.trace(h @ s))


def excesses(x: np.ndarray, y: np.ndarray, seeds: int, **settings: Any) -> np.ndarray:
    """Return by how much the loss of each seed's run is above its minimum."""
    table = pa.table({**{f"x{j}": x[:, j] for j in range(D)}, "y": y})
    found = []
    for seed in range(seeds):
        model = streamsgd.train(table, "y", **{**SETTINGS, **settings}, seed=seed)
        w = model.weights[:, 0]
        found.append(0.5 * np.square((y - model.target.shift) / model.target.scale - x @ w).mean() - least_of(x, y, model))
    return np.array(found)


def least_of(x: np.ndarray, y: np.ndarray, model: Any) -> float:
    """Return the least loss, in the units of the target that the model has."""
    t = (y - model.target.shift) / model.target.scale
    return float(0.5 * np.square(t - x @ best_of(x, t)).mean())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--small", action="store_true", help="20 seeds, for continuous integration")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    seeds, (x, y) = 20 if options.small else options.seeds, problem()
    rate, found, kept = 0.02, dict[str, Any](), True
    largest = float(np.linalg.eigvalsh(x.T @ x / N)[-1])
    for b in (1, 8, 64, N):
        size, shuffle = ("full", "none") if b == N else (b, "iid")
        n = 1 if b == N else seeds
        got = excesses(x, y, n, batch_size=size, shuffle=shuffle, learning_rate=rate, epochs=1)
        truth = exact(x, y, rate, b, N // b)
        off = abs(got.mean() / truth - 1.0) if b == N else (got.mean() - truth) / (got.std(ddof=1) / math.sqrt(n))
        kept &= bool(abs(off) < (1e-9 if b == N else 3.0))
        found[f"equal compute, b = {b}"] = {"mean": float(got.mean()), "exact": truth, "off": float(off)}
        print(f"one epoch, b = {b}: mean excess {got.mean():.6g}, exact {truth:.6g}, off by {off:.2g}", flush=True)
    base, epochs, pairs = 0.02, 8, {}
    for b in (32, 64):
        got = excesses(x, y, seeds, batch_size=b, learning_rate=base, rate_scaling="linear", epochs=epochs)
        truth = exact(x, y, base * b / 64, b, epochs * N // b)
        error = got.std(ddof=1) / math.sqrt(seeds)
        pairs[b] = (got.mean(), truth, error)
        kept &= bool(abs(got.mean() - truth) < 3.0 * error)
    (one, by_one, e1), (two, by_two, e2) = pairs[32], pairs[64]
    ratio, error = two / one, math.hypot(e1 / one, e2 / two)
    found["linear"] = {"ratio": ratio, "standard_error": error, "exact": by_two / by_one, "eta_lambda": base * largest}
    found["linear"] |= {"off": [(one - by_one) / e1, (two - by_two) / e2]}
    kept &= bool(abs(by_two / by_one - 1.0) < 0.05 and abs(ratio - 1.0) < max(0.05, 3.0 * error if options.small else 0.05))
    kept &= abs(ratio - by_two / by_one) < 3.0 * error and base * largest <= 0.05
    print(
        f"linear: (2 eta, 2 b) over (eta, b) {ratio:.4f} +- {error:.4f}, exact {by_two / by_one:.4f}, each off by "
        f"{(one - by_one) / e1:.2g} and {(two - by_two) / e2:.2g} standard errors; eta lambda {base * largest:.3f}"
    )
    if options.json:
        print(json.dumps({"results": found, "kept": bool(kept)}))
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
