"""The specification of all backends: one chunk after another in the calling thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.planning.tree import Adder
from streamsgd.stream.stream import read_chunk
from streamsgd.training.backends.base import Abandoned, never
from streamsgd.training.tasks.base import merge

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.training.backends.base import WorkerStats
    from streamsgd.training.job import Job
    from streamsgd.training.tasks.base import ChunkReport, Round


class InlineBackend:
    """Reads a chunk and runs the task on it, then the next; every round reads its chunks anew."""

    client = None

    def __init__(self, job: Job) -> None:
        self.job = job
        self.workers: dict[str, WorkerStats] = {}
        self.poisoned: frozenset[int] = job.recipe.poisoned
        most = min(job.plan.chunk_rows, job.plan.n_rows)
        self._block, self._room = job.recipe.allocate(most), np.empty(most, np.int32)

    def run(self, work: Round, stop: Callable[[], bool] = never) -> tuple[Any, list[ChunkReport]]:
        """Run a task over the chunks of a round; see `base.Backend`."""
        run_on, total = work.task.open(self.job), Adder[Any](merge)
        reports: list[ChunkReport] = []
        for place in work.places:
            plan, chunk = self.job.plan_at(place[0]), self.job.chunk_at(place)
            if reports and work.task.exact and stop():
                raise Abandoned
            share, report = run_on(read_chunk(self.job.recipe, plan, chunk, self._block, self._room))
            total.add(share)
            reports += [report] if report else []
        return total.total(), reports

    def close(self) -> None:
        """Let go of the block."""
        self.__dict__.pop("_block", None)
        self.__dict__.pop("_room", None)
