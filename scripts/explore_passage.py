# ruff: noqa: ARG002  verbs are given more than these need
"""How long noise takes to leave a minimum: first passages of a double well, against the exact integral.

    python scripts/explore_passage.py [--chains 2000] [--sizes 1 2] [--quick]

Half of the rows say c = +s, half -s; each costs t^4/4 - t^2/2 + c t at the point t. Their mean V is a double well with
minima at -1 and 1. Chains begin at -1; gradients of b rows drawn with replacement have noise of variance s^2/b, and a rate
eta makes of it a temperature D = eta s^2/(2b). The mean time until t > 1, in units of steps times eta, is that of the
diffusion (Gardiner 2009, Stochastic Methods, 5.5):

    1/D  integral from -1 to 1 of exp(V(y)/D)  integral from -infinity to y of exp(-V(z)/D) dz dy

whose logarithm grows as 1/D, so as b/eta. Times of such rare events are exponential. A full batch has no noise, and stays.

Loss and model are of one's own: `Well` and `Point` below. A chain that has passed stays where it is, and the value of a row
is 1 before and 0 after, so that the progressive loss of a run counts the rows until the passage. A chain that has not
passed by the end of its run counts with the time it had: the mean is all time over all passages, its likeliest value where
times are exponential; near, for the way across takes some time too.

Prints a table and, as the last line, JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from scipy import integrate, stats

import streamsgd

ETA = 0.02
VARIANCE = 10.0
RUN_MEANS = {1: 6.0, 2: 3.0, 3: 0.5}
"""Times the expected passage that chains of these batches run."""


class Well(NamedTuple):
    """t^4/4 - t^2/2 + c t, where chains end when they have passed 1; the value of a row is whether they have not."""

    task = "regression"

    def value(loss, y, score):
        return 1.0 if score < 1.0 else 0.0

    def slope(loss, y, score):
        return score * score * score - score + y if score < 1.0 else 0.0

    def mean(loss, score):
        return score


class Point(NamedTuple):
    """One number, which begins at -1."""

    def width(model):
        return 1

    def beyond(model):
        return 0

    def room(model):
        return 0

    def output(model, index, x, count, weights, room):
        return weights[index[count - 1]]

    def derive(model, index, x, count, weights, room, out):
        for e in range(count):
            out[e] = 0.0
        out[count - 1] = 1.0

    def begin(model, weights: np.ndarray, n_coordinates: int, seed: int) -> None:
        """Begin at -1."""
        weights[n_coordinates - 1] = -1.0


SETTINGS: dict[str, Any] = {
    "target": "c",
    "task": "regression",
    "loss": "explore_passage:Well",
    "model": "explore_passage:Point",
    "optimizer": "sgd",
    "learning_rate": ETA,
    "schedule": "constant",
    "scale": "none",
    "precision": "float64",
    "epochs": 1,
    "executor": "inline",
    "memory": "2GB",
}


def well(t: float) -> float:
    """Return the mean loss at t."""
    return t**4 / 4 - t**2 / 2


def expected(size: int) -> float:
    """Return the mean first passage from -1 to 1 of the diffusion, by quadrature."""
    heat = ETA * VARIANCE / (2 * size)

    def inner(y: float) -> float:
        return float(
            integrate.quad(
                lambda z: math.exp((well(y) - well(z)) / heat),
                -6.0,
                y,
                epsabs=0.0,
                epsrel=1e-9,
                points=(-1.0,) if y > -1.0 else None,
            )[0]
        )

    return float(integrate.quad(inner, -1.0, 1.0, epsabs=0.0, epsrel=1e-8)[0]) / heat


def table_of(n: int) -> pa.Table:
    """Return n rows, +s and -s in turn; the column beside them is not learned from."""
    return pa.table({"c": np.sqrt(VARIANCE) * np.where(np.arange(n) % 2, -1.0, 1.0), "x": np.arange(n, dtype=np.int32)})


def passage(table: pa.Table, size: int, seed: int) -> float:
    """Return the time until a chain has passed, or nan if its rows came to an end before."""
    settings = {**SETTINGS, "shuffle": "iid", "batch_size": size, "chunk_rows": len(table), "seed": seed}
    share = streamsgd.train(table, **settings).metrics["progressive_loss"]
    return float("nan") if share == 1.0 else share * len(table) / size * ETA


def passages(size: int, chains: int) -> dict[str, Any]:
    """Return what chains of batches of a size came to."""
    exact = expected(size)
    steps = int(RUN_MEANS.get(size, 0.5) * exact / ETA)
    table = table_of(steps * size // 2 * 2)
    times = np.array([passage(table, size, seed) for seed in range(chains)])
    limit, passed = steps * ETA, np.isfinite(times)
    mean = float(np.where(passed, times, limit).sum() / passed.sum())
    # Given that they have passed by the limit, exponential times are uniform after this.
    ranks = -np.expm1(-times[passed] / mean) / -math.expm1(-limit / mean)
    law = stats.kstest(ranks, "uniform")
    told = {"exponential_p": float(law.pvalue), "distance": float(law.statistic)}
    return {"b": size, "chains": chains, "passed": int(passed.sum()), "exact": exact, "mean": mean, **told}


def stays(steps: int) -> bool:
    """Whether so many full batches leave the start where it is, bit for bit."""
    table = table_of(20)
    model = streamsgd.train(table, **{**SETTINGS, "epochs": steps}, batch_size=len(table), shuffle="none")
    return bool(model.weights[-1, 0] == -1.0)


def main(arguments: list[str]) -> None:
    """Run the experiment."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--chains", type=int, default=2000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--quick", action="store_true", help="150 chains of single rows, to see that it works")
    given = parser.parse_args(arguments)
    sizes, chains, steps = ([1], 150, 100) if given.quick else (given.sizes, given.chains, 2000)
    found = []
    for size in sizes:
        found.append(one := passages(size, chains))
        print(
            f"batches of {size}: mean passage {one['mean']:.2f}, {one['passed']} of {chains} chains passed; "
            f"exact {one['exact']:.2f}; from the exponential law {one['distance']:.3f}, p = {one['exponential_p']:.2g}",
            flush=True,
        )
    stuck = stays(steps)
    print(f"{steps} full batches {'stay' if stuck else 'leave'}")
    print(json.dumps({"passages": found, "full_stays": stuck}))


if __name__ == "__main__":
    main(sys.argv[1:])
