"""Draws from posteriors, against exact laws, other samplers, and replicates.

    python scripts/bench_posterior.py [--only linear,well,nuts,real,...] [--small] [--data FOLDER] [--log FILE]

linear       every variance of a walk over that of the exact discrete equation, sgld-cv, sgld and constant-sgd; sgld-cv over the
             posterior's own
well         total variation between a histogram of chains in a double well and exp(-U/T), by step, and the same against the
             stationary law of Euler's chain itself (a transition matrix)
nuts         a logistic posterior against NUTS of numpyro, and R-hat and effective sizes against ArviZ (both optional)
real         flights, columns of numbers: standard deviations over those of the inverse Fisher information, passes, memory
calibration  simulation-based: ranks of the true weights among draws, over data sets of the prior
coverage     how often standard errors of predictions hold the mean, with --polish and with --average, over replicates
conformal    mean coverage of intervals and sets of 90 % over splits of three real tables, and the rank error
speed        seconds of predict with --intervals over those without

The last line is one JSON object; the exit code is 1 where a promise is not kept.
"""

from __future__ import annotations

import argparse
import json
import math
import runpy
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import streamsgd
from streamsgd.kernels.learn.langevin import Center, Chain, Law, walk
from streamsgd.kernels.structs.block import Block, new_scratch
from streamsgd.kernels.structs.rows import Dense

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.model.model import Model
    from streamsgd.model.posterior.draws import Draws

ROOT = Path(__file__).resolve().parents[1]
USUAL: dict[str, Any] = {"memory": "1GB", "polish": 20, "epochs": 1, "precision": "float64"}
NORMAL = "normal:sd=1"
TRUE = (
    *(0.5, -1.0, 0.75, 0.0, 0.25, -0.5, 1.0, -0.25, 0.1, -0.1),
    0.3,
)
"""Weights of the logistic rows, the intercept last."""


def draws_of(model: Model) -> Draws:
    """Return the draws, which there are."""
    if model.draws is None:
        raise AssertionError("sample kept no draws")
    return model.draws


def table_of(x: np.ndarray, y: Any) -> pa.Table:
    """Return columns x0, x1 ... and y."""
    return pa.table({**{f"x{j}": x[:, j] for j in range(x.shape[1])}, "y": y})


def encoded(model: Model, table: pa.Table) -> np.ndarray:
    """Return the rows of numbers as the model sees them, the intercept's 1 last."""
    block, _ = model.encode(table)
    return np.column_stack([block.rows.values[:, : model.encoding.width], np.ones(table.num_rows)]).astype(np.float64)


# --- linear: the exact equation


def linear(*, small: bool, **_options: Any) -> dict[str, Any]:
    """Compare variances of walks with their exact stationary law."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 3))
    x[:, 1] += 0.8 * x[:, 0]
    y = x @ [1.0, -0.5, 0.25] + 0.5 + rng.normal(size=400)
    steps = 100_000 if small else 400_000
    found: dict[str, Any] = {"steps": 4 * steps}
    for method, h, batch in (("sgld-cv", 0.02, 20), ("sgld", 0.05, 10), ("constant-sgd", 0.1, 20)):
        spec = f"{method}:step={h},batch={batch},steps={steps},burn_in=1000,thin=1"
        model = streamsgd.sample(table_of(x, y), "y", method=spec, prior=NORMAL, **USUAL)
        rows, noise = encoded(model, table_of(x, y)), model.metrics["posterior"]["noise_variance"]
        truth = np.linalg.inv(rows.T @ rows / noise + np.diag([1.0, 1.0, 1.0, 0.0]))
        residuals = rows @ (truth @ rows.T @ (y - model.target.shift) * model.target.scale / noise)
        residuals -= (y - model.target.shift) * model.target.scale
        law = stationary(truth, rows, residuals, noise, h, batch, plain=method != "sgld-cv", noisy=method != "constant-sgd")
        variances = draws_of(model).variance
        ratios = np.append(variances / np.diagonal(law), variances.sum() / np.trace(law))
        found[method] = {"of_equation": [float(ratios.min()), float(ratios.max())]}
        limit = 0.05 if method == "constant-sgd" else 0.04
        found[method]["kept"] = bool((np.abs(ratios - 1.0) < (2 * limit if small else limit)).all())
        if method == "sgld-cv":
            own = variances / np.diagonal(truth)
            found[method]["of_posterior"] = [float(own.min()), float(own.max())]
            found[method]["kept"] &= bool((np.abs(own - 1.0) < (0.08 if small else 0.04)).all())
    found["kept"] = all(found[method]["kept"] for method in ("sgld-cv", "sgld", "constant-sgd"))
    return found


def stationary(
    p: np.ndarray, rows: np.ndarray, residuals: np.ndarray, noise: float, h: float, batch: int, *, plain: bool, noisy: bool
) -> np.ndarray:
    """Solve S = (I - hPL) S (I - hPL)' + h^2/b (E[A S A'] - mean + C) + 2hP, with P the inverse of L."""
    n, d = rows.shape
    moves = np.einsum("ab,ib,ic->iac", p, rows, rows) * n / noise
    mean = moves.mean(axis=0)
    spread = np.einsum("iab,icd->acbd", moves, moves) / n - np.einsum("ab,cd->acbd", mean, mean)
    kicks = p @ np.cov((rows * residuals[:, None] * n / noise).T, bias=True) @ p
    right = 2.0 * h * p * noisy + h * h / batch * kicks * plain
    left = np.eye(d * d) * (1.0 - (1.0 - h) ** 2) - h * h / batch * spread.reshape(d * d, d * d)
    return np.linalg.solve(left, right.ravel()).reshape(d, d)


# --- a double well


class Well(NamedTuple):
    """U(s) = s^4 / 4 - s^2 / 2."""

    task = "regression"
    likelihood = "exact"
    source = ""

    def value(loss, y, score):  # noqa: ARG002
        return 0.25 * score**4 - 0.5 * score * score

    def slope(loss, y, score):  # noqa: ARG002
        return score * score * score - score

    def mean(loss, score):
        return score


EDGES = np.linspace(-2.5, 2.5, 101)
TEMPERATURE = 0.25


def well(*, small: bool, **_options: Any) -> dict[str, Any]:
    """Compare histograms of many chains with the Boltzmann law, and with that of Euler's chain."""
    found: dict[str, Any] = {}
    fine = np.linspace(-2.5, 2.5, 100_001)
    mass = np.exp(-(0.25 * fine**4 - 0.5 * fine**2) / TEMPERATURE)
    law = np.add.reduceat(mass[:-1], np.arange(0, 100_000, 1000))
    law /= law.sum()
    steps = (0.04, 0.02) if small else (0.04, 0.02, 0.005)
    for h in steps:
        seen = histogram(h, chains=8 if small else 64, time_=400_000.0 if small else 4_000_000.0)
        euler = euler_law(h)
        found[str(h)] = {"boltzmann": 0.5 * float(np.abs(seen - law).sum()), "euler": 0.5 * float(np.abs(seen - euler).sum())}
        found[str(h)]["euler_itself"] = 0.5 * float(np.abs(euler - law).sum())
    found["ratio"] = found["0.04"]["boltzmann"] / found["0.02"]["boltzmann"]
    kept = all(found[str(h)]["euler"] <= (0.01 if small else 0.004) for h in steps)
    if not small:
        kept = kept and found["0.005"]["boltzmann"] <= 0.006 and 1.7 <= found["ratio"] <= 2.3
    found["kept"] = bool(kept)
    return found


def histogram(h: float, chains: int, time_: float) -> np.ndarray:
    """Return how often chains with the whole gradient, of one row, are in each bin."""
    loss, counts, thin = Well(), np.zeros(len(EDGES) - 1), max(1, round(0.1 / h))
    values = np.array([[0.0, 1.0], [0.0, 1.0]])
    block = Block(Dense(values), values[:, 0], values[:, 1])
    center = Center(np.zeros(1), np.zeros(1), np.zeros(0), np.ones((1, 1)))
    steps = int(time_ / chains / h)
    law = Law(h, 1.0, math.sqrt(2.0 * h * TEMPERATURE), 0.0, 1, 1, int(50.0 / h), thin, 1)
    for number in range(chains):
        chain = Chain(
            np.array([[1.0 if number % 2 else -1.0], [0.0]]), np.zeros(1), np.zeros(1), np.zeros((1, 1)),
            np.zeros((steps // thin, 1)), np.zeros(3, np.int64), np.zeros((3, 1)),
        )  # fmt: skip
        keys = np.random.SeedSequence([7, round(h * 1000), number]).generate_state(2, np.uint64)
        walk(loss, block, np.array([0]), np.array([1]), keys, steps, law, center, chain, new_scratch(1, np.float64))
        counts += np.histogram(chain.draws[: chain.counts[2], 0], EDGES)[0]
    return counts / counts.sum()


def euler_law(h: float) -> np.ndarray:
    """Return the stationary law of Euler's chain in the same bins, by its transition matrix on a fine grid."""
    n = 1000 if h > 0.01 else 2000
    grid = -2.5 + 5.0 * (np.arange(n) + 0.5) / n
    middle = grid - h * (grid**3 - grid)
    density = np.exp(-np.square(grid[None, :] - middle[:, None]) / (4.0 * h * TEMPERATURE))
    density /= density.sum(axis=1, keepdims=True)
    for _ in range(20):  # 2^20 steps
        density = density @ density
        density /= density.sum(axis=1, keepdims=True)
    return density[0].reshape(len(EDGES) - 1, -1).sum(axis=1)


# --- logistic, against NUTS and ArviZ


def logistic_rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of ten columns, neighbours correlated, and classes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 10))
    x[:, 1:] += 0.5 * x[:, :-1]
    return x, x @ TRUE[:-1] + TRUE[-1] + rng.logistic(size=n) > 0


def nuts(*, small: bool, **_options: Any) -> dict[str, Any]:
    """Compare means, standard deviations and predictions with those of NUTS, and diagnostics with ArviZ's."""
    try:
        import arviz
        import jax
        import numpyro
        from numpyro.infer import MCMC, NUTS
    except ImportError as error:
        return {"skipped": f"{error.name} is not installed", "kept": True}
    jax.config.update("jax_enable_x64", True)
    x, y = logistic_rows(2000 if small else 20_000, 3)
    model = streamsgd.sample(table_of(x, y), "y", prior=NORMAL, **USUAL)
    rows, draws = encoded(model, table_of(x, y)), draws_of(model)

    def rule() -> None:
        w = numpyro.sample("w", numpyro.distributions.Normal(np.zeros(10), 1.0))
        b = numpyro.sample("b", numpyro.distributions.ImproperUniform(numpyro.distributions.constraints.real, (), ()))
        numpyro.sample("y", numpyro.distributions.Bernoulli(logits=rows[:, :10] @ w + b), obs=y.astype(float))

    chain = MCMC(NUTS(rule), num_warmup=500, num_samples=2000, num_chains=4, chain_method="sequential", progress_bar=False)
    chain.run(jax.random.PRNGKey(0))
    theirs = np.column_stack([np.asarray(chain.get_samples()["w"]), np.asarray(chain.get_samples()["b"])])
    sd, ours = theirs.std(axis=0, ddof=1), draws.samples()
    flat = ours.reshape(-1, 11)
    some = rows[:1000]
    link = lambda s: (1.0 / (1.0 + np.exp(-s))).mean(axis=1)  # noqa: E731
    found = {
        "mean_off_in_sd": float((np.abs(draws.mean - theirs.mean(axis=0)) / sd).max()),
        "sd_ratio": [float(ratio) for ratio in np.sort(np.sqrt(draws.variance) / sd)[[0, -1]]],
        "probability_off": float(np.abs(link(some @ flat.T) - link(some @ theirs.T)).max()),
        "r_hat_off": max(abs(draws.r_hat[j] / float(arviz.rhat(ours[:, :, j])) - 1.0) for j in range(11)),
        "ess_off": max(abs(draws.ess[j] / float(arviz.ess(ours[:, :, j])) - 1.0) for j in range(11)),
    }
    low, high = found["sd_ratio"]
    means = found["mean_off_in_sd"] <= 0.1 and found["probability_off"] <= 0.005
    found["kept"] = bool(means and 0.95 <= low <= high <= 1.05 and max(found["r_hat_off"], found["ess_off"]) < 1e-6)
    return found


# --- a real table, out of core


def real(*, small: bool, data: Path, **_options: Any) -> dict[str, Any]:
    """Compare standard deviations with those of the inverse Fisher information, by NumPy at the mode."""
    tables = runpy.run_path(str(ROOT / "scripts" / "bench_tables.py"))
    whole = tables["flights"](data).slice(0, 100_000 if small else 3_000_000)
    table, rows = numbers_of(whole), max(1 << 16, whole.num_rows // 12)
    common = {"memory": "800MB", "chunk_rows": rows, "seed": 5}
    with tempfile.TemporaryDirectory() as scratch:
        path, all_ = Path(scratch) / "numbers.parquet", Path(scratch) / "all.parquet"
        pq.write_table(table, path, row_group_size=1 << 16)
        pq.write_table(whole, all_, row_group_size=1 << 16)
        began = time.monotonic()
        model = streamsgd.sample(path, "delay", prior="normal:sd=10", **common)
        seconds = time.monotonic() - began
        wide = streamsgd.sample(all_, "delay", prior="normal:sd=1", **common).metrics["posterior"]
    draws, said = draws_of(model), model.metrics["posterior"]
    fisher = np.zeros((len(model.weights),) * 2)
    for first in range(0, table.num_rows, 1 << 18):
        x = encoded(model, table.slice(first, 1 << 18))
        p = 1.0 / (1.0 + np.exp(-x @ draws.mode))
        fisher += (x * (p * (1.0 - p))[:, None]).T @ x
    truth = np.sqrt(np.diagonal(np.linalg.inv(fisher + np.diag([0.01] * model.encoding.width + [0.0]))))
    off = np.sqrt(draws.variance) / truth - 1.0
    passes = said["row_gradients"] / said["rows"] + said["mode_passes"]
    found = {
        "rows": table.num_rows,
        "weights": len(truth),
        "chunks": -(-table.num_rows // rows),
        "rms": float(np.sqrt(np.mean(off**2))),
        "worst": float(np.abs(off).max()),
        "passes": passes,
        "seconds": seconds,
        **{name: said[name] for name in ("r_hat", "ess", "chunks_widen_variance")},
    }
    found["categories"] = {name: wide[name] for name in ("weights", "r_hat", "ess", "batch", "step", "sd_over_curvature")}
    found["kept"] = bool(found["rms"] <= 0.05 and found["worst"] <= 0.1 and (small or passes <= 5.0))
    return found


def numbers_of(table: pa.Table) -> pa.Table:
    """Return flights as numbers: distance, hour, weekday and day of the year, and their products."""
    import pyarrow.compute as pc

    date = table["date"]
    parts = [pc.hour(date), pc.day_of_week(date), pc.day_of_year(date), table["distance"]]
    x = np.column_stack([part.to_numpy().astype(np.float64) for part in parts])
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    pairs = [x[:, a] * x[:, b] for a in range(4) for b in range(a + 1)]
    return table_of(np.column_stack([x, *pairs]).astype(np.float32), table["delay"]).rename_columns(
        [*(f"x{j}" for j in range(14)), "delay"]
    )


# --- calibration


def replicates(case: str, n: int, one: Callable[[int], Any], log: Path | None) -> list[Any]:
    """Return what each of n replicates came to; what a log of earlier runs holds is not done again, what is new is added."""
    lines = log.read_text().splitlines() if log and log.exists() else []
    known = {number: found for name, number, found in map(json.loads, lines) if name == case}
    for number in range(n):
        if number not in known:
            known[number] = one(number)
            if log:
                with log.open("a") as file:
                    file.write(json.dumps([case, number, known[number]]) + "\n")
    return [known[number] for number in range(n)]


BINS = 12
"""Of ranks."""


def calibration(*, small: bool, log: Path | None, **_options: Any) -> dict[str, Any]:
    """Rank true weights, drawn from the prior, among draws: the ranks are uniform if the draws are of the posterior."""
    from scipy.stats import chisquare

    sets, d = 60 if small else 600, 3
    ranks = np.array(replicates("calibration", sets, lambda k: ranks_of(k, d), log))
    # The prior of the intercept is flat in the model, and is not in the data sets: it is no part of the test.
    p = [float(chisquare(np.bincount(ranks[:, j] // 8, minlength=BINS)).pvalue) for j in range(d)]
    return {"sets": sets, "p": p, "kept": min(p) > 0.01 / d}


def ranks_of(k: int, d: int) -> list[int]:
    """Return the ranks of the true weights of data set k, of d columns, among draws."""
    rng = np.random.default_rng([11, k])
    x = rng.normal(size=(300, d))
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    weights = np.append(rng.normal(size=d), rng.normal())
    y = x @ weights[:-1] + weights[-1] + rng.logistic(size=300) > 0
    if y.all() or not y.any():
        y[0] = not y[0]
    spec = "sgld-cv:step=0.05,batch=64,steps=4000,burn_in=400,thin=60"
    # A seed each: noise is addressed by it, and chains of one seed err alike on all data sets.
    plain = {"scale": "none", "transform": "none", "executor": "inline", "seed": k}
    model = streamsgd.sample(table_of(x, y), "y", method=spec, prior=NORMAL, **plain, **USUAL)
    draws = draws_of(model).samples().reshape(-1, len(model.weights))
    if len(model.weights) != d + 1:
        raise AssertionError(f"{len(model.weights)} weights of {d} columns")
    kept = draws[np.linspace(0, len(draws) - 1, BINS * 8 - 1).round().astype(int)]
    return [int(rank) for rank in (kept < weights).sum(axis=0)]


POINTS = np.array([[0.5, -1.0], [2.0, 1.0], [0.0, 0.0]])
"""Rows whose mean is predicted with an interval."""


AVERAGED: dict[str, Any] = {
    "polish": 0,
    "optimizer": "sgd",
    "learning_rate": 1.0,
    "schedule": "inverse-scaling:power=0.6",
    "batch_size": 8,
    "average": "0.02",
}
"""Settings of one averaged pass."""


def coverage(*, small: bool, log: Path | None, **_options: Any) -> dict[str, Any]:
    """Count how often intervals of 95 % of predictions hold the true mean: of the minimum, and of averaged steps."""
    n = 100 if small else 4000
    found: dict[str, Any] = {"replicates": n}
    for name, least in (("polish", 0.935), ("average", 0.92)):
        case = "coverage" if name == "polish" else "coverage-average"
        held = np.array(replicates(case, n, lambda k, name=name: covered(k, name), log))
        found[name] = held.mean(axis=0).tolist()
        found[f"{name}_kept"] = bool(small or all(least <= share <= 0.965 for share in found[name]))
    return {**found, "kept": found["polish_kept"] and found["average_kept"]}


def covered(k: int, name: str) -> list[bool]:
    """Say of each point whether the interval of replicate k holds its true mean."""
    from streamsgd.model.posterior.intervals import Intervals

    rng, size = np.random.default_rng([13, k]), len(POINTS)
    n, how = (2000, {}) if name == "polish" else (64_000, AVERAGED)
    x = rng.normal(size=(n, 2))
    y = x @ [1.0, -0.5] + 0.3 + rng.logistic(size=n) > 0
    given: dict[str, Any] = {**USUAL, "standard_errors": True, "executor": "inline", "seed": k, **how}
    model = streamsgd.train(table_of(x, y), "y", **given)
    block, _ = model.encode(table_of(POINTS, np.zeros(size, np.bool_)))
    told = Intervals(model, 0.95).of_block(block, 0, size, *model.score_block(block, 0, size)[:2])
    truth = 1.0 / (1.0 + np.exp(-(POINTS @ [1.0, -0.5] + 0.3)))
    held = (told["lower"].to_numpy() <= truth) & (truth <= told["upper"].to_numpy())
    return [bool(one) for one in held]


def conformal(*, small: bool, data: Path, log: Path | None) -> dict[str, Any]:
    """Measure how often calibrated intervals and sets hold the outcome, over splits of real tables."""
    tables, found = runpy.run_path(str(ROOT / "scripts" / "bench_tables.py")), {}
    splits = 5 if small else 200
    for name, target in (("diamonds", "price"), ("adult", "income"), ("california", None)):
        table = tables[name](data)
        aim = target or table.column_names[-1]
        done = replicates(f"conformal-{name}", splits, lambda k, table=table, aim=aim: split(table, aim, k), log)
        held, errors = np.array(done).T
        found[name] = {"splits": splits, "covered": float(held.mean()), "rank_error": float(errors.max())}
        found[name]["standard_error"] = float(held.std(ddof=1) / math.sqrt(splits))
    kept = all(0.895 <= one["covered"] <= 0.905 and one["rank_error"] <= 1e-3 for one in found.values())
    return {**found, "kept": bool(small or kept)}


def split(table: pa.Table, aim: str, k: int) -> list[float]:
    """Return the share of a quarter of the rows whose outcome is held, calibrated by another quarter, and the rank error."""
    order = np.random.default_rng([17, k]).permutation(table.num_rows)
    learn, check, test = np.array_split(order, [table.num_rows // 2, table.num_rows * 3 // 4])
    with tempfile.TemporaryDirectory() as scratch:
        model = streamsgd.train(table.take(learn), aim, memory="1GB", epochs=1, seed=k)
        made = streamsgd.calibrate(model, table.take(check), memory="1GB")
        fresh = Path(scratch) / "test.parquet"
        pq.write_table(table.take(test), fresh)
        streamsgd.predict(made, fresh, Path(scratch) / "out.parquet", intervals=0.9, memory="1GB")
        out, y = pq.read_table(Path(scratch) / "out.parquet"), table[aim].take(test).to_pylist()
    error = float(made.metrics["calibration"]["rank_error"])
    if "labels" in out.column_names:
        return [float(np.mean([label in labels for label, labels in zip(y, out["labels"].to_pylist(), strict=True)])), error]
    lower, upper = out["lower"].to_numpy(), out["upper"].to_numpy()
    return [float(np.mean((lower <= np.array(y)) & (np.array(y) <= upper))), error]


def speed(*, small: bool, **_options: Any) -> dict[str, Any]:
    """Time predict with intervals against predict without, by CPU time, least of some runs taken in turn."""
    rng, n = np.random.default_rng(0), 300_000 if small else 1_000_000
    x = rng.normal(size=(n, 28)).astype(np.float32)
    y = x[:, :5].sum(axis=1) + rng.logistic(size=n) > 0
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "rows.parquet"
        pq.write_table(table_of(x, y), path, row_group_size=1 << 17)
        common = {"memory": "1GB", "polish": 10, "epochs": 1}
        models = {
            "errors": streamsgd.train(path, "y", standard_errors=True, **common),
            "draws": streamsgd.sample(path, "y", method="laplace", prior=NORMAL, draws=64, **common),
        }
        for name, model in models.items():
            times: dict[bool, list[float]] = {False: [], True: []}
            for k in range(4):
                for with_, spent in times.items():
                    began = time.process_time()
                    out = Path(scratch) / f"{name}{with_}{k}.parquet"
                    streamsgd.predict(model, path, out, memory="1GB", intervals=0.9 if with_ else None)
                    spent.append(time.process_time() - began)
            found[name] = min(times[True][1:]) / min(times[False][1:])
    return {**found, "kept": bool(small or (found["errors"] <= 1.5 and found["draws"] <= 2.0))}


CASES: dict[str, Callable[..., dict[str, Any]]] = {
    "linear": linear,
    "well": well,
    "nuts": nuts,
    "real": real,
    "calibration": calibration,
    "coverage": coverage,
    "conformal": conformal,
    "speed": speed,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--small", action="store_true", help="sizes for continuous integration, with wider limits")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--log", type=Path, help="what replicates come to, line by line: a run that is stopped goes on from it")
    options = parser.parse_args()
    results = {}
    for name in options.only.split(","):
        results[name] = CASES[name](small=options.small, data=options.data, log=options.log)
        print(name, json.dumps(results[name]), flush=True)
    print(json.dumps({"results": results}))
    sys.exit(0 if all(found["kept"] for found in results.values()) else 1)


if __name__ == "__main__":
    main()
