"""The mean losses of several models on the same rows, read once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from streamsgd.planning.sums import dot
from streamsgd.training.tasks.base import ChunkReport, report_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from streamsgd.kernels.structs.block import Block
    from streamsgd.model.model import Model
    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.training.job import Job

AT_ONCE = 1 << 14
"""Rows scored at a time."""


@dataclass(slots=True)
class Losses:
    """Sums over rows."""

    sums: np.ndarray
    """float64 (n_models + 1,): weighted losses by model, then weights."""

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return self.sums.nbytes

    def merge(self, other: Losses) -> Losses:
        """Return the sums over the rows of both."""
        return Losses(self.sums + other.sums)


class MeasureLosses:
    """Add up the losses of models on the rows that are held out, or on all.

    Parameters
    ----------
    models
        Of the encoding of the job.

    """

    name = "losses"
    exact = True

    def __init__(self, models: Sequence[Model]) -> None:
        self.models = models

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return sum(model.weights.nbytes for model in self.models)

    def open(self, job: Job) -> Callable[[LoadedChunk], tuple[Losses, ChunkReport]]:
        """Return what adds up a chunk."""
        return partial(self._add, job)

    def _add(self, job: Job, filled: LoadedChunk) -> tuple[Losses, ChunkReport]:
        began, sums = time.perf_counter(), np.zeros(len(self.models) + 1)
        for block, first, last in _ranges(job, filled):
            weight = np.asarray(block.weight[first:last], np.float64)
            for k, model in enumerate(self.models):
                _scores, _means, losses = model.score_block(block, first, last)
                sums[k] += dot(weight, losses)
            sums[-1] += float(weight.sum())
        return Losses(sums), report_on(job, filled, began, 0, None)


def _ranges(job: Job, filled: LoadedChunk) -> Iterator[tuple[Block, int, int]]:
    """Yield blocks with the rows to score."""
    if job.recipe.held:
        for block in filled.held_blocks():
            yield block, 0, len(block.y)
        return
    for start, stop in filled.learned_runs():
        for first in range(start, stop, AT_ONCE):
            yield filled.block, first, min(stop, first + AT_ONCE)
