"""Single values of other libraries as those of Python that mean the same."""

from __future__ import annotations

import datetime as dt
import math
import re
from decimal import Decimal
from typing import Any

USUAL = frozenset((type(None), int, float, bool, str, bytes, dt.date, dt.datetime, dt.time, dt.timedelta, list, tuple, dict))
"""Types whose values are what they are."""


NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
"""Numbers as people write them: `.1`, `1.`, `+2` and `05`, which JSON has not, are numbers too."""

MOST_EXACT = 2.0**53
"""Floats up to which every whole number is one."""


def number_in(text: str) -> int | float | None:
    """Return the number that a text says, whole if its value is, such as that of `1e6`; None if it says none."""
    text = text.strip()
    if not NUMBER.fullmatch(text):
        return None
    digits = text.lstrip("+-")
    if digits.isdigit():
        return int(text) if len(digits) <= MOST_DIGITS else None
    value = float(text)
    return int(value) if value.is_integer() and abs(value) <= MOST_EXACT else value


MOST_DIGITS = 4000
"""Of a whole number: Python takes no more out of a text."""


def plain(value: Any) -> Any:
    """Return a value of NumPy's, pandas' or Arrow's as one of Python's, None for what is no value there; others as they are.

    Raises
    ------
    TypeError
        It is a moment that no `datetime` can be.

    """
    if type(value) in USUAL:
        return value
    if isinstance(value, Decimal):
        return value if value.is_finite() else math.nan if value.is_nan() else float(value)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    item = getattr(value, "as_py", None) or (getattr(value, "item", None) if getattr(value, "ndim", 1) == 0 else None)
    if item is None:
        return None if _is_nothing(value) else value
    unit = getattr(getattr(value, "dtype", None), "kind", "")
    if unit in ("M", "m"):
        return _of_numpy(value, "datetime64[us]" if unit == "M" else "timedelta64[us]")
    return item()


def _is_nothing(value: Any) -> bool:
    """Whether a value is NaT or NA."""
    if hasattr(value, "__len__"):
        return False
    try:
        return bool(value != value)  # noqa: PLR0124
    except (TypeError, ValueError):  # NA of pandas says neither
        return type(value).__name__ == "NAType"


def _of_numpy(value: Any, unit: str) -> Any:
    """Return a moment or a duration of NumPy's, whose days are dates and whose nanoseconds are cut, as they are of pandas'."""
    if value != value:  # noqa: PLR0124  NaT
        return None
    found = value.item()
    found = found if isinstance(found, dt.date | dt.timedelta) else value.astype(unit).item()
    if not isinstance(found, dt.date | dt.timedelta):
        raise TypeError(f"{value!r:.60} of type {type(value).__name__}")
    return found
