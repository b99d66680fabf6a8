"""The untuned default against what others reach on the same rows: converged, an expert's day, and boosted trees.

    python scripts/bench_defaults.py [--data DIR] [--only adult;bank] [--rows 20000] [--into docs/defaults.md]
        [--cases ours,one,converged,expert,trees,tuned]

Of every table a fifth of up to `--rows` rows is held out, the same for all. `ours` sets the target and nothing else, `one pass`
also `--epochs 1`. `converged` is scikit-learn's LogisticRegression (C = 1) or Ridge, of one-hot strings, counted words and
standardised numbers. `expert` is the same library as somebody uses it who has a day: splines of numbers, values that come five
times one-hot, crosses of pairs of strings and products of numbers where they help, C of six, the last two chosen on a fifth of
the rows that are learned. `trees` is LightGBM with its defaults, on categories and numbers, where it is installed (it is no
part of any lock file). Losses are log losses or root mean squared errors of the rows held out. `off by` is how far what our
run reported is from them, in standard errors: of its own held-out rows, or, in one pass, of rows predicted before they were
learned.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import runpy
import tempfile
import time
import warnings
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import streamsgd
from streamsgd.features.arrow import as_double
from streamsgd.settings.make import make_settings
from streamsgd.training.run import train_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from scipy.sparse import spmatrix

ROOT = Path(__file__).resolve().parents[1]
UNTUNED = runpy.run_path(str(ROOT / "scripts" / "bench_untuned.py"))
TABLES, REAL = UNTUNED["TABLES"], UNTUNED["REAL"]
SHARED: Path = TABLES["SHARED"]
HELD_OUT = 0.2
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""Values of C, and of 1 / alpha."""
MOST_WORDS = 20_000
MOST_STEPS = 300
"""Of lbfgs for the expert, who has a day and not a week."""


# --- the data


def splits(name: str) -> Callable[[Path], pa.Table]:
    """Return what reads numbers of a text file, the target last."""

    def make(data: Path) -> pa.Table:
        rows = np.loadtxt(data / "regression_splits" / name / "data.txt")
        return pa.table({**{f"x{k}": column for k, column in enumerate(rows.T[:-1])}, "y": rows[:, -1]})

    return make


def higgs(data: Path) -> pa.Table:
    """Collisions: 28 numbers, whether there was a boson."""
    table = TABLES["csv"](data / "libsvm_vw/higgs7000.train.tsv.gz", "\t", [f"x{k}" for k in range(29)])
    return table.rename_columns(["y", *(f"x{k}" for k in range(1, 29))])


def covtype_7(data: Path) -> pa.Table:
    """Forest cover of seven kinds, which have names here."""
    with tempfile.TemporaryDirectory() as scratch:
        table = REAL["covtype"](data, Path(scratch))
    return TABLES["replaced"](table, "Cover_Type", pc.cast(table["Cover_Type"], pa.string()))


def tips(data: Path) -> pa.Table:
    """Taxi trips, and whether a tip was a dollar and more; moments and numbers of zones."""
    table = pq.read_table(data / "tabular/green_tripdata_2025-11.parquet")
    table = table.drop_columns(["total_amount", "tip_amount"]).append_column("tip", pc.greater_equal(table["tip_amount"], 1.0))
    kept = [f.name for f in table.schema if table[f.name].null_count < len(table)]
    return table.select(kept)


def demo(_data: Path) -> pa.Table:
    """The flights of `datasets/demo`."""
    return pa.concat_tables([pq.read_table(path) for path in sorted((ROOT / "datasets/demo").glob("*.parquet"))])


class Problem(NamedTuple):
    """A table and what to predict."""

    name: str
    make: Callable[[Path], pa.Table]
    target: str


PROBLEMS = (
    *(Problem(p.name, p.make, p.target) for p in UNTUNED["PROBLEMS"]),
    Problem("covtype 20k, 7 classes", covtype_7, "Cover_Type"),
    Problem("HIGGS 7k", higgs, "y"),
    Problem("power plant", splits("power-plant"), "y"),
    Problem("concrete", splits("concrete"), "y"),
    Problem("wine", splits("wine-quality-red"), "y"),
    Problem("taxi tips", tips, "tip"),
    Problem("demo flights", demo, "late"),
)


def divided(table: pa.Table, share: float, seed: int) -> tuple[pa.Table, pa.Table]:
    """Return a table without some of its rows, and those."""
    held = np.random.default_rng(seed).random(len(table)) < share
    return table.filter(pa.array(~held)), table.filter(pa.array(held))


# --- losses


def outcomes(table: pa.Table, target: str) -> tuple[np.ndarray, bool]:
    """Return the target, and whether it is a number to predict."""
    y = np.array(table[target].to_pylist())
    return y, bool(UNTUNED["is_regression"](y))


def chances(chance: np.ndarray, classes: Any, y: np.ndarray) -> np.ndarray:
    """Return the log loss of every row."""
    right = chance[np.arange(len(y)), np.searchsorted(np.asarray(classes), y)]
    return -np.log(np.clip(right, 1e-15, 1.0))


def summed(losses: np.ndarray, *, squares: bool) -> float:
    """Return one number for the losses of rows."""
    return float(np.sqrt(losses.mean()) if squares else losses.mean())


# --- ours


def ours(learned: pa.Table, judged: pa.Table, target: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the loss of our default on the rows judged, and how far what it reported is from that."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "learn.parquet"
        pq.write_table(learned, path, row_group_size=max(1000, len(learned) // 16))
        model, _ = train_model(str(path), make_settings({"target": target, "resume": "never", **given}))
    seconds = time.perf_counter() - began
    y, is_number = outcomes(judged, target)
    losses = _losses(model, judged, y, is_number=is_number)
    held, unit = model.metrics.get("held_out"), 0.5 * model.target.scale**2 if is_number else 1.0
    told, rows = (held["loss"], held["rows"]) if held else (model.metrics["progressive_loss"], len(learned))
    error = float(losses.std()) * math.sqrt(1.0 / len(losses) + 1.0 / rows)
    found = {"loss": summed(losses, squares=is_number), "off": (told / unit - float(losses.mean())) / error, "seconds": seconds}
    return found | {"told_by": "held out" if held else "progressive"}


def tuned(learned: pa.Table, judged: pa.Table, target: str) -> tuple[float, str]:
    """Return the loss of the best model of all, and which one that is; of more than two classes nothing."""
    y, is_number = outcomes(judged, target)
    if not is_number and len(pc.unique(learned[target])) > 2:
        return math.nan, ""
    found = streamsgd.tune(learned, target, grid={"model": ["linear", "fm", "fwfm"]})
    return summed(_losses(found.model, judged, y, is_number=is_number), squares=is_number), found.settings["model"]


def _losses(model: Any, judged: pa.Table, y: np.ndarray, *, is_number: bool) -> np.ndarray:
    if is_number:
        return np.square(np.asarray(model.predict(judged)) - y)
    return chances(np.asarray(model.predict_proba(judged)), model.classes, y)


# --- scikit-learn


def converged(learned: pa.Table, judged: pa.Table, target: str) -> float:
    """Return the loss of a converged solver on a standard encoding."""
    features, others = TABLES["standard"](*(_filled(table, learned) for table in (learned, judged)), target)
    return _solved(features, others, learned, judged, target, 1.0, 2000)


def _filled(table: pa.Table, learned: pa.Table) -> pa.Table:
    """Return a table whose missing numbers are the mean of those learned."""
    for name in table.column_names:
        kind = table[name].type
        if table[name].null_count and not (_is_text(table[name]) or pa.types.is_nested(kind) or pa.types.is_boolean(kind)):
            values = as_double(table[name])
            filled = np.where(np.isnan(values), np.nanmean(as_double(learned[name])), values)
            table = TABLES["replaced"](table, name, pa.chunked_array([filled]))
    return table


def _solved(
    features: spmatrix, others: spmatrix, learned: pa.Table, judged: pa.Table, target: str, strength: float, steps: int
) -> float:
    from sklearn.linear_model import LogisticRegression, Ridge

    (y, is_number), (truth, _) = outcomes(learned, target), outcomes(judged, target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if is_number:
            solved = Ridge(alpha=1.0 / strength, solver="auto").fit(features, y)
            return summed(np.square(solved.predict(others) - truth), squares=True)
        solved = LogisticRegression(C=strength, max_iter=steps).fit(features, y)
    return summed(chances(solved.predict_proba(others), solved.classes_, truth), squares=False)


def expert(learned: pa.Table, judged: pa.Table, target: str) -> tuple[float, str]:
    """Return the loss of what somebody makes of the table who has a day, and what was chosen."""
    some, tried = divided(learned, HELD_OUT, 2)
    best = (math.inf, "", 1.0)
    for crossed in ("plain", "crosses"):
        features, others = _crafted(some, tried, target, crossed=crossed == "crosses")
        for strength in PENALTIES:
            best = min(best, (_solved(features, others, some, tried, target, strength, MOST_STEPS), crossed, strength))
    features, others = _crafted(learned, judged, target, crossed=best[1] == "crosses")
    loss = _solved(features, others, learned, judged, target, best[2], MOST_STEPS)
    return loss, f"{best[1]}, C = {best[2]:g}"


def _is_text(column: pa.ChunkedArray) -> bool:
    return pa.types.is_string(column.type) or pa.types.is_large_string(column.type)


def _crafted(learned: pa.Table, judged: pa.Table, target: str, *, crossed: bool) -> tuple[spmatrix, spmatrix]:
    """Return splines, values that come five times, words, and if asked for crosses of pairs and products of numbers."""
    from scipy import sparse

    names = [name for name in learned.column_names if name != target]
    numbers = [name for name in names if not _is_text(learned[name]) and not pa.types.is_nested(learned[name].type)]
    texts = [name for name in names if _is_text(learned[name])]
    few = [name for name in texts if len(pc.unique(learned[name])) <= len(learned) // 2]
    others = [name for name in names if name not in numbers and name not in few]
    parts = [_splines(learned, judged, numbers)] if numbers else []
    parts += [_common([table[name].to_pylist() for table in (learned, judged)]) for name in few]
    parts += [TABLES["_column"](learned[name], judged[name]) for name in others]
    for a, b in combinations(few, 2) if crossed else ():
        pairs = [list(zip(t[a].to_pylist(), t[b].to_pylist(), strict=True)) for t in (learned, judged)]
        parts.append(_common([[f"{x}*{y}" for x, y in rows] for rows in pairs]))
    if crossed and 1 < len(numbers) <= 30:
        parts.append(_products(learned, judged, numbers))
    one, two = zip(*parts, strict=True)
    return sparse.hstack(one).tocsr(), sparse.hstack(two).tocsr()


def _numbers(table: pa.Table, names: list[str], middles: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    values = np.column_stack([as_double(table[name]) for name in names])
    middles = np.nan_to_num(np.nanmedian(values, axis=0)) if middles is None else middles
    return np.where(np.isnan(values), middles, values), middles


def _splines(learned: pa.Table, judged: pa.Table, names: list[str]) -> tuple[spmatrix, spmatrix]:
    from scipy import sparse
    from sklearn.preprocessing import SplineTransformer, StandardScaler

    values, middles = _numbers(learned, names)
    others, _ = _numbers(judged, names, middles)
    scaler = StandardScaler().fit(values)
    made = [(scaler.transform(values), scaler.transform(others))]
    for k in range(len(names)):
        if len(np.unique(values[:, k])) > 2:
            knots = np.unique(np.quantile(values[:, k], np.linspace(0, 1, 12)))
            if len(knots) > 2:
                spline = SplineTransformer(knots=knots[:, None], degree=3, extrapolation="linear").fit(values[:, [k]])
                scale = StandardScaler().fit(spline.transform(values[:, [k]]))
                made.append(tuple(scale.transform(spline.transform(each[:, [k]])) for each in (values, others)))
    return tuple(sparse.csr_matrix(np.hstack([pair[side] for pair in made])) for side in (0, 1))


def _common(rows: list[list[Any]]) -> tuple[spmatrix, spmatrix]:
    from sklearn.preprocessing import OneHotEncoder

    shaped = [np.array([str(value) for value in column], object)[:, None] for column in rows]
    encoder = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=5).fit(shaped[0])
    return encoder.transform(shaped[0]), encoder.transform(shaped[1])


def _products(learned: pa.Table, judged: pa.Table, names: list[str]) -> tuple[spmatrix, spmatrix]:
    from scipy import sparse
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    values, middles = _numbers(learned, names)
    others, _ = _numbers(judged, names, middles)
    scaler = StandardScaler().fit(values)
    products = PolynomialFeatures(2, interaction_only=True, include_bias=False)
    made = [products.fit_transform(np.clip(scaler.transform(each), -10, 10))[:, len(names) :] for each in (values, others)]
    scaler = StandardScaler().fit(made[0])
    return tuple(sparse.csr_matrix(scaler.transform(each)) for each in made)


# --- LightGBM


def trees(learned: pa.Table, judged: pa.Table, target: str) -> float:
    """Return the loss of LightGBM's defaults; NaN where it is not installed."""
    if importlib.util.find_spec("lightgbm") is None:
        return math.nan
    import lightgbm

    features, others, categories = _leaves(learned, judged, target)
    (y, is_number), (truth, _) = outcomes(learned, target), outcomes(judged, target)
    make = lightgbm.LGBMRegressor if is_number else lightgbm.LGBMClassifier
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        solved = make(verbose=-1, n_jobs=1).fit(features, y, categorical_feature=categories)
        if is_number:
            return summed(np.square(solved.predict(others) - truth), squares=True)
        return summed(chances(solved.predict_proba(others), solved.classes_, truth), squares=False)


def _leaves(learned: pa.Table, judged: pa.Table, target: str) -> tuple[Any, Any, Any]:
    """Return numbers with codes of strings; words, lists and maps as counts."""
    names = [name for name in learned.column_names if name != target]
    if any(pa.types.is_nested(learned[name].type) for name in names) or any(
        _is_text(learned[name]) and len(pc.unique(learned[name])) > len(learned) // 2 for name in names
    ):
        return (*(each.astype(np.float32) for each in TABLES["standard"](learned, judged, target)), "auto")
    columns, categories = ([], []), []
    for name in names:
        if _is_text(learned[name]):
            known = pc.unique(learned[name])
            codes = [pc.fill_null(pc.index_in(each[name], value_set=known), -1) for each in (learned, judged)]
            categories.append(len(columns[0]))
        else:
            codes = [as_double(each[name]) for each in (learned, judged)]
        for side in (0, 1):
            columns[side].append(np.asarray(codes[side], np.float64))
    return (*(np.column_stack(side) for side in columns), categories or "auto")


# --- all


def measure(problem: Problem, data: Path, rows: int, cases: list[str]) -> dict[str, Any]:
    """Return the losses of all on a table."""
    table = problem.make(data)
    table = table.take(pa.array(np.random.default_rng(1).permutation(len(table))[:rows]))
    learned, judged = divided(table, HELD_OUT, 0)
    found: dict[str, Any] = {"rows": len(learned)}
    if "ours" in cases:
        found["ours"] = ours(learned, judged, problem.target, {})
    if "one" in cases:
        found["one"] = ours(learned, judged, problem.target, {"epochs": 1})
    if "converged" in cases:
        found["converged"] = converged(learned, judged, problem.target)
    if "expert" in cases:
        found["expert"], found["chosen"] = expert(learned, judged, problem.target)
    if "trees" in cases:
        found["trees"] = trees(learned, judged, problem.target)
    if "tuned" in cases:
        found["tuned"], found["model"] = tuned(learned, judged, problem.target)
    return found


HEAD = (
    "| table | rows | default | off by | one pass | off by | converged | expert | expert chose | LightGBM | tuned | model | "
    "default above expert | tuned above expert |"
)


def line(name: str, found: dict[str, Any]) -> str:
    """Return a row of the table."""
    nothing = {"loss": math.nan, "off": math.nan}
    mine, one = found.get("ours", nothing), found.get("one", nothing)
    best = found.get("expert", math.nan)
    losses = f"{mine['loss']:.4g} | {mine['off']:+.1f} | {one['loss']:.4g} | {one['off']:+.1f}"
    others = (
        f"{found.get('converged', math.nan):.4g} | {best:.4g} | {found.get('chosen', '')} | {found.get('trees', math.nan):.4g}"
    )
    tried = found.get("tuned", math.nan)
    above = f"{above_expert(mine['loss'], best)} | {above_expert(tried, best)}"
    return f"| {name} | {found['rows']:,} | {losses} | {others} | {tried:.4g} | {found.get('model', '')} | {above} |"


def above_expert(loss: float, experts: float) -> str:
    """Return how far a loss is above the expert's, in words; nothing where one of them is not known."""
    ratio = loss / experts
    return "" if math.isnan(ratio) else f"{100.0 * (ratio - 1.0):+.1f} %"


COLUMNS = {"ours": (2, 3), "one": (4, 5), "converged": (6,), "expert": (7, 8), "trees": (9,), "tuned": (10, 11)}
"""Cells of a row that a case fills."""


def written(text: str, lines: dict[str, str], cases: list[str]) -> str:
    """Return a page whose table has what was measured now: rows and cases that were not stay as they were."""
    before, head, rest = text.partition(HEAD)
    rows, others = [part.splitlines() for part in rest.split("\n\n", 1)]
    for name, line_ in lines.items():
        place = next((k for k, row in enumerate(rows) if row.startswith(f"| {name} |")), None)
        if place is None:
            rows.append(line_)
            continue
        old, new = ([cell.strip() for cell in row.strip("|").split("|")] for row in (rows[place], line_))
        kept = {k for case, places in COLUMNS.items() if case not in cases for k in places}
        cells = [old[k] if k in kept else new[k] for k in range(len(new))]
        mine, experts, tried = (float(cells[k] or "nan") for k in (2, 7, 10))
        cells[-2:] = above_expert(mine, experts), above_expert(tried, experts)
        rows[place] = f"| {' | '.join(cells)} |"
    return before + head + "\n".join(rows) + "\n\n" + "\n".join(others) + "\n"


def main() -> None:
    """Measure all, print as it goes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED, help="folder of the raw files (default: %(default)s)")
    parser.add_argument("--only", default="", help="names of tables, or how they begin, by semicolon")
    parser.add_argument("--rows", type=int, default=20_000, help="of a table, at most (default: %(default)s)")
    parser.add_argument("--cases", default="ours,one,converged,expert,trees,tuned", help="(default: %(default)s)")
    parser.add_argument("--into", type=Path, help="a page whose table is to have what is measured, such as docs/defaults.md")
    given = parser.parse_args()
    results, cases = {}, given.cases.split(",")
    print(HEAD)
    print("|---" * HEAD.count(" |") + "|")
    for problem in (p for p in PROBLEMS if p.name.startswith(tuple(given.only.split(";")))):
        results[problem.name] = measure(problem, given.data, given.rows, cases)
        print(line(problem.name, results[problem.name]), flush=True)
    if given.into:
        lines = {name: line(name, found) for name, found in results.items()}
        given.into.write_text(written(given.into.read_text(), lines, cases))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
