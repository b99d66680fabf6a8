"""The pictures of docs/noise.md and docs/uncertainty.md, each from runs that are made for it.

    python scripts/draw_pictures.py [--only variance,line,growth,posterior,intervals,levels] [--out docs/pictures]

variance   the squared error of a mean gradient, against the rows of its batch: independent rows, all of them at most once, and
           chunks of sorted data; draws, and the formulas of docs/noise.md
line       the loss after the same number of steps, against 1 over the batch size: the branches of a pilot, and its fit
growth     the rows of a step over a run with --batch-size adaptive
posterior  a weight: draws, the normal approximation at the mode, and what the sandwich says of other rows
intervals  a regression whose noise grows: where the mean is, and where the next outcome is
levels     how often calibrated intervals hold new outcomes, against the level that was asked for

The first three are of datasets/demo, the others of rows that are made. Pictures are SVG, and in the repository.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

import streamsgd
from streamsgd.show.svg import Axis, Line, chart
from streamsgd.training.together.pilot import run_pilot

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "datasets" / "demo"
LOGISTIC: dict[str, Any] = {"memory": "2GB", "executor": "inline"}
MADE: dict[str, Any] = {"memory": "1GB", "executor": "inline", "validation": 0.0}


def alone(svg: str) -> str:
    """Return a chart that a browser shows by itself, on any background."""
    style = "<style>text{font:11px sans-serif;fill:#24292f}</style><rect width='100%' height='100%' fill='#ffffff'/>"
    return svg.replace("</title>", f"</title>{style}", 1) + "\n"


# --- docs/noise.md


def gradients(rows: int) -> np.ndarray:
    """Return gradients of demo rows, (rows, 3), of a logistic regression at its minimum; those of late flights come first."""
    table = ds.dataset(DEMO).to_table(columns=["distance", "hour", "late"]).slice(0, rows)
    x = np.column_stack([table["distance"].to_numpy(), table["hour"].to_numpy(), np.ones(len(table))]).astype(float)
    x[:, :2] = (x[:, :2] - x[:, :2].mean(axis=0)) / x[:, :2].std(axis=0)
    y, w = np.asarray(table["late"].to_numpy(zero_copy_only=False), float), np.zeros(3)
    for _ in range(8):  # Newton's
        p = 1.0 / (1.0 + np.exp(-x @ w))
        w -= np.linalg.solve((x * (p * (1.0 - p))[:, None]).T @ x, x.T @ (p - y))
    return ((1.0 / (1.0 + np.exp(-x @ w)) - y)[:, None] * x)[np.argsort(-y, kind="stable")]


def variance(*, rows: int = 65_536, draws: int = 400) -> str:
    """Draw the error of a mean gradient: 32 row groups, of which 4 make a chunk."""
    g, rng, groups, in_chunk = gradients(rows), np.random.default_rng(0), 32, 4
    n, size = len(g), len(g) // 32
    g = g[: groups * size]
    n, mean = len(g), g.mean(axis=0)
    total = float(np.square(g - mean).sum() / n)
    between = float(np.square(g.reshape(groups, size, -1).mean(axis=1) - mean).sum() / (groups - 1))
    floor, r = (1.0 - in_chunk / groups) * between / in_chunk, in_chunk * size

    def of_chunk(b: int) -> float:
        """Return the squared error of b rows of a chunk, drawn."""
        off = []
        for _ in range(draws):
            chosen = rng.choice(groups, in_chunk, replace=False)
            rows_ = (chosen[:, None] * size + np.arange(size)).ravel()
            off.append(np.square(g[rng.choice(rows_, b, replace=False)].mean(axis=0) - mean).sum())
        return float(np.mean(off))

    def of_all(b: int, *, replace: bool) -> float:
        """Return the squared error of b rows of all, drawn."""
        some = [g[rng.integers(n, size=b) if replace else rng.choice(n, b, replace=False)].mean(axis=0) for _ in range(draws)]
        return float(np.square(np.array(some) - mean).sum(axis=1).mean())

    few = np.array([4**k for k in range(7)])
    b = np.unique(np.round(np.geomspace(1, n * 0.98, 60)))
    inside = b[b <= r]
    most = [int(few[-1]), n // 4, n // 2, int(0.9 * n)]
    return chart(
        [
            Line("independent rows", b, total / b),
            Line("each row once", b, total / b * (n - b) / (n - 1)),
            Line("4 of 32 sorted groups", inside, floor + (1 / inside - 1 / r) * r / (r - 1) * (total - floor)),
            Line("", few, [of_all(int(k), replace=True) for k in few], "points"),
            Line("", most, [of_all(k, replace=False) for k in most], "points"),
            Line("", few[few <= r], [of_chunk(int(k)) for k in few[few <= r]], "points"),
        ],
        Axis("rows of a batch", log=True),
        Axis("squared error of its mean gradient", log=True),
        "The noise of a batch against its rows",
    )


def line() -> str:
    """Draw the branches of a pilot and their line."""
    given = {**LOGISTIC, "target": "late", "optimizer": "sgd", "learning_rate": 0.3, "steps": 400}
    found, _made = run_pilot(DEMO, given, [8, 16, 32, 64, 256], seeds=5)
    branches = [one for one in found["branches"] if one["comparison"] == "steps"]
    x = np.array([1.0 / one["batch_size"] for one in branches])
    a, c = found["fit"]["a"], found["fit"]["c"]
    return chart(
        [
            Line(f"{a:.4f} + {c:.3f} / rows", [0.0, x.max()], [a, a + c * x.max()]),
            Line("a branch each", np.repeat(x, 5), np.concatenate([one["losses"] for one in branches]), "points"),
        ],
        Axis("1 / rows of a batch"),
        Axis("held-out loss after 400 steps"),
        "The loss after the same steps against 1 over the rows of a batch",
    )


def growth() -> str:
    """Draw the rows of steps over a run, for two thetas."""
    lines = []
    for theta in (0.5, 0.9):
        model = streamsgd.train(
            DEMO, "late", **LOGISTIC, optimizer="sgd", learning_rate=0.3, schedule="constant", epochs=3,
            batch_size=f"adaptive:theta={theta},rate=none", validation=0.0,
        )  # fmt: skip
        ledger = model.provenance["ledger"]
        lines.append(Line(f"theta = {theta}", ledger["step"], ledger["rows"]))
    return chart(lines, Axis("step"), Axis("rows that it took", log=True), "The rows of a step over the run")


# --- docs/uncertainty.md


def posterior() -> str:
    """Draw what is known of a weight, by three answers to three questions."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(60, 2))
    y = x @ [1.5, -1.0] + rng.logistic(size=60) > 0
    table = pa.table({"a": x[:, 0], "b": x[:, 1], "y": y})
    common = {**MADE, "polish": 50, "scale": "none", "transform": "none", "precision": "float64"}
    sampled = streamsgd.sample(table, "y", prior="normal:sd=2", draws=4000, **common)
    draws = sampled.draws.samples().reshape(-1, 3)[:, 0]
    laplace = streamsgd.sample(table, "y", prior="normal:sd=2", method="laplace", **common).draws
    trained = streamsgd.train(table, "y", standard_errors=True, epochs=1, **common)
    grid = np.linspace(-0.5, 4.5, 200)
    heights, edges = np.histogram(draws, 40, (-0.5, 4.5), density=True)
    return chart(
        [
            Line("draws (sample)", np.repeat(edges, 2)[1:-1], np.repeat(heights, 2)),
            Line("laplace", grid, normal(grid, float(laplace.mode[0]), math.sqrt(float(laplace.variance[0]))), "dashes"),
            Line("standard error", grid, normal(grid, float(trained.weights[0, 0]), float(trained.standard_errors()[0][0, 0]))),
        ],
        Axis("weight of a column; 1.5 made the 60 rows"),
        Axis("density"),
        "What is known of a weight",
    )


def normal(x: np.ndarray, mean: float, sd: float) -> Any:
    """Return the density of the normal distribution."""
    return np.exp(-0.5 * np.square((x - mean) / sd)) / (sd * math.sqrt(2.0 * math.pi))


def fanned(n: int, seed: int) -> pa.Table:
    """Return rows whose noise grows with x."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.0, 4.0, n)
    return pa.table({"x": x, "y": 1.0 + 2.0 * x + (0.3 + 0.9 * x) * rng.normal(size=n)})


def predicted(table: pa.Table, learned: int = 4000, level: float = 0.9) -> pa.Table:
    """Return what a model of 4,000 such rows says of others, with intervals; a fifth of its rows calibrate it."""
    model = streamsgd.train(
        fanned(learned, 1), "y", **{**MADE, "validation": 0.2}, polish=50, epochs=1, standard_errors=True, conformal=True
    )
    with tempfile.TemporaryDirectory() as scratch:
        path, out = Path(scratch) / "x.parquet", Path(scratch) / "out.parquet"
        pq.write_table(table, path)
        streamsgd.predict(model, path, out, intervals=level, memory="1GB")
        return pq.read_table(out)


def intervals() -> str:
    """Draw both kinds of intervals over the rows."""
    shown = fanned(200, 2).sort_by("x")
    told, x = predicted(shown, learned=400), shown["x"].to_numpy()
    return chart(
        [
            Line("mean", x, told["prediction"].to_numpy()),
            Line(
                "90 % of the mean",
                [*x, *x[::-1]],
                [*told["mean_lower"].to_pylist(), *told["mean_upper"].to_pylist()[::-1]],
                "dashes",
            ),
            Line("90 % of outcomes", [*x, *x[::-1]], [*told["lower"].to_pylist(), *told["upper"].to_pylist()[::-1]]),
            Line("new rows", x, shown["y"].to_numpy(), "points"),
        ],
        Axis("x"),
        Axis("y"),
        "Where the mean is, and where the next outcome is",
    )


def levels() -> str:
    """Draw how many outcomes are held, against what was asked for."""
    fresh, asked = fanned(20_000, 3), [0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
    held, y = [], fresh["y"].to_numpy()
    for level in asked:
        told = predicted(fresh, level=level)
        held.append(float(np.mean((told["lower"].to_numpy() <= y) & (y <= told["upper"].to_numpy()))))
    return chart(
        [Line("as asked", [0.5, 0.95], [0.5, 0.95], "dashes"), Line("held", asked, held), Line("", asked, held, "points")],
        Axis("level that was asked for"),
        Axis("share of 20,000 new outcomes that is held"),
        "How often calibrated intervals hold",
    )


PICTURES: dict[str, Callable[[], str]] = {
    "variance": variance,
    "line": line,
    "growth": growth,
    "posterior": posterior,
    "intervals": intervals,
    "levels": levels,
}


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PICTURES))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.only.split(","):
        path = options.out / f"{name}.svg"
        path.write_text(alone(PICTURES[name]()), encoding="utf-8")
        print(path, flush=True)


if __name__ == "__main__":
    main()
