"""Batches that grow: is each as large as it must be, and hardly larger?

    python scripts/bench_adaptive.py [--rows N] [--small] [--json]

Logistic regression on rows of 20 numbers, by plain SGD at a constant rate with `--batch-size adaptive`. The run is done again
in NumPy, by formulas of its own, from the order of the rows alone: the weights must be the same to 1e-9, and so must every line
of the ledger. On the way the gradient of all rows and its covariance are known at every step, and with them

within  the share of steps of which tr S / (b |G|^2) <= theta^2, with tr S and G of all rows
twice   the share whose b is at most twice the least that would do
R^2     of log |G| against the number of the step

as long as the least that would do is below the most that a step may take.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

import streamsgd
from streamsgd.planning.batches import GROUPS, MARGIN, Adaptive
from streamsgd.settings.make import make_settings
from streamsgd.stream.stream import read_chunk
from streamsgd.training.prepare import prepare

if TYPE_CHECKING:
    from collections.abc import Iterator

D = 20
SEED = 7


def table_of(rows: int) -> pa.Table:
    """Return rows of standard normal numbers, and whether a logistic model says yes."""
    rng = np.random.default_rng(SEED)
    x, w = rng.normal(size=(rows, D)), rng.normal(size=D)
    y = rng.random(rows) < 1.0 / (1.0 + np.exp(-1.5 * (x @ w) / np.linalg.norm(w)))
    return pa.table({**{f"x{j}": x[:, j] for j in range(D)}, "y": y.astype(np.int64)})


def epochs_of(table: pa.Table, settings: dict[str, Any], epochs: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield features, the intercept's 1 among them, and targets of every epoch in the order in which they are learned."""
    job = prepare(table, make_settings({"target": "y", "validation": "none", **settings}))
    if job.plan.n_chunks(0) > 1:
        raise AssertionError("the replay is of a single chunk")
    n = job.plan.n_rows
    block, room = job.recipe.allocate(n), np.empty(n, np.int32)
    for epoch in range(epochs):
        filled = read_chunk(job.recipe, job.plan, job.plan.chunk(epoch, 0), block, room)
        heads, order = filled.heads(), filled.order
        rows = np.empty(n, np.int64)  # the k-th row of a tile is the k-th that its number calls for
        for tile in range(len(heads)):
            rows[order == tile] = heads[tile] + np.arange(filled.counts[tile])
        x = np.column_stack([block.rows.values[rows, :D], np.ones(n)])
        yield x, np.asarray(block.y)[rows].copy()


class Replay:
    """The same run in NumPy."""

    def __init__(self, batch: Adaptive, rate: float, x: np.ndarray, y: np.ndarray) -> None:
        self.batch, self.rate, self.x, self.y = batch, rate, x, y
        self.most = batch.largest(len(x))
        self.w, self.lengths = np.zeros(x.shape[1]), np.square(x).sum(axis=1)
        self.past, self.evidence, self.goal = 0.0, np.zeros(2), batch.start
        self.need, self.steps = 0.0, 0
        self.ledger: list[tuple[float, ...]] = []
        self.truth: list[tuple[float, ...]] = []

    def gradients(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return those of some rows."""
        found: np.ndarray = (1.0 / (1.0 + np.exp(-(x @ self.w))) - y)[:, None] * x
        return found

    def rounded(self, rows: float) -> int:
        """Return so many rows in whole rows per group, within the bounds."""
        return int(np.ceil(min(max(rows, self.batch.start), self.most) / GROUPS)) * GROUPS

    def epoch(self, x: np.ndarray, y: np.ndarray, every: int) -> None:
        """Learn the rows of an epoch."""
        at = 0
        while at < len(x):
            sums, n = np.zeros((GROUPS, x.shape[1])), 0
            while True:
                end = min(len(x), at + self.goal)
                g = self.gradients(x[at + n : end], y[at + n : end])
                for k in range(GROUPS):
                    sums[k] += g[(k - n) % GROUPS :: GROUPS].sum(axis=0)
                n = end - at
                if n < self.goal:  # the epoch is over
                    self.w -= self.rate * (n / self.goal) * sums.sum(axis=0) / n
                    self.goal = self.rounded(self.need)
                    self.steps += 1
                    return
                if self.passes(sums, n):
                    break
            if self.steps % every == 0:
                self.audit(n)
            self.w -= self.rate * sums.sum(axis=0) / n
            at += n

    def passes(self, sums: np.ndarray, n: int) -> bool:
        """Say whether a step of these sums of n rows moves; set the next goal."""
        mean = sums.sum(axis=0) / n
        trace = np.square(sums - sums.mean(axis=0)).sum() / (GROUPS - 1) * GROUPS / n
        now = (self.past * self.evidence + [trace, mean @ mean - trace / n]) / (self.past + 1.0)
        need = MARGIN * now[0] / (self.batch.theta**2 * now[1]) if now[1] > 0.0 else np.inf
        if need > n and n < self.most:
            self.goal = max(self.rounded(min(need, 2.0 * n)), n + GROUPS)
            return False
        self.evidence, self.past = now, (self.past + 1.0) * 2.0 ** (-1.0 / self.batch.half_life)
        self.need = min(need, self.most)
        self.goal = self.rounded(need)
        self.steps += 1
        self.ledger.append((self.steps, n, *now))
        return True

    def audit(self, n: int) -> None:
        """Note what all rows say of a step of n rows."""
        residuals = 1.0 / (1.0 + np.exp(-(self.x @ self.w))) - self.y
        g = self.x.T @ residuals / len(self.x)
        trace = np.square(residuals) @ self.lengths / len(self.x) - g @ g
        self.truth.append((self.steps, n, trace / (self.batch.theta**2 * (g @ g)), float(np.sqrt(g @ g))))


def measure(table: pa.Table, theta: float, rate: float, start: int, epochs: int, every: int) -> dict[str, Any]:
    """Train, replay, and compare."""
    n = table.num_rows
    spec = f"adaptive:theta={theta},start={start},rate=none,most={n // 10 // GROUPS * GROUPS}"
    settings: dict[str, Any] = {
        "optimizer": "sgd",
        "learning_rate": rate,
        "schedule": "constant",
        "batch_size": spec,
        "precision": "float64",
        "scale": "none",
        "transform": "none",
        "memory": "2GB",
        "executor": "inline",
        "seed": SEED,
    }
    model = streamsgd.train(table, "y", epochs=epochs, validation="none", **settings)
    batch = Adaptive(theta=theta, start=start, most=n // 10 // GROUPS * GROUPS)
    replay: Replay | None = None
    for x, y in epochs_of(table, settings, epochs):
        replay = replay or Replay(batch, rate, x.copy(), y.copy())
        replay.epoch(x, y, every)
    if replay is None:
        raise AssertionError("no epochs")
    np.testing.assert_allclose(model.weights[:, 0], replay.w, rtol=1e-9)
    told = model.provenance["ledger"]
    lines = np.array(replay.ledger)
    lines = lines[(lines[:, 0] - 1) % told["every"] == 0]
    if len(lines) != len(told["step"]):
        raise AssertionError(f"{len(lines)} steps of every {told['every']}, and the ledger has {len(told['step'])}")
    for c, name in enumerate(("step", "rows", "trace_covariance", "gradient_norm_squared")):
        np.testing.assert_allclose(told[name], lines[:, c], rtol=1e-6, err_msg=name)
    truth = np.array(replay.truth)
    truth = truth[truth[:, 2] < replay.most]
    least = np.maximum(truth[:, 2], start)
    x, log_g = truth[:, 0], np.log(truth[:, 3])
    residual = log_g - np.polyval(np.polyfit(x, log_g, 1), x)
    return {
        "theta": theta,
        "steps": len(replay.ledger),
        "audited": len(truth),
        "first": int(replay.ledger[0][1]),
        "last": int(replay.ledger[-1][1]),
        "within": float(np.mean(truth[:, 1] >= truth[:, 2])),
        "twice": float(np.mean(truth[:, 1] <= 2.0 * least)),
        "r_squared": float(1.0 - residual.var() / log_g.var()),
        "slope_of_log_b_on_log_g": float(np.polyfit(log_g, np.log(truth[:, 1]), 1)[0]),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--small", action="store_true", help="30,000 rows, for tests")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = 30_000 if options.small else options.rows
    rate, every = (0.07, 1) if options.small else (0.05, 2)
    table, results = table_of(rows), []
    print(
        f"{'theta':>5} {'steps':>6} {'first b':>7} {'last b':>7} {'within':>6} {'twice':>6} {'R^2':>6} {'log b on log G':>14}"
    )
    for theta in (0.5, 0.9):
        found = measure(table, theta, rate, 16, 4 if options.small else 6, every)
        print(
            f"{theta:>5} {found['steps']:>6,} {found['first']:>7,} {found['last']:>7,} {found['within']:>6.3f} "
            f"{found['twice']:>6.3f} {found['r_squared']:>6.3f} {found['slope_of_log_b_on_log_g']:>14.2f}",
            flush=True,
        )
        results.append(found)
    if options.json:
        print(json.dumps({"results": results}))


if __name__ == "__main__":
    main()
