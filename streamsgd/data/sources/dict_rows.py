"""Columns of rows that are dicts: values of Python, NumPy and pandas as Arrow's, where one must know as training saw them."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from streamsgd.data.types import ColumnType, arrow_type
from streamsgd.settings.scalars import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

LISTS = ("list", "map", "vector")
"""What columns mean whose values hold several."""


MOST_DIGITS = 76
"""Of a decimal."""


def column_of(values: Any, trained: ColumnType | None) -> Any:
    """Return values as an Arrow array.

    Parameters
    ----------
    values
        A list, an array, or what Arrow can hold.
    trained
        What the column was in training, if that is known.

    Raises
    ------
    pa.ArrowException, TypeError, ValueError, OverflowError
        They cannot be one column.

    """
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    means = "" if trained is None else trained.means
    if means in ("number", "") and _is_narrow(values):
        return pa.array(values)  # a float of 32 bits says fewer whole numbers, which categories are to know
    if not (isinstance(values, list | tuple) or _holds_objects(values) or means in LISTS):
        return pa.array(values)
    given = [plain(value) for value in values]
    if trained is not None and means in LISTS:
        given = [_several(value, means) for value in given]
        return _pairs(given, trained) if means == "map" and all(map(_is_map, given)) else pa.array(given)
    given = _without_nan(given) if means not in ("number", "") or _is_mixed(given) else given
    _check_zones(given)
    if means == "flag":
        given = [int(value) if isinstance(value, Decimal) and value == int(value) else value for value in given]
    try:
        return pa.array(_moments(given))
    except OverflowError:
        return _whole(given)


def _holds_objects(values: Any) -> bool:
    return getattr(getattr(values, "dtype", None), "kind", "") == "O" and not hasattr(values, "index")


def _is_narrow(values: Any) -> bool:
    """Whether all values of a list are floats of NumPy's of one width below 64 bits."""
    kinds = {type(value) for value in values} - {type(None)} if isinstance(values, list | tuple) else set()
    return len(kinds) == 1 and issubclass(kinds.pop(), np.float16 | np.float32)


def _is_mixed(values: Sequence[Any]) -> bool:
    """Whether there is more than numbers, so that NaN is what pandas has for a missing value of another type."""
    return any(not isinstance(value, int | float | Decimal | None) for value in values)


def _without_nan(values: Sequence[Any]) -> list[Any]:
    return [None if isinstance(value, float) and value != value else value for value in values]  # noqa: PLR0124


def _check_zones(values: Sequence[Any]) -> None:
    """Refuse moments of which some have a time zone: Arrow would take the others for UTC."""
    zones = {value.tzinfo is not None for value in values if isinstance(value, dt.datetime)}
    if len(zones) > 1:
        raise TypeError("some moments have a time zone and others have none")
    if any(isinstance(value, dt.time) and value.tzinfo is not None for value in values):
        raise TypeError("a time of day with a time zone")


def _moments(values: list[Any]) -> list[Any]:
    """Return dates beside moments as moments: Arrow would drop the time of day of all."""
    if not {type(value) for value in values} >= {dt.date} or not any(isinstance(value, dt.datetime) for value in values):
        return values
    if any(isinstance(value, dt.datetime) and value.tzinfo is not None for value in values):
        raise TypeError("some moments have a time zone and others are dates")
    return [dt.datetime.combine(value, dt.time()) if type(value) is dt.date else value for value in values]


def _whole(values: Sequence[Any]) -> Any:
    """Return whole numbers of which some are beyond 64 bits: exact, up to what a decimal holds."""
    if any(isinstance(value, float) or abs(value or 0) >= 10**MOST_DIGITS for value in values):
        return pa.array([None if value is None else float(value) for value in values])
    return pa.array([None if value is None else Decimal(value) for value in values])


# --- values that hold several


def _several(value: Any, means: str) -> Any:
    """Return a list, vector or map as Python's, with values of Python."""
    if isinstance(value, dict):
        return [(plain(key), plain(number)) for key, number in value.items()] if means == "map" else value
    if value is None or isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        return value
    if means == "map":
        return [tuple(map(plain, pair)) if isinstance(pair, list | tuple) else pair for pair in value]
    return [plain(item) for item in value]


def _is_map(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value))


def _pairs(cells: Sequence[Any], trained: ColumnType) -> Any:
    """Return maps, as lists of pairs: keys may be null there."""
    pairs = [pair for cell in cells for pair in cell or ()]
    keys = pa.array([key for key, _ in pairs])
    keys = keys.cast(arrow_type(ColumnType("", trained.of))) if pa.types.is_null(keys.type) else keys  # type: ignore[arg-type]
    numbers = pa.array([None if number is None else _number(number) for _, number in pairs], pa.float64())
    ends = np.cumsum([0, *(len(cell or ()) for cell in cells)]).astype(np.int32)
    whole = pa.StructArray.from_arrays([keys, numbers], ["key", "value"])
    mask = pa.array([cell is None for cell in cells])
    return pa.ListArray.from_arrays(ends, whole, mask=mask)


def _number(value: Any) -> float:
    if not isinstance(value, int | float | Decimal):
        raise TypeError(f"{value!r:.60} of type {type(value).__name__} in a map, which is no number")
    return float(value)
