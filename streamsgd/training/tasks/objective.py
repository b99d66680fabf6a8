"""What a chunk adds to loss, gradient and curvature of the whole objective."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamsgd.features.layout import most_entries
from streamsgd.kernels.structs.block import new_scratch
from streamsgd.kernels.sums.objective import LOSS, MOST_OUTPUTS, SIZE, WEIGHT, Curvature, add_chunk, new_curvature
from streamsgd.training.learner import model_of
from streamsgd.training.tasks.base import report_on

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.training.job import Job
    from streamsgd.training.tasks.base import ChunkReport


BLOCK = 1024
"""Weights whose second derivatives by each other are added up, and ..."""

WORK = 1 << 13
"""Pairs of weights that a row may add to, on average; of longer rows only every so many is taken, ..."""

ROWS_PER_WEIGHT = 64
"""... but as many rows per weight of the block as this, if there are."""


class ObjectiveRequest(NamedTuple):
    """What is to be added up over rows."""

    weights: np.ndarray
    """float64 (n,): at which."""
    bends: bool
    """Whether second derivatives are."""
    zeros: bool
    """Whether weights may be 0 by l1."""
    members: np.ndarray | None
    """int32: the coordinates of the block of second derivatives; None if the chunk is to choose them."""
    every: int
    """Of how many rows one is in the block."""
    most: int = BLOCK
    """Weights in the block, if the chunk is to choose them."""

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return self.weights.nbytes + (0 if self.members is None else self.members.nbytes)


@dataclass(slots=True)
class ObjectiveSums:
    """What some chunks add to a pass."""

    losses: list[float]
    """Of each of them."""
    sums: np.ndarray
    """float64 (3,): sizes of losses, weights and rows."""
    gradient: np.ndarray
    """float64 (n,)."""
    curvature: Curvature | None

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        bent = () if self.curvature is None else (self.curvature.diagonal, self.curvature.block)
        return int(self.gradient.nbytes + sum(array.nbytes for array in bent))

    def merge(self, other: ObjectiveSums) -> ObjectiveSums:
        """Return what the chunks of both add."""
        curvature = self.curvature
        if curvature is not None and other.curvature is not None:
            curvature = curvature._replace(
                diagonal=curvature.diagonal + other.curvature.diagonal, block=curvature.block + other.curvature.block
            )
        return ObjectiveSums(self.losses + other.losses, self.sums + other.sums, self.gradient + other.gradient, curvature)


@dataclass
class AddObjective:
    """Add up loss, gradient and, if they are wanted, second derivatives of the rows of a chunk."""

    request: ObjectiveRequest

    name = "objective"
    exact = True

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return self.request.nbytes

    def open(self, job: Job) -> Callable[[LoadedChunk], tuple[ObjectiveSums, ChunkReport]]:
        """Return what adds up a chunk; its held-out rows are scored at the same weights."""
        return partial(self._add, job)

    def _add(self, job: Job, filled: LoadedChunk) -> tuple[ObjectiveSums, ChunkReport]:
        began = time.perf_counter()
        sums = objective_sums(job, filled, self.request)
        weights = self.request.weights.astype(job.settings.precision)
        return sums, report_on(job, filled, began, len(filled.order), lambda: model_of(job, weights))


def objective_sums(job: Job, filled: LoadedChunk, wanted: ObjectiveRequest) -> ObjectiveSums:
    """Return what a chunk adds to a pass."""
    entries = most_entries(filled.block, filled.layout)
    n = wanted.weights.size
    curvature = _curvature_for(job, filled, wanted, entries) if wanted.bends else None
    gradient = np.zeros(n)
    nothing = new_curvature(0, np.zeros(0, np.int32), job.n_outputs, 1)
    tiles = _add(job, filled, wanted, gradient, curvature or nothing)
    loss = math.fsum(tiles[:, LOSS].tolist()) if np.isfinite(tiles).all() else math.nan
    return ObjectiveSums(
        [loss], np.array([tiles[:, SIZE].sum(), tiles[:, WEIGHT].sum(), filled.counts.sum()]), gradient, curvature
    )


def _add(job: Job, filled: LoadedChunk, wanted: ObjectiveRequest, gradient: np.ndarray, curvature: Curvature) -> np.ndarray:
    scratch = new_scratch(job.n_outputs, np.float64, most_entries(filled.block, filled.layout))
    tiles, rows = np.zeros((len(filled.starts), 3)), (filled.block, filled.starts, filled.counts)
    add_chunk(job.parts.loss, *rows, wanted.weights, gradient, curvature, tiles, scratch)
    return tiles


def _curvature_for(job: Job, filled: LoadedChunk, wanted: ObjectiveRequest, entries: int) -> Curvature:
    """Return zeros for all weights and the block: all weights, or those with the largest curvature in this chunk, or none.

    With l1 there is none: where columns depend on one another, as values of a category do, there are directions in which
    l1 alone holds the weights, and a step as long as the loss allows is refused again and again.
    """
    n_weights, n_outputs = wanted.weights.size, job.n_outputs
    if wanted.members is not None:
        return new_curvature(n_weights, wanted.members, n_outputs, wanted.every)
    n_coordinates = n_weights // n_outputs
    most = 0 if wanted.zeros or n_outputs > MOST_OUTPUTS else wanted.most // n_outputs
    members = np.arange(min(most, n_coordinates), dtype=np.int32)
    if 0 < most < n_coordinates:
        alone = new_curvature(n_weights, members[:0], n_outputs, 1)
        _add(job, filled, wanted, np.zeros(n_weights), alone)
        sizes = alone.diagonal.reshape(-1, n_outputs).sum(axis=1)
        members = np.sort(np.argsort(-sizes, kind="stable")[:most]).astype(np.int32)
    return new_curvature(n_weights, members, n_outputs, _every(job, len(members), entries))


def _every(job: Job, n_members: int, entries: int) -> int:
    """Return of how many rows one is added to the block."""
    n_outputs, layout = job.n_outputs, job.recipe.layout
    reached = min(n_members, entries) if layout.mixed else n_members
    enough = job.plan.n_rows // max(1, ROWS_PER_WEIGHT * n_members * n_outputs)
    return max(1, min((reached * n_outputs) ** 2 // 2 // WORK, enough))
