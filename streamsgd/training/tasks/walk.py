"""What a chunk does for chains: each chain that it serves walks on with its rows. And what one looks at before they start."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamsgd.features.layout import most_entries
from streamsgd.kernels.learn.langevin import Center, Chain, Law, drift, probe, walk
from streamsgd.kernels.structs.block import new_scratch
from streamsgd.training.tasks.base import ChunkReport, report_on

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.training.job import Job

CHAIN, PROBE, DRIFT = 0, 1, 2
"""What randomness is for: part of its address."""

DIRECTIONS = 2
"""In which the drift of a chunk is looked at."""

DRIFT_ROWS = 1 << 14
"""Rows of a chunk by which it is."""


def keys_of(seed: int, use: int, number: int) -> np.ndarray:
    """Return the keys of rows and of noise, uint64 (2,), for a use and its number."""
    return np.random.SeedSequence([seed, 16, use, number]).generate_state(2, np.uint64)


class Walkers(NamedTuple):
    """All chains between two rounds."""

    weights: np.ndarray
    """float64 (n_chains, n_weights)."""
    momentum: np.ndarray
    """Likewise."""
    steps: np.ndarray
    """int64 (n_chains,): done."""


class Posterior(NamedTuple):
    """Where chains walk."""

    mode: np.ndarray
    """float64 (n_weights,)."""
    center: Center

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return int(self.mode.nbytes + sum(array.nbytes for array in self.center))

    def chain(self, n_draws: int, momentum: np.ndarray | None = None) -> Chain:
        """Return a chain at the mode with room for so many draws."""
        n = self.mode.size
        squares = self.center.whiten.shape
        return Chain(
            np.stack([self.mode, self.mode]),
            np.zeros(n) if momentum is None else momentum.copy(),
            np.zeros(n),
            np.zeros(squares),
            np.zeros((n_draws, n)),
            np.zeros(3, np.int64),
            np.zeros((3, n)),
        )


@dataclass(slots=True)
class Visits:
    """What some chunks did for chains: each chain as its visits left it, with what was recorded meanwhile."""

    chains: dict[int, Chain]

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return int(sum(array.nbytes for chain in self.chains.values() for array in chain))

    def merge(self, other: Visits) -> Visits:
        """Return what the chunks of both did."""
        return Visits({**self.chains, **other.chains})


@dataclass
class WalkChains:
    """Chain c walks with the rows of chunk `first` + c modulo `width`, for longer if there are more of them."""

    posterior: Posterior
    law: Law
    walkers: Walkers
    first: int
    width: int
    stride: float
    """Steps per row of a chunk."""
    steps: int
    """Of each chain in all."""

    name = "walk"
    exact = True

    @property
    def nbytes(self) -> int:
        """Bytes of the state that it carries."""
        return int(self.posterior.nbytes + sum(array.nbytes for array in self.walkers))

    def open(self, job: Job) -> Callable[[LoadedChunk], tuple[Visits, ChunkReport]]:
        """Return what walks with a chunk."""
        return partial(self._walk, job)

    def _walk(self, job: Job, filled: LoadedChunk) -> tuple[Visits, ChunkReport]:
        began, visits = time.perf_counter(), Visits({})
        served = range(filled.chunk.number - self.first, len(self.walkers.steps), self.width)
        for number in served:
            visits.chains[number] = self._on(job, filled, number)
        return visits, report_on(job, filled, began, int(filled.counts.sum()), None)

    def _on(self, job: Job, filled: LoadedChunk, number: int) -> Chain:
        rows, at = int(filled.counts.sum()), int(self.walkers.steps[number])
        n_steps = min(self.steps - at, max(1, round(self.stride * rows))) if rows else 0
        law, last = self.law, max(at + n_steps - self.law.burn_in, 0)
        stored = last // (law.thin * law.every) - max(at - law.burn_in, 0) // (law.thin * law.every)
        chain = self.posterior.chain(stored, self.walkers.momentum[number])
        chain.places[0] = self.walkers.weights[number]
        chain.counts[0] = at
        if n_steps:
            where, scratch = rows_of(job, filled)
            walk(*where, keys_of(job.settings.seed, CHAIN, number), n_steps, law, self.posterior.center, chain, scratch)
        return chain


def rows_of(job: Job, filled: LoadedChunk) -> tuple[tuple[Any, ...], Any]:
    """Return loss, block, starts and ends of a chunk's rows, and room, as kernels that draw rows take them."""
    runs = np.array(filled.learned_runs(), np.int64).reshape(-1, 2)
    starts, ends = np.ascontiguousarray(runs[:, 0]), np.cumsum(runs[:, 1] - runs[:, 0])
    scratch = new_scratch(job.n_outputs, np.float64, most_entries(filled.block, filled.layout))
    return (job.parts.loss, filled.block, starts, ends), scratch


@dataclass(slots=True)
class NoiseLook:
    """What rows of some chunks say about the noise of corrected gradients."""

    rows: int
    squares: np.ndarray
    """float64 (n_weights,): sums over rows of what one moves a weight, squared."""
    drifts: list[np.ndarray]
    """Of each chunk float64 (DIRECTIONS, n_weights): the whitened curvature in a direction, less that of all rows."""

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return int(self.squares.nbytes + sum(array.nbytes for array in self.drifts))

    def merge(self, other: NoiseLook) -> NoiseLook:
        """Return what the chunks of both say."""
        return NoiseLook(self.rows + other.rows, self.squares + other.squares, self.drifts + other.drifts)


@dataclass
class LookAtNoise:
    """Draw rows of a chunk, and see how far the corrected gradient of each, and their mean, are from that of all rows."""

    posterior: Posterior
    law: Law
    rows: int
    """Drawn of each chunk for the noise of single rows."""

    name = "look"
    exact = True

    @property
    def nbytes(self) -> int:
        """Bytes of the state that it carries."""
        return self.posterior.nbytes

    def open(self, job: Job) -> Callable[[LoadedChunk], tuple[NoiseLook, ChunkReport]]:
        """Return what looks at a chunk."""
        return partial(self._look, job)

    def _look(self, job: Job, filled: LoadedChunk) -> tuple[NoiseLook, ChunkReport]:
        began, n, seed = time.perf_counter(), self.posterior.mode.size, job.settings.seed
        found, rows = NoiseLook(0, np.zeros(n), []), int(filled.counts.sum())
        if rows:
            (where, scratch), chain = rows_of(job, filled), self.posterior.chain(0)
            about, number = (self.law, self.posterior.center, chain), filled.chunk.number
            probe(*where, keys_of(seed, PROBE, number), self.rows, *about, found.squares, scratch)
            drifts = np.zeros((DIRECTIONS, n))
            keys = keys_of(seed, PROBE, number)
            for k in range(DIRECTIONS):
                keys[1] = keys_of(seed, DRIFT, k)[1]  # the same direction in every chunk
                drift(*where, keys, DRIFT_ROWS, *about, drifts[k], scratch)
            found = NoiseLook(self.rows, found.squares, [drifts])
        return found, report_on(job, filled, began, rows, None)
