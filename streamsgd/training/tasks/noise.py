"""What a chunk adds to sums of how the gradients of rows scatter at given weights."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.features.layout import most_entries
from streamsgd.kernels.models.machines import LINEAR, is_linear
from streamsgd.kernels.structs.block import new_scratch
from streamsgd.kernels.sums.noise import Scatter, new_scatter, scatter_modelled, scatter_rows
from streamsgd.planning.chunks import SLICED_SIDE_BY_SIDE
from streamsgd.planning.sums import dot
from streamsgd.training.tasks.base import ChunkReport, report_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streamsgd.features.encoding import Encoding
    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.training.job import Job

GROUPS = 32
"""Groups of neighbouring rows, at most, which the jackknife leaves out one by one."""

PLACES = 1024
"""Signed sums to which gradients are projected ..."""

MOST_DENSE = 1 << 14
"""... of more weights than this where rows meet them all; of more than `PLACES` where they meet a few of many. Gradients of
models that are not linear are projected to so many: each takes longer than adding them up."""

AT_ONCE = 1 << 16
"""Rows that are listed at a time."""

NOTHING = np.zeros(0)


def n_places(encoding: Encoding, n_weights: int, model: Any = LINEAR) -> int:
    """Return the length of a row's gradient as it is added up."""
    if not is_linear(model):
        return min(n_weights, MOST_DENSE)
    return n_weights if n_weights <= (PLACES if encoding.is_wide else MOST_DENSE) else PLACES


@dataclass(slots=True)
class Group:
    """Sums over the rows of one group."""

    tally: np.ndarray
    """float64 (4,), as of `kernels.sums.noise`."""
    sums: np.ndarray
    """float64 (n_places,): of what gradients differ by from the reference."""
    squares: np.ndarray
    """float64 (n_places,)."""

    @property
    def rows(self) -> float:
        """Rows added up."""
        return float(self.tally[0])

    def moved(self, by: np.ndarray) -> Group:
        """Return the sums about a reference that is less by so much."""
        squares = self.squares + 2.0 * by * self.sums + self.rows * by * by
        return Group(self.tally, self.sums + self.rows * by, squares)

    def plus(self, other: Group) -> Group:
        """Return the sums over the rows of both, about one reference."""
        return Group(self.tally + other.tally, self.sums + other.sums, self.squares + other.squares)


UNITS, OF_UNITS, CHUNKS, OF_CHUNKS = 0, 1, 2, 3
"""Places in the spread of means: how many units, the sum over them of rows times squared mean; likewise of chunks."""


@dataclass(slots=True)
class NoiseSums:
    """What some chunks add."""

    reference: np.ndarray
    """float64 (n_places,): gradient of the reference row; all means are about it."""
    groups: dict[int, Group]
    """By number, each of at least one row."""
    spread: np.ndarray
    """float64 (4,)."""

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return int(self.reference.nbytes * (1 + 2 * len(self.groups)))

    @property
    def total(self) -> Group:
        """The sums over all groups, added up in their order."""
        first, *others = (self.groups[k] for k in sorted(self.groups))
        for other in others:
            first = first.plus(other)
        return first

    def merge(self, other: NoiseSums) -> NoiseSums:
        """Return what the chunks of both add, about the reference of this one."""
        if not other.groups:
            return self
        if not self.groups:
            return other
        by, theirs = other.reference - self.reference, other.total
        groups = dict(self.groups)
        for k, group in other.groups.items():
            moved = group.moved(by)
            groups[k] = groups[k].plus(moved) if k in groups else moved
        spread = self.spread + other.spread
        shift = 2.0 * dot(by, theirs.sums) + theirs.rows * dot(by, by)
        spread[[OF_UNITS, OF_CHUNKS]] += shift
        return NoiseSums(self.reference, groups, spread)


@dataclass
class MeasureNoise:
    """Add up how the gradients of all rows of a chunk scatter at some weights."""

    weights: np.ndarray
    """float64 (n_weights,)."""

    name = "noise"
    exact = True

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return self.weights.nbytes

    def open(self, job: Job) -> Callable[[LoadedChunk], tuple[NoiseSums, ChunkReport]]:
        """Return what adds up a chunk."""
        return partial(self._add, job)

    def _add(self, job: Job, filled: LoadedChunk) -> tuple[NoiseSums, ChunkReport]:
        began = time.perf_counter()
        scatter, plan = _scatter_for(job, filled), job.plan_in_order
        before, groups, spread = plan.rows_before(0, filled.chunk.number), dict[int, Group](), np.zeros(4)
        of_chunk = np.zeros_like(scatter.sums)
        for members in _by_unit(job, filled):
            sums, rows = np.zeros_like(scatter.sums), 0.0
            for k, some in _by_group(members, before, plan.n_rows):
                now = add_scatter(job, filled, some, self.weights, scatter)
                group = Group(now.tally, now.sums, now.squares)
                groups[k] = groups[k].plus(group) if k in groups else group
                sums, rows = sums + group.sums, rows + group.rows
            spread[[UNITS, OF_UNITS]] += 1.0, dot(sums, sums) / rows
            of_chunk += sums
        if groups:
            spread[[CHUNKS, OF_CHUNKS]] = 1.0, dot(of_chunk, of_chunk) / sum(group.rows for group in groups.values())
        share = NoiseSums(scatter.reference, groups, spread)
        return share, report_on(job, filled, began, int(filled.counts.sum()), None)


def scatter_of(job: Job, filled: LoadedChunk, some: np.ndarray, weights: np.ndarray, scale: np.ndarray) -> Scatter:
    """Return how the gradients of some rows of a block scatter, each coordinate multiplied by its scale, if there is one."""
    scatter = _scatter_for(job, filled)
    _scatter(job, filled, some, (weights, scale), scatter)
    return scatter


def add_scatter(job: Job, filled: LoadedChunk, some: np.ndarray, weights: np.ndarray, like: Scatter) -> Scatter:
    """Return how the gradients of some rows scatter about the reference of another one, of which the first row becomes it."""
    now = like._replace(sums=np.zeros_like(like.sums), squares=np.zeros_like(like.sums), tally=np.zeros(4))
    _scatter(job, filled, some, (weights, NOTHING), now)
    return now


def _scatter(job: Job, filled: LoadedChunk, some: np.ndarray, at: tuple[np.ndarray, np.ndarray], scatter: Scatter) -> None:
    """Add how the gradients of some rows scatter, at weights and with a scale."""
    loss, model = job.parts.loss, job.parts.model
    scratch = new_scratch(job.n_outputs, np.float64, most_entries(filled.block, filled.layout), model)
    rest = filled.block, some, *at, scatter, scratch
    scatter_rows(loss, *rest) if is_linear(model) else scatter_modelled(loss, model, *rest)


def _scatter_for(job: Job, filled: LoadedChunk) -> Scatter:
    lists = filled.layout.mixed or not is_linear(job.parts.model)
    return new_scatter(places_of(job), 0 if lists else job.n_parameters)


def places_of(job: Job) -> int:
    """Return the length of the gradients of a job's rows as they are added up."""
    return n_places(job.encoding, job.n_parameters, job.parts.model)


def _by_unit(job: Job, filled: LoadedChunk) -> Iterator[list[tuple[int, int]]]:
    """Yield the runs (start, stop) of rows to learn of every unit that has some, cut as chunks of the job's plan mix slices.

    Rows are told apart by where they are: a kept chunk does not know whose its tiles are.
    """
    plan, ends = job.plan, list[int]()
    share = max(1, plan.chunk_rows // SLICED_SIDE_BY_SIDE) if plan.sampler.side_by_side else plan.chunk_rows
    for piece in filled.chunk.pieces:
        large = int(job.dataset.rows[piece.first : piece.last].sum()) > plan.chunk_rows
        last = piece.rows_before + piece.rows
        ends += [*range(piece.rows_before + share, last, share), last] if large else [last]
    unit, runs = 0, list[tuple[int, int]]()
    for start, stop in filled.learned_runs():
        at = start
        while at < stop:
            if at >= ends[unit]:
                if runs:
                    yield runs
                unit, runs = unit + 1, []
                continue
            end = min(stop, ends[unit])
            runs.append((at, end))
            at = end
    if runs:
        yield runs


def _by_group(runs: list[tuple[int, int]], before: int, n_rows: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield rows of a block, some at a time, and the group that each of these belongs to by its place in the data."""
    waiting: list[np.ndarray] = []
    held, group = 0, -1
    for start, stop in runs:
        at = start
        while at < stop:
            k = min(GROUPS - 1, (before + at) * GROUPS // n_rows)
            end = min(stop, max(at + 1, -(-(k + 1) * n_rows // GROUPS) - before), at + AT_ONCE)
            if waiting and (k != group or held + end - at > AT_ONCE):
                yield group, np.concatenate(waiting)
                waiting, held = [], 0
            group = k
            waiting.append(np.arange(at, end))
            held += end - at
            at = end
    if waiting:
        yield group, np.concatenate(waiting)


def as_arrays(sums: NoiseSums) -> dict[str, np.ndarray]:
    """Return sums as arrays, for a checkpoint; `from_arrays` reads them again."""
    numbers = sorted(sums.groups)
    groups = [sums.groups[k] for k in numbers]
    stacked: dict[str, Any] = {name: np.stack([getattr(g, name) for g in groups]) for name in ("tally", "sums", "squares")}
    return {"numbers": np.array(numbers, np.int64), "reference": sums.reference, "spread": sums.spread, **stacked}


def from_arrays(arrays: dict[str, np.ndarray], n: int) -> NoiseSums:
    """Return the sums over n places that `as_arrays` gave.

    Raises
    ------
    ValueError
        The arrays are not such.

    """
    numbers = arrays["numbers"]
    k = len(numbers)
    shapes = {"reference": (n,), "spread": (4,), "tally": (k, 4), "sums": (k, n), "squares": (k, n)}
    for name, shape in shapes.items():
        if arrays[name].dtype != np.float64 or arrays[name].shape != shape:
            raise ValueError(f"{name} is {arrays[name].dtype} {arrays[name].shape}, not float64 {shape}")
    if numbers.dtype.kind != "i" or (np.diff(numbers) <= 0).any() or (k and not 0 <= numbers[0] <= numbers[-1] < GROUPS):
        raise ValueError("numbers are not those of groups, ascending")
    found = {
        int(number): Group(*(arrays[name][j].copy() for name in ("tally", "sums", "squares")))
        for j, number in enumerate(numbers)
    }
    return NoiseSums(arrays["reference"].copy(), found, arrays["spread"].copy())
