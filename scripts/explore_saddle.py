"""Noise as a way out of a saddle: a factorization machine on a matrix, begun exactly where its gradient is zero.

    python scripts/explore_saddle.py [--seeds 20] [--quick]

Rows are the entries of a 20 x 15 matrix with singular values 12, 6 and 13 of 0.5; a machine of one factor without a linear part
predicts an entry by u_i v_j. The start is the second singular pair: a strict saddle. By Eckart and Young the loss, half the sum
of squares, is 73.625 there and 19.625 at the best. Full batches stay there, bit for bit. Batches of rows drawn with replacement
leave it, because the noise of their gradients points where the curvature is negative (Daneshmand et al. 2018, ICML). Not so at
the other saddle, where all factors are zero: every row's gradient is zero there, and so is the noise.

The model of the start is one of one's own, `Saddle` below, by --model explore_saddle:Saddle. Prints a table and, as the last
line, JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import streamsgd
from streamsgd.kernels.models.machines import Factored

SIZES = (20, 15)
SINGULAR = (12.0, 6.0, *[0.5] * 13)
SADDLE = 0.5 * (sum(s * s for s in SINGULAR) - SINGULAR[1] ** 2)
BEST = 0.5 * (sum(s * s for s in SINGULAR) - SINGULAR[0] ** 2)
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


def main(arguments: list[str]) -> None:
    """Run the experiment."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="three seeds and fewer full batches, to see that it works")
    given = parser.parse_args(arguments)
    seeds, epochs = (3, 200) if given.quick else (given.seeds, 2000)
    entries, left, right = matrix(np.random.default_rng(0))
    table, root = table_of(entries), SINGULAR[1] ** 0.5
    begin_with(table, root * left[:, 1], root * right[:, 1])
    full = {"batch_size": len(entries.ravel()), "shuffle": "none", "epochs": epochs}
    drawn = {"shuffle": "iid", "steps": 400, "chunk_rows": len(entries.ravel())}
    found: dict[str, Any] = {"saddle": SADDLE, "best": BEST, "full": loss_after(table, **full)}
    found["stuck"] = bool(abs(found["full"] - SADDLE) < 1e-9)
    print(f"{'full batches':14} {epochs} steps: {found['full']:.6f}, where it began: {SADDLE}")
    for size in (8, 64):
        losses = [loss_after(table, **drawn, batch_size=size, seed=seed) for seed in range(seeds)]
        escaped = sum(loss <= 1.15 * BEST for loss in losses)
        found[f"b{size}"] = {"losses": losses, "escaped": escaped, "of": seeds}
        print(f"batches of {size:3} 400 steps: {escaped} of {seeds} within 15 % of {BEST}, median {np.median(losses):.3f}")
    begin_with(table, np.zeros(SIZES[0]), np.zeros(SIZES[1]))
    nothing = 0.5 * float(np.sum(entries**2))
    zero = loss_after(table, **drawn, batch_size=8)
    found["zero"] = {"loss": zero, "stuck": bool(abs(zero - nothing) < 1e-9)}
    print(f"from zeros, batches of 8: {zero:.6f}, where it began: {nothing:.6f}")
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
