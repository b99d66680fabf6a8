"""Chains between two rounds: where each is, and what was recorded of all."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.errors import DivergedError
from streamsgd.kernels.learn.langevin import Law, draw_normal
from streamsgd.training.phases.base import kept
from streamsgd.training.tasks.walk import WalkChains, Walkers, keys_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamsgd.training.job import Job
    from streamsgd.training.posterior import Walk
    from streamsgd.training.tasks.walk import Posterior, Visits

APART = 2.0
"""Standard deviations of the starts of chains."""

START = 3
"""What randomness is for, beside that of tasks."""

VISITS = 16
"""Of chunks, by a chain, at least."""


class Chains:
    """All chains of a posterior, from their starts on."""

    def __init__(self, job: Job, posterior: Posterior, walk: Walk, rows: int) -> None:
        self.job, self.posterior, self.law, self.steps = job, posterior, walk.law, walk.steps
        settings, n = job.settings, len(posterior.mode)
        stored = max(0, self.steps - self.law.burn_in) // (self.law.thin * self.law.every)
        shape = (settings.chains, n)
        self.walkers = Walkers(self._starts(), np.zeros(shape), np.zeros(settings.chains, np.int64))
        self.recorded, self.mean, self._squares = 0, np.zeros(n), np.zeros(posterior.center.whiten.shape)
        self.store = np.zeros((settings.chains, stored, n), np.float32)
        self._stored = np.zeros(settings.chains, np.int64)
        n_chunks = job.plan.n_chunks(0)
        passes = max(1, -(-VISITS * settings.chains // max(settings.chains, n_chunks)))
        self._stride = self.steps * min(settings.chains, n_chunks) / (passes * max(rows, 1))

    def _starts(self) -> np.ndarray:
        """Return weights around the mode, further apart than draws are."""
        settings, found = self.job.settings, []
        for number in range(settings.chains):
            chain = self.posterior.chain(1)
            spread = APART * math.sqrt(settings.temperature)
            draw_normal(keys_of(settings.seed, START, number), 0, spread, self.posterior.center, chain)
            found.append(chain.draws[0])
        return np.array(found)

    @property
    def done(self) -> bool:
        """Whether all have come to their ends."""
        return bool((self.walkers.steps >= self.steps).all())

    def task(self, first: int, width: int) -> WalkChains:
        """Return what walks with the chunks `first` to `first + width`."""
        return WalkChains(self.posterior, self.law, self.walkers, first, width, self._stride, self.steps)

    def take(self, share: Visits) -> None:
        """Take chains as visits left them, and what was recorded meanwhile.

        Raises
        ------
        DivergedError
            One ran away.

        """
        weights, momentum, steps = (array.copy() for array in self.walkers)
        for number in sorted(share.chains):
            chain = share.chains[number]
            weights[number], momentum[number], steps[number] = chain.places[0], chain.momentum, chain.counts[0]
            self._add(int(chain.counts[1]), chain.mean, chain.squares)
            at, found = int(self._stored[number]), int(chain.counts[2])
            self.store[number, at : at + found] = chain.draws[:found] - self.posterior.mode
            self._stored[number] += found
        self.walkers = Walkers(weights, momentum, steps)
        finite = np.isfinite(weights).all(axis=1)
        if not finite.all():
            raise DivergedError(
                f"chain {int(np.argmin(finite)) + 1} of {len(finite)} ran away: pass a smaller step or a larger batch, e.g. "
                f"--method {(self.job.settings.method or '').partition(':')[0]}:step={self.law.step / 4:g}"
            )

    def _add(self, n: int, mean: np.ndarray, squares: np.ndarray) -> None:
        """Merge mean and squares of one visit (Chan, Golub and LeVeque 1979)."""
        if not n:
            return
        total, apart = self.recorded + n, mean - self.mean
        share = self.recorded * n / total
        self._squares += squares
        self._squares += share * (np.outer(apart, apart) if len(squares) == len(mean) else np.square(apart))
        self.mean += apart * (n / total)
        self.recorded = total

    def covariance(self) -> np.ndarray:
        """Return the covariance of what was recorded, float64 (n, n), or (1, n) variances where pairs are too many."""
        found = self._squares / max(1, self.recorded - 1)
        return np.tril(found) + np.tril(found, -1).T if len(found) == len(self.mean) else found

    # --- checkpoints

    def header(self) -> dict[str, Any]:
        """Return what a checkpoint keeps as JSON."""
        return {"recorded": self.recorded}

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what it keeps as arrays."""
        own = {"mean": self.mean, "squares": self._squares, "store": self.store, "stored": self._stored}
        return {**own, **self.walkers._asdict()}

    def restore(self, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Take back what a checkpoint kept.

        Raises
        ------
        ValueError
            It does not fit.

        """
        now = self.arrays()
        found = {name: kept(arrays, name, array) for name, array in now.items()}
        if not ((found["stored"] >= 0) & (found["stored"] <= self.store.shape[1]) & (found["steps"] >= 0)).all():
            raise ValueError("chains have stored more than there is room for")
        self.recorded, self.mean, self._squares = header["recorded"], found["mean"], found["squares"]
        self.store, self._stored = found["store"], found["stored"]
        self.walkers = Walkers(found["weights"], found["momentum"], found["steps"])


def law_of(header: Mapping[str, Any]) -> Law:
    """Return the numbers of a walk from a checkpoint.

    Raises
    ------
    ValueError
        No walk has them.

    """
    real = [float(header[name]) for name in Law._fields[:4]]
    whole = [int(header[name]) for name in Law._fields[4:]]
    law = Law(*real, *whole)  # type: ignore[arg-type]
    if law.sides not in (1, 2) or min(law.batch, law.thin, law.every) < 1 or law.burn_in < 0:
        raise ValueError("its walk has numbers that no walk has")  # kernels take them for places in arrays
    return law
