"""Thinning as a part of any task: rows of a chunk are left out by chance before the task sees it.

A chunk is thinned where it is, once: whoever keeps it for later rounds keeps what is left.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamsgd.features.layout import most_entries
from streamsgd.kernels.encode.shuffle import N_BUCKETS, merge
from streamsgd.kernels.structs.block import new_scratch
from streamsgd.kernels.sums.thin import KEPT, N_SUMS, ROWS, Rule, list_rows, thin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.training.job import Job
    from streamsgd.training.tasks.base import ChunkReport, Share, Task

STREAM = 1 << 21
"""Of the randomness by which rows are kept, then of their order, then of the sample."""

SAMPLE_ROWS = 1 << 16
"""Rows of a sample, at most, ..."""

SAMPLE_ENTRIES = 1 << 19
"""... and their entries."""

SPAN = 1 << 16
"""Rows that are looked at together."""

SAMPLE_BYTES = 12 * SAMPLE_ENTRIES + 24 * SAMPLE_ROWS


class Thinning(NamedTuple):
    """How rows are thinned, once a pilot is known."""

    rule: Rule
    pilot: np.ndarray
    """(n_weights,), in the precision of the run."""
    sampled: float
    """Share of the kept rows that a sample begins with."""


class Sample(NamedTuple):
    """Some of the rows that were kept, as entries, each with a random number; those below `share` are in it."""

    share: float
    order: np.ndarray
    """float64 (n,): the random numbers."""
    weights: np.ndarray
    """float64 (n,): how much of the population each row is, were all that were kept in the sample; below 0 of positives."""
    lengths: np.ndarray
    """int64 (n,): entries of each row."""
    coordinates: np.ndarray
    """uint32 (m,): which they are, ..."""
    x: np.ndarray
    """... and float64 (m,): factors."""

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return sum(array.nbytes for array in self[1:])

    @property
    def each(self) -> np.ndarray:
        """How many rows of the population each row stands for, float64 (n,)."""
        found: np.ndarray = np.abs(self.weights) / self.share
        return found

    @property
    def positive(self) -> np.ndarray:
        """Whether the target of each row is 1, bool (n,)."""
        found: np.ndarray = self.weights < 0.0
        return found

    def plus(self, other: Sample) -> Sample:
        """Return a sample of the rows of both, which holds as many as there is room for."""
        share = min(self.share, other.share)
        parts = [one if one.share == share else one.down_to(share) for one in (self, other)]
        joined = Sample(share, *(np.concatenate(arrays) for arrays in zip(*(part[1:] for part in parts), strict=True)))
        return joined.within()

    def within(self) -> Sample:
        """Return a part of it for which there is room."""
        found = self
        while len(found.order) > SAMPLE_ROWS or len(found.coordinates) > SAMPLE_ENTRIES:
            found = found.down_to(found.share / 2.0)
        return found

    def down_to(self, share: float) -> Sample:
        """Return the part that a smaller share is."""
        rows = self.order < share
        entries = np.repeat(rows, self.lengths)
        return Sample(
            share, self.order[rows], self.weights[rows], self.lengths[rows], self.coordinates[entries], self.x[entries]
        )

    def scores(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the score of each row at weights (n_weights,), and the length of its entries, float64 (n,)."""
        if not len(self.order):
            return np.zeros(0), np.zeros(0)
        first = np.cumsum(self.lengths) - self.lengths
        products = self.x * weights.astype(np.float64)[self.coordinates]
        return np.add.reduceat(products, first), np.sqrt(np.add.reduceat(self.x * self.x, first))


def no_sample(share: float = 1.0) -> Sample:
    """Return a sample of no row."""
    return Sample(share, np.zeros(0), np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.uint32), np.zeros(0))


@dataclass(slots=True)
class ThinSums:
    """What thinning found in some chunks."""

    sums: np.ndarray = field(default_factory=lambda: np.zeros(N_SUMS))
    """As of `kernels.sums.thin`."""
    sample: Sample = field(default_factory=no_sample)

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return self.sums.nbytes + self.sample.nbytes

    def plus(self, other: ThinSums) -> ThinSums:
        """Return what was found in the chunks of both."""
        return ThinSums(self.sums + other.sums, self.sample.plus(other.sample))


@dataclass(slots=True)
class WithThinSums:
    """What a task brought of thinned chunks, and what thinning found."""

    learned: Any
    found: ThinSums

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return int(self.learned.nbytes + self.found.nbytes)

    def merge(self, other: WithThinSums) -> WithThinSums:
        """Return what the chunks of both bring."""
        return WithThinSums(self.learned.merge(other.learned), self.found.plus(other.found))


@dataclass
class Thinned:
    """Thin a chunk, then do with it what another task does.

    Attributes
    ----------
    doing
        The other task.
    thinning
        How to thin.
    tells
        Whether the share is a `WithThinSums`; else it is that of the other task.
    epoch
        Whose order the rows take. Which they are, is the same in all epochs.

    """

    doing: Task
    thinning: Thinning
    tells: bool = False
    epoch: int = 0

    name: str = field(init=False)
    exact: bool = field(init=False)

    def __post_init__(self) -> None:
        self.name, self.exact = self.doing.name, self.doing.exact

    def __copy__(self) -> Thinned:
        return Thinned(copy(self.doing), self.thinning, self.tells, self.epoch)  # a learner that learns in place stays behind

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return int(self.doing.nbytes + self.thinning.pilot.nbytes)

    def open(self, job: Job) -> Callable[[LoadedChunk], tuple[Share, ChunkReport | None]]:
        """Return what thins a chunk, and then does the other task."""
        return partial(self._do, job, self.doing.open(job))

    def _do(
        self, job: Job, do: Callable[[LoadedChunk], tuple[Share, ChunkReport | None]], filled: LoadedChunk
    ) -> tuple[Any, ChunkReport | None]:
        found = thin_chunk(job, filled, self.thinning, samples=self.tells and not self.epoch)
        share, report = do(in_order_of(job, filled, self.epoch))
        if report is not None:
            report.thinned = thinned_rows(found)
            # Whether rows of later epochs are read again or kept, their targets were counted in the first.
            report.pieces = [replace(piece, targets=None) if self.epoch else piece for piece in report.pieces]
        return (WithThinSums(share, found) if self.tells else share), report


def thinned_rows(found: ThinSums) -> int:
    """Return how many rows were left out."""
    return round(float(found.sums[ROWS] - found.sums[KEPT]))


def in_order_of(job: Job, filled: LoadedChunk, epoch: int) -> LoadedChunk:
    """Return a chunk of the first epoch, which stays as it is, in the order that its rows have in a later one."""
    if not epoch:
        return filled
    key, order = job.plan.key(epoch, filled.chunk.number, STREAM + 1), np.empty_like(filled.order)
    merge(filled.counts, key, bool(job.plan.sampler.mixes_rows), order, *np.empty((2, N_BUCKETS + 1), np.int64))
    return replace(filled, chunk=replace(filled.chunk, epoch=epoch), order=order)


def thin_chunk(job: Job, filled: LoadedChunk, thinning: Thinning, *, samples: bool) -> ThinSums:
    """Thin a chunk where it is, unless that was done before, and return what there is to say; with a sample, if asked."""
    found = ThinSums(sample=no_sample(thinning.sampled))
    if filled.thinned:
        return found
    found.sums, *kept = _thin(job, filled, thinning, (filled.starts, filled.counts), filled.starts + filled.counts)
    _give(job, filled, *kept)
    if samples:
        found.sample = _sample(job, filled, thinning)
    return found


def thin_taken(job: Job, filled: LoadedChunk, thinning: Thinning, starts: np.ndarray, taken: np.ndarray) -> None:
    """Thin rows that were taken from a chunk before the others were thinned, and put them before these.

    So the chunk becomes what it were if it had been thinned as a whole.

    Parameters
    ----------
    job, filled, thinning
        As of `thin_chunk`, which came before.
    starts, taken
        int64 (n_tiles,): the first of these rows, and their number.

    """
    _sums, first, counts = _thin(job, filled, thinning, (starts, taken), filled.starts)
    _give(job, filled, first, counts + filled.counts)
    filled.cut = False


def _thin(
    job: Job, filled: LoadedChunk, thinning: Thinning, rows: tuple[np.ndarray, np.ndarray], ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thin rows, given by starts and counts of tiles; return the sums, and starts and counts of those that were kept."""
    sums, first, kept = np.zeros(N_SUMS), rows[0].copy(), rows[1].copy()
    scratch = new_scratch(job.n_outputs, job.settings.precision, most_entries(filled.block, filled.layout))
    thin(filled.block, first, kept, ends, thinning.pilot, thinning.rule, _key(job, filled, 0), sums, scratch)
    return sums, first, kept


def _give(job: Job, filled: LoadedChunk, starts: np.ndarray, counts: np.ndarray) -> None:
    """Make these rows the ones that are to be learned, in an order of their own."""
    order = filled.room[: int(counts.sum())]
    merge(counts, _key(job, filled, 1), bool(job.plan.sampler.mixes_rows), order, *np.empty((2, N_BUCKETS + 1), np.int64))
    filled.starts, filled.counts, filled.order, filled.thinned = starts, counts, order, True


def _key(job: Job, filled: LoadedChunk, stream: int) -> np.uint64:
    return job.plan.key(filled.chunk.epoch, filled.chunk.number, STREAM + stream)


def _sample(job: Job, filled: LoadedChunk, thinning: Thinning) -> Sample:
    key = _key(job, filled, 2)
    generator, sample = np.random.Generator(np.random.PCG64(np.random.SeedSequence(int(key)))), no_sample(thinning.sampled)
    for rows in spans_of(filled):
        numbers = generator.random(len(rows))
        chosen = numbers < sample.share
        sample = sample.plus(listed(job, filled, rows[chosen], thinning.rule, share=sample.share, numbers=numbers[chosen]))
    return sample


def spans_of(filled: LoadedChunk) -> Iterator[np.ndarray]:
    """Yield the rows of the block that are to be learned, int64, tile after tile, some tens of thousands at a time."""
    tiles = max(1, SPAN // max(1, int(filled.counts.max(initial=1))))
    for first in range(0, len(filled.counts), tiles):
        starts, counts = filled.starts[first : first + tiles], filled.counts[first : first + tiles]
        ends = np.cumsum(counts)
        yield np.repeat(starts - (ends - counts), counts) + np.arange(int(ends[-1]))


def listed(job: Job, filled: LoadedChunk, rows: np.ndarray, rule: Rule, *, share: float, numbers: np.ndarray) -> Sample:
    """Return rows of a block as a sample; of more than there is room for, those of the smallest numbers."""
    most = most_entries(filled.block, filled.layout)
    while True:
        room = min(SAMPLE_ENTRIES, len(rows) * most) + most
        index, x, ends, weights = np.zeros(room, np.uint32), np.zeros(room), np.zeros(len(rows), np.int64), np.zeros(len(rows))
        scratch = new_scratch(job.n_outputs, job.settings.precision, most)
        if list_rows(filled.block, rows, rule, index, x, ends, weights, scratch) == len(rows):
            break
        share /= 2.0
        rows, numbers = rows[numbers < share], numbers[numbers < share]
    m = int(ends[-1]) if len(ends) else 0
    return Sample(share, numbers, weights, np.diff(ends, prepend=0), index[:m].copy(), x[:m].copy()).within()
