"""The chunks of a round on their way through a cluster: waiting, running, suspected of killing workers, done."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from streamsgd.training.backends.worker import SharedTask

if TYPE_CHECKING:
    from streamsgd.training.backends.pool import Assignment
    from streamsgd.training.job import Job
    from streamsgd.training.tasks.base import Place, Round


@dataclass(eq=False)
class Lane:
    """One chunk of the round that is under way."""

    number: int
    place: Place
    rows: int
    tasks: list[Assignment] = field(default_factory=list)
    inputs: tuple[Any, ...] = ()
    """Partitions that it waits for."""
    tries: int = 0
    deaths: int = 0
    """Of workers that did it, since it was last acquitted."""
    acquitted: int = 0


@dataclass
class RoundState:
    """How far a round is."""

    name: str
    """Of its task."""
    packed: SharedTask
    exact: bool
    keep: bool
    waiting: list[Lane]
    places: frozenset[Place]
    nexts: list[Place]
    """What the next round will probably ask for."""
    shared: Any = None
    """The task, or where it is ..."""
    sent_to: set[str] | None = None
    """... and to whom it was sent, if not to any."""
    running: list[Lane] = field(default_factory=list)
    suspected: list[Lane] = field(default_factory=list)
    done: dict[int, tuple[Lane, Assignment]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, job: Job, work: Round) -> RoundState:
        """Return the state of a round that begins."""
        lanes = [Lane(number, place, job.chunk_at(place).rows) for number, place in enumerate(work.places)]
        after = work.first + work.width
        n_chunks = job.plan_at(work.epoch).n_chunks(max(work.epoch, 0))
        nexts = [(work.epoch, number) for number in range(after, min(after + work.width, n_chunks))]
        task = work.task
        return cls(task.name, SharedTask(task), task.exact, work.again > 0, lanes, frozenset(work.places), nexts)

    @property
    def missing(self) -> list[Lane]:
        """Lanes that are not done."""
        return [*self.waiting, *self.running, *self.suspected]

    def forget_the_rest(self) -> None:
        """Wait for nothing more: what still runs goes on to hold its worker's thread."""
        self.running.clear()
        self.waiting.clear()
        self.suspected.clear()
