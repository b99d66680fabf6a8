"""Tasks: what a round does with each of its chunks. A task is a pure function of job, state and chunk, so it runs anywhere."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from streamsgd.model.evaluate import update_metrics
from streamsgd.model.evaluation import new_metrics
from streamsgd.stream.chunk import without_rows
from streamsgd.training.classes.class_weights import of_population

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.data.timings import Timings
    from streamsgd.model.metrics import Metrics
    from streamsgd.model.model import Model
    from streamsgd.planning.chunks import Chunk
    from streamsgd.stream.chunk import LoadedChunk, LoadedPiece
    from streamsgd.training.job import Job

Place = tuple[int, int]
"""Epoch, or `job.IN_ORDER`, and number of a chunk."""


class Share(Protocol):
    """What some chunks bring. Merged along the tree of `planning.tree`: who brought what, and when, changes no bit."""

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""

    def merge(self, other: Self) -> Self:
        """Return what the chunks of both bring, those of this one before the other's."""


@dataclass
class ChunkReport:
    """The account of one chunk, beside what it brought."""

    chunk: Chunk
    pieces: list[LoadedPiece] = field(repr=False)
    """Without their rows."""
    spent: Timings
    held: Metrics | None = None
    """Of the rows held out."""
    waited: float = 0.0
    """Seconds that the task waited for the chunk."""
    fit_seconds: float = 0.0
    learn_seconds: float = 0.0
    """Of a processor, in which a learner made its steps: what runs that share a decode wait for each other is not in it."""
    rows: int = 0
    """That the task took in."""
    thinned: int = 0
    """That were left out by their class."""
    worker: str = ""
    """Address of the worker that ran the task; empty for this process."""
    bytes_sent: int = 0


class Task(Protocol):
    """A pure function of job, common state and chunk. It carries the common state, and pickles."""

    name: str
    """For messages and dashboards: learn, gradient, objective ..."""
    exact: bool
    """Whether no chunk may be left out, whatever --straggler says."""

    @property
    def nbytes(self) -> int:
        """Bytes of the state that it carries."""

    def open(self, job: Job) -> Callable[[LoadedChunk], tuple[Share, ChunkReport | None]]:
        """Make ready, once per process and round; what is returned is called once per chunk, by several threads at a time."""


class Round(NamedTuple):
    """One task over some neighbouring chunks."""

    task: Task
    epoch: int
    """Whose order of chunks, or `job.IN_ORDER`."""
    first: int
    width: int
    """Chunks `first` to `first + width`."""
    passes: int = 1
    """This pass and those after it that will take chunks in such an order: how far to read ahead."""
    again: int = 0
    """How many chunks, those of the round or all of the pass, later rounds will ask for again."""
    together: bool = False
    """Whether memory is planned for several chunks to be worked on at once in one process."""

    @property
    def places(self) -> list[Place]:
        """Of its chunks."""
        return [(self.epoch, self.first + k) for k in range(self.width)]


def merge(one: Any, other: Any) -> Any:
    """Return two shares of one kind as one, for sums along the tree."""
    return one.merge(other)


def report_on(job: Job, filled: LoadedChunk, began: float, rows: int, model: Callable[[], Model] | None) -> ChunkReport:
    """Return the report on a chunk that has just been worked on since `began`, its held-out rows scored by a model."""
    held = None if model is None else held_metrics(job, filled, model)
    pieces = [without_rows(piece) for piece in filled.pieces]
    return ChunkReport(
        filled.chunk, pieces, filled.spent, held, filled.waited, fit_seconds=time.perf_counter() - began, rows=rows
    )


def held_metrics(job: Job, filled: LoadedChunk, model: Callable[[], Model]) -> Metrics | None:
    """Return the metrics of a chunk's held-out rows."""
    if not job.recipe.held:
        return None
    found, now = new_metrics(job.parts.loss, job.target), of_population(job, model())
    for block in filled.held_blocks():
        update_metrics(found, now, block, 0, len(block.y))
    return found
