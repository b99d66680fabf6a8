"""Losses on held-out rows with and without thinning, on real data and a click log in which positives are rare.

`auto` learns all rows of tables below two millions, as `none` does; what it would do without that limit is `targeted:c=20`.
"""

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


HEAD = (
    "| data | positive | `--rare` | rows learned | processor seconds | log loss | average precision | log loss worse by "
    "| average precision worse by |"
)
"""Of the table; the last two in standard errors, of each seed."""


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


def late(data: Path, learned: Path, judged: Path, _sizes: Sizes) -> str:
    """Write flights, of which those more than three hours late are the positives."""
    table = pq.read_table(data / "tabular/flights-3m.parquet")
    _split(table.drop_columns("delay").append_column("y", pc.greater(table["delay"], 180)), learned, judged)
    return "y"


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
    Problem("KDD 1999, satan", attacks("satan."), ("targeted:c=20",), {}),
    Problem("KDD 1999, back", attacks("back."), ("targeted:c=20",), {}),
    Problem("KDD 1999, probes", attacks(*PROBES), ("targeted:c=20",), {}),
    Problem("bank", calls, ("targeted:c=20", "targeted:c=3"), {}),
    Problem("flights, three hours late", late, ("auto",), {}),
    Problem("clicks, one pass", clicks, ("auto", "targeted:c=5"), {"epochs": 1}),
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


def judged_by(y: np.ndarray, ours: np.ndarray, full: np.ndarray) -> dict[str, float]:
    """Return log loss and average precision, their standard errors, and by how many of the difference's ours is worse."""
    losses, rankings = log_losses(y, ours), (Ranking(y, ours), Ranking(y, full))
    away, found = losses - log_losses(y, full), []
    for k in range(1 + RESAMPLES):
        times = np.random.default_rng([k, 18]).poisson(1.0, len(y)).astype(float) if k else np.ones(len(y))
        found.append([ranking.average_precision(times) for ranking in rankings])
    mine, theirs = np.array(found).T
    lost = theirs - mine
    return {
        "log_loss": float(losses.mean()),
        "log_loss_error": float(losses.std() / np.sqrt(len(y))),
        "average_precision": float(mine[0]),
        "average_precision_error": float(mine[1:].std()),
        "log_loss_worse": float(away.mean() / max(away.std() / np.sqrt(len(y)), 1e-300)),
        "average_precision_worse": float(lost[0] / max(lost[1:].std(), 1e-300)),
    }


class Run(NamedTuple):
    """What a run came to."""

    scores: np.ndarray
    """Of the rows that judge."""
    seconds: float
    """Of processors."""
    learned: float
    """Share of the rows."""
    positive: str
    """The class that is."""


def train(problem: Problem, learned: Path, judged: Path, target: str, **settings: Any) -> Run:
    """Train one model, and score the rows that judge it."""
    began = time.process_time()
    model = streamsgd.train(str(learned), target, validation="none", memory="2GB", **problem.settings, **settings)
    seconds, kept = time.process_time() - began, model.metrics.get("rare", {})
    share = (kept["kept"] + kept["pilot_rows"]) / pq.read_metadata(learned).num_rows if kept else 1.0
    scores = np.asarray(model.decision_function(str(judged)), np.float64).ravel()
    return Run(scores, seconds, share, str(model.target.classes[1]).lower())


def measure(problem: Problem, data: Path, folder: Path, sizes: Sizes, seeds: int) -> dict[str, Any]:
    """Train with all rows and by each rule, from some seeds; judge them on the same rows."""
    name = problem.name.split(",")[-1].strip().replace(" ", "-")
    learned, judged = (folder / f"{name}-{sizes.rows}-{part}.parquet" for part in ("learned", "judged"))
    target = problem.make(data, learned, judged, sizes)
    rules = ("none", *problem.rules)
    runs = {
        (rule, seed): train(problem, learned, judged, target, rare=rule, seed=seed) for seed in range(seeds) for rule in rules
    }
    positive = runs["none", 0].positive
    y = np.array(
        [str(value).lower() == positive for value in pq.read_table(judged, columns=[target])[target].to_pylist()], float
    )
    results = {}
    for rule in rules:
        mine = [runs[rule, seed] for seed in range(seeds)]
        found = [judged_by(y, run.scores, runs["none", seed].scores) for seed, run in enumerate(mine)]
        told = {key: [each[key] for each in found] for key in found[0]}
        results[rule] = {"learned": mine[0].learned, "processor": min(run.seconds for run in mine), "positive": y.mean()} | told
        print(line(problem.name, rule, results[rule]), flush=True)
    return results


def line(name: str, rule: str, found: dict[str, Any]) -> str:
    """Return a row of the table: losses are means over seeds, differences are those of each."""
    measures = ("log_loss", "average_precision")
    values = [
        f"{np.mean(found[key]):.{digits}f} ± {np.mean(found[key + '_error']):.{digits}f}"
        for key, digits in zip(measures, (6, 4), strict=True)
    ]
    worse = ["" if rule == "none" else ", ".join(f"{each:+.1f}" for each in found[f"{key}_worse"]) for key in measures]
    cells = [name, f"{found['positive']:.2%}", rule, f"{found['learned']:.1%}", f"{found['processor']:.1f}", *values, *worse]
    return f"| {' | '.join(cells)} |"


def written(text: str, lines: list[str]) -> str:
    """Return a page whose table has these rows: those of the same data and rule are replaced, others follow."""
    before, head, rest = text.partition(HEAD)
    table, _, after = rest.partition("\n\n")
    rows = {tuple(row.split(" | ")[:3:2]): row for row in [*table.splitlines(), *lines]}
    return before + head + "\n".join(rows.values()) + "\n\n" + after


def real(data: Path, folder: Path, only: list[str], *, small: bool, seeds: int = 3, into: Path | None = None) -> dict[str, Any]:
    """Measure all of them that are asked for and are there, and write the table into a page."""
    sizes = Sizes(40_000, 20_000, 0.04) if small else Sizes(2_400_000, 600_000, 0.002)
    wanted = [problem for problem in PROBLEMS if problem.name.startswith(tuple(only))]
    if not data.is_dir():
        print(f"there is no folder of raw data at {data}: the click log alone is measured; see --data", file=sys.stderr)
        wanted = [problem for problem in wanted if problem.make is clicks]
    print(HEAD + "\n" + "|---" * (HEAD.count("|") - 1) + "|")
    results = {problem.name: measure(problem, data, folder, sizes, 1 if small else seeds) for problem in wanted}
    if into is not None:
        lines = [line(name, rule, found) for name, rules in results.items() for rule, found in rules.items()]
        into.write_text(written(into.read_text(), lines))
    return results
