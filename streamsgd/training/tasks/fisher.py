"""What a chunk adds to gradient and curvature of the log likelihood at given weights."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from streamsgd.features.layout import most_entries
from streamsgd.kernels.structs.block import new_scratch
from streamsgd.kernels.sums.objective import LOSS, WEIGHT, add_chunk, new_curvature
from streamsgd.kernels.sums.sandwich import lay_chunk, new_sandwich
from streamsgd.training.tasks.base import ChunkReport, report_on

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.training.job import Job

SUMS = ("tally", "gradient", "bread", "filling")
"""Arrays that are added up."""


@dataclass(slots=True)
class FisherSums:
    """What some chunks add."""

    tally: np.ndarray
    """float64 (3,): weighted losses, weights and number of rows."""
    gradient: np.ndarray
    """float64 (n_weights,)."""
    bread: np.ndarray
    """float64 (n_weights, n_weights), lower triangle: second derivatives; of too many weights (1, n_weights), the diagonal."""
    filling: np.ndarray
    """Likewise of products of row gradients; of too many weights (1, 0)."""

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return int(sum(getattr(self, name).nbytes for name in SUMS))

    def merge(self, other: FisherSums) -> FisherSums:
        """Return what the chunks of both add."""
        return FisherSums(*(getattr(self, name) + getattr(other, name) for name in SUMS))


def new_fisher(n_weights: int, *, dense: bool) -> FisherSums:
    """Return zeros for so many weights."""
    square = (n_weights, n_weights)
    return FisherSums(
        np.zeros(3), np.zeros(n_weights), np.zeros(square if dense else (1, n_weights)), np.zeros(square if dense else (1, 0))
    )


@dataclass
class AddFisher:
    """Add up a chunk's rows at some weights."""

    weights: np.ndarray
    """float64 (n_weights,)."""
    dense: bool
    """Whether pairs of weights are added up, not the diagonal alone."""

    name = "fisher"
    exact = True

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return self.weights.nbytes

    def open(self, job: Job) -> Callable[[LoadedChunk], tuple[FisherSums, ChunkReport]]:
        """Return what adds up a chunk."""
        return partial(self._add, job)

    def _add(self, job: Job, filled: LoadedChunk) -> tuple[FisherSums, ChunkReport]:
        began, rows = time.perf_counter(), int(filled.counts.sum())
        where = (filled.block, filled.starts, filled.counts)
        n, tiles = self.weights.size, np.zeros((len(filled.starts), 3))
        scratch = new_scratch(job.n_outputs, np.float64, most_entries(filled.block, filled.layout))
        curvature = new_curvature(0 if self.dense else n, np.zeros(0, np.int32), job.n_outputs, 1)
        gradient = np.zeros(n)
        add_chunk(job.parts.loss, *where, self.weights, gradient, curvature, tiles, scratch)
        tally = np.array([math.fsum(tiles[:, LOSS].tolist()), tiles[:, WEIGHT].sum(), float(rows)])
        found = FisherSums(tally, gradient, curvature.diagonal.reshape(1, -1), np.zeros((1, 0)))
        if self.dense:
            sums = new_sandwich(n, job.n_outputs)
            lay_chunk(job.parts.loss, *where, self.weights, sums, scratch)
            found = FisherSums(tally, sums.gradient, sums.bread, sums.filling)
        return found, report_on(job, filled, began, rows, None)
