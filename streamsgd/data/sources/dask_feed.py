"""Partitions of Dask on their way to the tasks that need them."""

from __future__ import annotations

import sys
import threading
import uuid
from collections import OrderedDict, deque
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING, Any

from streamsgd.compute.deadlines import DEADLINE
from streamsgd.data.source import Feed as Nothing
from streamsgd.data.source import Part
from streamsgd.data.sources.partitions import NEEDS_CLIENT, check_rows
from streamsgd.data.sources.tables import as_table
from streamsgd.errors import DataError, SettingsError, StreamSGDError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


AT_ONCE = 16
"""Partitions that a first look has computed side by side."""


@dataclass
class DaskTables:
    """Partitions, and whose workers compute them."""

    parts: tuple[Any, ...]
    """Delayed tables, or futures of tables."""
    client: Any = None


def is_future(value: Any) -> bool:
    """Whether a value is a future of distributed."""
    if "distributed" not in sys.modules:  # whoever has a future has imported it
        return False
    from distributed import Future  # noqa: PLC0415  waits for a thread that is just importing it, as `sys.modules` would not

    return isinstance(value, Future)


def compute(part: Any, number: int) -> Any:
    """Compute a partition in the calling thread."""
    try:
        return part.result(timeout=DEADLINE) if is_future(part) else part.compute(scheduler="sync")
    except StreamSGDError:
        raise
    except Exception as error:
        raise cannot(number, error) from error


def cannot(number: int, error: BaseException) -> DataError:
    """Return the error of a partition that cannot be computed."""
    return DataError(f"partition {number} cannot be computed: {type(error).__name__}: {error}")


class Computed:
    """Computes partitions in the threads that read, and keeps a few of the last."""

    def __init__(self, parts: Sequence[Any], rows: Sequence[int], most: int) -> None:
        self._parts, self._rows, self._most = parts, rows, most
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, parts: list[Part], names: tuple[str, ...]) -> list[Any]:
        """Return rows of partitions without a copy."""
        return [_some(self._table(number), names).slice(start, stop - start) for number, start, stop in parts]

    def expect(self, numbers: Sequence[int]) -> None:
        """Do nothing ahead: the threads that read compute."""

    def feed(self, rows: Sequence[int], names: tuple[str, ...], client: Any) -> Feed:  # noqa: ARG002
        """Refuse: these partitions are in this process.

        Raises
        ------
        SettingsError
            Always.

        """
        raise SettingsError(NEEDS_CLIENT)

    def _table(self, number: int) -> Any:
        with self._lock:
            table = self._kept.get(number)
        if table is None:
            value = compute(self._parts[number], number)
            table = check_rows(as_table(value, f"partition {number}"), number, self._rows[number])
        with self._lock:
            self._kept[number] = table
            self._kept.move_to_end(number)
            while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > self._most:
                self._kept.popitem(last=False)
        return table


class Feed(Nothing):
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

    def __init__(self, lazy: DaskTables, rows: Sequence[int], names: tuple[str, ...] = ()) -> None:
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
            if is_future(part) and part.status in ("cancelled", "lost"):
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
        lazy = [number for number in numbers if not is_future(self.lazy.parts[number])]
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
            raise self.blame(tuple(futures)) or cannot(numbers[0], error) from error

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
                return error if isinstance(error, StreamSGDError) else cannot(self._numbers[future.key], error)
        return None


class Sent:
    """Fetches rows of partitions from a cluster: what a first look needs of them."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._coming: deque[int] = deque()
        self._held: dict[int, Any] = {}
        self._lock = threading.Lock()

    def feed(self, rows: Sequence[int], names: tuple[str, ...], client: Any) -> Feed:
        """Return what feeds tasks; the first look is over.

        Raises
        ------
        SettingsError
            The partitions are another client's.

        """
        if self._feed.lazy.client is not client:
            raise SettingsError(NEEDS_CLIENT)
        self.expect(())
        return Feed(self._feed.lazy, rows, names)

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
            self._held = held | self._feed.computed([number for number in ahead if number not in held])
        return self._feed.rows_of(parts, names)


def _numbered(value: Any, number: int, rows: int, names: tuple[str, ...]) -> tuple[int, Any]:
    return number, _some(check_rows(as_table(value, f"partition {number}"), number, rows), names)


def _some(table: Any, names: tuple[str, ...]) -> Any:
    """Return those of some columns that a partition has."""
    return table.select([name for name in names if name in table.column_names])


def _cut(value: Any, number: int, rows: int, names: tuple[str, ...], some: tuple[int, int]) -> Any:
    return _numbered(value, number, rows, names)[1].slice(some[0], some[1] - some[0])
