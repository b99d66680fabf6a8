"""Parts of a moment, as Arrow takes them: hour, weekday, month."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from streamsgd.errors import DataError

TIME_PARTS = {"hour": 24, "weekday": 7, "month": 12}
"""Parts of a moment, and how many values each has."""


def part_of(column: Any, part: str, zone: str = "") -> Any:
    """Return the hour, the weekday (Monday is 0) or the month (January is 0) of moments in a time zone, or as they are.

    Raises
    ------
    DataError
        The time zone is not known to this system.

    """
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s" if pa.types.is_date32(column.type) else "ms"))
    try:
        if zone and column.type.tz != zone:
            column = column.cast(pa.timestamp(column.type.unit, zone))
        if part == "hour":
            return pc.hour(column)
        return pc.day_of_week(column) if part == "weekday" else pc.subtract(pc.month(column), 1)
    except pa.ArrowInvalid as error:
        raise DataError(f"parts of a moment of type {column.type} cannot be taken: {error}; is tzdata installed?") from error
