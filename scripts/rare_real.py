"""Losses on held-out rows with and without thinning, on real data and a click log in which positives are rare."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from scipy.optimize import brentq
from scipy.special import expit

import streamsgd

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
HELD_OUT, RESAMPLES = 0.2, 100
PROBES = ["ipsweep.", "nmap.", "portsweep.", "satan."]


class Sizes(NamedTuple):
    """Of the click log."""

    rows: int
    held: int
    share: float


class Problem(NamedTuple):
    """Rows to learn, rows to judge, and the rules that are compared with learning all rows."""

    name: str
    make: Callable[[Path, Path, Path, Sizes], str]
    """Writes, of raw data in a folder, what is learned and what is judged; returns the target."""
    rules: tuple[str, ...]
    settings: dict[str, Any]


def _split(table: pa.Table, learned: Path, judged: Path) -> None:
    held = np.random.default_rng(0).random(len(table)) < HELD_OUT
    pq.write_table(table.filter(pa.array(~held)), learned, row_group_size=25_000)
    pq.write_table(table.filter(pa.array(held)), judged)


def attacks(*names: str) -> Callable[[Path, Path, Path, Sizes], str]:
    """Return what writes connections of KDD 1999, of which these attacks are the positives."""

    def make(data: Path, learned: Path, judged: Path, _sizes: Sizes) -> str:
        path = data / "tabular/kddcup.data_10_percent.gz"
        columns = [f"c{k}" for k in range(41)]
        table = pa.csv.read_csv(path, read_options=pa.csv.ReadOptions(column_names=[*columns, "label"]))
        attack = pc.is_in(table["label"], value_set=pa.array(names))
        _split(table.drop_columns("label").append_column("y", attack), learned, judged)
        return "y"

    return make


def calls(data: Path, learned: Path, judged: Path, _sizes: Sizes) -> str:
    """Write calls of a bank, one in nine a success."""
    table = pa.csv.read_csv(data / "tabular/bank-full.csv.gz", parse_options=pa.csv.ParseOptions(delimiter=";"))
    _split(table, learned, judged)
    return "y"


def clicks(_data: Path, learned: Path, judged: Path, sizes: Sizes) -> str:
    """Write the click log of datasets/criteo.py, with an intercept by which so many rows are clicks."""
    spec = importlib.util.spec_from_file_location("criteo", ROOT / "datasets" / "criteo.py")
    assert spec is not None
    assert spec.loader is not None
    criteo = importlib.util.module_from_spec(spec)
    sys.modules["criteo"] = criteo  # for its annotations
    spec.loader.exec_module(criteo)
    scores = criteo.log_odds(criteo.draw(np.random.default_rng(0), 50_000))
    criteo.INTERCEPT += brentq(lambda shift: float(expit(scores + shift).mean()) - sizes.share, -20.0, 20.0)
    for seed, (path, rows) in enumerate(((learned, sizes.rows), (judged, sizes.held))):
        criteo.make(criteo.Log(rows, seed), path)
    return "label"


PROBLEMS = (
    Problem("satan", attacks("satan."), ("targeted:c=20",), {}),
    Problem("back", attacks("back."), ("targeted:c=20",), {}),
    Problem("probes", attacks(*PROBES), ("targeted:c=20",), {}),
    Problem("bank", calls, ("targeted:c=20", "targeted:c=3"), {}),
    Problem("clicks", clicks, ("auto", "targeted:c=5"), {"epochs": 1}),
)


def log_losses(y: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the log loss of each row."""
    losses: np.ndarray = np.logaddexp(0.0, scores) - y * scores
    return losses


class Ranking:
    """Rows by falling score, as average precision needs them; rows of the same score stand together."""

    def __init__(self, y: np.ndarray, scores: np.ndarray) -> None:
        self.order = np.argsort(-scores, kind="stable")
        down = -scores[self.order]
        self.y, self.last = y[self.order], np.searchsorted(down, down, side="right") - 1

    def average_precision(self, times: np.ndarray) -> float:
        """Return the mean over positives of the precision at their scores, of rows that come so many times."""
        times = times[self.order]
        found, rows = np.cumsum(times * self.y)[self.last], np.cumsum(times)[self.last]
        return float((times * self.y * found / np.maximum(rows, 1.0)).sum() / max((times * self.y).sum(), 1.0))


def in_errors(y: np.ndarray, ours: np.ndarray, full: np.ndarray) -> dict[str, float]:
    """Return by how many standard errors of the difference ours is worse, in log loss and average precision."""
    away = log_losses(y, ours) - log_losses(y, full)
    rankings = Ranking(y, ours), Ranking(y, full)
    lost = []
    for k in range(1 + RESAMPLES):
        times = np.random.default_rng([k, 18]).poisson(1.0, len(y)).astype(float) if k else np.ones(len(y))
        mine, theirs = (ranking.average_precision(times) for ranking in rankings)
        lost.append(theirs - mine)
    return {
        "log_loss_worse": float(away.mean() / max(away.std() / np.sqrt(len(y)), 1e-300)),
        "average_precision_worse": lost[0] / max(float(np.std(lost[1:])), 1e-300),
    }


def measure(problem: Problem, data: Path, folder: Path, sizes: Sizes) -> dict[str, Any]:
    """Train with all rows and by each rule; judge them on the same rows."""
    learned, judged = (folder / f"{problem.name}-{sizes.rows}-{part}.parquet" for part in ("learned", "judged"))
    target = problem.make(data, learned, judged, sizes)
    rows = pq.read_metadata(learned).num_rows
    classes, scores, results = None, {}, {}
    for rule in ("none", *problem.rules):
        began = time.perf_counter()
        model = streamsgd.train(str(learned), target, rare=rule, validation="none", memory="2GB", **problem.settings)
        results[rule] = {"seconds": time.perf_counter() - began}
        scores[rule] = np.asarray(model.decision_function(str(judged)), np.float64).ravel()
        classes = model.target.classes
        kept = model.metrics.get("rare", {})
        results[rule]["learned"] = (kept["kept"] + kept["pilot_rows"]) / rows if kept else 1.0
    values = pq.read_table(judged, columns=[target])[target].to_pylist()
    y = np.array([str(value).lower() == str(classes[1]).lower() for value in values], float)
    print(f"{problem.name}: {rows:,} rows learned, {len(y):,} judged, {y.mean():.2%} positive")
    for rule, told in results.items():
        found = told
        found["log_loss"] = float(log_losses(y, scores[rule]).mean())
        found["average_precision"] = Ranking(y, scores[rule]).average_precision(np.ones(len(y)))
        found |= in_errors(y, scores[rule], scores["none"]) if rule != "none" else {}
        by = "  worse by {log_loss_worse:+.1f} and {average_precision_worse:+.1f} s.e."
        worse = "" if rule == "none" else by.format(**found)
        said = "{learned:7.2%} of rows  {seconds:6.1f} s  log loss {log_loss:.6f}  average precision {average_precision:.4f}"
        print(f"  {rule:16} {said.format(**found)}{worse}", flush=True)
    return results


def real(data: Path, folder: Path, only: list[str], *, small: bool) -> dict[str, Any]:
    """Measure all of them that are asked for and are there."""
    sizes = Sizes(40_000, 20_000, 0.04) if small else Sizes(2_400_000, 600_000, 0.002)
    wanted = [problem for problem in PROBLEMS if problem.name.startswith(tuple(only))]
    if not data.is_dir():
        print(f"there is no folder of raw data at {data}: the click log alone is measured; see --data", file=sys.stderr)
        wanted = [problem for problem in wanted if problem.make is clicks]
    return {problem.name: measure(problem, data, folder, sizes) for problem in wanted}
