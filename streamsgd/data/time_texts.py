"""Texts that say moments: ISO 8601 dates and times, as most writers put them into strings."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

DATE, TIME, ZONE = r"\d{4}-\d{2}-\d{2}", r"[ T]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?", r"(Z|[+-]\d{2}:?\d{2})"
ZONED, PLAIN = f"^{DATE}{TIME}{ZONE}$", f"^{DATE}({TIME})?$"


def moment_type(zoned: bool) -> Any:
    """Return the Arrow type of moments that were texts; those with a zone or an offset are in UTC."""
    return pa.timestamp("us", "UTC") if zoned else pa.timestamp("us")


def says_moments(texts: Any) -> Any | None:
    """Return the Arrow type of the moments that all texts of an Arrow column say; None if one says none, or there is none."""
    filled = texts.drop_null()
    for pattern, zoned in ((PLAIN, False), (ZONED, True)):
        if len(filled) and pc.all(pc.match_substring_regex(filled, pattern)).as_py():
            kind = moment_type(zoned)
            return kind if as_moments(filled, kind).null_count == 0 else None
    return None


def as_moments(texts: Any, kind: Any) -> Any:
    """Return texts as moments of an Arrow type, null where one says none, such as a 30th of February."""
    filled = pc.match_substring_regex(texts, ZONED if kind.tz else PLAIN)
    texts = pc.if_else(pc.fill_null(filled, False), texts, pa.scalar(None, texts.type))
    try:
        return texts.cast(pa.string()).cast(kind)
    except pa.ArrowInvalid:  # 30 February
        return pa.array([moment_of(text) for text in texts.to_pylist()], kind)


def untold_of(texts: Any, moments: Any) -> tuple[int, int, int, str]:
    """Return how many texts of a column there are, how many of them are no moments, and how many of these have another zone.

    And an example of them. `moments` is what `as_moments` made of the texts.
    """
    values, lost = len(texts) - texts.null_count, moments.null_count - texts.null_count
    if not lost:
        return values, 0, 0, ""
    odd = texts.filter(pc.and_(texts.is_valid(), moments.is_null()))
    odd = odd.cast(odd.type.value_type) if pa.types.is_dictionary(odd.type) else odd
    other = pc.match_substring_regex(odd, PLAIN if moments.type.tz else ZONED)
    return values, lost, pc.sum(other).as_py(), odd[0].as_py()


def moment_of(text: str | None) -> dt.datetime | None:
    """Return the moment that a text of the right letters says, or None."""
    try:
        return None if text is None else dt.datetime.fromisoformat(text)
    except ValueError:
        return None
