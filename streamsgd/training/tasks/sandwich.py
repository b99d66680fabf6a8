"""What a chunk adds to bread and filling of the sandwich, from which standard errors come."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from streamsgd.features.layout import most_entries
from streamsgd.kernels.structs.block import new_scratch
from streamsgd.kernels.sums.sandwich import Sandwich, lay_chunk, new_sandwich
from streamsgd.training.tasks.base import ChunkReport, report_on

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.training.job import Job


@dataclass(slots=True)
class SandwichSums:
    """What some chunks add."""

    rows: int
    sums: Sandwich
    """Its `gradient`, and the lower triangles of `bread` and `filling`."""

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return int(self.sums.gradient.nbytes + self.sums.bread.nbytes + self.sums.filling.nbytes)

    def merge(self, other: SandwichSums) -> SandwichSums:
        """Return what the chunks of both add."""
        mine, theirs = self.sums, other.sums
        sums = mine._replace(
            gradient=mine.gradient + theirs.gradient,
            bread=mine.bread + theirs.bread,
            filling=mine.filling + theirs.filling,
        )
        return SandwichSums(self.rows + other.rows, sums)


@dataclass
class AddSandwich:
    """Add up a chunk's rows at some weights."""

    weights: np.ndarray
    """float64 (n_weights,)."""

    name = "sandwich"
    exact = True

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return self.weights.nbytes

    def open(self, job: Job) -> Callable[[LoadedChunk], tuple[SandwichSums, ChunkReport]]:
        """Return what adds up a chunk."""
        return partial(self._add, job)

    def _add(self, job: Job, filled: LoadedChunk) -> tuple[SandwichSums, ChunkReport]:
        began = time.perf_counter()
        scratch = new_scratch(job.n_outputs, np.float64, most_entries(filled.block, filled.layout))
        sums = new_sandwich(self.weights.size, job.n_outputs)
        lay_chunk(job.parts.loss, filled.block, filled.starts, filled.counts, self.weights, sums, scratch)
        rows = int(filled.counts.sum())
        return SandwichSums(rows, sums), report_on(job, filled, began, rows, None)
