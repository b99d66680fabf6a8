"""Pilots against the exact recursion of least squares and sweeps of real tables, and what five branches of one decode cost.

    python scripts/bench_pilot.py [--cases accuracy,cost,sweep] [--seeds N] [--rows N] [--only NAME,...] [--small] [--json]

Rows of two numbers, drawn with replacement, plain SGD at a constant rate: the mean loss after T steps of B rows is known
exactly (moments of the distance from the minimum). `a`, `c` are those of the pilot over those of the same fit to the exact
losses, `size` the recommended size over that by the exact ones, and `covered` the share of pilots of three seeds each whose
interval holds the exact c. `cost` is the time of five branches of one seed over as many rows in one decode, over that of
one run alone.

`sweep`: the columns of numbers of real tables, at the defaults of `streamsgd pilot`. The size that a pilot of three seeds
recommends against that by the same rule of a sweep of 30 other seeds. `time`: the time to the same loss, to which all sizes
come, of the size tried that is nearest to the pilot's `least_time`, over the least of all: steps by the mean curves of the
sweep, times its seconds of a step. `own`: the time of the recommended size to the loss that it has after these steps, over the
least of all.
"""

from __future__ import annotations

import argparse
import json
import runpy
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import streamsgd
from streamsgd.settings.make import make_settings
from streamsgd.training.prepare import prepare
from streamsgd.training.together import pilot_time
from streamsgd.training.together.pilot import Branch, Made, losses_of, run_pilot, run_seed
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
    settings = make_settings({**SETTINGS, "steps": STEPS, "batch_size": int(SIZES[-1])})
    each = [run_seed(table, settings, [Branch(b, None, STEPS, seed) for b in SIZES.tolist()])[0] for seed in range(seeds)]
    made = [one for some in each for one in some]
    losses = np.array(losses_of(prepare(table, settings), [one.model for one in made])).reshape(seeds, -1)
    truth, sizes = np.array([exact(x, y, int(b)) for b in SIZES]), SIZES.astype(float)
    fit = fit_losses(sizes, losses)
    a, c = straight_line(sizes, truth, (sizes / sizes[0]) ** fit.fall)
    errors = losses.std(axis=0, ddof=1) / np.sqrt(seeds)
    groups = [fit_losses(sizes, losses[k : k + 3]) for k in range(0, seeds - 2, 3)]
    held = [one.interval[0] <= c <= one.interval[1] for one in groups if one.interval is not None]
    by_truth = recommended(fit_losses(sizes, truth[None, :])._replace(a=a, c=c), sizes)
    return {
        "seeds": seeds,
        "a": fit.a / a,
        "c": fit.c / c,
        "away": float(np.max(np.abs(losses.mean(axis=0) - truth) / errors)),
        "size": recommended(fit._replace(loss_se=0.0), sizes) / by_truth,
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

FURTHER = (2, 4)
"""Times the steps after which sizes are compared: how long one may take to the loss of another."""


class Swept(NamedTuple):
    """What a sweep found."""

    sizes: np.ndarray
    lengths: list[int]
    losses: np.ndarray
    """On held-out rows, (n_seeds, n_sizes, n_lengths)."""
    before: float
    seconds: np.ndarray
    """Of a step, (n_sizes,), as fitted."""

    def at(self, steps: int) -> np.ndarray:
        """Return the losses after so many steps, (n_seeds, n_sizes)."""
        found: np.ndarray = self.losses[:, :, self.lengths.index(steps)]
        return found


def sweep(table: pa.Table, target: str, tried: list[int], steps: int, seeds: int) -> dict[str, Any]:
    """Compare what a pilot recommends with what a sweep of other seeds does."""
    given = {"target": target, "memory": "2GB", "executor": "inline", "validation": 0.1, **({"steps": steps} if steps else {})}
    found, _made = run_pilot(table, given, tried)
    steps = found["steps"]
    swept = sweep_of(table, {**given, "batch_size": tried[-1], "steps": steps}, tried, seeds)
    by_sweep, by_pilot = recommended(fit_losses(swept.sizes, swept.at(steps)), swept.sizes), int(found["recommended"])
    times, chosen = times_to_one_loss(swept, steps), nearest(swept.sizes, found["least_time"])
    return {
        "rows": len(table),
        "steps": steps,
        "pilot": by_pilot,
        "sweep": by_sweep,
        "ratio": by_pilot / by_sweep,
        "least_time": found["least_time"],
        "fastest": None if times is None else tried[int(np.argmin(times))],
        "time": 1.0 if times is None else float(times[chosen] / times.min()),
        "own_time": own_time(swept, steps, by_pilot),
        "critical_size": found["critical_size"],
        "at_rest": found["at_rest"],
        "c": found["fit"]["c"],
        "interval": found["fit"]["interval"],
        "loss_se": found["fit"]["loss_se"],
        "a": found["fit"]["a"],
        "before": swept.before,
    }


def sweep_of(table: pa.Table, given: dict[str, Any], tried: list[int], seeds: int) -> Swept:
    """Learn at all sizes, for all seeds and lengths."""
    steps, settings, made, start = given["steps"], make_settings(given), list[Made](), None
    lengths = [*pilot_time.on_the_way(steps), steps, *(k * steps for k in FURTHER)]
    for seed in range(100, 100 + seeds):
        long = [max(1, steps * tried[-1] // size) for size in tried]  # whose time is measured, as in a pilot
        branches = [Branch(size, None, n, seed) for size, last in zip(tried, long, strict=True) for n in (*lengths, last)]
        now, start = run_seed(table, settings, branches)
        made += now
    losses = np.array(losses_of(prepare(table, settings), [*(one.model for one in made), start]))
    sizes, of_all = np.array(tried, float), losses[:-1].reshape(seeds, len(tried), -1)[:, :, :-1]
    reports = {size: [one.report for one in made if one.report and one.branch.batch_size == size] for size in tried}
    each = pilot_time.step_seconds(reports)
    alpha, beta = pilot_time.relative_line(sizes, np.array(list(each.values())))
    return Swept(sizes, lengths, of_all, float(losses[-1]), alpha + beta * sizes)


def times_to_one_loss(swept: Swept, steps: int) -> np.ndarray | None:
    """Return the seconds of each size to the loss that all come to; None where one gained nothing."""
    until = swept.lengths.index(steps) + 1
    same = pilot_time.same_loss(swept.before, swept.sizes, swept.lengths[:until], swept.losses.mean(axis=0)[:, :until])
    return None if same is None else same.steps * swept.seconds


def own_time(swept: Swept, steps: int, size: int) -> float:
    """Return the time of a size to the loss that it has after these steps, over the least of all; 1 where nothing is gained."""
    k, curves = nearest(swept.sizes, size), swept.losses.mean(axis=0)
    goal = float(curves[k, swept.lengths.index(steps)])
    if goal >= swept.before:
        return 1.0
    taken = np.array([
        pilot_time.steps_to(goal, swept.before, swept.lengths, curve) if pilot_time.falling(curve)[-1] <= goal else np.inf
        for curve in curves
    ])  # fmt: skip
    times = taken * swept.seconds
    return float(times[k] / times.min())


def nearest(sizes: np.ndarray, size: float | None) -> int:
    """Return the number of the size tried that is nearest."""
    return 0 if size is None else int(np.argmin(np.abs(np.log(sizes) - np.log(size))))


def sweeps(wanted: list[str], rows: int, tried: list[int], steps: int, seeds: int) -> dict[str, Any]:
    """Sweep tables by name, or how names begin."""
    found: dict[str, Any] = {}
    trust = runpy.run_path(str(Path(__file__).with_name("bench_trust.py")))
    heads = {"rows": 7, "steps": 6, "c": 25, "pilot": 7, "sweep": 7, "least time": 12, "fastest": 9, "time": 6, "own": 6}
    print(f"{'table':22}" + "".join(name.rjust(width) for name, width in heads.items()))
    for name, make, target in trust["problems"]():
        if name.startswith("made") or not any(name.startswith(some) for some in wanted) or (table := make()) is None:
            continue
        table = table.slice(0, rows)
        one = found[name] = sweep(table, target, [size for size in tried if size <= 0.8 * len(table)], steps, seeds)
        c = "{:.3g} ({:.3g} to {:.3g})".format(one["c"], *one["interval"])
        least = "-" if one["least_time"] is None else f"{one['least_time']:.0f}"
        print(f"{name:22}{one['rows']:7,}{one['steps']:6}{c:>25}{one['pilot']:7}{one['sweep']:7}{least:>12}"
              f"{one['fastest'] or '-':>9}{one['time']:6.2f}{one['own_time']:6.2f}", flush=True)  # fmt: skip
    if len(found) > 1:
        twice = sum(0.5 <= one["ratio"] <= 2.0 for one in found.values())
        soon = sum(one["time"] <= 1.15 for one in found.values())
        print(f"of {len(found)} tables: {twice} are recommended a size within a factor of 2 of the sweep's")
        print(f"on {soon} the size of least time is within 15 % of the fastest")
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="accuracy,cost")
    parser.add_argument("--seeds", type=int, default=900)
    parser.add_argument("--rows", type=int, default=2_000_000, help="of the table whose cost is measured")
    parser.add_argument("--only", default="", help="tables to sweep, names or how they begin, by comma")
    parser.add_argument("--sweep-rows", type=int, default=20_000, help="at most so many of each table (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=0, help="of sweeps; those of the pilot if 0 (default: %(default)s)")
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
