# ruff: noqa: ARG002  verbs are given more than these need
"""How long noise takes to leave a minimum: first passages of a double well, against the exact integral.

    python scripts/explore_passage.py [--chains 2000] [--sizes 1 2 3] [--plot FILE.svg] [--quick]

Half of the rows say c = +s, half -s; each costs t^4/4 - t^2/2 + c t at the point t. Their mean V is a double well with
minima at -1 and 1. Chains begin at -1; gradients of b rows drawn with replacement have noise of variance s^2/b, and a rate
eta makes of it a temperature D = eta s^2/(2b). The mean time until t > 1, in units of steps times eta, is that of the
diffusion (Gardiner 2009, Stochastic Methods, 5.5):

    1/D  integral from -1 to 1 of exp(V(y)/D)  integral from -infinity to y of exp(-V(z)/D) dz dy

whose logarithm grows as 1/D, so as b/eta. Times of such rare events are exponential. A full batch has no noise, and stays.

That is the limit of small steps and normal noise; of these steps, of which b signs make one, the mean time solves a linear
system, whose solution stands beside it (`of_steps`): 67.08, 749.1 and 8,909 for batches of 1, 2 and 3.

Loss and model are of one's own: `Sum` and `Points` below. Many chains go through one run, each with a column of signs of its
own, as many + as -, in an order that is drawn: of sixteen times as many rows as chains, so that what one chain meets says next
to nothing of what another does. (2,000 orthogonal columns of 2,048 rows are independent two by two, and not in threes: times of
3 rows were not exponential then, with p = 4e-4.)
A chain is a point and its time, which is a parameter of slope -1 until the point has passed 1; then both stay where they are. A
chain that has not passed by the end counts with the time it had: the mean is all time over all passages, its likeliest value
where times are exponential; near, for the way across takes some time too.

Prints a table and, as the last line, JSON; --plot draws the times against b.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from draw_pictures import alone
from scipy import integrate, sparse, stats
from scipy.sparse.linalg import spsolve

import streamsgd
from streamsgd.show.svg import Axis, Line, chart

ETA = 0.02
VARIANCE = 10.0
TOGETHER = 250
"""Chains of a run."""
FLOOR = -3.2
"""No chain comes to a point below."""
RUN_MEANS = {1: 6.0, 2: 4.0, 3: 3.0}
"""Times the expected passage that chains of these batches run."""


class Sum(NamedTuple):
    """The loss is what the model says."""

    task = "regression"

    def value(loss, y, score):
        return score

    def slope(loss, y, score):
        return 1.0

    def mean(loss, score):
        return score


class Points(NamedTuple):
    """For every column a point t, which begins at -1, and its time: the sum of t^4/4 - t^2/2 + c t less times, until t > 1."""

    def width(model):
        return 2

    def beyond(model):
        return 0

    def room(model):
        return 0

    def output(model, index, x, count, weights, room):
        total = 0.0
        for e in range(count - 1):
            t = weights[2 * index[e]]
            if t < 1.0:
                total += 0.25 * t * t * t * t - 0.5 * t * t + x[e] * t - weights[2 * index[e] + 1]
        return total

    def derive(model, index, x, count, weights, room, out):
        for e in range(count - 1):
            t = weights[2 * index[e]]
            out[2 * e] = t * t * t - t + x[e] if t < 1.0 else 0.0
            out[2 * e + 1] = -1.0 if t < 1.0 else 0.0
        out[2 * count - 2] = out[2 * count - 1] = 0.0

    def begin(model, weights: np.ndarray, n_coordinates: int, seed: int) -> None:
        """Begin at -1, at time 0."""
        weights[:, :] = 0.0
        weights[: n_coordinates - 1, 0] = -1.0


SETTINGS: dict[str, Any] = {
    "target": "y",
    "task": "regression",
    "loss": "explore_passage:Sum",
    "model": "explore_passage:Points",
    "optimizer": "sgd",
    "learning_rate": ETA,
    "schedule": "constant",
    "scale": "none",
    "transform": "none",
    "precision": "float64",
    "executor": "inline",
    "memory": "2GB",
}


def well(t: float) -> float:
    """Return the mean loss at t."""
    return t**4 / 4 - t**2 / 2


def expected(size: float) -> float:
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


def of_steps(size: int, cells: int = 8000) -> float:
    """Return the mean first passage of the steps themselves: t(x) = eta + mean t(next x) on a grid, linear in between."""
    x, width = np.linspace(FLOOR, 1.0, cells + 1, retstep=True)
    moves = sparse.csr_matrix((cells + 1, cells + 1))
    for plus in range(size + 1):
        noise = math.sqrt(VARIANCE) * (2 * plus - size) / size
        at = (x - ETA * (x**3 - x + noise) - FLOOR) / width
        here = np.flatnonzero((at >= 0.0) & (at < cells))
        left = at[here].astype(int)
        share, chance = at[here] - left, math.comb(size, plus) / 2.0**size
        for column, part in ((left, 1.0 - share), (left + 1, share)):
            moves += sparse.csr_matrix((chance * part, (here, column)), shape=moves.shape)
    times = spsolve(sparse.identity(cells + 1, format="csc") - moves.tocsc(), np.full(cells + 1, ETA))
    return float(np.interp(-1.0, x, times))


def table_of(chains: int) -> pa.Table:
    """Return rows with +s or -s for every chain; the target, which must vary, is not learned from."""
    rng, signs = np.random.default_rng(0), np.tile([1.0, -1.0], max(8, 8 * chains))
    columns = {f"x{k}": math.sqrt(VARIANCE) * (rng.permutation(signs) if k else signs) for k in range(chains)}
    return pa.table({**columns, "y": signs})


def walk(table: pa.Table, size: int, epochs: int, seed: int) -> np.ndarray:
    """Return where the chains of a run ended, and their times, (2, chains)."""
    drawn = {"shuffle": "iid", "batch_size": size, "chunk_rows": len(table), "epochs": epochs, "seed": seed}
    ended: np.ndarray = streamsgd.train(table, **SETTINGS, **drawn).weights[:-1].T
    return ended


def passages(size: int, chains: int) -> dict[str, Any]:
    """Return what chains of batches of a size came to."""
    exact, at_once = expected(size), min(chains, TOGETHER)
    table = table_of(at_once)
    epochs = math.ceil(RUN_MEANS.get(size, 2.0) * exact / ETA * size / len(table))
    runs = [walk(table, size, epochs, seed) for seed in range(-(-chains // at_once))]
    points, times = np.concatenate(runs, axis=1)[:, :chains]
    passed, limit = points >= 1.0, float(times.max())
    mean = float(times.sum() / passed.sum())
    # Given that they have passed by the limit, exponential times are uniform after this.
    ranks = -np.expm1(-times[passed] / mean) / -math.expm1(-limit / mean)
    law = stats.kstest(ranks, "uniform")
    told = {"exponential_p": float(law.pvalue), "distance": float(law.statistic), "error": mean / math.sqrt(passed.sum())}
    return {
        "b": size,
        "chains": chains,
        "passed": int(passed.sum()),
        "exact": exact,
        "of_steps": of_steps(size),
        "mean": mean,
        **told,
    }


def stays(steps: int) -> bool:
    """Whether so many full batches leave the start where it is, bit for bit."""
    table = table_of(1)
    model = streamsgd.train(table, **SETTINGS, epochs=steps, batch_size=len(table), shuffle="none")
    return bool(model.weights[0, 0] == -1.0)


def plot(found: list[dict[str, Any]]) -> str:
    """Return a chart of the times against b."""
    b = [one["b"] for one in found]
    fine = np.linspace(1.0, max(b), 40)
    lines = [
        Line("exact integral", fine, [expected(float(size)) for size in fine]),
        Line("chains", b, [one["mean"] for one in found], "points"),
    ]
    return alone(chart(lines, Axis("rows of a batch"), Axis("mean time until 1", log=True), "First passages of a double well"))


def main(arguments: list[str]) -> None:
    """Run the experiment."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--chains", type=int, default=2000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--quick", action="store_true", help="250 chains of single rows, to see that it works")
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args(arguments)
    sizes, chains, steps = ([1], 250, 100) if given.quick else (given.sizes, given.chains, 2000)
    found = []
    for size in sizes:
        found.append(one := passages(size, chains))
        print(
            f"batches of {size}: mean passage {one['mean']:.2f} +- {one['error']:.2f}, {one['passed']} of {chains} chains "
            f"passed; exact {one['exact']:.2f}, of these steps {one['of_steps']:.2f}; from the "
            f"exponential law {one['distance']:.3f}, p = {one['exponential_p']:.2g}",
            flush=True,
        )
    for one, two in itertools.pairwise(found):
        steps_up = [math.log(two[which] / one[which]) for which in ("mean", "exact")]
        print(f"logarithm from batches of {one['b']} to {two['b']}: {steps_up[0]:+.3f}, exact {steps_up[1]:+.3f}")
    stuck = stays(steps)
    print(f"{steps} full batches {'stay' if stuck else 'leave'}")
    if given.plot:
        given.plot.write_text(plot(found), encoding="utf-8")
    print(json.dumps({"passages": found, "full_stays": stuck}))


if __name__ == "__main__":
    main(sys.argv[1:])
