"""Pilots against the exact recursion of least squares and sweeps of real tables, and what five branches of one decode cost.

    python scripts/bench_pilot.py [--cases accuracy,cost,sweep] [--seeds N] [--rows N] [--only NAME,...] [--small] [--json]

Rows of two numbers, drawn with replacement, plain SGD at a constant rate: the mean loss after T steps of B rows is known
exactly (moments of the distance from the minimum). `a`, `c` are those of the pilot over those of the same fit to the exact
losses, `size` the recommended size over that by the exact ones, and `covered` the share of pilots of three seeds each whose
interval holds the exact c. `cost` is the time of five branches of one seed over as many rows in one decode, over that of
one run alone.

`sweep`: the columns of numbers of real tables, at the defaults of `streamsgd pilot` but for the steps. The size that a pilot of
three seeds recommends against that by the same rule of a sweep of 30 other seeds; and the time to the loss that the recommended
size has after these steps, over the least of all sizes: the steps to that loss, by the mean curve of the sweep, times the
measured seconds of a step.
"""

from __future__ import annotations

import argparse
import json
import runpy
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import streamsgd
from streamsgd.settings.make import make_settings
from streamsgd.training.prepare import prepare
from streamsgd.training.together.pilot import Branch, Made, losses_of, run_pilot, run_seed
from streamsgd.training.together.pilot_fit import fit_losses, recommended, step_times, straight_line

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


# --- sweeps of real tables

LENGTHS = 2.0 ** np.arange(-2, 3)
"""Of the steps after which sizes are compared: where the mean curves are known."""

AT = 2
"""Which of them is 1."""


def sweep(table: pa.Table, target: str, tried: list[int], steps: int, seeds: int) -> dict[str, Any]:
    """Compare the recommendation of a pilot with that of a sweep, and its time to a loss with the least."""
    given = {"target": target, "memory": "2GB", "executor": "inline", "validation": 0.1}
    found, _made = run_pilot(table, {**given, "steps": steps}, tried)
    losses, seconds = swept(table, {**given, "batch_size": tried[-1], "steps": steps}, tried, seeds)
    sizes = np.array(tried, float)
    by_sweep, by_pilot = recommended(fit_losses(sizes, losses[:, :, AT]), sizes), int(found["recommended"])
    alpha, beta = step_times(sizes, seconds)
    times = times_to(losses.mean(axis=0), sizes, by_pilot, steps) * (alpha + beta * sizes)
    chosen = float(np.exp(np.interp(np.log(by_pilot), np.log(sizes), np.log(times))))
    return {
        "rows": len(table),
        "pilot": by_pilot,
        "sweep": by_sweep,
        "ratio": by_pilot / by_sweep,
        "time": chosen / float(times.min()),
        "fastest": tried[int(np.argmin(times))],
        "least_time": found["least_time"],
        "a": found["fit"]["a"],
        "c": found["fit"]["c"],
        "loss_se": found["fit"]["loss_se"],
    }


def swept(table: pa.Table, given: dict[str, Any], tried: list[int], seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Return losses on held-out rows, (n_seeds, n_sizes, n_lengths), and the median seconds of a step, (n_sizes,)."""
    settings, made = make_settings(given), list[Made]()
    for seed in range(100, 100 + seeds):
        lengths = [int(length * given["steps"]) for length in LENGTHS]
        made += run_seed(table, settings, [Branch(size, None, n, seed) for size in tried for n in lengths])[0]
    losses = np.array(losses_of(prepare(table, settings), [one.model for one in made]))
    shape = seeds, len(tried), len(LENGTHS)
    times = np.array([one.report.fit_seconds / one.branch.steps if one.report else np.nan for one in made]).reshape(shape)
    return losses.reshape(shape), np.nanmedian(times[:, :, -1], axis=0)


def times_to(curves: np.ndarray, sizes: np.ndarray, size: int, steps: int) -> np.ndarray:
    """Return the steps of each size to the loss that `size` has after `steps`, given mean losses (n_sizes, n_lengths).

    Infinite where a size comes to rest above it.
    """
    goal, at = float(np.interp(np.log(size), np.log(sizes), curves[:, AT])), np.log(LENGTHS * steps)
    found = np.full(len(curves), np.inf)
    for k, curve in enumerate(np.minimum.accumulate(curves, axis=1)):
        if curve[-1] <= goal:
            j = int(np.argmax(curve <= goal))
            below = (curve[j - 1] - goal) / (curve[j - 1] - curve[j]) if j else 1.0
            found[k] = np.exp(at[j - 1] + below * (at[j] - at[j - 1]) if j else at[0])
    return found


def sweeps(wanted: list[str], rows: int, tried: list[int], steps: int, seeds: int) -> dict[str, Any]:
    """Sweep tables by name, or how names begin."""
    found: dict[str, Any] = {}
    trust = runpy.run_path(str(Path(__file__).with_name("bench_trust.py")))
    print(f"{'table':24}{'rows':>8}{'pilot':>7}{'sweep':>7}{'time':>7}{'fastest':>9}{'c':>11}{'error of a loss':>17}{'a':>10}")
    for name, make, target in trust["problems"]():
        if name.startswith("made") or not any(name.startswith(some) for some in wanted) or (table := make()) is None:
            continue
        table = table.slice(0, rows)
        held = [size for size in tried if size <= 0.8 * len(table)]
        one = found[name] = sweep(table, target, held, steps, seeds)
        print(f"{name:24}{one['rows']:8,}{one['pilot']:7}{one['sweep']:7}{one['time']:7.2f}{one['fastest']:9}"
              f"{one['c']:11.4g}{one['loss_se']:17.4g}{one['a']:10.4g}", flush=True)  # fmt: skip
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="accuracy,cost")
    parser.add_argument("--seeds", type=int, default=900)
    parser.add_argument("--rows", type=int, default=2_000_000, help="of the table whose cost is measured")
    parser.add_argument("--only", default="", help="tables to sweep, names or how they begin, by comma")
    parser.add_argument("--sweep-rows", type=int, default=20_000, help="at most so many of each table (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=128, help="of sweeps (default: %(default)s)")
    parser.add_argument("--sweep-sizes", default="16,64,256,1024")
    parser.add_argument("--sweep-seeds", type=int, default=30)
    parser.add_argument("--small", action="store_true", help="60 seeds, and no cost")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cases, found = options.cases.split(","), dict[str, Any]()
    if "accuracy" in cases:
        found |= accuracy(60 if options.small else options.seeds)
        print(
            f"{found['seeds']} seeds: a {found['a']:.4f} and c {found['c']:.3f} of the exact ones, losses within "
            f"{found['away']:.1f} standard errors, size {found['size']:g} times the exact one; of {found['pilots']} pilots of "
            f"three seeds {found['covered']:.1%} of the intervals hold c"
        )
    if "cost" in cases and not options.small:
        found["cost"] = cost(options.rows)
        print(f"five branches of one decode take {found['cost']:.2f} times as long as one run")
    if "sweep" in cases:
        sizes = [int(text) for text in options.sweep_sizes.split(",")]
        found["sweep"] = sweeps(options.only.split(","), options.sweep_rows, sizes, options.steps, options.sweep_seeds)
    if options.json:
        print(json.dumps({"results": found}))


if __name__ == "__main__":
    main()
