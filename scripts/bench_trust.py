"""Steps that are judged: are decisions right, what does pairing save, and is the end as good as that of `auto`?

    python scripts/bench_trust.py [--small] [--seeds N] [--only NAME,...] [--json]

decisions  Every decision of many runs on tables of numbers is done again with all rows, in NumPy. It is wrong where the mean of
           all differences is on the other side of the threshold. Reported is the upper bound of Clopper and Pearson, 99 %.
unpaired   Steps of least squares are judged on rows of a large table by the same sequential test: paired, and by two
           independent samples, one for each side.
tables     The final loss over all rows, and row visits, of the optimizer against those of `auto`, all settings at their
           defaults. Every row that any evaluation touches is a visit.
"""

from __future__ import annotations

import argparse
import json
import runpy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import beta

import streamsgd
from streamsgd.features.target import encode_target
from streamsgd.training.judged.paired_test import Evidence, evidence, quantile
from streamsgd.training.judged.steps import Judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UNTUNED = runpy.run_path(str(Path(__file__).with_name("bench_untuned.py")))
ROOT: Path = UNTUNED["SHARED"]
MOST_ROWS = 50_000
ROUNDING = 1e-9
"""Of a threshold: an exact decision nearer than this is one of rounding."""
AWAY = (0.2, 0.3)
"""From the minimum, in standard deviations of the noise, of steps that both tests judge."""
FIRST = 16
"""Rows of the first look of the comparison with independent samples."""
WHERE: dict[str, Any] = {"executor": "inline", "memory": "2GB", "transform": "tails", "cross": "none"}
"""Numbers are learned as numbers, so that a table has a weight for each column."""


class Decision(NamedTuple):
    """What was decided."""

    before: np.ndarray
    after: np.ndarray
    threshold: float
    accept: bool
    rows: int


class Audit:
    """Notes every decision while it is in use."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self._decide = Judge.decide

    def __enter__(self) -> list[Decision]:
        decide, told = self._decide, self.decisions

        def noted(judge: Judge, found: Evidence, *, accept: bool, exact: bool) -> None:
            told.append(Decision(*judge.both.copy(), judge.threshold - judge.now.easier, accept, judge.now.fresh))
            decide(judge, found, accept=accept, exact=exact)

        Judge.decide = noted  # type: ignore[method-assign]
        return told

    def __exit__(self, *_error: object) -> None:
        Judge.decide = self._decide  # type: ignore[method-assign]


class Rows(NamedTuple):
    """A table as a model meets it."""

    x: np.ndarray
    y: np.ndarray
    binary: bool

    def losses(self, weights: np.ndarray, rows: Any = slice(None)) -> np.ndarray:
        """Return those of some rows at weights (n,)."""
        scores = self.x[rows] @ weights[:-1] + weights[-1]
        y = self.y[rows]
        found: np.ndarray = np.logaddexp(0.0, scores) - y * scores if self.binary else 0.5 * np.square(scores - y)
        return found


def rows_of(model: Any, table: pa.Table) -> Rows:
    """Encode a table."""
    block, _pools = model.encode(table)
    y, _usable = encode_target(model.target, table[model.target.name])
    width = model.encoding.width
    return Rows(np.asarray(block.rows.values[:, :width], np.float64), y.astype(np.float64), model.target.task == "binary")


# --- tables of numbers


def numbers(make: Callable[[Path], pa.Table], target: str) -> pa.Table | None:
    """Return the target and the columns of numbers of a table, in a fixed random order; None if there is no such column."""
    table = make(ROOT)
    kinds = {n: table.schema.field(n).type for n in table.column_names}
    names = [n for n, t in kinds.items() if n != target and (pa.types.is_integer(t) or pa.types.is_floating(t))]
    if not names:
        return None
    order = np.random.default_rng(0).permutation(len(table))[:MOST_ROWS]
    table = table.select([*names, target]).take(pa.array(order))
    return table.filter(pc.is_valid(table[target]))


def made(n: int, d: int = 20, *, binary: bool) -> pa.Table:
    """Return correlated numbers and what a linear or logistic model says of them."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(n, d)) @ (np.eye(d) + 0.3 * rng.normal(size=(d, d)))
    score = x @ rng.normal(size=d) / np.sqrt(d)
    y = (rng.random(n) < 1 / (1 + np.exp(-score))).astype(np.int64) if binary else score + rng.normal(size=n)
    return pa.table({**{f"x{j}": x[:, j] for j in range(d)}, "y": y})


SMALL = ("made, logistic", "breast cancer", "diabetes")


def problems() -> Iterator[tuple[str, Callable[[], pa.Table | None], str]]:
    """Yield names, tables and targets."""
    for problem in UNTUNED["PROBLEMS"]:
        yield problem.name, partial(numbers, problem.make, problem.target), problem.target
    yield "made, logistic", partial(made, 20_000, binary=True), "y"
    yield "made, squares", partial(made, 20_000, binary=False), "y"


# --- decisions


def wrong(rows: Rows, decisions: list[Decision]) -> int:
    """Count the decisions that all rows would have made otherwise."""
    found = 0
    for decision in decisions:
        less = float(np.mean(rows.losses(decision.before) - rows.losses(decision.after)))
        off = less - decision.threshold
        found += (off >= 0.0) != decision.accept and abs(off) > ROUNDING * abs(decision.threshold)
    return found


def bound(k: int, n: int) -> float:
    """Return the upper bound of Clopper and Pearson, 99 %."""
    return float(beta.ppf(0.99, k + 1, n - k)) if k < n else 1.0


# --- independent samples


def needs(rows: Rows, decision: Decision, rng: np.random.Generator, *, paired: bool) -> int | None:
    """Return the rows that the sequential test touches; None beyond all that there are."""
    n, look = FIRST, 1
    while True:
        each = n if paired else n // 2
        z = quantile(0.05, look)
        one, two = (rng.integers(len(rows.y), size=each) for _ in range(2))
        before = rows.losses(decision.before, one)
        after = rows.losses(decision.after, one if paired else two)
        if paired:
            told = evidence(float((before - after).sum()), float(np.square(before - after).sum()), each, z)
        else:
            half = z * float(np.sqrt((before.var(ddof=1) + after.var(ddof=1)) / each))
            told = Evidence(float(before.mean() - after.mean()), half)
        if told.verdict(decision.threshold) is not None:
            return n
        n, look = 2 * n, look + 1
        if n > len(rows.y):
            return None


def unpaired(n: int) -> dict[str, Any]:
    """Compare what both tests need for steps to the minimum of least squares, from so many standard deviations of scores away.

    Independent rows that do not come to an end count as all there are, which is less than they need.
    """
    table = made(n, binary=False)
    x, y = np.column_stack([table[f"x{j}"].to_numpy() for j in range(20)]), table["y"].to_numpy()
    best = np.linalg.lstsq(np.column_stack([x, np.ones(n)]), y, rcond=None)[0]
    rows, rng, sums = Rows(x, y, binary=False), np.random.default_rng(1), np.zeros(3)
    for away in AWAY * 20:
        way = np.append(rng.normal(size=20), 0.0)
        start = best + way * (away / float(np.std(x @ way[:-1])))
        decision = Decision(start, best, 0.1 * 0.5 * away * away, accept=True, rows=0)
        alone, together = (needs(rows, decision, rng, paired=paired) for paired in (False, True))
        sums += [together or n, alone or n, alone is None]
    count = 20 * len(AWAY)
    return {
        "decisions": count,
        "open": int(sums[2]),
        "paired_rows": sums[0] / count,
        "unpaired_rows": sums[1] / count,
        "ratio": sums[1] / sums[0],
    }


# --- all


def measure(name: str, table: pa.Table, target: str, optimizer: str, seeds: int) -> dict[str, Any]:
    """Train with both, and audit."""
    auto = streamsgd.train(table, target, **WHERE)
    models, told, n_wrong = [], list[Decision](), 0
    for seed in range(seeds):
        with Audit() as decisions:
            models.append(streamsgd.train(table, target, optimizer=optimizer, seed=seed, **WHERE))
        n_wrong += wrong(rows_of(models[-1], table), decisions)
        told += decisions
    rows = rows_of(models[0], table)
    losses = [float(rows_of(model, table).losses(model.weights[:, 0].astype(np.float64)).mean()) for model in (auto, models[0])]
    visits = [model.provenance["rows_learned"] for model in (auto, models[0])]
    return {
        "name": name,
        "rows": len(rows.y),
        "columns": rows.x.shape[1],
        "auto": losses[0],
        "loss": losses[1],
        "no_worse": losses[1] <= losses[0],
        "visits": visits[1] / visits[0],
        "decisions": len(told),
        "wrong": n_wrong,
        "judged_by": float(np.median([decision.rows for decision in told])),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="three tables, for tests")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", default="")
    parser.add_argument("--optimizer", default="trust-region")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    only = SMALL if options.small else tuple(filter(None, options.only.split(",")))
    seeds, results = 3 if options.small else options.seeds, []
    print(
        f"{'table':<22} {'rows':>7} {'cols':>4} {'auto':>10} {'this':>10} {'visits':>6} {'decisions':>9} {'wrong':>5} {'by':>6}"
    )
    for name, make, target in problems():
        if only and name not in only:
            continue
        table = make()
        if table is None:
            continue
        found = measure(name, table, target, options.optimizer, seeds)
        results.append(found)
        print(
            f"{name:<22} {found['rows']:>7,} {found['columns']:>4} {found['auto']:>10.6f} {found['loss']:>10.6f} "
            f"{found['visits']:>6.2f} {found['decisions']:>9,} {found['wrong']:>5} {found['judged_by']:>6,.0f}",
            flush=True,
        )
    n, k = (sum(found[key] for found in results) for key in ("decisions", "wrong"))
    print(f"{n:,} decisions, {k} wrong: at most {bound(k, n):.2%}")
    pairs = unpaired(50_000 if options.small else 500_000)
    print(
        f"rows of a decision: {pairs['paired_rows']:,.0f} paired, {pairs['unpaired_rows']:,.0f} not, {pairs['ratio']:.1f} times"
    )
    if options.json:
        print(json.dumps({"results": results, "decisions": n, "wrong": k, "bound": bound(k, n), "unpaired": pairs}))


if __name__ == "__main__":
    main()
