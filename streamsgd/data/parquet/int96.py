"""Moments of 96 bits (INT96), as Spark and Impala write them: read in a unit that is proven to hold every one exactly.

Arrow reads them in a unit of 64 bits, and what does not fit becomes another moment, in silence: nanoseconds hold no year before
1677 or after 2262, and microseconds cut the last three digits. So a column of a file is read twice before it is first used, as
seconds and as nanoseconds: the latter are right modulo 2^64, and the two together say every moment exactly.
"""

from __future__ import annotations

from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from streamsgd.data.stores.filesystems import io_timeout_of, is_storage_error, retry
from streamsgd.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

INT96_UNIT = "us"
"""Unit as which INT96 is read where it holds all moments of a column, and what schemas say before anything is read."""

TICKS = {"us": 10**6, "ns": 10**9, "ms": 10**3, "s": 1}
"""Units in the order in which they are tried, with their ticks per second."""

MARK = b"int96"
"""Key of a field's metadata that says that it holds INT96."""

LOOK_ROWS, LOOK_BUFFER = 1 << 16, 1 << 18
"""Rows that are looked at together, and compressed bytes that are held meanwhile."""

DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError)
"""What reading raises where bytes are damaged."""


def marked(schema: Any, other: Callable[[str], Any]) -> Any:
    """Return a schema, read with `INT96_UNIT`, whose fields of INT96 say so; `other` returns it as read with another unit."""
    if not any(has_moments(each.type) for each in schema):
        return schema
    others = other("s")
    fields = [
        each if each.type == there.type else each.with_metadata({**(each.metadata or {}), MARK: b"1"})
        for each, there in zip(schema, others, strict=True)
    ]
    return pa.schema(fields, schema.metadata)


def has_moments(kind: Any) -> bool:
    """Whether values of an Arrow type are moments, or hold some."""
    return pa.types.is_timestamp(kind) or any(has_moments(kind.field(k).type) for k in range(kind.num_fields))


def int96_of(schema: Any) -> frozenset[str]:
    """Return the columns that `marked` found to hold INT96."""
    return frozenset(each.name for each in schema if MARK in (each.metadata or {}))


class Opener(Protocol):
    """What opens files for reading some row groups; see `open_footers.Footers`."""

    def open(
        self,
        dataset: Any,
        file: int,
        groups: list[int],
        texts: list[str],
        fetched: Any = None,
        *,
        in_parts: Sequence[str] = (),
        **how: Any,
    ) -> Any:
        """Open a file; return it, and the numbers of the row groups in what was opened."""


class Int96Units:
    """The units of columns of INT96 by file, each found when it is first asked for; pickles with what is known."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, str], tuple[str, Any]] = {}
        self._begin()

    def _begin(self) -> None:
        self._lock = Lock()
        self._locks: dict[tuple[int, str], Lock] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_found": dict(self._found)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def of(self, dataset: Any, file: int, name: str, opener: Opener) -> tuple[str, Any]:
        """Return the unit as which a column of INT96 of a file is read exactly, and its Arrow type then.

        Raises
        ------
        DataError
            There is none.

        """
        key = file, name
        with self._lock:
            lock = self._locks.setdefault(key, Lock())
        with lock:
            if key not in self._found:
                self._found[key] = _look(dataset, file, name, opener)
            return self._found[key]


def by_unit(units: Int96Units, dataset: Any, file: int, names: Sequence[str], opener: Opener) -> dict[str, list[str]]:
    """Return columns of a file by the unit as which their INT96 is read; those without any are in the first.

    Raises
    ------
    DataError
        No unit holds all moments of one.

    """
    found: dict[str, list[str]] = {}
    old = dataset.int96_columns(file)
    if not old:
        return {INT96_UNIT: list(names)}
    for name in names:
        unit = units.of(dataset, file, name, opener)[0] if name in old else INT96_UNIT
        found.setdefault(unit, []).append(name)
    return found


def _look(dataset: Any, file: int, name: str, opener: Opener) -> tuple[str, Any]:
    fits = dict.fromkeys(TICKS, True)
    ref = dataset.source.files[file]
    groups = dataset.index[dataset.file == file].tolist()
    for group in groups:
        look = partial(_look_at_group, fits, partial(_batches, partial(opener.open, dataset, file, [group], []), name))
        retry(look, ref.name, within=io_timeout_of(dataset.source.uri))
    unit = next((unit for unit, fit in fits.items() if fit), None)
    if unit is None:
        raise DataError(
            f"{ref.name}: column {name!r} holds moments of 96 bits (INT96), some beyond the years 1677 to 2262 and some with "
            "fractions of a microsecond, and no one type of timestamp holds both exactly: write the column anew as "
            "microseconds, or without the far ones, or leave it out"
        )
    opened, _ = opener.open(dataset, file, groups[:1], [], unit=unit)
    with opened:
        return unit, opened.schema_arrow.field(name).type


def _batches(opens: Any, name: str, unit: str) -> Iterator[Any]:
    opened, numbers = opens(in_parts=[name], unit=unit, buffer_size=LOOK_BUFFER)
    with opened:
        yield from opened.iter_batches(batch_size=LOOK_ROWS, row_groups=numbers, columns=[name], use_threads=False)


def _look_at_group(fits: dict[str, bool], batches: Callable[[str], Iterator[Any]]) -> None:
    """Strike the units that do not hold some moment of a row group; what cannot be read, whoever reads it will say."""
    for last in (False, True):
        try:
            for pair in in_step({"s": batches("s"), "ns": batches("ns")}):
                _strike(fits, pair["s"].column(0), pair["ns"].column(0))
        except DAMAGE as error:
            if is_storage_error(error):
                raise
            if last:
                return
        else:
            return


def _strike(fits: dict[str, bool], seconds: Any, nanos: Any) -> None:
    for whole, fine in zip(_moments(seconds), _moments(nanos), strict=True):
        s = whole.drop_null().cast(pa.int64()).to_numpy()
        ns = fine.drop_null().cast(pa.int64()).to_numpy()
        rest = ns.view(np.uint64) - s.view(np.uint64) * np.uint64(10**9)  # within a second, exact modulo 2^64
        for unit, ticks in TICKS.items():
            most = 2**63 // ticks
            exact = not (rest % np.uint64(10**9 // ticks)).any()
            fits[unit] &= bool(exact and (not len(s) or (s.min() >= -most and s.max() < most)))


def _moments(array: Any) -> Iterator[Any]:
    """Yield the arrays of moments within an array, however deep."""
    kind = array.type
    if pa.types.is_timestamp(kind):
        yield array
    elif pa.types.is_map(kind):
        yield from _moments(array.keys)
        yield from _moments(array.items)
    elif pa.types.is_struct(kind):
        for part in array.flatten():
            yield from _moments(part)
    elif kind.num_fields:
        yield from _moments(array.flatten())


def in_step(streams: Mapping[str, Iterator[Any]]) -> Iterator[dict[str, Any]]:
    """Yield record batches of several streams of the same rows together, cut so that they are equally long."""
    held: dict[str, Any] = dict.fromkeys(streams)
    while True:
        for key, stream in streams.items():
            while held[key] is None or not held[key].num_rows:
                held[key] = next(stream, None)
                if held[key] is None:
                    break
        if any(batch is None for batch in held.values()):
            return
        rows = min(batch.num_rows for batch in held.values())
        yield {key: batch.slice(0, rows) for key, batch in held.items()}
        held = {key: batch.slice(rows) for key, batch in held.items()}


def side_by_side(streams: Mapping[str, Iterator[Any]], names: Sequence[str]) -> Iterator[Any]:
    """Yield record batches of the columns of several streams of the same rows, in the order of `names`."""
    if len(streams) == 1:
        yield from next(iter(streams.values()))
        return
    for parts in in_step(streams):
        found = {name: column for part in parts.values() for name, column in zip(part.schema.names, part.columns, strict=True)}
        yield pa.RecordBatch.from_arrays([found[name] for name in names if name in found], [n for n in names if n in found])
