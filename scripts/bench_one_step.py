"""One step from a common start, at the best rate of each batch size: which batch halves the gain, and what theory says of it.

    python scripts/bench_one_step.py [--only NAME,...] [--rows N] [--seeds N] [--small] [--json]

A step of SGD on B independent rows, at the best rate for that B, gains half of what a step along the gradient of all rows
does at B = tr(H S) / (G'H G): G the gradient, S the covariance of those of rows, H the curvature, all at the start (McCandlish
et al. 2018, arXiv 1812.06162; exact for squares). Steps are those of `train --batch-size B --steps 1 --shuffle iid`, of
many seeds; the loss of all rows at any rate along them, G, S and H are NumPy's. First least squares in two columns, from starts
nearer and nearer to the minimum, then the columns of numbers of real tables, from where a run begins. Both are printed with
intervals of 95 %: of what was measured by the jackknife over seeds, of theory by that over 32 groups of rows. `simple` is
tr S / G'G, the scale that `streamsgd noise` prints.
"""

from __future__ import annotations

import argparse
import json
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

import streamsgd
from streamsgd.settings.make import make_settings
from streamsgd.training.together.pilot import Branch, run_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TRUST = runpy.run_path(str(Path(__file__).with_name("bench_trust.py")))
SIZES = 4 ** np.arange(7)
GROUPS, STRIDES = 32, 2.0 ** np.arange(-5, 3.5, 0.5)
"""Groups of the jackknife; rates to try, over the best one of a quadratic."""

RATE = 1e-3
SETTINGS: dict[str, Any] = {
    "optimizer": "sgd",
    "learning_rate": RATE,
    "schedule": "constant",
    "precision": "float64",
    "validation": 0.0,
    "memory": "2GB",
    "executor": "inline",
    "cross": "none",
}


class Start(NamedTuple):
    """Rows as the model meets them, with an intercept's 1, and its scores where it starts."""

    x: np.ndarray
    y: np.ndarray
    scores: np.ndarray
    binary: bool

    def bend(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the first and second derivative of each row's loss by its score."""
        mean = 1.0 / (1.0 + np.exp(-self.scores)) if self.binary else self.scores
        return mean - self.y, mean * (1.0 - mean) if self.binary else np.ones(len(self.y))

    def loss(self, scores: np.ndarray) -> float:
        """Return the mean loss."""
        each = np.logaddexp(0.0, scores) - self.y * scores if self.binary else 0.5 * np.square(scores - self.y)
        return float(each.mean())


# --- theory


def critical(start: Start, rows: Any = slice(None)) -> tuple[float, float]:
    """Return tr(H S) / (G'H G) and tr S / G'G of some rows."""
    x, slopes, bend = start.x[rows], *(each[rows] for each in start.bend())
    g, n = x * slopes[:, None], len(x)
    h, whole = (x * bend[:, None]).T @ x / n, g.mean(axis=0)
    along = float(whole @ h @ whole)
    trace, square = float(np.einsum("ni,ij,nj->n", g, h, g).mean()) - along, float(whole @ whole)
    return trace / along, (float(np.square(g).sum(axis=1).mean()) - square) / square


def jackknife(of: Callable[[np.ndarray], float], n: int) -> tuple[float, float]:
    """Return the interval of an estimate, positive, of n items that are left out in groups."""
    group, whole = np.arange(n) % min(n, GROUPS), np.log(of(np.arange(n)))
    left = np.log([of(np.flatnonzero(group != k)) for k in range(group.max() + 1)])
    error = np.sqrt(group.max() / (group.max() + 1.0) * np.square(left - left.mean()).sum())
    return float(np.exp(whole - 1.96 * error)), float(np.exp(whole + 1.96 * error))


# --- steps


def grid_of(start: Start, directions: np.ndarray) -> np.ndarray:
    """Return the loss of all rows for each seed and rate along directions, (n_seeds, n_weights)."""
    moves = start.x @ directions.T
    slopes, bend = start.bend()
    rate = float((slopes @ moves).mean() / (bend @ np.square(moves)).mean())
    return np.array([[start.loss(start.scores - rate * stride * move) for stride in STRIDES] for move in moves.T])


def least(losses: np.ndarray) -> float:
    """Return the least of losses by rate, by the parabola in the rate through the lowest and its neighbours."""
    k = int(np.clip(np.argmin(losses), 1, len(losses) - 2))
    bent = np.polyfit(STRIDES[k - 1 : k + 2], losses[k - 1 : k + 2], 2)
    return float(min(losses.min(), bent[2] - bent[1] ** 2 / (4.0 * bent[0]) if bent[0] > 0.0 else np.inf))


def halving(before: float, grids: list[np.ndarray], full: float, seeds: np.ndarray) -> float:
    """Return the size at which the gain is half of `full`: one over it is taken as linear in 1/B between two sizes."""
    gains = np.array([before - least(grid[seeds].mean(axis=0)) for grid in grids])
    lack = full / np.maximum(gains, 1e-12 * full) - 1.0  # Bc / B
    k = int(np.clip(np.searchsorted(-lack, -1.0), 1, len(SIZES) - 1))
    (first, last), x = lack[k - 1 : k + 1], 1.0 / SIZES[k - 1 : k + 1]
    return 1.0 / max(1e-12, float(x[0] + (1.0 - first) * (x[1] - x[0]) / (last - first)))


def directions_of(table: pa.Table, given: dict[str, Any], seeds: int) -> tuple[np.ndarray, Any]:
    """Return the gradient that each seed and size steps along, (n_seeds, n_sizes, n_weights), and the model of the start."""
    found, start = [], None
    for seed in range(seeds):
        branches = [Branch(int(size), None, 1, seed) for size in SIZES]
        made, start = run_seed(table, make_settings({**given, "shuffle": "iid", "batch_size": 64, "steps": 1}), branches)
        found.append([(start.weights - one.model.weights)[:, 0] / RATE for one in made if one.model is not None])
    return np.array(found), start


def measure(table: pa.Table, target: str, seeds: int, **more: Any) -> dict[str, Any]:
    """Return the size that halves the gain, and what theory says."""
    given = {**SETTINGS, "target": target, "chunk_rows": len(table), **more}
    directions, model = directions_of(table, given, seeds)
    rows = TRUST["rows_of"](model, table)
    x = np.column_stack([rows.x, np.ones(len(rows.y))])
    start = Start(x, rows.y, x @ model.weights[:, 0], rows.binary)
    whole = streamsgd.train(table, **{**given, "batch_size": len(table), "steps": 1, "shuffle": "none"})
    before = start.loss(start.scores)
    full = before - least(grid_of(start, (model.weights - whole.weights).T / RATE)[0])
    grids = [grid_of(start, directions[:, k]) for k in range(len(SIZES))]
    theory, simple = critical(start)
    return {
        "rows": len(table),
        "columns": x.shape[1],
        "halves": halving(before, grids, full, np.arange(seeds)),
        "interval": jackknife(lambda some: halving(before, grids, full, some), seeds),
        "theory": theory,
        "theory_interval": jackknife(lambda some: critical(start, some)[0], len(table)),
        "simple": simple,
    }


# --- problems


def squares(near: float) -> pa.Table:
    """Return least squares whose zero weights are at so much of the way to the minimum."""
    rng = np.random.default_rng(9)
    x = rng.normal(size=(2048, 2)) @ [[1.0, 0.3], [0.0, 0.7]]
    y = x @ [1.0, -2.0] + rng.normal(size=2048)
    best = np.linalg.lstsq(np.column_stack([x, np.ones(2048)]), y, rcond=None)[0]
    return pa.table({"a": x[:, 0], "b": x[:, 1], "y": y - near * (x @ best[:2] + best[2])})


def problems(rows: int, *, small: bool) -> Iterator[tuple[str, pa.Table, str, dict[str, Any]]]:
    """Yield names, tables, targets and settings."""
    plain = {"scale": ["none"], "transform": "none"}
    for near in (0.0, 0.9) if small else (0.0, 0.7, 0.9):
        yield f"squares {near:.0%} of the way", squares(near), "y", plain
    for name, make, target in TRUST["problems"]():
        if (not small or name == "diabetes") and (table := make()) is not None:
            yield name, table.slice(0, rows), target, {}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names of problems, or how they begin, by comma")
    parser.add_argument("--rows", type=int, default=8192, help="at most so many of each table (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=64)
    parser.add_argument("--small", action="store_true", help="16 seeds of least squares and of one small table")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    wanted, found = options.only.split(","), {}
    print(f"{'problem':28}{'rows':>7}{'halves the gain':>26}{'tr(HS)/(GHG)':>26}{'ratio':>7}{'simple':>9}")
    for name, table, target, more in problems(options.rows, small=options.small):
        if not any(name.startswith(some) for some in wanted):
            continue
        one = found[name] = measure(table, target, 16 if options.small else options.seeds, **more)
        texts = [f"{one[key]:.1f} ({low:.1f} to {high:.1f})" for key, (low, high) in
                 (("halves", one["interval"]), ("theory", one["theory_interval"]))]  # fmt: skip
        print(f"{name:28}{one['rows']:7,}{texts[0]:>26}{texts[1]:>26}{one['halves'] / one['theory']:7.2f}{one['simple']:9.1f}",
              flush=True)  # fmt: skip
    if options.json:
        print(json.dumps({"results": found}))


if __name__ == "__main__":
    main()
