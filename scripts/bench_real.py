"""Losses on real data with default settings, against a converged solver on the same encoding.

    python scripts/bench_real.py [--data DIR] [--only a9a,bank] [--json]

Each data set becomes Parquet in a temporary folder and is trained with every setting that matters left at
its default. The reference is unregularised: least squares, or scikit-learn's lbfgs, of the columns as the
trained model encodes them. Its tolerance is 1e-10, but 1e-5 for several classes, where some weights run away
and the loss has stopped moving (covtype: 0.636847; 1e-6 takes three times as long and gives 0.636844).
Reported are log loss or RMSE on the rows learned from, all of them, and on a fifth held out of another run.
Excess is that of ours over the reference, in percent.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from streamsgd.features.target import encode_target
from streamsgd.settings.make import make_settings
from streamsgd.training.run import train_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.model.model import Model

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
LATE = 15  # minutes
HELD_OUT = 0.2
ALIKE = {"validation": "none", "transform": "tails"}
"""The reference has all the rows too; columns are numbers, so that optimizers are compared and not encodings."""
TOLERANCE = {"binary": 1e-10, "multiclass": 1e-5}


# --- the data


def recipe(script: str, *arguments: object) -> None:
    """Run a converter of `datasets`."""
    command = [sys.executable, str(ROOT / "datasets" / script), *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def read_csv(path: Path, delimiter: str = ",") -> pa.Table:
    """Read text with a header."""
    return pa.csv.read_csv(path, parse_options=pa.csv.ParseOptions(delimiter=delimiter))


def a9a(data: Path, scratch: Path) -> pa.Table:
    """Adult as 123 binary columns."""
    target = scratch / "a9a.parquet"
    recipe(
        "libsvm.py",
        data / "libsvm_vw/a9a_123d_train.dummy.gz",
        target,
        "--format",
        "indices",
        "--features",
        123,
    )
    return pq.read_table(target)


def covtype(data: Path, scratch: Path) -> pa.Table:
    """Forest cover: 10 measures, 44 indicators, some never set."""
    recipe("covtype.py", data / "tabular/covtype.20k.csv.gz", scratch / "covtype.parquet")
    return pq.read_table(scratch / "covtype.parquet")


def covtype_binary(data: Path, scratch: Path) -> pa.Table:
    """Lodgepole pine against the rest."""
    table = covtype(data, scratch)
    return replaced(table, "Cover_Type", pc.equal(table["Cover_Type"], 2))


def california(data: Path, _scratch: Path) -> pa.Table:
    """House values; outliers 100 deviations away."""
    return pq.read_table(data / "tabular/california_housing.parquet.brotli")


def bank(data: Path, _scratch: Path) -> pa.Table:
    """Marketing calls; one in nine is a success."""
    return read_csv(data / "tabular/bank-full.csv.gz", ";")


def flights(data: Path, _scratch: Path) -> pa.Table:
    """Three million flights in the order of their departure."""
    return pq.read_table(data / "tabular/flights-3m.parquet")


def flights_late(data: Path, scratch: Path) -> pa.Table:
    """Flights, with whether each was late in place of its delay."""
    table = flights(data, scratch)
    return replaced(table, "delay", pc.greater(table["delay"], LATE))


def adult(data: Path, _scratch: Path) -> pa.Table:
    """Adult as it was published."""
    return pq.read_table(data / "tabular/adult.parquet.brotli")


def diamonds(data: Path, _scratch: Path) -> pa.Table:
    """Diamonds, sorted by price; the sizes are nearly collinear."""
    return read_csv(data / "tabular/diamonds.csv.gz")


def demo(_data: Path, _scratch: Path) -> pa.Table:
    """The flights of `datasets/demo`."""
    return pa.concat_tables([pq.read_table(path) for path in sorted((ROOT / "datasets/demo").glob("*.parquet"))])


def replaced(table: pa.Table, name: str, values: pa.ChunkedArray) -> pa.Table:
    """Return the table with other values in a column."""
    return table.set_column(table.column_names.index(name), name, values)


class Problem(NamedTuple):
    """A data set and what to predict; columns of text are left out."""

    name: str
    make: Callable[[Path, Path], pa.Table]
    target: str
    task: str = "auto"
    bar: bool = False
    """Whether the project promises an excess of at most 1 %."""


PROBLEMS = (
    Problem("a9a", a9a, "y", bar=True),
    Problem("covtype 20k, 7 classes", covtype, "Cover_Type", "multiclass", bar=True),
    Problem("covtype 20k, class 2", covtype_binary, "Cover_Type", bar=True),
    Problem("California housing", california, "MedHouseVal", bar=True),
    Problem("bank", bank, "y", bar=True),
    Problem("flights 3M, late", flights_late, "delay", bar=True),
    Problem("flights 3M, delay", flights, "delay", bar=True),
    Problem("adult", adult, "income"),
    Problem("diamonds", diamonds, "price"),
    Problem("demo flights", demo, "late"),
)


# --- ours and the reference


class Fit(NamedTuple):
    """A loss by each of three predictors of the same rows, and the size of the run."""

    rows: int
    columns: int
    epochs: int
    ours: float
    reference: float
    constant: float

    @property
    def excess(self) -> float:
        """Of ours over the reference, in percent."""
        return 100.0 * (self.ours / self.reference - 1.0)


def text_columns(schema: pa.Schema, target: str) -> list[str]:
    """Return the columns that are not numbers, which scripts/bench_tables.py is for."""
    return [f.name for f in schema if f.name != target and (pa.types.is_string(f.type) or pa.types.is_large_string(f.type))]


def train(table: pa.Table, problem: Problem, scratch: Path) -> tuple[Model, int]:
    """Write the table, train with the defaults; return the model and its epochs."""
    path = scratch / "learn.parquet"
    pq.write_table(table, path, row_group_size=max(1000, len(table) // 16))
    exclude = text_columns(table.schema, problem.target)
    settings = make_settings({"target": problem.target, "task": problem.task, "exclude": exclude, "resume": "never"} | ALIKE)
    model, report = train_model(str(path), settings)
    return model, report.epochs


def encoded(model: Model, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Return features (n_rows, n_columns) and targets (n_rows,) as the model learned them, in float64."""
    block, _pools = model.encode(table)
    features = block.rows.values[:, : model.encoding.width].astype(np.float64)
    y, usable = encode_target(model.target, table[model.target.name])
    if not usable.all():
        raise ValueError(f"{np.sum(~usable)} rows have no usable target")
    return features, y


def converged(features: np.ndarray, y: np.ndarray, task: str) -> np.ndarray:
    """Return the weights of the unregularised optimum, (n_columns + 1, n_outputs), intercepts last."""
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from threadpoolctl import threadpool_limits

    if task == "regression":
        solved = LinearRegression().fit(features, y)
        return np.append(solved.coef_, solved.intercept_)[:, None]
    # More threads do not help matrices this narrow, and on a busy machine they wait for each other.
    with threadpool_limits(1):
        solved = LogisticRegression(C=np.inf, tol=TOLERANCE[task], max_iter=5000).fit(features, y)
    return np.vstack([solved.coef_.T, solved.intercept_])


def loss(scores: np.ndarray, y: np.ndarray, task: str) -> float:
    """Return the RMSE or the log loss of linear scores (n_rows, n_outputs)."""
    if task == "regression":
        return float(np.sqrt(np.mean(np.square(scores[:, 0] - y))))
    if task == "binary":
        return float(np.mean(np.logaddexp(0.0, scores[:, 0]) - y * scores[:, 0]))
    right = np.take_along_axis(scores, y.astype(np.int64)[:, None], axis=1)[:, 0]
    return float(np.mean(np.logaddexp.reduce(scores, axis=1) - right))


def best_constant(y: np.ndarray, task: str) -> np.ndarray:
    """Return the scores (n_outputs,) of the constant that fits best."""
    if task == "regression":
        return np.array([y.mean()])
    shares = np.bincount(y.astype(np.int64)) / len(y)
    return np.log(shares) if task == "multiclass" else np.array([np.log(shares[1] / shares[0])])


def compare(learned: pa.Table, judged: pa.Table, problem: Problem, scratch: Path) -> Fit:
    """Train ours, the reference and the constant on some rows and judge them on the same or others."""
    model, epochs = train(learned, problem, scratch)
    task = model.target.task
    features, y = encoded(model, learned)
    optimum, constant = converged(features, y, task), best_constant(y, task)
    if judged is not learned:
        features, y = encoded(model, judged)
    weights = (
        model.weights.astype(np.float64),
        optimum,
        np.vstack([np.zeros((features.shape[1], len(constant))), constant]),
    )
    unit = 1.0 / model.target.scale
    ours, reference, base = (loss(features @ w[:-1] + w[-1], y, task) * unit for w in weights)
    return Fit(len(learned), features.shape[1], epochs, ours, reference, base)


def measure(problem: Problem, data: Path, scratch: Path) -> dict[str, Fit]:
    """Compare on all rows (`in-sample`) and, with another run on the rest, on a fifth (`held-out`)."""
    table = problem.make(data, scratch)
    held = np.random.default_rng(0).random(len(table)) < HELD_OUT
    learned, judged = table.filter(pa.array(~held)), table.filter(pa.array(held))
    return {
        "in-sample": compare(table, table, problem, scratch),
        "held-out": compare(learned, judged, problem, scratch),
    }


# --- the report


def line(name: str, fits: dict[str, Fit]) -> str:
    """Return a row of the table."""
    fit, held = fits["in-sample"], fits["held-out"]
    sizes = f"{name:24}{fit.rows:9,}{fit.columns:5}{fit.epochs:8}"
    losses = f"{fit.ours:12.6g}{fit.reference:12.6g}{fit.constant:12.6g}{fit.excess:10.3f}"
    return f"{sizes}{losses}{held.ours:12.6g}{held.reference:12.6g}{held.excess:10.3f}"


def main() -> None:
    """Measure all, then print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED, help="folder of the raw files (default: %(default)s)")
    parser.add_argument("--only", default="", help="names of data sets, or how they begin, by comma")
    parser.add_argument("--json", action="store_true", help="JSON alone")
    given = parser.parse_args()
    if not given.data.is_dir():
        print(f"skipped: there is no folder of raw data at {given.data}; see --data", file=sys.stderr)
        return
    wanted = [p for p in PROBLEMS if p.name.startswith(tuple(given.only.split(",")))]
    if not given.json:
        print(
            f"{'data':24}{'rows':>9}{'cols':>5}{'epochs':>8}{'ours':>12}{'reference':>12}{'constant':>12}"
            f"{'excess %':>10}{'held out':>12}{'reference':>12}{'excess %':>10}"
        )
    results = {}
    for problem in wanted:
        with tempfile.TemporaryDirectory() as scratch:
            fits = measure(problem, given.data, Path(scratch))
        results[problem.name] = {part: {**fit._asdict(), "excess": fit.excess} for part, fit in fits.items()}
        if not given.json:
            print(line(problem.name, fits), flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
