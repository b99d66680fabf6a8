"""How often networks come to the good minimum of a task like XOR: small batches against full ones, from the same starts.

    python scripts/explore_starts.py [--starts 200] [--plot FILE.svg] [--quick]

Rows are two numbers around the corners (+-1, +-1) of a square; the target is whether they have the same sign. A network of two
hidden units can learn it, and has poor minima, of a mean log loss of ln(2)/2 = 0.347 and more, which leave two corners or more
undecided. A start is good if its loss ends below 0.2. Both kinds of batches visit every row equally often, so that a full batch
makes a fiftieth of the steps; each has the learning rate, of six, that brings most of 50 further starts to the good minimum.
Fisher's exact test (1922) says whether the shares of 200 starts differ.

Beside it full batches with as many steps as the small ones, which is fifty times the work: what is left of the difference is
the noise, and what goes is the number of steps. All starts of a kind learn from one decode (`streamsgd.train_many`).

Prints a table and, as the last line, JSON; --plot draws the shares against the rate.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from draw_pictures import alone
from scipy.stats import fisher_exact

import streamsgd
from streamsgd.show.svg import Axis, Line, chart

ROWS, SMALL, PASSES = 200, 4, 8
RATES = (0.1, 0.3, 1.0, 3.0, 6.0, 12.0)
GOOD = 0.2
TRIED = 50
"""Starts that a rate is chosen by, others than those that are judged."""

SETTINGS: dict[str, Any] = {
    "optimizer": "sgd",
    "schedule": "constant",
    "transform": "none",
    "validation": 0.0,
    "polish": 0,
    "executor": "inline",
    "memory": "2GB",
}


def corners(seed: int = 0) -> pa.Table:
    """Return rows around the corners, as many at each, and whether their numbers have the same sign."""
    signs = np.tile([(-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0), (1.0, 1.0)], (ROWS // 4, 1))
    x = signs + 0.25 * np.random.default_rng(seed).normal(size=signs.shape)
    return pa.table({"left": x[:, 0], "right": x[:, 1], "same": (signs.prod(axis=1) > 0).astype(int)})


def good(table: pa.Table, batch: int | str, rate: float, passes: int, draws: range) -> int:
    """Return how many starts come to the good minimum."""
    each = [{"model": f"mlp:hidden=2,activation=tanh,draw={draw}"} for draw in draws]
    settings = {**SETTINGS, "batch_size": batch, "learning_rate": rate, "epochs": passes}
    models = streamsgd.train_many(table, "same", each, **settings)
    # One that has left the finite numbers is no good.
    learned = [model for model in models if isinstance(model, streamsgd.Model)]
    return sum(model.evaluate(table, executor="inline")["log_loss"] < GOOD for model in learned)


def judged(table: pa.Table, batch: int | str, starts: int, tried: int) -> dict[str, Any]:
    """Return how many of the starts are good at the best rate, and the shares by which that was chosen."""
    others = range(1000, 1000 + tried)
    shares = [good(table, batch, rate, PASSES, others) / tried for rate in RATES]
    rate = RATES[int(np.argmax(shares))]
    return {"rate": rate, "shares": shares, "good": good(table, batch, rate, PASSES, range(starts)), "of": starts}


def plot(found: dict[str, Any]) -> str:
    """Return a chart of the shares by which rates were chosen."""
    lines = [
        Line(name, RATES, found[key]["shares"])
        for key, name in (("small", f"batches of {SMALL}"), ("full", f"all {ROWS} rows"))
    ]
    title = f"Starts that come to the good minimum in {PASSES} passes"
    return alone(chart(lines, Axis("learning rate", log=True), Axis(f"share of {TRIED} starts"), title))


def main(arguments: list[str]) -> None:
    """Run the experiment."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--starts", type=int, default=200)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--quick", action="store_true", help="few starts, to see that it works")
    given = parser.parse_args(arguments)
    starts, tried = (30, 8) if given.quick else (given.starts, TRIED)
    table, found = corners(), {}
    for key, batch in (("small", SMALL), ("full", "full")):
        found[key] = one = judged(table, batch, starts, tried)
        print(f"{key} batches, {PASSES} passes: {one['good']} of {starts} starts at rate {one['rate']:g}", flush=True)
    counts = [[found[key]["good"], starts - found[key]["good"]] for key in ("small", "full")]
    found["p"] = float(fisher_exact(counts, alternative="greater").pvalue)
    print(f"small batches come there more often: Fisher's exact p = {found['p']:.2g}")
    if not given.quick:
        more = PASSES * ROWS // SMALL
        rate = found["full"]["rate"]
        found["as_many_steps"] = good(table, "full", rate, more, range(starts))
        print(f"full batches, {more} passes, so as many steps: {found['as_many_steps']} of {starts} starts at rate {rate:g}")
    if given.plot:
        given.plot.write_text(plot(found), encoding="utf-8")
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
