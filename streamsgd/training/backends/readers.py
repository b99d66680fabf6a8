"""Which worker has read which rows, where it keeps what it read: it gets them again, as far as it is free."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from streamsgd.training.job import Job
    from streamsgd.training.tasks.base import Place

T = TypeVar("T")


class Readers:
    """The workers that read the row groups of a job first."""

    def __init__(self, job: Job) -> None:
        self._job, self._keeps = job, job.recipe.cache is not None
        self._workers: dict[tuple[int, int], str] = {}
        """By the first row group of a piece, and its first row of that."""

    def note(self, place: Place, worker: str) -> None:
        """Note that a worker reads a chunk."""
        if self._keeps:
            for piece in self._job.chunk_at(place).pieces:
                self._workers.setdefault((piece.first, piece.start), worker)

    def forget(self, gone: Collection[str]) -> None:
        """Forget workers that are gone."""
        if gone:
            self._workers = {at: worker for at, worker in self._workers.items() if worker not in gone}

    def rows_of(self, worker: str, place: Place) -> int:
        """Return how many rows of a chunk a worker has read."""
        pieces = self._job.chunk_at(place).pieces
        return sum(piece.rows for piece in pieces if self._workers.get((piece.first, piece.start)) == worker)

    def best(self, worker: str, some: Sequence[T], place: Callable[[T], Place]) -> T:
        """Return that of some chunks of which a worker has read most, the first of them if several."""
        if not self._keeps or len(some) == 1:
            return some[0]
        return max(some, key=lambda one: self.rows_of(worker, place(one)))
