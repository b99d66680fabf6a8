"""What does it cost to learn from few of the rows, where positives are rare? Variances, bias, probabilities, time, real data.

    python scripts/bench_rare.py [--parts variance,bias,wrong,calibration,time,real] [--replicates 400]
        [--small] [--folder DIR] [--into PAGE]

variance     replicates of 100,000 rows, 0.2 % of them positive: the trace of the variance of the weights over that of the fit
             to all rows, and the mean error in standard errors. Rows are thinned by the kernel of `--rare`, fitted by Newton's
             method in NumPy. Pilots are fits to the first tenth, or to more rows until 100 were positive, as in a run; `oracle`
             is the truth. Bias is shown as it is, and less what maximum likelihood is known to have of so few positives.
             `--rows` for more.
bias         the same of a million rows, where little of that bias is left.
wrong        the same where the model leaves a square out: how far the mean of the estimates is from the minimum over 5 million
             rows, in standard errors. Weights and local case-control are right then, offsets alone are not.
calibration  `streamsgd.train` on 0.1 % positives by every remedy: mean prediction over prevalence, and the calibration error
             beside that of the fit to all rows, on rows held out, with the standard error of the difference by bootstrap.
time         `streamsgd.train` on 5 million rows of 28 columns, 0.2 % positive: one plain pass, one thinned pass, and a thinned
             pass with 20 of polishing and standard errors; `--long` adds a plain pass with 20 of polishing.
real         held-out log loss and average precision with and without thinning, on network attacks of KDD 1999, bank calls,
             flights and a click log of 0.2 % clicks; differences in their standard errors, of `--seeds` seeds. `--into
             docs/rare.md` puts what was measured into the table of that page.

`--folder` keeps the data of `time` and `real` for the next run. The last line is JSON.
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
from rare_real import SHARED, real
from rare_replicates import BIASED, COLUMNS, TRUTH, variance, wrong
from scipy.special import expit

import streamsgd


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

# --- probabilities

GROUPS, RESAMPLES = 20, 100

REMEDIES: dict[str, dict[str, Any]] = {
    "none": {},
    "targeted:c=20": {"rare": "targeted:c=20"},
    "targeted:c=20,weights=ipw": {"rare": "targeted:c=20,weights=ipw"},
    "uniform:c=20": {"rare": "uniform:c=20"},
    "local-case-control:c=1": {"rare": "local-case-control:c=1"},
    "local-case-control:c=5": {"rare": "local-case-control:c=5"},
    "class weights": {"class_weight": ["balanced"]},
    "focal, platt": {"loss": "focal:gamma=2,alpha=.25", "recalibrate": "platt", "validation": 0.5},
    "focal, isotonic": {"loss": "focal:gamma=2,alpha=.25", "recalibrate": "isotonic", "validation": 0.5},
    "adjusted, platt": {"loss": "logistic:adjust=1", "recalibrate": "platt", "validation": 0.5},
}
"""What may be done where positives are rare; `none` is the fit to all rows."""


def error_of_groups(groups: np.ndarray, p: np.ndarray, y: np.ndarray, times: np.ndarray) -> float:
    """Return the calibration error of rows that come so many times: mean over groups of how far they are off, by their rows."""
    off = np.bincount(groups, times * (p - y), GROUPS)
    return float(np.abs(off).sum() / times.sum())


def resampled_errors(found: dict[str, np.ndarray], y: np.ndarray) -> dict[str, np.ndarray]:
    """Return calibration errors of each, (1 + RESAMPLES,): of the rows, then of rows drawn again, the same for all."""
    groups = {name: (np.argsort(np.argsort(p)) * GROUPS // len(p)).astype(np.int64) for name, p in found.items()}
    errors: dict[str, list[float]] = {name: [] for name in found}
    for k in range(1 + RESAMPLES):
        times = np.random.default_rng([k, 18]).poisson(1.0, len(y)).astype(float) if k else np.ones(len(y))
        for name, p in found.items():
            errors[name].append(error_of_groups(groups[name], p, y, times))
    return {name: np.array(values) for name, values in errors.items()}


def calibration(folder: Path, n_rows: int, intercept: float = -8.3) -> dict[str, Any]:
    """Train with every remedy, and look at predictions on rows held out."""
    train, held = folder / "train.parquet", folder / "held.parquet"
    write_rows(train, n_rows, COLUMNS, intercept)
    prevalence = write_rows(held, n_rows, COLUMNS, intercept, seed=1)
    print(f"calibration: {n_rows:,} rows, {prevalence:.3%} positive", flush=True)
    found, results = {}, {}
    for name, remedy in REMEDIES.items():
        model = streamsgd.train(str(train), "y", **SETTINGS, **{"polish": 20, "validation": "none", **remedy})
        p = model.predict_proba(str(train))[:, 1]
        y = pq.read_table(train, columns=["y"])["y"].to_numpy()
        # A map is fitted to held-out rows only, whose share of positives is known so well; nothing fits that of other weights.
        known = np.inf if "class_weight" not in remedy else float(y.sum())
        known = float(model.metrics.get("recalibration", {}).get("positives", known))
        results[name] = {"mean_over_prevalence": float(p.mean() / y.mean()), "its_error": float(known**-0.5)}
        found[name] = model.predict_proba(str(held))[:, 1]
    errors = resampled_errors(found, pq.read_table(held, columns=["y"])["y"].to_numpy().astype(float))
    for name, values in errors.items():
        away = values - errors["none"]
        told = {"error": float(values[0]), "ratio": float(values[0] / errors["none"][0])}
        results[name] |= told | {"beyond": float(away[0] / max(away[1:].std(), 1e-300))}
        said = "mean/prevalence {mean_over_prevalence:.4f} (+- {its_error:.4f})  off {error:.3g}, x {ratio:.3f}, {beyond:+.1f}"
        print(f"  {name:28} {said.format(**results[name])}", flush=True)
    results["class weights"]["undone_to"] = undone_to(train, held)
    print(f"  class weights are undone to {results['class weights']['undone_to']:.2g} on log-odds")
    return results


def undone_to(train: Path, held: Path) -> float:
    """Return how far log-odds of a model that undid weights of classes are from those of one that did not, less the shift."""
    settings = {**SETTINGS, "precision": "float64", "class_weight": ["balanced"]}
    undone, kept = (streamsgd.train(str(train), "y", **settings, keep_weights=keep) for keep in (False, True))
    weights = undone.provenance["class_weights"]
    scores = [np.asarray(model.decision_function(str(held))).ravel() for model in (undone, kept)]
    return float(np.abs(scores[0] - (scores[1] - np.log(weights[1] / weights[0]))).max())


# --- time


def timing(folder: Path, n_rows: int, repeat: int, *, long: bool) -> dict[str, Any]:
    """Time one plain pass, one thinned pass, and a thinned pass with all that may follow, in turn."""
    path = folder / f"wide{n_rows}.parquet"
    if not path.exists():
        write_rows(path, n_rows, 28, -7.8)
    cases: dict[str, dict[str, Any]] = {
        "plain": {},
        "targeted": {"rare": "targeted:c=20"},
        "targeted, polish, errors": {"rare": "targeted:c=20", "polish": 20, "standard_errors": True},
    }
    if long:
        cases["plain, polish, errors"] = {"polish": 20, "standard_errors": True}
    print(f"time: {n_rows:,} rows of 28 columns, {repeat} runs in turn; seconds and processor seconds are medians", flush=True)
    walls: dict[str, list[float]] = {case: [] for case in cases}
    cpus: dict[str, list[float]] = {case: [] for case in cases}
    for given in cases.values():  # kernels are compiled
        streamsgd.train(str(path), "y", **SETTINGS, **{**given, "polish": min(1, given.get("polish", 0))})
    for case in [*cases] * repeat:
        began, cpu = time.perf_counter(), time.process_time()
        streamsgd.train(str(path), "y", **SETTINGS, **cases[case])
        walls[case].append(time.perf_counter() - began)
        cpus[case].append(time.process_time() - cpu)
    results = {}
    for case in cases:
        ratios = np.array(walls[case]) / np.array(walls["plain"])
        seconds, cpu = float(np.median(walls[case])), float(np.median(cpus[case]))
        results[case] = {"seconds": seconds, "processor": cpu, "ratio": float(np.median(ratios)), "ratios": ratios.tolist()}
        times = f"{np.median(ratios):.2f} of plain ({ratios.min():.2f} to {ratios.max():.2f})"
        print(f"  {case:28} {seconds:6.2f} s, {cpu:6.2f} of processors; {times}", flush=True)
    return results


def main() -> int:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="variance,bias,wrong,calibration,time,real")
    parser.add_argument("--replicates", type=int, default=400)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--small", action="store_true", help="Sizes of seconds, whose numbers say little.")
    parser.add_argument("--long", action="store_true", help="Also time a plain pass with 20 of polishing.")
    parser.add_argument("--only", default="", help="Data sets of `real`, by semicolon, or how their names begin.")
    parser.add_argument("--seeds", type=int, default=3, help="Of `real`.")
    parser.add_argument("--into", type=Path, help="A page whose table is to have what `real` measured.")
    parser.add_argument("--data", type=Path, default=SHARED, help="Folder of the raw files of `real`.")
    parser.add_argument("--folder", type=Path, help="Where data are, or will be.")
    options = parser.parse_args()
    n, rows, population = options.replicates, options.rows, 5_000_000
    calibrated, timed, repeat, many = (2_000_000, -8.3), 5_000_000, 5, 1_000_000
    if options.small:
        n, rows, population, calibrated, timed, repeat, many = 12, 40_000, 200_000, (120_000, -5.5), 400_000, 1, 60_000
    folder = options.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    jobs = {
        "variance": lambda: variance(n, rows),
        "bias": lambda: variance(n, many, BIASED),
        "wrong": lambda: wrong(max(2, n // 2), rows, population),
        "calibration": lambda: calibration(folder, *calibrated),
        "time": lambda: timing(folder, timed, repeat, long=options.long),
        "real": lambda: real(
            options.data, folder, options.only.split(";"), small=options.small, seeds=options.seeds, into=options.into
        ),
    }
    try:
        print(json.dumps({part: jobs[part]() for part in options.parts.split(",")}))
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
