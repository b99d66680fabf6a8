"""Noise while learning: a few rows of a chunk are measured at the weights that it meets first, then the chunk is learned.

Scatter is taken within the rows of a chunk, all at the same weights, so that moving weights add none.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.kernels.models.machines import is_linear
from streamsgd.planning.sums import dot
from streamsgd.training.noise.gradient_noise import moments
from streamsgd.training.tasks.noise import GROUPS, Group, add_scatter, scatter_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streamsgd.kernels.sums.noise import Scatter
    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.training.job import Job
    from streamsgd.training.tasks.base import ChunkReport, Share, Task

ONE_IN = 256
"""One row in so many is measured, ..."""

LEAST_ROWS, MOST_ROWS = 64, 4096
"""... but at least and at most so many of a chunk, if it has them."""

STREAM = 1 << 20
"""Of the randomness by which rows are drawn: pieces take those from 2 on."""

STAGES = 16
"""Parts of a run that are told apart."""

N, ROWS, TRACE, NORM, TRACE_P, _NORM_P, MEASURED_P, WITHIN, BETWEEN, OF_UNITS = range(10)
"""Columns of the sums: rows measured; rows of chunks; traces and squared lengths, times rows; the same in the metric of the
step, and the rows of chunks for which that was known; variances within units and between them, and the rows of
chunks of several."""

WIDTH = 10


@dataclass(slots=True)
class PathSums:
    """What chunks measured as weights moved."""

    groups: np.ndarray
    """float64 (GROUPS, WIDTH): chunk k of the run in row k modulo GROUPS."""
    stages: np.ndarray
    """float64 (STAGES, WIDTH): by the part of the run."""

    def plus(self, other: PathSums) -> PathSums:
        """Return the sums of both."""
        return PathSums(self.groups + other.groups, self.stages + other.stages)


def no_path() -> PathSums:
    """Return what no chunk measured."""
    return PathSums(np.zeros((GROUPS, WIDTH)), np.zeros((STAGES, WIDTH)))


@dataclass(slots=True)
class WithPath:
    """What learning brought, and what was measured before it."""

    learned: Any
    """The share of the task that learned."""
    path: PathSums

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return int(self.learned.nbytes + self.path.groups.nbytes + self.path.stages.nbytes)

    def merge(self, other: WithPath) -> WithPath:
        """Return what the chunks of both bring."""
        return WithPath(self.learned.merge(other.learned), self.path.plus(other.path))


@dataclass
class WithNoise:
    """Measure some rows of a chunk, then do with it what another task does."""

    learning: Task
    weights: np.ndarray
    """float64 (n_weights,): that the chunks meet first."""
    lengths: np.ndarray
    """float64 (n_weights,): roots of how far the optimizer moves each weight per unit of gradient; (0,) where nobody knows."""

    name: str = field(init=False)
    exact: bool = field(init=False)

    def __post_init__(self) -> None:
        self.name, self.exact = self.learning.name, self.learning.exact

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return int(self.learning.nbytes + self.weights.nbytes + self.lengths.nbytes)

    def open(self, job: Job) -> Callable[[LoadedChunk], tuple[Share, ChunkReport | None]]:
        """Return what measures and then learns a chunk."""
        return partial(self._measure_and_learn, job, self.learning.open(job))

    def _measure_and_learn(
        self, job: Job, learn: Callable[[LoadedChunk], tuple[Share, ChunkReport | None]], filled: LoadedChunk
    ) -> tuple[WithPath, ChunkReport | None]:
        began = time.perf_counter()
        path = self._measured(job, filled)
        spent = time.perf_counter() - began
        share, report = learn(filled)
        if report is not None:
            report.fit_seconds += spent
        return WithPath(share, path), report

    def _measured(self, job: Job, filled: LoadedChunk) -> PathSums:
        found, rows, plan = no_path(), int(filled.counts.sum()), job.plan
        chunk = filled.chunk
        some = sample_of(filled, plan.key(chunk.epoch, chunk.number, STREAM))
        if len(some) < 2:
            return found
        numbers = np.zeros(WIDTH)
        numbers[[N, ROWS]] = len(some), rows
        units = Units()
        for part in scatter_by_unit(job, filled, some, self.weights):
            units.add(part)
        numbers[[TRACE, NORM]] = np.array(moments(units.total, units.reference)) * rows
        if (spread := units.variances()) is not None:
            numbers[[WITHIN, BETWEEN, OF_UNITS]] = rows * spread[0], rows * spread[1], rows
        if len(self.lengths):
            numbers[[TRACE_P, TRACE_P + 1]] = np.array(self._in_metric(job, filled, some, units)) * rows
            numbers[MEASURED_P] = rows
        done = (chunk.epoch + plan.rows_before(chunk.epoch, chunk.number) / plan.n_rows) / max(job.epochs, 1)
        found.groups[(chunk.epoch * plan.n_chunks(0) + chunk.number) % GROUPS] = numbers
        found.stages[min(STAGES - 1, int(done * STAGES))] = numbers
        return found

    def _in_metric(self, job: Job, filled: LoadedChunk, some: np.ndarray, units: Units) -> tuple[float, float]:
        """Return the trace and the squared length in the metric of the step."""
        if len(units.reference) == len(self.lengths) and not is_linear(job.parts.model):
            # Nothing is projected: no need to work gradients out again, which take a network long.
            return moments(units.total, units.reference, self.lengths * self.lengths)
        scatter = scatter_of(job, filled, some, self.weights, self.lengths)
        return moments(Group(scatter.tally, scatter.sums, scatter.squares), scatter.reference)


def sample_of(filled: LoadedChunk, key: np.uint64) -> np.ndarray:
    """Return rows of a block to measure, int64, drawn without replacement from those to learn."""
    ends = np.cumsum(filled.counts)
    n = int(ends[-1]) if len(ends) else 0
    most = min(n, max(LEAST_ROWS, min(MOST_ROWS, n // ONE_IN)))
    if not most:
        return np.zeros(0, np.int64)
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(int(key))))
    numbers = np.sort(generator.choice(n, most, replace=False, shuffle=False))
    tile = np.searchsorted(ends, numbers, side="right")
    found: np.ndarray = filled.starts[tile] + numbers - (ends - filled.counts)[tile]
    return found


def scatter_by_unit(job: Job, filled: LoadedChunk, some: np.ndarray, weights: np.ndarray) -> Iterator[Scatter]:
    """Yield how the gradients of ascending rows scatter about one reference, unit by unit."""
    firsts = [piece.rows_before for piece in filled.chunk.pieces]
    whole = scatter_of(job, filled, some[:0], weights, np.zeros(0))
    parts = np.split(some, np.searchsorted(some, firsts[1:]))
    yield from (add_scatter(job, filled, mine, weights, whole) for mine in parts if len(mine))


class Units:
    """Sums over the units of a chunk; those of each are let go."""

    def __init__(self) -> None:
        self.reference = np.zeros(0)
        self.total = Group(*[np.zeros(0)] * 3)
        self._sizes: list[float] = []
        self._of_means = 0.0
        """Over units: the squared length of their sums, by their rows."""

    def add(self, part: Scatter) -> None:
        """Add a unit."""
        group = Group(part.tally, part.sums, part.squares)
        self.total = self.total.plus(group) if self._sizes else group
        self.reference = part.reference
        self._sizes.append(group.rows)
        self._of_means += dot(part.sums, part.sums) / group.rows

    def variances(self) -> tuple[float, float] | None:
        """Return the variances of gradients within units and of the units' own means, unbiased; None where they cannot be told.

        One-way analysis of variance with random effects, of groups of any size.
        """
        sizes = np.array(self._sizes)
        k, n = len(sizes), float(sizes.sum())
        if k < 2 or n <= k:
            return None
        total = self.total
        within = max(0.0, float(total.squares.sum()) - self._of_means) / (n - k)
        apart = max(0.0, self._of_means - dot(total.sums, total.sums) / n) / (k - 1)
        return within, (apart - within) * (k - 1) / (n - dot(sizes, sizes) / n)
