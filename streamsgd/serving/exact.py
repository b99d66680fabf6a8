"""Which whole numbers a float says, and what a column of categories was in training."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

TOLD = {"halffloat": 1 << 11, "float": 1 << 24, "double": 1 << 53}
"""Whole numbers below which each is a float of its own, by the type of the float."""

OF_SIZE = {2: "halffloat", 4: "float"}
"""Floats of NumPy, by their bytes; others are doubles."""

MOST_DIGITS = 76
"""Of whole numbers that are categories, as Arrow's decimals have them."""

_VALUES = re.compile(r"(?:^|values=|element: |item: |map<|struct<[^:<>]+: )(halffloat|float|double|u?int\d+|decimal\d+)\b")


def number_type(stored: str) -> str:
    """Return the type of the numbers that a column held in training, of a list its elements, of a map its keys; else ''."""
    found = _VALUES.search(stored)
    return found[1] if found is not None else ""


def least_untold(trained: str, now: str) -> int | None:
    """Return from where on numbers of this type do not say which ones of training they are; None where all do."""
    if not trained or (trained in TOLD) == (now in TOLD):
        return None
    return TOLD[now if now in TOLD else trained]


def check_told(value: Any, trained: str) -> None:
    """Refuse a number that does not say which category of training it is.

    Raises
    ------
    TypeError
        It is one: a float in the place of a whole number, or the reverse.

    """
    is_float = isinstance(value, float) or type(value).__name__.startswith("float")
    if not is_float and type(value) not in (int, Decimal):
        return
    least = least_untold(trained, OF_SIZE.get(getattr(value, "itemsize", 8), "double") if is_float else "int64")
    if least is not None and least <= abs(value) < float("inf"):
        other = "a float" if is_float else "no float"
        raise TypeError(
            f"{value!r:.60}, {other}, where training had {trained} (from {least:,} on a float says no whole number)"
        )
