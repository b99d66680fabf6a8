"""Which columns of folders and partitions are dates or moments, whatever their type: new data does not repeat those."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

OF_FOLDERS = "a folder for each date, which new data does not repeat"

OF_TABLES = "a partition for each date, which new data does not repeat"

FIRST_YEAR, LAST_YEAR = 1900, 2199
"""Years of dates that are written without anything between their parts: other numbers of eight digits are numbers."""

_YEAR, _MONTH, _DAY = r"(?P<year>\d{4})", r"(?P<month>0[1-9]|1[0-2])", r"(?P<day>0[1-9]|[12]\d|3[01])"
_CLOCK = r"(?P<hour>[01]\d|2[0-3])(?:[:\-._h]?[0-5]\d(?:[:\-._m]?(?:[0-5]\d|60)(?:[.,]\d+)?)?)?(?:Z| ?UTC|[+\-]\d\d:?\d\d)?"
_PARTED = re.compile(rf"{_YEAR}(?P<sep>[-/._]){_MONTH}(?:(?P=sep){_DAY}(?:[ T_\-]{_CLOCK})?)?", re.ASCII)
_TOGETHER = re.compile(rf"{_YEAR}{_MONTH}{_DAY}(?:[T_\-]?{_CLOCK})?", re.ASCII)
_MONTHS = re.compile(rf"{_YEAR}{_MONTH}", re.ASCII)
_PERIODS = re.compile(r"\d{4}-?(?:Q[1-4]|W(?:0[1-9]|[1-4]\d|5[0-3])(?:-?[1-7])?)", re.ASCII)

_OF_TIME = re.compile(r"(^|_)(date|day|dt|ds|month|mon|ym|yyyymm|yearmonth|period|time|ts|hour)(_|$)", re.IGNORECASE)
"""Names of columns whose numbers of six digits, or with a point after four, are months."""


def dated(name: str, kind: Any, values: Iterable[object]) -> bool:
    """Whether a column of partitions is a date, a month or a moment: by its Arrow type, or because every value is one.

    A year alone is none: it is a number that goes on, and comes with every new row of the year.
    """
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return True
    texts = {str(value) for value in values if value is not None}
    return bool(texts) and all(_is_dated(name, text) for text in texts)


def _is_dated(name: str, text: str) -> bool:
    if _PERIODS.fullmatch(text):
        return True
    if (found := _PARTED.fullmatch(text)) is not None and (found["sep"] != "." or found["day"] or _OF_TIME.search(name)):
        return _is_a_day(found)
    found = _TOGETHER.fullmatch(text) or (_MONTHS.fullmatch(text) if _OF_TIME.search(name) else None)
    return found is not None and FIRST_YEAR <= int(found["year"]) <= LAST_YEAR and _is_a_day(found)


def _is_a_day(found: re.Match[str]) -> bool:
    parts = found.groupdict()
    try:
        datetime(int(parts["year"]), int(parts["month"]), int(parts.get("day") or 1))  # noqa: DTZ001  no moment
    except ValueError:
        return False
    return True


def dated_columns(columns: Mapping[str, tuple[Any, Iterable[object]]], why: str) -> dict[str, str]:
    """Return those of some columns, each with its type and its values, that new data does not repeat, with the reason."""
    return {name: why for name, (kind, values) in columns.items() if dated(name, kind, values)}
