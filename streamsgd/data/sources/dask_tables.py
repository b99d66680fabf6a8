"""Tables that Dask computes: a Dask DataFrame, delayed tables, or futures of tables, as partitions of a data set.

A partition is computed whenever it is read, and dropped after; what is persisted or a future is there already. With a client
partitions go from worker to worker, to where a task needs them, as that task's inputs; without one they are computed by the
threads that read.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from streamsgd.compute.context import check_client, this_worker, usual_threads
from streamsgd.data.dataset import Dataset, over_files
from streamsgd.data.sources.dask_feed import Computed, DaskTables, Feed, Sent, compute, is_future
from streamsgd.data.sources.partitions import KEPT_BYTES, NEEDS_CLIENT, Shape, partition_dataset, shape_of
from streamsgd.errors import DataError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


BATCH = 256
"""Partitions that are counted in one graph."""


def is_lazy(data: Any) -> bool:
    """Whether data is a collection of Dask, or made of delayed objects or futures."""
    if isinstance(data, DaskTables) or hasattr(type(data), "to_delayed") or _is_part(data):
        return True
    return isinstance(data, list | tuple) and any(map(_is_part, data))


def _is_part(value: Any) -> bool:
    return hasattr(value, "__dask_graph__") or is_future(value)


def lazily(data: Any, client: Any = None, *, elsewhere: bool = False) -> Any:
    """Return data that Dask computes as `DaskTables`, other data as it is.

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
    if isinstance(data, DaskTables) or not is_lazy(data):
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
    return DaskTables(parts, _default_client() if client is None else check_client(client))


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


def lazy_dataset(lazy: DaskTables, progress: Callable[[int, int], None] | None = None) -> Dataset:
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


def _shapes_here(lazy: DaskTables) -> Iterator[Shape]:
    numbers = range(len(lazy.parts))
    yield from over_files(lambda number: shape_of(compute(lazy.parts[number], number), number), numbers, usual_threads(None))


def _shapes_there(lazy: DaskTables) -> Iterator[Shape]:
    """Count a batch after another, the next one under way while one comes in."""
    feed, n = Feed(lazy, []), len(lazy.parts)
    batches = [range(at, min(n, at + BATCH)) for at in range(0, n, BATCH)]
    running = feed.submit("count", shape_of, [(number,) for number in batches[0]])
    for numbers, following in zip(batches, [*batches[1:], None], strict=True):
        coming = [] if following is None else feed.submit("count", shape_of, [(number,) for number in following])
        yield from feed.results(running, numbers)
        running = coming
