"""What does it cost to learn from few of the rows, where positives are rare? Variances, bias, probabilities, time.

    python scripts/bench_rare.py [--parts variance,wrong,calibration,time] [--replicates 400] [--small]

variance     replicates of 100,000 rows, 0.2 % of them positive: the trace of the variance of the weights over that of the fit
             to all rows, and the mean error in standard errors. Rows are thinned by the kernel of `--rare`, fitted by Newton's
             method in NumPy. Pilots are fits to the first tenth; `oracle` is the truth.
wrong        the same where the model leaves a square out: how far the mean of the estimates is from the minimum over 5 million
             rows, in standard errors. Weights and local case-control are right then, offsets alone are not.
calibration  `streamsgd.train` on 0.1 % positives: mean prediction over prevalence, and the calibration error beside that of the
             fit to all rows, on rows held out.
time         `streamsgd.train` on 5 million rows of 28 columns, 0.2 % positive: one plain pass, one thinned pass, and a thinned
             pass with 20 of polishing and standard errors.

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import expit

import streamsgd
from streamsgd.features.layout import Layout
from streamsgd.kernels.structs.block import new_scratch
from streamsgd.kernels.sums.offset import BASE
from streamsgd.kernels.sums.thin import LOCAL, N_SUMS, TARGETED, UNIFORM, Rule, thin

COLUMNS, SLOPE, INTERCEPT = 5, 0.8, -7.8
TRUTH = np.append(np.full(COLUMNS, SLOPE), INTERCEPT)

CASES = {
    "targeted c=1": (TARGETED, 1.0, False, False),
    "targeted c=5": (TARGETED, 5.0, False, False),
    "targeted c=20": (TARGETED, 20.0, False, False),
    "targeted c=20, weights": (TARGETED, 20.0, True, False),
    "uniform c=5": (UNIFORM, 5.0, False, False),
    "uniform c=20": (UNIFORM, 20.0, False, False),
    "uniform c=20, weights": (UNIFORM, 20.0, True, False),
    "local case-control, oracle": (LOCAL, 1.0, False, True),
    "local case-control": (LOCAL, 1.0, False, False),
    "local case-control c=5": (LOCAL, 5.0, False, False),
}
"""Rule, c, whether rows are weighted instead of offset, and whether the pilot is the truth."""


def newton(x: np.ndarray, y: np.ndarray, offset: Any = 0.0, weight: Any = 1.0) -> np.ndarray:
    """Return the minimum of the logistic loss over rows with offsets and weights, the intercept last."""
    design, weights = np.column_stack([x, np.ones(len(x))]), np.zeros(x.shape[1] + 1)
    share = np.average(y, weights=np.broadcast_to(weight, y.shape))
    weights[-1] = np.log(share / (1.0 - share)) - np.average(np.broadcast_to(offset, y.shape))
    for _ in range(50):
        p = expit(design @ weights + offset)
        step = np.linalg.solve(design.T @ (design * (weight * p * (1.0 - p))[:, None]), design.T @ (weight * (p - y)))
        weights = weights - step / max(1.0, np.abs(step).max())
        if np.abs(step).max() < 1e-9:
            break
    return weights


def thinned(x: np.ndarray, y: np.ndarray, rule: Rule, pilot: np.ndarray, key: int) -> tuple[np.ndarray, float]:
    """Return the fit to what the kernel leaves of the rows, and the share that it leaves."""
    block = Layout(x.shape[1]).allocate(len(x), "float64")
    block.rows.values[:, : x.shape[1]], block.y[:] = x, y
    starts, counts = np.zeros(1, np.int64), np.array([len(x)])
    thin(block, starts, counts, pilot, rule, np.uint64(key), np.zeros(N_SUMS), new_scratch(1, "float64", x.shape[1] + 1))
    rows = slice(int(starts[0]), int(starts[0] + counts[0]))
    code = block.y[rows]
    offset = np.where(np.abs(code) > 1.0, np.abs(code) - BASE, 0.0)
    fit = newton(block.rows.values[rows, : x.shape[1]], (code > 0.5).astype(float), offset, block.weight[rows])
    return fit, float(counts[0]) / len(x)


def rule_of(case: str, x: np.ndarray, y: np.ndarray) -> Rule:
    """Return the rule of a case, as a run would make it of these rows."""
    kind, c, weighs, _ = CASES[case]
    size = float(np.sqrt(1.0 + (x * x).sum(axis=1)).mean())
    return Rule(kind, c * y.mean() / (1.0 - y.mean()) if kind == UNIFORM else c, size, weighs, y.mean())


def replicates(n: int, n_rows: int, square: float, cases: list[str]) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Return the estimates of every case, (n, 6), and of the fit to all rows; and the shares of rows that were kept."""
    found: dict[str, list[np.ndarray]] = {case: [] for case in ["all rows", *cases]}
    shares = dict.fromkeys(cases, 0.0)
    for k in range(n):
        if k and not k % 50:
            print(f"  {k} replicates", file=sys.stderr, flush=True)
        rng = np.random.default_rng([k, n_rows])
        x = rng.normal(size=(n_rows, COLUMNS))
        y = (rng.random(n_rows) < expit(x @ TRUTH[:-1] + TRUTH[-1] + square * (x[:, 0] ** 2 - 1.0))).astype(float)
        found["all rows"].append(newton(x, y))
        first = n_rows // 10
        pilot = newton(x[:first], y[:first])
        for case in cases:
            fit, share = thinned(x, y, rule_of(case, x, y), TRUTH if CASES[case][3] else pilot, 1000 * k + 1)
            found[case].append(fit)
            shares[case] += share / n
    return {case: np.array(fits) for case, fits in found.items()}, shares


def variance(n: int, n_rows: int) -> dict[str, Any]:
    """Compare the variance of estimates with that of the fit to all rows, and their bias with their standard errors."""
    print(f"variance: {n} replicates of {n_rows:,} rows", flush=True)
    fits, shares = replicates(n, n_rows, 0.0, list(CASES))
    full, results = fits.pop("all rows"), {}
    for case, estimates in fits.items():
        # Bias beyond that of the fit to all rows, whose own is of the order of 1 / positives.
        away = estimates - full
        bias = float(np.abs(away.mean(axis=0) / (away.std(axis=0) / np.sqrt(n))).max())
        ratio = float(estimates.var(axis=0).sum() / full.var(axis=0).sum())
        results[case] = {"kept": shares[case], "ratio": ratio, "bias_in_errors": bias, "against_truth": _against(estimates)}
        print(f"  {case:30} kept {shares[case]:6.2%}  variance x {ratio:5.3f}  bias {bias:4.1f} s.e.", flush=True)
    results["all rows"] = {"against_truth": _against(full)}
    return results


def _against(estimates: np.ndarray) -> float:
    """Return the largest mean error of the estimates in its standard errors."""
    away = estimates - TRUTH
    return float(np.abs(away.mean(axis=0) / (away.std(axis=0) / np.sqrt(len(away)))).max())


def wrong(n: int, n_rows: int, n_population: int) -> dict[str, Any]:
    """Compare the mean of estimates of a model that leaves a square out with the minimum over the population."""
    print(f"wrong model: {n} replicates of {n_rows:,} rows, the population's minimum over {n_population:,}", flush=True)
    rng = np.random.default_rng(99)
    x = rng.normal(size=(n_population, COLUMNS))
    p = expit(x @ TRUTH[:-1] + TRUTH[-1] + 0.5 * (x[:, 0] ** 2 - 1.0))
    best = newton(x, p)  # probabilities for targets: the same minimum, with less noise
    del x, p
    cases = ["targeted c=20, weights", "uniform c=20, weights", "local case-control", "uniform c=5", "targeted c=5"]
    fits, _ = replicates(n, n_rows, 0.5, cases)
    full, results = fits.pop("all rows"), {}
    for case, estimates in fits.items():
        away = estimates - full  # of the same rows, whose chance and bias are the same
        errors = float(np.abs(away.mean(axis=0) / (away.std(axis=0) / np.sqrt(n))).max())
        results[case] = {"errors_from_minimum": errors, "slope_of_the_square": float(estimates.mean(axis=0)[0])}
        print(f"  {case:30} {errors:5.1f} s.e. from the fit to all rows", flush=True)
    results["population"] = {"minimum": best.tolist(), "all_rows": full.mean(axis=0).tolist()}
    return results


def write_rows(path: Path, n_rows: int, columns: int, intercept: float, seed: int = 0) -> float:
    """Write rows of float32 columns, of which five matter; return the share of positives."""
    positives, groups = 0.0, max(1, n_rows // 250_000)
    writer = None
    for k in range(groups):
        rng = np.random.default_rng([seed, k])
        x = rng.normal(size=(n_rows // groups, columns)).astype(np.float32)
        y = rng.random(len(x)) < expit(intercept + x[:, :COLUMNS] @ TRUTH[:-1])
        positives += float(y.sum())
        table = pa.table({**{f"x{j}": x[:, j] for j in range(columns)}, "y": y.astype(np.int8)})
        writer = writer or pq.ParquetWriter(path, table.schema, use_dictionary=False)
        writer.write_table(table)
    if writer is not None:
        writer.close()
    return positives / (n_rows // groups * groups)


SETTINGS: dict[str, Any] = {"epochs": 1, "memory": "1GB", "executor": "threads"}


def calibration(folder: Path, n_rows: int) -> dict[str, Any]:
    """Train with every rule, and look at predictions on rows held out."""
    train, held = folder / "train.parquet", folder / "held.parquet"
    write_rows(train, n_rows, COLUMNS, -8.3)
    prevalence = write_rows(held, n_rows, COLUMNS, -8.3, seed=1)
    print(f"calibration: {n_rows:,} rows, {prevalence:.3%} positive", flush=True)
    results: dict[str, Any] = {}
    rules = ("none", "targeted:c=20", "targeted:c=5,weights=ipw", "uniform:c=5", "local-case-control:c=5")
    for rule in (*rules, "balanced"):
        rare = {"class_weight": ["balanced"]} if rule == "balanced" else {"rare": rule}
        model = streamsgd.train(str(train), "y", **SETTINGS, polish=20, **rare)
        same, found = streamsgd.evaluate(model, str(train)), streamsgd.evaluate(model, str(held))
        keys = ("calibration_error", "log_loss", "average_precision", "mean_prediction")
        results[rule] = {
            "mean_over_prevalence": same["mean_prediction"] / same["prevalence"],
            "variance_ratio": model.metrics.get("rare", {}).get("variance_ratio"),
            **{key: found[key] for key in keys},
        }
        numbers = "  ".join(f"{key} {found[key]:.4g}" for key in keys)
        print(f"  {rule:28} mean/prevalence {results[rule]['mean_over_prevalence']:.4f}  held out: {numbers}", flush=True)
    return results


def timing(folder: Path, n_rows: int, repeat: int) -> dict[str, Any]:
    """Time one plain pass, one thinned pass, and a thinned pass with all that may follow."""
    path = folder / "wide.parquet"
    share = write_rows(path, n_rows, 28, -7.5)
    print(f"time: {n_rows:,} rows of 28 columns, {share:.2%} positive", flush=True)
    cases: dict[str, dict[str, Any]] = {
        "plain": {},
        "targeted": {"rare": "targeted:c=20"},
        "targeted, polish, errors": {"rare": "targeted:c=20", "polish": 20, "standard_errors": True},
        "plain, polish, errors": {"polish": 20, "standard_errors": True},
    }
    seconds: dict[str, list[float]] = {case: [] for case in cases}
    for case in [*cases] * repeat:
        began = time.perf_counter()
        streamsgd.train(str(path), "y", **SETTINGS, **cases[case])
        seconds[case].append(time.perf_counter() - began)
    best = {case: float(np.median(times)) for case, times in seconds.items()}
    for case, took in best.items():
        print(f"  {case:28} {took:6.2f} s, {took / best['plain']:.2f} of plain", flush=True)
    return {"seconds": best, "ratio": {case: took / best["plain"] for case, took in best.items()}}


def main() -> int:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="variance,wrong,calibration,time")
    parser.add_argument("--replicates", type=int, default=400)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--small", action="store_true", help="Sizes of seconds, whose numbers say little.")
    parser.add_argument("--scratch", help="Folder for data.")
    options = parser.parse_args()
    n, rows, population = options.replicates, options.rows, 5_000_000
    calibrated, timed, repeat = 2_000_000, 5_000_000, 3
    if options.small:
        n, rows, population, calibrated, timed, repeat = 12, 40_000, 200_000, 400_000, 400_000, 1
    folder = Path(tempfile.mkdtemp(dir=options.scratch))
    jobs = {
        "variance": lambda: variance(n, rows),
        "wrong": lambda: wrong(max(2, n // 2), rows, population),
        "calibration": lambda: calibration(folder, calibrated),
        "time": lambda: timing(folder, timed, repeat),
    }
    try:
        print(json.dumps({part: jobs[part]() for part in options.parts.split(",")}))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
