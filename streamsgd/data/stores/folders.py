"""Columns of `key=value` folders: what their names say, and of which type that is."""

from __future__ import annotations

import logging
import re
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from streamsgd.data.dates import OF_FOLDERS, dated_columns
from streamsgd.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger("streamsgd")

HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"

INT64 = np.iinfo(np.int64)

PADDED = 2
"""Digits up to which a leading zero pads a number (months, days, hours) and is not part of a code."""


class PartitionColumns(NamedTuple):
    """The columns of folders, as text."""

    names: tuple[str, ...]
    texts: tuple[tuple[str | None, ...], ...]
    """By file, then by column; None is null."""

    def values(self, kinds: Sequence[Any], files: Sequence[str]) -> tuple[tuple[object, ...], ...]:
        """Return the values as these Arrow types, by file, then by column.

        Raises `SchemaError` naming a file whose folder is no value of its type.
        """
        pairs = list(zip(self.names, kinds, strict=True))
        return tuple(
            tuple(_value(text, name, kind, file) for (name, kind), text in zip(pairs, row, strict=True))
            for row, file in zip(self.texts, files, strict=True)
        )

    def aside(self, kinds: Sequence[Any], why: str = OF_FOLDERS) -> dict[str, str]:
        """Return the columns that new data will not repeat, each with why it is no feature unless asked for."""
        told = {
            name: (kind, [row[k] for row in self.texts]) for k, (name, kind) in enumerate(zip(self.names, kinds, strict=True))
        }
        return dated_columns(told, why)


def partition_columns(
    names: Sequence[str], inside: Sequence[str] = ()
) -> tuple[PartitionColumns, list[Any], dict[str, str], dict[str, str]]:
    """Return what the folders of files say: columns, their types, missing columns, columns twice.

    Columns that files have `inside` too are said: the folders hide them, as in Spark.
    """
    folders = [[part.split("=", 1) for part in name.split("/")[:-1] if "=" in part] for name in names]
    keys = tuple(dict.fromkeys(unquote(key) for parts in folders for key, _ in parts if key))
    if hidden := [key for key in keys if key in inside]:
        log.warning("columns of files that the names of their folders hide: %s", ", ".join(map(repr, hidden)))
    rows = []
    missing: dict[str, str] = {}
    twice: dict[str, str] = {}
    for name, parts in zip(names, folders, strict=True):
        given = [unquote(key) for key, _ in parts]
        values = {unquote(key): None if value == HIVE_NULL else unquote(value) for key, value in parts}
        rows.append(tuple(values.get(key) for key in keys))
        missing.update({key: missing.get(key, name) for key in keys if key not in values})
        twice.update({key: twice.get(key, name) for key in keys if given.count(key) > 1})
    types = [_type_of([row[i] for row in rows]) for i in range(len(keys))]
    return PartitionColumns(keys, tuple(rows)), types, missing, twice


def _type_of(values: list[str | None]) -> Any:
    """Return int64 if all are whole numbers, written as such, date32 if all are dates, else string."""
    present = {value for value in values if value is not None}
    if present and all(re.fullmatch(r"-?[0-9]{1,19}", value) and INT64.min <= int(value) <= INT64.max for value in present):
        plain = all(str(int(value)) == value for value in present)
        padded = len({len(value) for value in present}) == 1 and all(len(value) <= PADDED for value in present)
        return pa.int64() if plain or padded else pa.string()
    return pa.date32() if present and all(map(_is_date, present)) else pa.string()


def _is_date(text: str) -> bool:
    try:
        return bool(re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII) and date.fromisoformat(text))
    except ValueError:
        return False


def _value(text: str | None, name: str, kind: Any, file: str) -> object:
    if text is None:
        return None
    try:
        return _READ[str(kind)](text) if str(kind) in _READ else pa.scalar(text).cast(kind).as_py()
    except (ValueError, OverflowError, pa.ArrowException) as error:
        raise SchemaError(
            f"{file}: the folder {name}={text} is no {kind}, which column {name!r} is elsewhere or in training; rename the "
            f"folder, or train without the column: --exclude '{name}'"
        ) from error


_READ: dict[str, Any] = {"int64": int, "string": str, "large_string": str, "date32[day]": date.fromisoformat}
