"""Do standard errors of averaged SGD say how far the weights scatter? Replicates of one pass, compared with the sandwich.

    python scripts/bench_averaging.py [--replicates 300] [--rows 64000] [--batches 1,8,64] [--models linear,logistic]

Every replicate draws new rows, learns them once with steps of rate t^-0.6, averages, and works out standard errors. Printed for
every coefficient: the variance of the replicates over the mean of the squared standard errors, which is 1 where the asymptotics
hold, and how often the 95 % interval holds the truth. `minimum` is the same of the exact minimum of each replicate, which
shows what chance does to so many replicates (a variance of 300 has a standard error of 8 %); `paired` is the first less the
second plus 1, free of most of that chance. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import numpy as np
import pyarrow as pa

import streamsgd

TRUTH = np.array([0.2, 0.5, -0.3, 0.1, -0.4])
"""The intercept first."""

SCALES, SHIFTS = np.array([1.0, 2.0, 0.5, 1.0]), np.array([0.0, 1.0, 0.0, -1.0])
"""Of the columns; the third and the fourth depend on one another."""

RATES = {"linear": {1: 0.3, 8: 0.8, 64: 1.2}, "logistic": {1: 1.5, 8: 4.5, 64: 8.0}}
"""The first learning rate by model and batch size, about as large as the first steps bear: at half of them the variance is up
to 7 % larger, at twice the logistic ones the mean is off by up to half a standard error."""

FROM = 0.02
"""The share of the rows after which averaging begins."""


def draw(model: str, replicate: int, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return columns (n_rows, 4) and targets; the errors of the linear model depend on the first column."""
    rng = np.random.default_rng([["linear", "logistic"].index(model), replicate])
    z = rng.normal(size=(n_rows, 4))
    z[:, 3] = 0.6 * z[:, 2] + 0.8 * z[:, 3]
    x = z * SCALES + SHIFTS
    score = TRUTH[0] + x @ TRUTH[1:]
    if model == "logistic":
        return x, (rng.random(n_rows) < 1.0 / (1.0 + np.exp(-score))).astype(np.float64)
    return x, score + rng.normal(size=n_rows) * (0.5 + np.abs(z[:, 0]))


def minimum(model: str, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the exact minimum and its standard errors by HC0, in plain NumPy."""
    design = np.column_stack([np.ones(len(x)), x])
    weights = np.zeros(design.shape[1])
    for _ in range(1 if model == "linear" else 12):
        score = design @ weights
        mean = score if model == "linear" else 1.0 / (1.0 + np.exp(-score))
        curvature = np.ones(len(x)) if model == "linear" else mean * (1.0 - mean)
        bread = np.linalg.inv(design.T @ (design * curvature[:, None]))
        weights = weights - bread @ (design.T @ (mean - y))
    score = design @ weights
    rest = y - (score if model == "linear" else 1.0 / (1.0 + np.exp(-score)))
    return weights, np.sqrt(np.diag(bread @ (design.T @ (design * rest[:, None] ** 2)) @ bread))


def averaged(model: str, x: np.ndarray, y: np.ndarray, batch: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the averaged weights of one pass and their standard errors, in units of the columns."""
    table = pa.table({**{f"x{j}": x[:, j] for j in range(x.shape[1])}, "y": y})
    found = streamsgd.train(
        table,
        "y",
        loss="squared" if model == "linear" else "logistic",
        optimizer="sgd",
        learning_rate=RATES[model][batch],
        schedule="inverse-scaling:power=0.6",
        batch_size=batch,
        epochs=1,
        average=FROM,
        standard_errors=True,
        transform="none",
        seed=seed,
        executor="inline",
        memory="2GB",
    )
    (weights, intercepts), (_, errors, of_intercepts) = found.coefficients(), found.standard_errors()
    return np.append(intercepts, weights[:, 0]), np.append(of_intercepts, errors[:, 0])


def ratios(found: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Return the variance of each coefficient over its mean squared standard error."""
    return found.var(axis=0, ddof=1) / (errors**2).mean(axis=0)


def coverage(found: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Return how often the 95 % intervals hold the truth."""
    return (np.abs(found - TRUTH) <= 1.959964 * errors).mean(axis=0)


def main() -> int:
    """Run and print; return 1 if a ratio, free of what chance does to the minimum too, is outside what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=300)
    parser.add_argument("--rows", type=int, default=64_000)
    parser.add_argument("--batches", default="1,8,64")
    parser.add_argument("--models", default="linear,logistic")
    parser.add_argument("--least", type=float, default=0.9, help="of a paired ratio")
    parser.add_argument("--most", type=float, default=1.15)
    options = parser.parse_args()
    batches, results, began = [int(b) for b in options.batches.split(",")], [], time.perf_counter()
    for model in options.models.split(","):
        exact, sgd = [], {b: [] for b in batches}
        for replicate in range(options.replicates):
            x, y = draw(model, replicate, options.rows)
            exact.append(minimum(model, x, y))
            for b in batches:
                sgd[b].append(averaged(model, x, y, b, replicate))
        best, of_best = (np.array(part) for part in zip(*exact, strict=True))
        base = ratios(best, of_best)
        print(f"{model}: {options.replicates} replicates of {options.rows:,} rows; intercept, then the columns")
        print(f"  {'minimum':12} ratio {_row(base)}   covered {_row(coverage(best, of_best))}")
        for b in batches:
            found, errors = (np.array(part) for part in zip(*sgd[b], strict=True))
            ratio, held = ratios(found, errors), coverage(found, errors)
            paired = 1.0 + (found.var(axis=0, ddof=1) - best.var(axis=0, ddof=1)) / (of_best**2).mean(axis=0)
            print(f"  {f'batch {b}':12} ratio {_row(ratio)}   covered {_row(held)}   paired {_row(paired)}", flush=True)
            results.append(
                {
                    "model": model,
                    "batch": b,
                    "ratio": ratio.tolist(),
                    "coverage": held.tolist(),
                    "paired": paired.tolist(),
                    "minimum": base.tolist(),
                    "error_to_hc0": (errors.mean(axis=0) / of_best.mean(axis=0)).tolist(),
                }
            )
    least, most = options.least, options.most
    within, pairs = (_within([r for result in results for r in result[key]], least, most) for key in ("ratio", "paired"))
    print(f"within {least:g} to {most:g}: {within} ratios, {pairs} paired; {time.perf_counter() - began:.0f} s")
    print(
        json.dumps(
            {
                "replicates": options.replicates,
                "rows": options.rows,
                "within": within,
                "paired_within": pairs,
                "results": results,
            }
        )
    )
    return int(pairs != "all")


def _within(values: list[float], least: float, most: float) -> str:
    outside = [value for value in values if not least <= value <= most]
    return f"all but {len(outside)} of {len(values)}" if outside else "all"


def _row(values: np.ndarray) -> str:
    return " ".join(f"{value:5.3f}" for value in values)


if __name__ == "__main__":
    sys.exit(main())
