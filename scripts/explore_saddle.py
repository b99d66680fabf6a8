"""Noise as a way out of a saddle: a factorization machine on a matrix, begun exactly where its gradient is zero.

    python scripts/explore_saddle.py [--seeds 20] [--plot FILE.svg] [--quick]

Rows are the entries of a 20 x 15 matrix with singular values 12, 6 and 13 of 0.5; a machine of one factor without a linear part
predicts an entry by u_i v_j. The start is the second singular pair: a strict saddle. By Eckart and Young the loss, half the sum
of squares, is 73.625 there and 19.625 at the best. Full batches stay there, bit for bit. Batches of rows drawn with replacement
leave it, because the noise of their gradients points where the curvature is negative (Daneshmand et al. 2018, ICML). Not so at
the other saddle, where all factors are zero: every row's gradient is zero there, and so is the noise.

How many of so many seeds end within 15 % of the best is chance: a constant rate leaves noise about the minimum, and some
leave late. `in_numpy` makes the same steps without streamsgd, of a thousand seeds at once, and is the truth beside ours.

The model of the start is one of one's own, `Saddle` below, by --model explore_saddle:Saddle. Prints a table and, as the last
line, JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from draw_pictures import alone
from scipy.stats import binomtest

import streamsgd
from streamsgd.kernels.models.machines import Factored
from streamsgd.show.svg import Axis, Line, chart

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZES = (20, 15)
SINGULAR = (12.0, 6.0, *[0.5] * 13)
SADDLE = 0.5 * (sum(s * s for s in SINGULAR) - SINGULAR[1] ** 2)
BEST = 0.5 * (sum(s * s for s in SINGULAR) - SINGULAR[0] ** 2)
NEAR = 1.15 * BEST
SIZES_OF_BATCHES = (8, 64)
STEPS, MARKS = 400, range(50, 401, 50)
START: dict[str, np.ndarray] = {}
"""`factors`, (n_coordinates, 1): what `Saddle` begins with."""


class Saddle(Factored):
    """A machine of one factor that begins with `START`."""

    def begin(model, weights: np.ndarray, n_coordinates: int, seed: int) -> None:  # noqa: ARG002  as verbs are
        """Fill in the start."""
        weights[:, 0], weights[:, 1:] = 0.0, START["factors"]


SPEC = "explore_saddle:Saddle,k=1,linear=0,rate=1,start=0,key=0"
SETTINGS: dict[str, Any] = {
    "target": "y",
    "model": SPEC,
    "optimizer": "sgd",
    "learning_rate": 1.0,
    "schedule": "constant",
    "scale": "none",
    "precision": "float64",
    "executor": "inline",
    "memory": "1GB",
}


def matrix(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the matrix, and its left and right singular vectors in columns."""
    left, right = (np.linalg.qr(rng.normal(size=(n, len(SINGULAR))))[0] for n in SIZES)
    return left @ np.diag(SINGULAR) @ right.T, left, right


def table_of(entries: np.ndarray) -> pa.Table:
    """Return a row for each entry: names of its row and column, and the number."""
    i, j = np.indices(entries.shape).reshape(2, -1)
    return pa.table({"i": [f"i{k:02}" for k in i], "j": [f"j{k:02}" for k in j], "y": entries.ravel()})


def begin_with(table: pa.Table, u: np.ndarray, v: np.ndarray) -> None:
    """Begin with factors u of rows and v of columns, wherever their values have their coordinates."""
    start = import_module(Path(__file__).stem).START  # of the module that --model names, which is not __main__
    encoding = streamsgd.plan(table, **SETTINGS).encoding
    start["factors"] = np.zeros((encoding.n_coordinates, 1))
    model = streamsgd.Model(None, encoding, None, np.zeros((encoding.n_coordinates, 1)))
    places = model.encode(table)[0].rows.ids[:, -2:]
    for row, (a, b) in enumerate(places.tolist()):
        start["factors"][a, 0], start["factors"][b, 0] = u[row // SIZES[1]], v[row % SIZES[1]]


def loss_after(table: pa.Table, **settings: Any) -> float:
    """Return half the sum of squares at the end of a run."""
    model = streamsgd.train(table, **{**SETTINGS, **settings})
    return float(0.5 * np.sum((model.predict(table) - table["y"].to_numpy()) ** 2))


def in_numpy(entries: np.ndarray, u: np.ndarray, v: np.ndarray, size: int, chains: int) -> np.ndarray:
    """Return the losses of so many chains after every step, (steps, chains): plain NumPy, from the same start."""
    rng, each = np.random.default_rng(1), np.arange(chains)[:, None]
    u, v = (np.tile(one, (chains, 1)) for one in (u, v))
    losses = []
    for _ in range(STEPS):
        i, j = np.divmod(rng.integers(entries.size, size=(chains, size)), SIZES[1])
        of_rows, of_columns = u[each, i], v[each, j]
        error = (of_rows * of_columns - entries[i, j]) / size
        np.subtract.at(u, (each, i), error * of_columns)
        np.subtract.at(v, (each, j), error * of_rows)
        losses.append(0.5 * np.sum((u[:, :, None] * v[:, None, :] - entries) ** 2, axis=(1, 2)))
    return np.array(losses)


def escapes(
    table: pa.Table, entries: np.ndarray, start: Sequence[np.ndarray], size: int, seeds: int, chains: int
) -> dict[str, Any]:
    """Return what batches of a size came to, and what they do in NumPy."""
    drawn = {"shuffle": "iid", "chunk_rows": entries.size, "batch_size": size}
    paths = np.array([[loss_after(table, **drawn, steps=steps, seed=seed) for seed in range(seeds)] for steps in MARKS])
    truth = in_numpy(entries, *start, size, chains)
    share, near = float(np.mean(truth[-1] <= NEAR)), int(np.sum(paths[-1] <= NEAR))
    return {
        "losses": paths[-1].tolist(),
        "of": seeds,
        "escaped": int(np.sum(paths[-1] < SADDLE - 1.0)),
        "reached": int(np.sum(paths.min(axis=0) <= NEAR)),
        "near": near,
        "mean": float(paths[-1].mean()),
        "medians": np.median(paths, axis=1).tolist(),
        "in_numpy": {
            "chains": chains,
            "escaped": float(np.mean(truth[-1] < SADDLE - 1.0)),
            "reached": float(np.mean(truth[np.array(MARKS) - 1].min(axis=0) <= NEAR)),
            "near": share,
            "mean": float(truth[-1].mean()),
            "medians": np.median(truth, axis=1).tolist(),
        },
        "p": float(binomtest(near, seeds, share).pvalue),
    }


def in_words(size: int, one: dict[str, Any]) -> str:
    """Return a line of `escapes`."""
    truth, of = one["in_numpy"], one["of"]
    ours = f"{one['escaped']} left the saddle, {one['reached']} came within 15 % of {BEST}, {one['near']} ended there"
    shares = f"{truth['escaped']:.3f}, {truth['reached']:.3f} and {truth['near']:.3f} of them"
    return (
        f"batches of {size:2}, {STEPS} steps: of {of} seeds {ours}; mean {one['mean']:.2f}, "
        f"median {one['medians'][-1]:.2f}\n"
        f"{'in NumPy':>14}, {truth['chains']} chains: {shares}; mean {truth['mean']:.2f}; ours beside it: p = {one['p']:.2g}"
    )


def plot(found: dict[str, Any]) -> str:
    """Return a chart of the losses along the steps."""
    lines = [Line(f"{size} rows", [0, *MARKS], [SADDLE, *found[f"b{size}"]["medians"]], "line") for size in SIZES_OF_BATCHES]
    lines += [Line("", range(1, STEPS + 1), found[f"b{size}"]["in_numpy"]["medians"], "dashes") for size in SIZES_OF_BATCHES]
    lines.append(Line("all 300 rows", [0, STEPS], [SADDLE, found["full"]]))
    return alone(chart(lines, Axis("steps"), Axis("median loss; NumPy's dashed"), "Batches leave a saddle"))


def main(arguments: list[str]) -> None:
    """Run the experiment."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="three seeds and fewer full batches, to see that it works")
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args(arguments)
    logging.getLogger("streamsgd").setLevel(logging.ERROR)  # few steps leave models that are worse than none
    seeds, epochs, chains = (3, 200, 100) if given.quick else (given.seeds, 2000, 1000)
    entries, left, right = matrix(np.random.default_rng(0))
    table, start = table_of(entries), [SINGULAR[1] ** 0.5 * one[:, 1] for one in (left, right)]
    begin_with(table, *start)
    full = {"batch_size": entries.size, "shuffle": "none", "epochs": epochs}
    found: dict[str, Any] = {"saddle": SADDLE, "best": BEST, "full": loss_after(table, **full)}
    found["stuck"] = bool(abs(found["full"] - SADDLE) < 1e-9)
    print(f"full batches, {epochs} steps: {found['full']:.6f}, where it began: {SADDLE}")
    for size in SIZES_OF_BATCHES:
        found[f"b{size}"] = one = escapes(table, entries, start, size, seeds, chains)
        print(in_words(size, one), flush=True)
    begin_with(table, np.zeros(SIZES[0]), np.zeros(SIZES[1]))
    nothing = 0.5 * float(np.sum(entries**2))
    zero = loss_after(table, shuffle="iid", chunk_rows=entries.size, batch_size=8, steps=STEPS)
    found["zero"] = {"loss": zero, "stuck": bool(abs(zero - nothing) < 1e-9)}
    print(f"from zeros, batches of 8: {zero:.6f}, where it began: {nothing:.6f}")
    if given.plot:
        given.plot.write_text(plot(found), encoding="utf-8")
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
