"""One pass over real tables as they are, nothing tuned: ours against Vowpal Wabbit, scikit-learn and the usual optimizers.

    python scripts/bench_untuned.py [--data DIR] [--only adult,bank] [--cases auto,vowpal] [--rows 500000] [--json]

Rows are shuffled once, then learned in one order by all, each row predicted before it is learned. Columns are as they are:
numbers unscaled, strings, lists, texts. `auto` is streamsgd with every setting at its default but for one epoch and no
shuffling. Vowpal Wabbit has its default options, or `--coin`; it sees numbers as numbers and everything else as features of
weight 1. scikit-learn's SGD learns a one-hot encoding 64 rows at a time; adam and adagrad are ours with the rates of textbooks
on unscaled columns. Reported are progressive log losses, or root mean squared errors, and by how much ours is above Vowpal
Wabbit's default, in percent.
"""

from __future__ import annotations

import argparse
import json
import math
import runpy
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from streamsgd.features.arrow import as_double
from streamsgd.settings.make import make_settings
from streamsgd.training.run import train_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[1]
TABLES = runpy.run_path(str(ROOT / "scripts" / "bench_tables.py"))
REAL = runpy.run_path(str(ROOT / "scripts" / "bench_real.py"))
SHARED: Path = TABLES["SHARED"]
BLOCK = 64
"""Rows that scikit-learn predicts, then learns."""

RAW = {"scale": "none", "transform": "none"}
CASES: dict[str, dict[str, Any]] = {
    "auto": {},
    "adam 0.001": {"optimizer": "adam:learning_rate=0.001", "schedule": "constant", **RAW},
    "adagrad 0.1": {"optimizer": "adagrad:learning_rate=0.1", "schedule": "constant", **RAW},
}
VOWPAL = {"vowpal": "", "vowpal --coin": "--coin"}
BITS = 22


# --- the data


def breast_cancer(_data: Path) -> pa.Table:
    """Thirty measures of very different sizes."""
    from sklearn.datasets import load_breast_cancer

    return _of_arrays(load_breast_cancer())


def digits(_data: Path) -> pa.Table:
    """Images of 64 pixels, whether the digit is even."""
    from sklearn.datasets import load_digits

    table = _of_arrays(load_digits())
    return table.set_column(table.column_names.index("y"), "y", pc.equal(pc.bit_wise_and(table["y"], 1), 0))


def diabetes(_data: Path) -> pa.Table:
    """442 patients, ten measures, progression of the disease."""
    from sklearn.datasets import load_diabetes

    return _of_arrays(load_diabetes(scaled=False))


def covtype(data: Path) -> pa.Table:
    """Lodgepole pine against the rest."""
    with tempfile.TemporaryDirectory() as scratch:
        return REAL["covtype_binary"](data, Path(scratch))


def _of_arrays(bunch: Any) -> pa.Table:
    return pa.table({**{f"x{k}": column for k, column in enumerate(bunch.data.T)}, "y": bunch.target})


class Problem(NamedTuple):
    """A table and what to predict."""

    name: str
    make: Callable[[Path], pa.Table]
    target: str


PROBLEMS = (
    *(Problem(p.name, p.make, p.target) for p in TABLES["PROBLEMS"]),
    Problem("covtype 20k, class 2", covtype, "Cover_Type"),
    Problem("breast cancer", breast_cancer, "y"),
    Problem("digits, even", digits, "y"),
    Problem("diabetes", diabetes, "y"),
)


def shuffled(problem: Problem, data: Path, most: int) -> pa.Table:
    """Return up to so many rows in a fixed random order."""
    table = problem.make(data)
    return table.take(pa.array(np.random.default_rng(0).permutation(len(table))[:most]))


def is_regression(y: np.ndarray) -> bool:
    """Whether a target is a number to predict."""
    return y.dtype.kind in "fi" and len(np.unique(y)) > 2


# --- ours


def ours(table: pa.Table, target: str, settings: dict[str, Any]) -> float:
    """Return the progressive loss of one pass in the order of the rows."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "learn.parquet"
        pq.write_table(table, path, row_group_size=max(1000, len(table) // 16))
        given = {"target": target, "resume": "never", "epochs": 1, "shuffle": "none", **settings}
        try:
            model, _ = train_model(str(path), make_settings(given))
        except Exception as error:  # noqa: BLE001  a divergence is a result
            print(f"    {type(error).__name__}: {str(error)[:120]}")
            return math.inf
    loss = float(model.metrics["progressive_loss"])
    return math.sqrt(2.0 * loss) / model.target.scale if model.target.task == "regression" else loss


# --- Vowpal Wabbit


def lines(table: pa.Table, target: str) -> Iterator[str]:
    """Yield the rows as text: numbers by name, other values as features of weight 1."""
    y = np.array(table[target].to_pylist())
    labels = y if is_regression(y) else 2 * np.searchsorted(np.unique(y), y) - 1
    columns = [_words(name, table[name]) for name in table.column_names if name != target]
    for label, *words in zip(labels, *columns, strict=True):
        yield f"{label} | " + " ".join(words)


def _words(name: str, column: pa.ChunkedArray) -> list[str]:
    kind, clean = column.type, _clean(name)
    if pa.types.is_map(kind):
        return [" ".join(f"{clean}^{_clean(key)}:{value:.9g}" for key, value in cell or []) for cell in column.to_pylist()]
    if pa.types.is_list(kind):
        return [" ".join(f"{clean}^{item}" for item in cell or []) for cell in column.to_pylist()]
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        values = column.to_pylist()
        if len(set(values)) > len(values) // 2:
            return [" ".join(f"{clean}^{_clean(word)}" for word in (value or "").lower().split()) for value in values]
        return ["" if value is None else f"{clean}={_clean(value)}" for value in values]
    numbers = as_double(column)
    return ["" if math.isnan(value) else f"{clean}:{value:.9g}" for value in numbers.tolist()]


def _clean(text: str) -> str:
    return "".join("_" if c in " :|\t\n" else c for c in text) or "_"


def vowpal(table: pa.Table, target: str, options: str) -> float:
    """Return the progressive loss of Vowpal Wabbit."""
    import vowpalwabbit

    regression = is_regression(np.array(table[target].to_pylist()))
    kind = "squared" if regression else "logistic"
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "data.vw"
        path.write_text("\n".join(lines(table, target)) + "\n")
        w = vowpalwabbit.Workspace(f"--quiet --loss_function {kind} -b {BITS} --holdout_off {options} -d {path}")
        loss = w.get_sum_loss() / w.get_weighted_examples()
        w.finish()
    return math.sqrt(loss) if regression else loss


# --- scikit-learn


def sklearn(table: pa.Table, target: str) -> float:
    """Return the progressive loss of scikit-learn's SGD with its defaults, on a one-hot encoding of raw columns."""
    from scipy import sparse
    from sklearn.linear_model import SGDClassifier, SGDRegressor

    parts = []
    for name in table.column_names:
        if name == target:
            continue
        column = table[name]
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_temporal(column.type):
            parts.append(sparse.csr_matrix(np.nan_to_num(as_double(column))[:, None]))
        else:
            parts.append(TABLES["_column"](column, column)[0])
    features, y = sparse.hstack(parts).tocsr(), np.array(table[target].to_pylist())
    regression = is_regression(y)
    solver = SGDRegressor() if regression else SGDClassifier(loss="log_loss")
    classes, total = np.unique(y), 0.0
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for first in range(0, len(y), BLOCK):
            some, truth = features[first : first + BLOCK], y[first : first + BLOCK]
            if regression:
                guess = solver.predict(some) if first else np.zeros(len(truth))
                total += float(np.sum(np.square(guess - truth)))
                solver.partial_fit(some, truth)
            else:
                chance = solver.predict_proba(some) if first else np.full((len(truth), 2), 0.5)
                chance = np.clip(chance[np.arange(len(truth)), np.searchsorted(classes, truth)], 1e-15, 1.0)
                total -= float(np.log(chance).sum())
                solver.partial_fit(some, truth, classes=classes)
    return math.sqrt(total / len(y)) if regression else total / len(y)


# --- the report


def measure(table: pa.Table, target: str, cases: list[str]) -> dict[str, float]:
    """Return the loss of each case."""
    found = {}
    for case in cases:
        if case in VOWPAL:
            found[case] = vowpal(table, target, VOWPAL[case])
        elif case == "sklearn":
            found[case] = sklearn(table, target)
        else:
            optimizer = CASES.get(case, {"optimizer": case})
            found[case] = ours(table, target, optimizer)
    return found


def main() -> None:
    """Measure all, print as it goes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED, help="folder of the raw files (default: %(default)s)")
    parser.add_argument("--only", default="", help="names of tables, or how they begin, by comma")
    every = ["auto", *VOWPAL, "sklearn", *list(CASES)[1:]]
    parser.add_argument("--cases", default=",".join(every), help="also optimizers, as of --optimizer (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=500_000, help="at most so many of each table (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="JSON alone")
    options = parser.parse_args()
    wanted, cases = options.only.split(","), options.cases.split(",")
    results = {}
    print(f"{'table':24}{'rows':>9}" + "".join(f"{case:>18}" for case in cases) + f"{'auto/vowpal %':>16}")
    for problem in PROBLEMS:
        if not any(problem.name.startswith(name) for name in wanted):
            continue
        table = shuffled(problem, options.data, options.rows)
        found = results[problem.name] = measure(table, problem.target, cases)
        excess = 100.0 * (found["auto"] / found["vowpal"] - 1.0) if {"auto", "vowpal"} <= found.keys() else math.nan
        print(f"{problem.name:24}{len(table):9,}" + "".join(f"{found[c]:18.6g}" for c in cases) + f"{excess:16.2f}", flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
