"""Tables that Dask computes: a Dask DataFrame, delayed tables, or futures of tables, as partitions of a data set.

A partition is computed whenever it is read, and dropped after; what is persisted or a future is there already. With a client
partitions go from worker to worker, to where a task needs them, as that task's inputs; without one they are computed by the
threads that read.
"""

from __future__ import annotations

import sys
import threading
import uuid
from collections import OrderedDict, deque
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING, Any

from streamsgd.dataset import Dataset, over_files
from streamsgd.errors import DataError, SettingsError, StreamSGDError
from streamsgd.executors import check_client, this_worker, usual_threads
from streamsgd.tables import KEPT_BYTES, Part, Partitions, Shape, as_table, check_rows, partition_dataset, shape_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from streamsgd.recipe import Recipe

DEADLINE = 1800.0
"""Seconds that a partition may take to be computed and sent here."""


BATCH = 256
"""Partitions that are counted in one graph."""

AT_ONCE = 16
"""Partitions that a first look has computed side by side."""


NEEDS_CLIENT = (
    "what Dask computes goes to the workers of the client that it is passed with: pass client=, or leave --workers and "
    "--scheduler out"
)


@dataclass
class Lazy:
    """Partitions, and whose workers compute them."""

    parts: tuple[Any, ...]
    """Delayed tables, or futures of tables."""
    client: Any = None


def is_lazy(data: Any) -> bool:
    """Whether data is a collection of Dask, or made of delayed objects or futures."""
    if hasattr(type(data), "to_delayed") or _is_part(data):
        return True
    return isinstance(data, list | tuple) and any(map(_is_part, data))


def _is_part(value: Any) -> bool:
    return hasattr(value, "__dask_graph__") or _is_future(value)


def _is_future(value: Any) -> bool:
    if "distributed" not in sys.modules:  # whoever has a future has imported it
        return False
    from distributed import Future  # noqa: PLC0415  waits for a thread that is just importing it, as `sys.modules` would not

    return isinstance(value, Future)


def lazily(data: Any, client: Any = None, *, elsewhere: bool = False) -> Any:
    """Return data that Dask computes as `Lazy`, other data as it is.

    Parameters
    ----------
    data
        Anything.
    client
        Whose workers compute the partitions. Without it those of the default client, if there is one; else this process.
    elsewhere
        Whether workers that have no such client are to read them.

    Raises
    ------
    SettingsError
        A list mixes them with something else, or they are to be read where nobody can compute them.

    """
    if isinstance(data, Lazy) or not is_lazy(data):
        return data
    if hasattr(type(data), "to_delayed"):
        parts = tuple(data.to_delayed())
    else:
        parts = tuple(data) if isinstance(data, list | tuple) else (data,)
    strange = next((part for part in parts if not _is_part(part)), None)
    if strange is not None:
        raise SettingsError(f"a list of delayed tables or futures cannot hold a {type(strange).__name__} as well")
    if client is None and elsewhere:
        raise SettingsError(NEEDS_CLIENT)
    return Lazy(parts, _default_client() if client is None else check_client(client))


def _default_client() -> Any:
    """Return the user's client, whose persisted data a graph may refer to; within a task the reading threads compute."""
    if "distributed" not in sys.modules or this_worker() is not None:
        return None
    from distributed import get_client  # noqa: PLC0415

    try:
        client = get_client()
    except ValueError:
        return None
    return None if client.asynchronous else client


def lazy_dataset(lazy: Lazy, progress: Callable[[int, int], None] | None = None) -> Dataset:
    """Compute every partition once, for its schema, rows and bytes.

    Raises
    ------
    DataError
        There is none, or one cannot be computed; the message names it.

    """
    if not lazy.parts:
        raise DataError("there is no partition")
    shapes: list[Shape] = []
    for shape in _shapes_there(lazy) if lazy.client is not None else _shapes_here(lazy):
        shapes.append(shape)
        if progress is not None:
            progress(len(shapes), len(lazy.parts))
    rows = [shape.rows for shape in shapes]
    if lazy.client is not None:
        return partition_dataset(shapes, Sent(Feed(lazy, rows)))
    most = KEPT_BYTES + 2 * max(shape.bytes for shape in shapes)
    return partition_dataset(shapes, Computed(lazy.parts, rows, most))


def _shapes_here(lazy: Lazy) -> Iterator[Shape]:
    numbers = range(len(lazy.parts))
    yield from over_files(lambda number: shape_of(_compute(lazy.parts[number], number), number), numbers, usual_threads(None))


def _shapes_there(lazy: Lazy) -> Iterator[Shape]:
    """Count a batch after another, the next one under way while one comes in."""
    feed, n = Feed(lazy, []), len(lazy.parts)
    batches = [range(at, min(n, at + BATCH)) for at in range(0, n, BATCH)]
    running = feed.submit("count", shape_of, [(number,) for number in batches[0]])
    for numbers, following in zip(batches, [*batches[1:], None], strict=True):
        coming = [] if following is None else feed.submit("count", shape_of, [(number,) for number in following])
        yield from feed.results(running, numbers)
        running = coming


# --- in this process


def _compute(part: Any, number: int) -> Any:
    """Compute a partition in the calling thread."""
    try:
        return part.result(timeout=DEADLINE) if _is_future(part) else part.compute(scheduler="sync")
    except StreamSGDError:
        raise
    except Exception as error:
        raise _cannot(number, error) from error


def _cannot(number: int, error: BaseException) -> DataError:
    return DataError(f"partition {number} cannot be computed: {type(error).__name__}: {error}")


class Computed:
    """Computes partitions in the threads that read, and keeps a few of the last."""

    def __init__(self, parts: Sequence[Any], rows: Sequence[int], most: int) -> None:
        self._parts, self._rows, self._most = parts, rows, most
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, parts: list[Part], names: tuple[str, ...]) -> list[Any]:
        """Return rows of partitions without a copy."""
        return [self._table(number).select(list(names)).slice(start, stop - start) for number, start, stop in parts]

    def _table(self, number: int) -> Any:
        with self._lock:
            table = self._kept.get(number)
        if table is None:
            value = _compute(self._parts[number], number)
            table = check_rows(as_table(value, f"partition {number}"), number, self._rows[number])
        with self._lock:
            self._kept[number] = table
            self._kept.move_to_end(number)
            while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > self._most:
                self._kept.popitem(last=False)
        return table


# --- on a cluster


class Feed:
    """Partitions as inputs of tasks.

    Parameters
    ----------
    lazy
        The partitions, with a client.
    rows
        Of each partition, to be checked.
    names
        Columns that tasks read.

    """

    gives = True
    """Whether tasks have inputs."""

    def __init__(self, lazy: Lazy, rows: Sequence[int], names: tuple[str, ...] = ()) -> None:
        self.lazy, self._rows, self._names = lazy, rows, names
        self._looks = count()
        self._run = uuid.uuid4().hex[:12]
        self._numbers: dict[str, int] = {}

    def submit(self, verb: str, task: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Start `task(partition, number, ...)` for each (number, ...), the partitions computed for them in one graph.

        A name is the same whenever the same is asked for, so that tasks of this feed share what is there.
        """
        import dask  # noqa: PLC0415

        made = []
        call = dask.delayed(task)
        for number, *more in calls:
            part = self.lazy.parts[number]
            if _is_future(part) and part.status in ("cancelled", "lost"):
                raise DataError(
                    f"partition {number} is lost, and nothing says how to compute it again: its worker died, or it was "
                    "cancelled; pass delayed tables instead of futures of scattered data"
                )
            key = f"streamsgd-{verb}-partition{number}-{self._run}"
            self._numbers[key] = number
            made.append(call(part, number, *more, dask_key_name=key))
        return list(self.lazy.client.compute(made))

    def computed(self, numbers: Sequence[int]) -> dict[int, Any]:
        """Compute partitions as they are; those that are futures are there."""
        lazy = [number for number in numbers if not _is_future(self.lazy.parts[number])]
        futures = self.lazy.client.compute([self.lazy.parts[number] for number in lazy]) if lazy else []
        return dict(zip(lazy, futures, strict=True))

    def results(self, futures: Sequence[Any], numbers: Sequence[int]) -> list[Any]:
        """Return what tasks on these partitions found.

        Raises
        ------
        DataError
            One failed; the message names its partition.

        """
        try:
            return list(self.lazy.client.gather(list(futures)))
        except StreamSGDError:
            raise
        except Exception as error:
            raise self.blame(tuple(futures)) or _cannot(numbers[0], error) from error

    def inputs(self, numbers: Sequence[int]) -> tuple[Any, ...]:
        """Return futures of (number, table) with the columns that tasks read; they live as long as they are held."""
        calls = [(number, self._rows[number], self._names) for number in numbers if self._rows[number]]
        return tuple(self.submit("read", _numbered, calls)) if calls else ()

    def rows_of(self, parts: Sequence[Part], names: tuple[str, ...]) -> list[Any]:
        """Fetch rows of partitions into this process."""
        calls = [(number, self._rows[number], names, (start, stop)) for number, start, stop in parts]
        futures = self.submit(f"look{next(self._looks)}", _cut, calls)
        return self.results(futures, [part.number for part in parts])

    def blame(self, inputs: tuple[Any, ...]) -> StreamSGDError | None:
        """Say which of these futures failed, and how."""
        for future in inputs:
            if future.status == "error":
                error = future.exception()
                return error if isinstance(error, StreamSGDError) else _cannot(self._numbers[future.key], error)
        return None


class Sent:
    """Fetches rows of partitions from a cluster: what a first look needs of them."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self._coming: deque[int] = deque()
        self._held: dict[int, Any] = {}
        self._lock = threading.Lock()

    def expect(self, numbers: Sequence[int]) -> None:
        """Compute these partitions side by side, a few ahead of the one that is asked for."""
        with self._lock:
            self._coming, self._held = deque(numbers), {}

    def __call__(self, parts: list[Part], names: tuple[str, ...]) -> list[Any]:
        """Return rows of partitions."""
        now = {part.number for part in parts}
        with self._lock:
            while self._coming and self._coming[0] in now:
                self._coming.popleft()
            ahead = list(islice(self._coming, AT_ONCE))
            held = {number: self._held[number] for number in (*now, *ahead) if number in self._held}
            self._held = held | self.feed.computed([number for number in ahead if number not in held])
        return self.feed.rows_of(parts, names)


class NoFeed:
    """What stands where a `Feed` stands if the data is files: tasks read them."""

    gives = False

    def inputs(self, _groups: Sequence[int]) -> tuple[Any, ...]:
        """Return nothing."""
        return ()

    def blame(self, _inputs: tuple[Any, ...]) -> StreamSGDError | None:
        """Blame nobody."""
        return None


def feed_of(recipe: Recipe, client: Any) -> Feed | NoFeed:
    """Return what feeds tasks on a client's workers that follow a recipe.

    Raises
    ------
    SettingsError
        The partitions are in this process, or another client's.

    """
    source: Any = recipe.dataset.source
    if not isinstance(source, Partitions):
        return NoFeed()
    if not isinstance(source.fetch, Sent) or source.fetch.feed.lazy.client is not client:
        raise SettingsError(NEEDS_CLIENT)
    source.expect(())  # the first look is over
    feed = source.fetch.feed
    return Feed(feed.lazy, source.rows.tolist(), recipe.columns)


def _numbered(value: Any, number: int, rows: int, names: tuple[str, ...]) -> tuple[int, Any]:
    return number, check_rows(as_table(value, f"partition {number}"), number, rows).select(list(names))


def _cut(value: Any, number: int, rows: int, names: tuple[str, ...], some: tuple[int, int]) -> Any:
    return _numbered(value, number, rows, names)[1].slice(some[0], some[1] - some[0])
