"""The gap to the optimum over passes, of variance reduction and of scikit-learn's SAGA, on real data.

    python scripts/bench_svrg.py [--data DIR] [--only a9a,bank] [--l2 1e-3] [--passes 10,20] [--options renewal=0.5] [--json]

Numbers alone, in float64, standardised, with a ridge; what to fit and how is left at its default. A pass reads all rows once:
svrg learns in every other one and measures the gradient in the others, SAGA learns in all, row by row, with the data and a
table of the rows' slopes in memory, and adam is the default of several passes, whose rate has to know how many will come. The
gap is (F - F*) / F*, and F* that of `--polish`. Seconds are those of fitting, for the most passes or until an early end.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from bench_real import PROBLEMS, SHARED, Problem, encoded, text_columns

from streamsgd.settings.make import make_settings
from streamsgd.training.run import train_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from streamsgd.model.model import Model
    from streamsgd.training.events import Event

NAMES = ("a9a", "covtype 20k, class 2", "covtype 20k, 7 classes", "California housing", "bank", "adult")


class Rows(NamedTuple):
    """A data set as the models meet it, for peers."""

    x: np.ndarray
    """float64 (n_rows, n_columns)."""
    y: np.ndarray
    task: str
    l2: float
    best: float
    """The objective at the optimum."""

    def objective(self, weights: np.ndarray) -> float:
        """Return mean loss and penalty of weights (n_columns + 1, n_outputs)."""
        scores = self.x @ weights[:-1] + weights[-1]
        penalty = 0.5 * self.l2 * float((weights[:-1] ** 2).sum())
        if self.task == "regression":
            return 0.5 * float(np.mean((scores[:, 0] - self.y) ** 2)) + penalty
        if self.task == "binary":
            return float(np.mean(np.logaddexp(0.0, scores[:, 0]) - self.y * scores[:, 0])) + penalty
        top = scores.max(axis=1)
        total = np.log(np.exp(scores - top[:, None]).sum(axis=1)) + top
        return float(np.mean(total - scores[np.arange(len(scores)), self.y.astype(int)])) + penalty

    def gap(self, objective: float) -> float:
        """Return by how much an objective is above the best, of it."""
        return (objective - self.best) / abs(self.best)


def ours(table: pa.Table, problem: Problem, l2: float, **settings: Any) -> tuple[Model, list[Event], float]:
    """Train; return the model, the events of its snapshots and the seconds of fitting."""
    seen: list[Event] = []
    exclude = text_columns(table.schema, problem.target)
    given = {"target": problem.target, "task": problem.task, "exclude": exclude, "precision": "float64"}
    model, report = train_model(table, make_settings({**given, "penalty": f"l2:l2={l2}", **settings}), emit=seen.append)
    return model, [event for event in seen if event.kind == "snapshot"], report.fit_seconds - report.compile_seconds


def saga(rows: Rows, passes: int) -> tuple[np.ndarray, float]:
    """Return scikit-learn's weights after so many passes from 0, (n_columns + 1, n_outputs), and its seconds."""
    from sklearn.linear_model import LogisticRegression, Ridge

    n, began = len(rows.y), time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        if rows.task == "regression":
            fit = Ridge(alpha=n * rows.l2, solver="saga", max_iter=passes, tol=0.0, random_state=0).fit(rows.x, rows.y)
        else:
            c = 1.0 / (n * rows.l2)
            fit = LogisticRegression(C=c, solver="saga", max_iter=passes, tol=1e-300, random_state=0).fit(rows.x, rows.y)
    weights = np.vstack([np.atleast_2d(fit.coef_).T, np.atleast_1d(fit.intercept_)])
    return weights, time.perf_counter() - began


def measure(problem: Problem, data: Path, l2: float, passes: Sequence[int], options: str) -> dict[str, Any]:
    """Return gaps by method and number of passes, and seconds of the most passes."""
    with tempfile.TemporaryDirectory() as scratch:
        table = problem.make(data, Path(scratch))
    model, _events, _ = ours(table, problem, l2, optimizer="adam", epochs=1, polish=500)
    x, y = encoded(model, table)
    rows = Rows(x, y, model.target.task, l2, 0.0)
    rows = rows._replace(best=min(rows.objective(model.weights), model.metrics["polish"]["objective"]))
    gaps: dict[str, dict[int, float]] = {"svrg": {}, "saga": {}, "adam": {}}
    seconds: dict[str, float] = {}
    ended: int | None = None
    for n in passes:
        model, events, seconds["svrg"] = ours(table, problem, l2, optimizer=f"svrg:{options}" if options else "svrg", epochs=n)
        gaps["svrg"][n] = rows.gap(rows.objective(model.weights))
        ended = int(events[-1].epoch) if model.metrics["svrg"]["stopped"] else None
        weights, seconds["saga"] = saga(rows, n)
        gaps["saga"][n] = rows.gap(rows.objective(weights))
        model, _events, seconds["adam"] = ours(table, problem, l2, optimizer="adam", epochs=n)
        gaps["adam"][n] = rows.gap(rows.objective(model.weights))
    found = {"data": problem.name, "rows": len(y), "columns": x.shape[1], "l2": l2, "best": rows.best}
    return {**found, "gaps": gaps, "seconds": seconds, "ended_after": ended}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=SHARED, help="folder of the shared data")
    parser.add_argument("--only", default=",".join(NAMES).replace(", ", " "), help="data sets by the beginnings of their names")
    parser.add_argument("--l2", type=float, default=1e-3, help="the ridge")
    parser.add_argument("--passes", default="10,20,40", help="numbers of passes")
    parser.add_argument("--options", default="", help="of svrg, e.g. renewal=0.5")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    args = parser.parse_args(arguments)
    wanted = tuple(args.only.split(","))
    passes = sorted(int(n) for n in args.passes.split(","))
    problems = [p for p in PROBLEMS if p.name.replace(", ", " ").startswith(wanted)]
    results = [measure(problem, args.data, args.l2, passes, args.options) for problem in problems]
    if not args.json:
        print(table_of(results, passes))
    print(json.dumps(results))
    return 0


def table_of(results: list[dict[str, Any]], passes: Sequence[int]) -> str:
    """Return a table of the gaps, in Markdown."""
    methods = ("svrg", "saga", "adam")
    heads = ["data", "rows", "columns", *(f"{m}, {n} passes" for n in passes for m in methods), "seconds: svrg", "saga", "adam"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for found in results:
        gaps = [f"{found['gaps'][m][n]:.1e}" for n in passes for m in methods]
        seconds = [f"{found['seconds'][m]:.2f}" for m in methods]
        lines.append("| " + " | ".join([found["data"], f"{found['rows']:,}", str(found["columns"]), *gaps, *seconds]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
