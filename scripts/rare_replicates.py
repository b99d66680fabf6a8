"""Replicates of rows with rare positives, thinned by the kernel that thins, fitted by Newton's method; and their bias."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from scipy.special import expit

from streamsgd.features.layout import Layout
from streamsgd.kernels.structs.block import new_scratch
from streamsgd.kernels.sums.offset import BASE
from streamsgd.kernels.sums.thin import LOCAL, N_SUMS, TARGETED, UNIFORM, Rule, thin
from streamsgd.training.classes.rare import FEWEST_POSITIVES
from streamsgd.training.tasks.pilot import MEASURED_ROWS, shift_of_pilot

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

BIASED = ["targeted c=5", "targeted c=20", "targeted c=20, weights", "uniform c=5", "uniform c=20", "uniform c=20, weights"]
"""Whose bias is looked at of many rows."""


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


def expected_bias(x: np.ndarray, y: np.ndarray, weights: np.ndarray, offset: Any = 0.0, weight: Any = 1.0) -> np.ndarray:
    """Return the bias of such a minimum, of the order of 1 / positives, that is known of all of them.

    Of maximum likelihood b = -1/2 A^-1 sum p q (1 - 2 p) (x' A^-1 x) x, A = sum p q x x' (Cox and Snell 1968, JRSS B 30;
    Firth 1993, Biometrika 80). Of rows with weights h, with their spread V in place of A^-1 and what slope and
    curvature of a row have in common, b = -A^-1 sum (h p q (x' A^-1 x) h (y - p) + 1/2 h p q (1 - 2 p) (x' V x)) x (Rilstone,
    Srivastava and Ullah 1996, Journal of Econometrics 75).
    """
    design = np.column_stack([x, np.ones(len(x))])
    p = expit(design @ weights + offset)
    bent, slope = weight * p * (1.0 - p), weight * (y - p)
    inverse = np.linalg.inv(design.T @ (design * bent[:, None]))
    reach = ((design @ inverse) * design).sum(axis=1)
    if np.ndim(weight) == 0 or (weight == 1.0).all():
        return -0.5 * inverse @ (design.T @ (bent * (1.0 - 2.0 * p) * reach))
    spread = inverse @ (design.T @ (design * (slope * slope)[:, None])) @ inverse
    wide = ((design @ spread) * design).sum(axis=1)
    return -inverse @ (design.T @ (bent * reach * slope + 0.5 * bent * (1.0 - 2.0 * p) * wide))


def fitted(x: np.ndarray, y: np.ndarray, offset: Any = 0.0, weight: Any = 1.0) -> np.ndarray:
    """Return the minimum and its expected bias, (2, n_weights)."""
    weights = newton(x, y, offset, weight)
    return np.stack([weights, expected_bias(x, y, weights, offset, weight)])


def thinned(x: np.ndarray, y: np.ndarray, rule: Rule, pilot: np.ndarray, key: int) -> tuple[np.ndarray, float]:
    """Return the fit to what the kernel leaves of the rows, as of `fitted`, and the share that it leaves."""
    block = Layout(x.shape[1]).allocate(len(x), "float64")
    block.rows.values[:, : x.shape[1]], block.y[:] = x, y
    starts, counts = np.zeros(1, np.int64), np.array([len(x)])
    scratch = new_scratch(1, "float64", x.shape[1] + 1)
    thin(block, starts, counts, starts + counts, pilot, rule, np.uint64(key), np.zeros(N_SUMS), scratch)
    rows = slice(int(starts[0]), int(starts[0] + counts[0]))
    code = block.y[rows]
    offset = np.where(np.abs(code) > 1.0, np.abs(code) - BASE, 0.0)
    fit = fitted(block.rows.values[rows, : x.shape[1]], (code > 0.5).astype(float), offset, block.weight[rows])
    return fit, float(counts[0]) / len(x)


def rule_of(case: str, x: np.ndarray, y: np.ndarray) -> Rule:
    """Return the rule of a case, as a run would make it of these rows."""
    kind, c, weighs, _ = CASES[case]
    size = float(np.sqrt(1.0 + (x * x).sum(axis=1)).mean())
    return Rule(kind, c * y.mean() / (1.0 - y.mean()) if kind == UNIFORM else c, size, weighs, y.mean())


def moved(pilot: np.ndarray, rule: Rule, x: np.ndarray, y: np.ndarray, share: float) -> np.ndarray:
    """Return a pilot with the intercept that a run gives it, by the first of these rows, which it has not learned, if any."""
    if not len(x):
        return pilot
    x, y = x[:MEASURED_ROWS], y[:MEASURED_ROWS]
    scores, lengths = x @ pilot[:-1] + pilot[-1], np.sqrt(1.0 + (x * x).sum(axis=1))
    return np.append(pilot[:-1], pilot[-1] + shift_of_pilot(rule, share, scores, lengths, y > 0.5))


def replicates(n: int, n_rows: int, square: float, cases: list[str]) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Return fits of every case and to all rows, (n, 2, 6), as of `fitted`; and the shares of rows that were kept."""
    found: dict[str, list[np.ndarray]] = {case: [] for case in ["all rows", *cases]}
    shares = dict.fromkeys(cases, 0.0)
    for k in range(n):
        if k and not k % 50:
            print(f"  {k} replicates", file=sys.stderr, flush=True)
        rng = np.random.default_rng([k, n_rows])
        x = rng.normal(size=(n_rows, COLUMNS))
        y = (rng.random(n_rows) < expit(x @ TRUTH[:-1] + TRUTH[-1] + square * (x[:, 0] ** 2 - 1.0))).astype(float)
        found["all rows"].append(fitted(x, y))
        first = max(n_rows // 10, int(np.searchsorted(np.cumsum(y), FEWEST_POSITIVES)) + 1)
        pilot = newton(x[:first], y[:first])
        for case in cases:
            rule = rule_of(case, x, y)
            by = TRUTH if CASES[case][3] else moved(pilot, rule, x[first:], y[first:], y.mean())
            fit, share = thinned(x, y, rule, by, 1000 * k + 1)
            found[case].append(fit)
            shares[case] += share / n
    return {case: np.array(fits) for case, fits in found.items()}, shares


def variance(n: int, n_rows: int, cases: list[str] | None = None) -> dict[str, Any]:
    """Compare the variance of estimates with that of the fit to all rows, and their bias with its standard errors.

    Bias is what estimates have beyond the fit to all rows of the same replicate; and the same of estimates of which the bias
    that maximum likelihood is known to have, for its number of positives, was subtracted.
    """
    print(f"variance: {n} replicates of {n_rows:,} rows; bias beyond the fit to all rows, as it is / less what is expected")
    fits, shares = replicates(n, n_rows, 0.0, cases or list(CASES))
    full, results = fits.pop("all rows"), {}
    for case, fit in fits.items():
        away = fit - full
        ratio = float(fit[:, 0].var(axis=0).sum() / full[:, 0].var(axis=0).sum())
        biases = {"bias_in_errors": in_errors(away[:, 0]), "beyond_expected": in_errors(away[:, 0] - away[:, 1])}
        results[case] = {"kept": shares[case], "ratio": ratio, **biases, **_against_truth(fit)}
        said = " / ".join(f"{bias:4.1f}" for bias in biases.values())
        print(f"  {case:30} kept {shares[case]:6.2%}  variance x {ratio:5.3f}  bias {said} s.e.", flush=True)
    results["all rows"] = _against_truth(full)
    said = "  all rows, against the truth: {against_truth:.1f} / {beyond_expected_of_truth:.1f} s.e."
    print(said.format(**results["all rows"]), flush=True)
    return results


def in_errors(away: np.ndarray) -> float:
    """Return the largest mean of the columns, (n, n_weights), in its standard errors."""
    return float(np.abs(away.mean(axis=0) / (away.std(axis=0) / np.sqrt(len(away)))).max())


def _against_truth(fit: np.ndarray) -> dict[str, float]:
    away = fit[:, 0] - TRUTH
    return {"against_truth": in_errors(away), "beyond_expected_of_truth": in_errors(away - fit[:, 1])}


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
        errors = in_errors(estimates[:, 0] - full[:, 0])  # of the same rows, whose chance and bias are the same
        results[case] = {"errors_from_minimum": errors, "slope_of_the_square": float(estimates[:, 0].mean(axis=0)[0])}
        print(f"  {case:30} {errors:5.1f} s.e. from the fit to all rows", flush=True)
    results["population"] = {"minimum": best.tolist(), "all_rows": full[:, 0].mean(axis=0).tolist()}
    return results
