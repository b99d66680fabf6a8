"""Errands: tasks that know nothing of one another, on the workers of a Dask cluster; answers come back in order.

A task is a pure function, or one that may be done twice, so that one whose worker died is merely done again.
"""

from __future__ import annotations

import logging
import pickle
import threading
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streamsgd.compute.deadlines import ATTEMPTS, DEADLINE, NO_WORKER
from streamsgd.compute.executors import outcome
from streamsgd.errors import ClusterError, StreamSGDError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

log = logging.getLogger("streamsgd")


PAUSE = 0.5
"""Seconds between looks at who is there."""

AT_WORK = 2
"""Tasks per thread of the cluster that are under way: one runs, the next one is there when it ends."""

AHEAD = 8
"""Tasks per thread that may be done before their turn."""

DIRECT = 1 << 20
"""Bytes up to which what all tasks share goes by way of the scheduler."""


@dataclass
class TaskSpec:
    """What the tasks of one kind are.

    Parameters
    ----------
    verb
        What they do, for their names: `streamsgd-<verb>-<label>-...`.
    task
        `task(*shared, item, *inputs)`, known by its module to the workers.
    label, where
        Name an item for the dashboard, and for messages.
    inputs
        Futures that the task of an item waits for.
    blame
        Says what is wrong with such futures, if anything.

    """

    verb: str
    task: Callable[..., Any]
    label: Callable[[Any], str]
    where: Callable[[Any], str]
    inputs: Callable[[Any], tuple[Any, ...]] = lambda _item: ()
    blame: Callable[[tuple[Any, ...]], StreamSGDError | None] = lambda _inputs: None


@dataclass
class _Item:
    item: Any
    inputs: tuple[Any, ...] = ()
    future: Any = None
    tries: int = 0


Answer = tuple[Any, BaseException | None]

_NOTHING = object()


class TaskMap:
    """Tasks of one kind under way on the workers of a client, of which nothing is changed.

    `distributed.as_completed` would take the place of the bell alone: its timeout counts from when it was made, not from the
    last task that ended, so that no worker, or one that hangs, would keep it waiting for ever.

    Parameters
    ----------
    client
        Of distributed.
    kind
        Of the tasks.
    shared
        Values that all tasks get, sent once to each worker.

    """

    def __init__(self, client: Any, kind: TaskSpec, shared: Sequence[Any] = ()) -> None:
        self.client, self.kind, self.shared = client, kind, shared
        self._run, self._tokens = uuid.uuid4().hex[:12], 0
        self._bell = threading.Event()
        self._sent: list[Any] = []
        self._running: dict[int, _Item] = {}
        self._done: dict[int, Answer] = {}
        self._began = 0
        self._seen = self._ended = time.monotonic()
        self._looked, self._threads = -PAUSE, 0

    def each(self, items: Iterable[Any]) -> Generator[Any]:
        """Yield what the tasks of some items return, in the order of the items.

        Raises
        ------
        ClusterError
            There are no workers, or a task kills them.
        StreamSGDError
            What a task raised, when it is its turn.

        """
        waiting, turn = iter(items), 0
        try:
            while self._fill(waiting) or self._running or self._done:
                self._collect()
                self._do_again()
                while turn in self._done:
                    value, error = self._done.pop(turn)
                    turn += 1
                    if error is not None:
                        raise error
                    yield value
        finally:
            left = [errand.future for errand in self._running.values() if errand.future is not None]
            if left:
                self.client.cancel(left, force=True)

    def _fill(self, waiting: Iterator[Any]) -> bool:
        """Submit as many tasks as there is room for; say whether any may be left."""
        now = time.monotonic()
        if now - self._looked >= PAUSE:
            self._looked, self._threads = now, sum(self.client.nthreads().values())
        threads = self._threads
        self._seen = now if threads else self._seen
        if now - self._seen > NO_WORKER:
            raise ClusterError(
                f"no worker for {NO_WORKER:.0f} s at {self.client.scheduler.address}: start some, then run the same again"
            )
        if now - self._ended > DEADLINE:
            raise ClusterError(f"no task came back within {DEADLINE:.0f} s; look at the workers, then run the same again")
        if not threads and not self._running:
            time.sleep(PAUSE)
        while len(self._running) < AT_WORK * threads and len(self._running) + len(self._done) < AHEAD * threads:
            item = next(waiting, _NOTHING)
            if item is _NOTHING:
                return False
            self._submit(_Item(item), self._began)
            self._began += 1
        return True

    def _submit(self, errand: _Item, number: int) -> None:
        kind, item = self.kind, errand.item
        self._sent = self._sent or [self._share(value) for value in self.shared]
        errand.tries, errand.inputs = errand.tries + 1, kind.inputs(item)
        key = self._name(kind.label(item))
        errand.future = self.client.submit(_run, kind.task, *self._sent, item, *errand.inputs, key=key, pure=False)
        errand.future.add_done_callback(lambda _future: self._bell.set())
        self._running[number] = errand

    def _share(self, value: Any) -> Any:
        blob = pickle.dumps(value)
        if len(blob) > DIRECT:
            blob = self.client.scatter(blob, hash=False)
        return self.client.submit(pickle.loads, blob, key=self._name("shared"), pure=False)

    def _name(self, label: str) -> str:
        self._tokens += 1
        return f"streamsgd-{self.kind.verb}-{label}-{self._run}-{self._tokens}"

    def _collect(self) -> None:
        """Wait a little for any task to end; take what has ended, and mark what was lost."""
        from distributed import CancelledError  # noqa: PLC0415

        if self._running:
            self._bell.wait(PAUSE)
        self._bell.clear()
        for number, errand in list(self._running.items()):
            if errand.future.status == "pending":
                continue
            self._ended, where = time.monotonic(), self.kind.where(errand.item)
            try:
                found = self._found(errand, where)
            except (CancelledError, OSError, TimeoutError) as error:
                log.warning("%s: what the worker found was lost on its way (%s); it is done again", where, error)
                errand.future = None
                if errand.tries <= ATTEMPTS:
                    continue
                found = None, ClusterError(f"{where}: lost {errand.tries} times on its way")
            self._done[number] = found
            del self._running[number]

    def _found(self, errand: _Item, where: str) -> Answer:
        from distributed import CancelledError, KilledWorker  # noqa: PLC0415

        if errand.future.status != "error":
            found: Answer = errand.future.result(timeout=DEADLINE)
            return found
        error = errand.future.exception()
        if (blamed := self.kind.blame(errand.inputs)) is not None:
            return None, blamed
        if isinstance(error, CancelledError):  # of what all tasks share, lost with its worker
            raise error
        if isinstance(error, KilledWorker):
            text = "killed its worker several times; look at the logs of the workers: out of memory, or a crash of a codec"
            return None, ClusterError(f"{where}: {text}")
        return None, ClusterError(f"{where}: a worker could not begin: {type(error).__name__}: {error}")

    def _do_again(self) -> None:
        """Submit anew what was lost, and what tasks share, which may be lost too."""
        lost = [(number, errand) for number, errand in self._running.items() if errand.future is None]
        if lost:
            self._sent = []
        for number, errand in lost:
            self._submit(errand, number)


def _run(task: Callable[..., Any], *inputs: Any) -> tuple[Any, BaseException | None]:
    return outcome(lambda: task(*inputs))
