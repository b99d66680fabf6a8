"""What a chunk adds to the whole gradient at a snapshot of variance reduction, and to what bounds the curvature."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from streamsgd.features.layout import most_entries
from streamsgd.kernels.structs.block import new_scratch
from streamsgd.kernels.sums.bounds import LARGEST, measure_chunk
from streamsgd.kernels.sums.objective import LOSS, SIZE, add_chunk, new_curvature
from streamsgd.training.tasks.base import ChunkReport, report_on

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.training.job import Job

MOST_PRODUCTS = 256
"""Weights per output up to which all their products are added up, ..."""

WORK = 1 << 13
"""... so many of them per row on average: of longer rows only every so many is taken."""


@dataclass(slots=True)
class Bounds:
    """What some chunks add to a measuring pass."""

    losses: list[float]
    """Of each of them."""
    sums: np.ndarray
    """float64 (2,): sizes of losses, and rows."""
    gradient: np.ndarray
    """float64 (n_weights,)."""
    bounds: np.ndarray
    """float64 (4,), as of `kernels.sums.bounds.measure_chunk`; zeros where they are not wanted."""
    products: np.ndarray
    """float64 (n_coordinates, n_coordinates) or empty: the lower triangle of the sum of h x x'."""

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return self.gradient.nbytes + self.products.nbytes

    def merge(self, other: Bounds) -> Bounds:
        """Return what the chunks of both add."""
        bounds = self.bounds + other.bounds
        bounds[LARGEST] = max(self.bounds[LARGEST], other.bounds[LARGEST])
        losses, sums = self.losses + other.losses, self.sums + other.sums
        return Bounds(losses, sums, self.gradient + other.gradient, bounds, self.products + other.products)


def no_bounds(n_coordinates: int, n_outputs: int) -> Bounds:
    """Return what no chunks add."""
    n_products = n_coordinates if n_coordinates <= MOST_PRODUCTS else 0
    return Bounds([], np.zeros(2), np.zeros(n_coordinates * n_outputs), np.zeros(4), np.zeros((n_products, n_products)))


@dataclass
class AddBounds:
    """Add up losses and gradient of the rows of a chunk, and what bounds their curvature if it is wanted."""

    weights: np.ndarray
    """float64 (n_weights,): at which."""
    bounded: bool
    """Whether the curvature is."""

    name = "bounds"
    exact = True

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return self.weights.nbytes

    def open(self, job: Job) -> Callable[[LoadedChunk], tuple[Bounds, ChunkReport]]:
        """Return what adds up a chunk."""
        return partial(self._add, job)

    def _add(self, job: Job, filled: LoadedChunk) -> tuple[Bounds, ChunkReport]:
        began, entries = time.perf_counter(), most_entries(filled.block, filled.layout)
        n_coordinates, rows = job.encoding.n_coordinates, (filled.block, filled.starts, filled.counts)
        found, scratch = no_bounds(n_coordinates, job.n_outputs), new_scratch(job.n_outputs, np.float64, entries)
        tiles, nothing = np.zeros((len(filled.starts), 3)), new_curvature(0, np.zeros(0, np.int32), job.n_outputs, 1)
        add_chunk(job.parts.loss, *rows, self.weights, found.gradient, nothing, tiles, scratch)
        found.losses.append(math.fsum(tiles[:, LOSS].tolist()) if np.isfinite(tiles).all() else math.nan)
        found.sums += tiles[:, SIZE].sum(), filled.counts.sum()
        if self.bounded:
            room = np.zeros(n_coordinates, job.settings.precision)
            measure_chunk(*rows, _every(n_coordinates, entries), found.bounds, found.products, room, scratch)
        return found, report_on(job, filled, began, len(filled.order), None)


def _every(n_coordinates: int, entries: int) -> int:
    """Return of how many rows one is in the products."""
    reached = min(n_coordinates, entries)
    return max(1, reached * reached // 2 // WORK)
