"""Tables that Dask computes: a Dask DataFrame, delayed tables, or futures of tables, as partitions of a data set.

A partition is computed whenever it is read, and dropped after; what is persisted or a future is there already. With a client
partitions go from worker to worker, to where a task needs them, as that task's inputs; without one they are computed by the
threads that read.
"""

from __future__ import annotations

import sys
import threading
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streamsgd.dataset import Dataset, over_files
from streamsgd.errors import DataError, SettingsError, StreamSGDError
from streamsgd.executors import check_client, this_worker, usual_threads
from streamsgd.tables import KEPT_BYTES, Partitions, Shape, as_table, check_rows, partition_dataset, shape_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamsgd.recipe import Recipe

DEADLINE = 1800.0
"""Seconds that a partition may take to be computed and sent here."""


AT_ONCE = 16
"""Partitions that a first look has computed side by side."""


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
    distributed = sys.modules.get("distributed")  # whoever has a future has imported it
    return distributed is not None and isinstance(value, distributed.Future)


def lazily(data: Any, client: Any = None) -> Any:
    """Return data that Dask computes as `Lazy`, other data as it is.

    Parameters
    ----------
    data
        Anything.
    client
        Whose workers compute the partitions. Without it those of the default client, if there is one; else this process.

    Raises
    ------
    SettingsError
        A list mixes them with something else.

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


def _shapes_here(lazy: Lazy) -> Any:
    return over_files(
        lambda number: shape_of(_compute(lazy.parts[number], number), number), range(len(lazy.parts)), usual_threads(None)
    )


def _shapes_there(lazy: Lazy) -> Any:
    from streamsgd.errands import Errands, Kind  # noqa: PLC0415

    feed = Feed(lazy, [])
    kind = Kind(
        "count",
        _shape_on_worker,
        label=lambda number: f"partition{number}",
        where=lambda number: f"partition {number}",
        inputs=lambda number: tuple(feed.raw([number])),
        blame=feed.blame,
    )
    return Errands(lazy.client, kind).each(range(len(lazy.parts)))


def _shape_on_worker(number: int, value: Any) -> Shape:
    return shape_of(value, number)


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

    def __call__(self, number: int, names: tuple[str, ...], start: int, stop: int) -> Any:
        """Return rows of a partition without a copy."""
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
        return table.select(list(names)).slice(start, stop - start)


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
        Columns that tasks read; None for all.

    """

    def __init__(self, lazy: Lazy, rows: Sequence[int], names: tuple[str, ...] | None = None) -> None:
        self.lazy, self._rows, self._names = lazy, rows, names
        self._run = uuid.uuid4().hex[:12]
        self._numbers: dict[str, int] = {}

    def raw(self, numbers: Sequence[int]) -> list[Any]:
        """Return futures of partitions as they are; those that were given are the user's own."""
        parts = [self.lazy.parts[number] for number in numbers]
        computed = iter(self.lazy.client.compute([part for part in parts if not _is_future(part)]))
        futures = [part if _is_future(part) else next(computed) for part in parts]
        for number, future in zip(numbers, futures, strict=True):
            self._numbers[future.key] = number
            if future.status in ("cancelled", "lost"):
                raise DataError(
                    f"partition {number} is lost, and nothing says how to compute it again: its worker died, or it was "
                    "cancelled; pass delayed tables instead of futures of scattered data"
                )
        return futures

    def inputs(self, numbers: Sequence[int]) -> tuple[Any, ...]:
        """Return futures of (number, table) with the columns that tasks read; they live as long as they are held."""
        numbers = [number for number in numbers if self._rows[number]]
        futures = []
        for number, future in zip(numbers, self.raw(numbers), strict=True):
            key = f"streamsgd-partition{number}-{self._run}"
            self._numbers[key] = number
            futures.append(
                self.lazy.client.submit(_part_on_worker, future, number, self._rows[number], self._names, key=key, pure=False)
            )
        return tuple(futures)

    def rows_of(self, number: int, names: tuple[str, ...], start: int, stop: int) -> Any:
        """Fetch rows of a partition into this process."""
        (future,) = self.raw([number])
        key = f"streamsgd-look-partition{number}-{uuid.uuid4().hex[:12]}"
        rows = self._rows[number]
        part = self.lazy.client.submit(_part_on_worker, future, number, rows, names, (start, stop), key=key, pure=False)
        try:
            return part.result(timeout=DEADLINE)[1]
        except StreamSGDError:
            raise
        except Exception as error:
            raise self.blame((future,)) or _cannot(number, error) from error

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
        self._coming: list[int] = []
        self._held: dict[int, Any] = {}
        self._lock = threading.Lock()

    def expect(self, numbers: Sequence[int]) -> None:
        """Compute these partitions side by side, a few ahead of the one that is asked for."""
        with self._lock:
            self._coming, self._held = list(numbers), {}

    def __call__(self, number: int, names: tuple[str, ...], start: int, stop: int) -> Any:
        """Return rows of a partition."""
        with self._lock:
            if number in self._coming:
                at = self._coming.index(number)
                wanted = self._coming[at : at + AT_ONCE]
                self._held = dict(zip(wanted, self.feed.raw(wanted), strict=True))
                self._coming = self._coming[at:] if wanted[1:] else []
        try:
            return self.feed.rows_of(number, names, start, stop)
        finally:
            if not self._coming:
                self._held = {}


class NoFeed:
    """What stands where a `Feed` stands if the data is files: tasks read them."""

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
        raise SettingsError("delayed tables and futures are computed by the client that they are passed with: pass client=")
    source.expect(())  # the first look is over
    feed = source.fetch.feed
    return Feed(feed.lazy, source.rows.tolist(), recipe.columns)


def _part_on_worker(
    value: Any, number: int, rows: int, names: tuple[str, ...] | None, some: tuple[int, int] | None = None
) -> tuple[int, Any]:
    table = check_rows(as_table(value, f"partition {number}"), number, rows)
    table = table if names is None else table.select(list(names))
    return number, table if some is None else table.slice(some[0], some[1] - some[0])
