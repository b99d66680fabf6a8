"""One stream for several runs: each asks for its rounds as if it were alone, and a chunk that all ask for is read once.

Every run is an engine in a thread of its own. A round waits until every run that goes on has asked for one; those that ask for
the same chunk get it together, and learn from it side by side. What one of them raises is raised in it alone.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from threading import Condition
from typing import TYPE_CHECKING, Any

from streamsgd.training.backends.base import never
from streamsgd.training.tasks.base import Round

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.stream.folds import FoldViews
    from streamsgd.training.backends.base import Backend, WorkerStats
    from streamsgd.training.job import Job
    from streamsgd.training.tasks.base import ChunkReport, Task

    View = Callable[[LoadedChunk], AbstractContextManager[LoadedChunk]]


@dataclass
class _Shares:
    """What each task brought, or raised."""

    found: list[Any]
    nbytes: int = 0

    def merge(self, other: _Shares) -> _Shares:
        """Raise: tasks that learn in place take one chunk after another."""
        raise ValueError(f"runs of one stream take chunk by chunk, not {self} and {other}")


class Together:
    """Does with a chunk what several tasks do, at once.

    Parameters
    ----------
    tasks, jobs
        In the order in which their shares come.
    threads
        Where they run.
    views
        What each sees of a chunk, where that is not the chunk itself.

    """

    name = "together"
    exact = False
    nbytes = 0

    def __init__(
        self, tasks: Sequence[Task], jobs: Sequence[Job], threads: ThreadPoolExecutor, views: Sequence[View] | None = None
    ) -> None:
        self.tasks, self.jobs, self.threads = tasks, jobs, threads
        self.views = views or [nullcontext for _ in tasks]

    def open(self, _job: Job) -> Callable[[LoadedChunk], tuple[_Shares, None]]:
        """Return what runs them all on a chunk."""
        opened = [task.open(job) for task, job in zip(self.tasks, self.jobs, strict=True)]

        def run_on(filled: LoadedChunk) -> tuple[_Shares, None]:
            running = [self.threads.submit(_outcome, task, view, filled) for task, view in zip(opened, self.views, strict=True)]
            return _Shares([one.result() for one in running]), None

        return run_on


def _outcome(task: Callable[[LoadedChunk], Any], view: View, filled: LoadedChunk) -> Any:
    try:
        with view(filled) as seen:
            return task(seen)
    except Exception as error:  # noqa: BLE001  raised again in the run whose task it is
        return error


class SharedStream:
    """The rounds of several runs, by one backend.

    Parameters
    ----------
    backend
        Of this process, for a job of the same data, plan and encoding as those of all runs.
    jobs
        Of the runs.
    threads
        How many tasks work at once.
    views
        Of what runs see of a chunk that leave out rows of their own.

    """

    def __init__(self, backend: Backend, jobs: Sequence[Job], threads: int, views: FoldViews | None = None) -> None:
        self.backend, self.jobs, self._n_threads, self._views = backend, jobs, threads, views
        self._asked: dict[int, Round] = {}
        self._given: dict[int, Any] = {}
        self._going = set(range(len(jobs)))
        self._changed = Condition()

    def seat(self, number: int) -> Seat:
        """Return the stream as one of its runs sees it."""
        return Seat(self, number)

    def run_all(self, runs: Sequence[Callable[[], Any]], between: Callable[[list[int]], dict[int, BaseException]]) -> list[Any]:
        """Run all to their end; return what each of them returned or raised.

        Parameters
        ----------
        runs
            Of each, by its seat.
        between
            Called in this thread, with the numbers of the runs that go on, whenever all of them stand between two rounds.
            It returns what is to be raised in which of them; what it raises itself is raised in all.

        """
        with (
            ThreadPoolExecutor(len(runs), "streamsgd-run") as runners,
            ThreadPoolExecutor(self._n_threads, "streamsgd-work") as workers,
        ):
            running = [runners.submit(self._run, number, run) for number, run in enumerate(runs)]
            try:
                while self._serve(workers, between):
                    pass
            except BaseException as error:
                self._fail(error)
                raise
            return [one.exception() or one.result() for one in running]

    def _run(self, number: int, run: Callable[[], Any]) -> Any:
        try:
            return run()
        finally:
            with self._changed:
                self._going.discard(number)
                self._changed.notify_all()

    def _serve(self, workers: ThreadPoolExecutor, between: Callable[[list[int]], dict[int, BaseException]]) -> bool:
        """Wait until all that go on have asked, and run the earliest round asked for; return whether any goes on."""
        with self._changed:
            self._changed.wait_for(lambda: self._going <= self._asked.keys())
            if not self._going:
                return False
            if ended := between(sorted(self._going)):
                self._give(ended)
                return True
            first = min(self._asked.values(), key=lambda work: (work.epoch, work.first))
            mine = sorted(k for k, work in self._asked.items() if (work.epoch, work.first) == (first.epoch, first.first))
            works = [self._asked.pop(k) for k in mine]
        views = None if self._views is None else [partial(self._views.seen, run=k) for k in mine]
        task = Together([work.task for work in works], [self.jobs[k] for k in mine], workers, views)
        passes = max(work.passes for work in works)
        shares, _reports = self.backend.run(Round(task, first.epoch, first.first, 1, passes))
        with self._changed:
            self._given |= dict(zip(mine, shares.found, strict=True))
            self._changed.notify_all()
        return True

    def _give(self, ended: dict[int, BaseException]) -> None:
        """Raise in runs that wait, which go on no more."""
        for number in ended:
            del self._asked[number]
        self._going -= ended.keys()
        self._given |= ended
        self._changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        """Raise in every run that waits, or will."""
        with self._changed:
            self._given = dict.fromkeys(range(len(self.jobs)), error)
            self._changed.notify_all()

    def ask(self, number: int, work: Round) -> tuple[Any, list[ChunkReport]]:
        """Return what a run's round brings, once it was its turn."""
        with self._changed:
            self._asked[number] = work
            self._changed.notify_all()
            self._changed.wait_for(lambda: number in self._given)
            found = self._given.pop(number)
        if isinstance(found, BaseException):
            raise found
        share, report = found
        return share, [report] if report else []


class Seat:
    """The stream as one of its runs sees it: a `Backend`."""

    client = None

    def __init__(self, stream: SharedStream, number: int) -> None:
        self._stream, self._number = stream, number
        self.workers: dict[str, WorkerStats] = {}
        self.poisoned: frozenset[int] = stream.backend.poisoned

    def run(self, work: Round, stop: Callable[[], bool] = never) -> tuple[Any, list[ChunkReport]]:  # noqa: ARG002  rounds are short
        """Run a round of one chunk with those of the other runs."""
        if work.width != 1:
            raise ValueError(f"a round of {work.width} chunks: runs of one stream take one at a time")
        return self._stream.ask(self._number, work)

    def close(self) -> None:
        """Do nothing: the stream is not the run's."""
