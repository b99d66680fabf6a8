"""Held-out losses on real tables as they are, with default settings, against a converged solver on a standard encoding.

    python scripts/bench_tables.py [--data DIR] [--only adult,bank] [--transforms auto,none,log1p,bins] [--json]

A fifth of the rows is held out. Ours learns the rest with every setting at its default, from strings, nulls, lists and texts as
they come. The reference is scikit-learn's LogisticRegression as it is (C = 1) or LinearRegression, of one-hot encoded strings
(a value that is not known is none), standardised numbers, and counts of words, list items and map values. Reported are log
loss or RMSE on the rows held out, and by how much ours is above the reference, in percent. `--transforms` repeats ours with
other treatments of numbers: `auto` has to be no worse than `none`, which is plain standardisation.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from streamsgd.features.arrow import as_double
from streamsgd.settings.make import make_settings
from streamsgd.training.run import train_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from scipy.sparse import spmatrix

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
LATE = 15  # minutes
HELD_OUT = 0.2


# --- the data


def csv(path: Path, delimiter: str = ",", names: list[str] | None = None) -> pa.Table:
    """Read text, with a header unless names are given."""
    quote = False if delimiter == "\t" else '"'
    return pa.csv.read_csv(
        path,
        read_options=pa.csv.ReadOptions(column_names=names),
        parse_options=pa.csv.ParseOptions(delimiter=delimiter, quote_char=quote),
    )


def replaced(table: pa.Table, name: str, values: pa.ChunkedArray) -> pa.Table:
    """Return the table with other values in a column."""
    return table.set_column(table.column_names.index(name), name, values)


def adult(data: Path) -> pa.Table:
    """Eight strings and six numbers, two of them mostly zero."""
    return pq.read_table(data / "tabular/adult.parquet.brotli")


def bank(data: Path) -> pa.Table:
    """Nine strings and seven numbers."""
    return csv(data / "tabular/bank-full.csv.gz", ";")


def kdd(data: Path) -> pa.Table:
    """Connections, whether each was an attack; numbers of nine digits, three strings."""
    table = csv(data / "tabular/kddcup.data_10_percent.gz", names=[*(f"f{k}" for k in range(41)), "attack"])
    return replaced(table, "attack", pc.not_equal(table["attack"], "normal."))


def flights(data: Path) -> pa.Table:
    """Three million flights, whether each was late: date, distance, origin, destination."""
    table = pq.read_table(data / "tabular/flights-3m.parquet")
    return replaced(table, "delay", pc.greater(table["delay"], LATE))


def sms(data: Path) -> pa.Table:
    """Messages."""
    return csv(data / "text/sms.tsv", "\t", ["label", "text"])


def a9a(data: Path) -> pa.Table:
    """Adult as lists of active features."""
    rows = [line.split() for line in _lines(data / "libsvm_vw/a9a_123d_train.dummy.gz")]
    lists = pa.array([words[1:] for words in rows], pa.list_(pa.string()))  # names of features: as numbers, refused
    return pa.table({"y": [int(float(words[0]) > 0) for words in rows], "features": lists})


def rcv1(data: Path) -> pa.Table:
    """A thousand news stories as maps from words to weights."""
    rows = [line.split("|") for line in _lines(data / "libsvm_vw/rcv1_small.vw.gz")]
    maps = [[(key, float(value)) for key, value in (word.split(":") for word in row[1].split()[1:])] for row in rows]
    return pa.table(
        {"y": [int(float(row[0].split()[0]) > 0) for row in rows], "words": pa.array(maps, pa.map_(pa.string(), pa.float64()))}
    )


def california(data: Path) -> pa.Table:
    """House values; outliers 100 deviations away."""
    return pq.read_table(data / "tabular/california_housing.parquet.brotli")


def diamonds(data: Path) -> pa.Table:
    """Prices by three strings and six numbers."""
    return csv(data / "tabular/diamonds.csv.gz")


def _lines(path: Path) -> Iterable[str]:
    with gzip.open(path, "rt") as file:
        yield from file


class Problem(NamedTuple):
    """A table and what to predict."""

    name: str
    make: Callable[[Path], pa.Table]
    target: str
    bar: bool = True
    """Whether the project promises an excess of at most 2 %."""


PROBLEMS = (
    Problem("adult", adult, "income"),
    Problem("bank", bank, "y"),
    Problem("KDD99 10 %", kdd, "attack"),
    Problem("flights 3M", flights, "delay"),
    Problem("SMS", sms, "label"),
    Problem("a9a lists", a9a, "y"),
    Problem("rcv1 maps", rcv1, "y"),
    Problem("California", california, "MedHouseVal", bar=False),
    Problem("diamonds", diamonds, "price", bar=False),
)


# --- the reference


def standard(learned: pa.Table, judged: pa.Table, target: str) -> tuple[spmatrix, spmatrix]:
    """Return both tables' features as a standard encoding has them."""
    from scipy import sparse

    parts = [_column(learned[name], judged[name]) for name in learned.column_names if name != target]
    one, two = zip(*parts, strict=True)
    return sparse.hstack(one).tocsr(), sparse.hstack(two).tocsr()


def _column(learned: pa.ChunkedArray, judged: pa.ChunkedArray) -> tuple[spmatrix, spmatrix]:
    from scipy import sparse
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    kind = learned.type
    if pa.types.is_list(kind) or pa.types.is_map(kind):
        pairs = dict if pa.types.is_map(kind) else (lambda cell: {str(item): 1.0 for item in cell})
        rows = [[pairs(cell or []) for cell in column.to_pylist()] for column in (learned, judged)]
        encoder = DictVectorizer().fit(rows[0])
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        values = [column.to_pylist() for column in (learned, judged)]
        if len(set(values[0])) > len(values[0]) // 2:
            rows, encoder = values, CountVectorizer().fit(values[0])
        else:
            rows = [np.array(column, object)[:, None] for column in values]
            encoder = OneHotEncoder(handle_unknown="ignore").fit(rows[0])
    else:
        rows = [as_double(column)[:, None] for column in (learned, judged)]
        scaler = StandardScaler().fit(rows[0])
        return tuple(sparse.csr_matrix(scaler.transform(column)) for column in rows)
    return encoder.transform(rows[0]), encoder.transform(rows[1])


def reference(learned: pa.Table, judged: pa.Table, target: str) -> float:
    """Return the reference's loss on the rows judged."""
    from sklearn.linear_model import LinearRegression, LogisticRegression

    features, others = standard(learned, judged, target)
    y, other_y = (np.array(table[target].to_pylist()) for table in (learned, judged))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if y.dtype.kind in "fi" and len(np.unique(y)) > 2:
            solved = LinearRegression().fit(features, y)
            return float(np.sqrt(np.mean(np.square(solved.predict(others) - other_y))))
        solved = LogisticRegression(max_iter=1000, tol=1e-6).fit(features, y)
    chance = np.clip(solved.predict_proba(others), 1e-15, 1.0)
    return float(-np.log(chance[np.arange(len(other_y)), np.searchsorted(solved.classes_, other_y)]).mean())


# --- ours


class Fit(NamedTuple):
    """Losses on the rows held out, by treatment of numbers, and what the first run was."""

    rows: int
    weights: int
    epochs: int
    reference: float
    losses: dict[str, float]

    def excess(self, transform: str = "auto") -> float:
        """Of ours over the reference, in percent."""
        return 100.0 * (self.losses[transform] / self.reference - 1.0)


def measure(problem: Problem, data: Path, transforms: list[str], most_rows: int | None = None) -> Fit:
    """Train on four fifths with each treatment of numbers, and judge on the rest."""
    table = problem.make(data)[:most_rows]
    held = np.random.default_rng(0).random(len(table)) < HELD_OUT
    learned, judged = table.filter(pa.array(~held)), table.filter(pa.array(held))
    losses, found = {}, (0, 0)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "learn.parquet"
        pq.write_table(learned, path, row_group_size=max(1000, len(learned) // 16))
        for transform in transforms:
            settings = {"validation": "none"} | (
                {} if transform == "auto" else {"transform": transform}
            )  # the reference has all rows
            model, report = train_model(str(path), make_settings({"target": problem.target, "resume": "never", **settings}))
            metrics = model.evaluate(judged)
            losses[transform] = metrics["log_loss"] if "log_loss" in metrics else metrics["rmse"]
            found = found if any(found) else (int(np.count_nonzero(model.weights)), report.epochs)
    return Fit(len(learned), *found, reference(learned, judged, problem.target), losses)


def main() -> None:
    """Measure all, print as it goes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED, help="folder of the raw files (default: %(default)s)")
    parser.add_argument("--only", default="", help="names of tables, or how they begin, by comma")
    parser.add_argument("--transforms", default="auto,none,log1p,bins", help="(default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="JSON alone")
    given = parser.parse_args()
    if not given.data.is_dir():
        print(f"skipped: there is no folder of raw data at {given.data}; see --data", file=sys.stderr)
        return
    transforms, results = given.transforms.split(","), {}
    if not given.json:
        named = "".join(f"{name:>12}" for name in transforms)
        print(f"{'table':14}{'rows':>10}{'weights':>10}{'epochs':>8}{'reference':>12}{named}{'excess %':>10}")
    for problem in (p for p in PROBLEMS if p.name.startswith(tuple(given.only.split(",")))):
        fit = measure(problem, given.data, transforms)
        results[problem.name] = {**fit._asdict(), "excess": fit.excess(transforms[0])}
        if not given.json:
            losses = "".join(f"{loss:12.6g}" for loss in fit.losses.values())
            sizes = f"{problem.name:14}{fit.rows:10,}{fit.weights:10,}{fit.epochs:8}{fit.reference:12.6g}"
            print(f"{sizes}{losses}{fit.excess(transforms[0]):10.2f}", flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
