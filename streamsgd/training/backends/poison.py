"""Chunks that kill the workers that learn them: which row group does it, and what becomes of it.

A worker that dies may have been killed by anybody. A chunk whose workers died `DEATHS` times is therefore tried piece by piece,
each piece alone on a worker that has just shown, by a task that does all but read, that it is well. Only a piece that kills
`DEATHS` workers in a row so is to blame, and of a piece of several row groups those that do it alone.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from streamsgd.errors import ClusterError, UnreadableError
from streamsgd.training.backends.pool import Assignment, WorkerPool
from streamsgd.training.backends.worker import probe_on_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from streamsgd.planning.chunks import Piece
    from streamsgd.training.job import Job
    from streamsgd.training.tasks.base import Place

log = logging.getLogger("streamsgd")


DEATHS = 3
"""Workers that must die of a chunk, and then of a piece alone, before it is to blame."""

ROUNDS_OF_PROBES = 5
"""Times that a chunk is tried piece by piece before the run gives up on it."""

PROBE = 600.0
"""Seconds that a probe may take."""


class Prober(Protocol):
    """Runs probes on workers: what finding poison needs of a backend."""

    job: Job
    pool: WorkerPool

    @property
    def run_name(self) -> str:
        """The name by which workers keep the job."""

    def shipped_job(self) -> Any:
        """Return the job as tasks take it."""

    def submit(self, function: Callable[..., Any], workers: str | list[str] | None, *args: Any, name: str = "") -> Any:
        """Give a task to a worker."""

    def wait(self, ready: Callable[[], bool], what: str) -> None:
        """Wait until something is so."""

    def pause(self) -> None:
        """Wait a little for any task to end."""


def find_poison(prober: Prober, place: Place, shared: Callable[[], Any]) -> list[int]:
    """Return the row groups of a chunk that kill whoever reads or learns them."""
    killers: list[int] = []
    for piece in prober.job.chunk_at(place).pieces:
        if not _kills(prober, place, piece, shared):
            continue
        groups = range(piece.first, piece.last)
        alone = [_alone(prober.job, group) for group in groups]
        guilty = [one.first for one in alone if _kills(prober, place, one, shared)] if len(alone) > 1 else []
        killers += guilty or groups
    return killers


def without_poison(job: Job, groups: Iterable[int]) -> Job:
    """Return the job with row groups left out.

    Raises
    ------
    UnreadableError
        The settings do not allow it.

    """
    groups = frozenset(groups)
    for group in sorted(groups):
        why = job.recipe.poison_message(_alone(job, group))
        if not job.recipe.skip_unreadable:
            raise UnreadableError(why)
        log.warning("%s", why)
    return replace(job, recipe=replace(job.recipe, poisoned=job.recipe.poisoned | groups))


def _alone(job: Job, group: int) -> Piece:
    from streamsgd.planning.chunks import Piece  # noqa: PLC0415

    return Piece(0, group, group + 1, 0, int(job.dataset.rows[group]), 0)


def _kills(prober: Prober, place: Place, piece: Piece, shared: Callable[[], Any]) -> bool:
    """Say whether a piece kills one worker after another."""
    return all(_died(prober, place, replace(piece, number=0, rows_before=0), shared) for _ in range(DEATHS))


def _died(prober: Prober, place: Place, piece: Piece, shared: Callable[[], Any]) -> bool:
    """Say whether a worker that was well died of a piece."""
    until = time.monotonic() + PROBE
    while time.monotonic() < until:
        prober.wait(lambda: any(not worker.tasks for worker in prober.pool.fit), "a worker to try a chunk's pieces on")
        worker = next(worker.address for worker in prober.pool.fit if not worker.tasks)
        args = (prober.run_name, prober.shipped_job(), shared(), place)
        if worker not in prober.pool.workers or not _ends(prober, worker, (*args, None), until):
            continue  # it was not well, or somebody killed it
        return not _ends(prober, worker, (*args, piece), until)
    raise ClusterError(f"{prober.job.recipe.dataset.source.where(piece)} could not be tried on any worker within {PROBE:.0f} s")


def _ends(prober: Prober, worker: str, args: tuple[Any, ...], until: float) -> bool:
    """Let a worker do a probe of these arguments; say whether it lived."""
    future = prober.submit(probe_on_worker, worker, *args, name="probe")
    prober.pool.began(Assignment(future, worker, 0))
    known = prober.pool.workers[worker]
    while future.status == "pending" and prober.pool.workers.get(worker) is known:
        if time.monotonic() > until:
            return True  # it takes long, which kills nobody
        prober.pause()
        prober.pool.look()
    return bool(future.status == "finished")
