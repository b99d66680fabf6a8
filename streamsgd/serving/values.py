"""Values of Python as training took them: numbers, and the bytes by which categories are known.

As `features.arrow` says of Arrow's: a value's text says the value, not its type.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from decimal import Decimal
from typing import Any

from streamsgd.errors import DataError, ModelError
from streamsgd.settings.scalars import plain

EPOCH_DAY = 719_163
"""The ordinal of 1970-01-01."""

UTC = dt.timezone.utc  # noqa: UP017  the same, and what tests of identity meet

_DAY, _TIME, _ZONE = r"^\d{4}-\d{2}-\d{2}", r"[ T]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?", r"(Z|[+-]\d{2}:?\d{2})$"

ZONED, PLAIN = f"{_DAY}{_TIME}{_ZONE}", f"{_DAY}({_TIME})?$"
"""Texts that say moments, as in `data.time_texts`."""

TEXT = ("text", "bytes")


def moment_in(text: str, *, zoned: bool) -> dt.datetime | None:
    """Return the moment that a text says as training read it, else None."""
    if not re.match(ZONED if zoned else PLAIN, text):
        return None
    try:
        return dt.datetime.fromisoformat(text)
    except ValueError:
        return None


def as_number(value: Any, means: str) -> float:
    """Return a value of a column of this meaning as a number, NaN for null.

    Raises
    ------
    TypeError
        It is of another meaning; the message is what it is.

    """
    value = plain(value)
    if value is None:
        return math.nan
    kind = type(value)
    if means in ("number", "flag"):
        if kind is int or kind is float or kind is bool or kind is Decimal:
            return _flag(value) if means == "flag" else _float(value)
    elif (moment := _moment(value, means)) is not None:
        return moment
    raise TypeError(_is(value))


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise TypeError("an integer beyond 64 bits") from error


def _flag(value: Any) -> float:
    if value not in (0, 1):
        raise TypeError(f"the number {value}, which is no boolean")
    return float(value)


def _moment(value: Any, means: str) -> float | None:
    """Return seconds, or days of dates; None if that is not what it is."""
    if means in ("instant", "date") and isinstance(value, dt.date):
        micros = _micros(value)
        return micros / 86_400e6 if means == "date" else micros / 1e6
    if means == "time" and type(value) is dt.time and value.tzinfo is None:
        return (((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond) / 1e6
    if means == "duration" and isinstance(value, dt.timedelta):
        return (value // dt.timedelta(microseconds=1)) / 1e6
    return None


def _micros(value: dt.date) -> int:
    """Return a moment in microseconds since 1970, in UTC if it has a time zone."""
    if not isinstance(value, dt.datetime):
        return (value.toordinal() - EPOCH_DAY) * 86_400_000_000
    value = value if value.tzinfo is None else value.astimezone(UTC)
    seconds = (value.toordinal() - EPOCH_DAY) * 86_400 + (value.hour * 60 + value.minute) * 60 + value.second
    return seconds * 1_000_000 + value.microsecond


def as_text(value: Any, means: str) -> bytes | None:
    """Return the bytes by which a value of a column of this meaning is known; None for null.

    Raises
    ------
    TypeError
        It is of another meaning.

    """
    value = plain(value)
    if value is None:
        return None
    kind = type(value)
    if means in TEXT:
        if kind is str:
            return str.encode(value)
        if kind is bytes:
            return bytes(value)
    elif (said := _said(value, means)) is not None:
        return said.encode()
    if isinstance(value, str) and means in TEXT:
        return str(value).encode()
    raise TypeError(_is(value))


def _said(value: Any, means: str) -> str | None:
    """Return a value of a column of this meaning as text; None if it is of another meaning."""
    say = _SAYERS.get(means)
    return None if say is None else say(value)


def _said_number(value: Any) -> str | None:
    if type(value) is Decimal:
        return _said_decimal(value)
    if type(value) is float:
        return said_float(value)
    return str(int(value)) if type(value) in (int, bool) else None


def _said_flag(value: Any) -> str | None:
    return ("false", "true")[int(_flag(value))] if type(value) in (int, float, bool, Decimal) else None


def _said_time(value: Any) -> str | None:
    return _shorter(value.isoformat()) if type(value) is dt.time and value.tzinfo is None else None


def _said_duration(value: Any) -> str | None:
    return plainly(_moment(value, "duration") or 0.0) if isinstance(value, dt.timedelta) else None


def said_float(value: float) -> str:
    """Return a float as text, whole ones as integers are."""
    if value == math.floor(value) if math.isfinite(value) else False:
        return str(int(value))
    return plainly(value)


def plainly(value: float) -> str:
    """Return a float as Arrow writes it: an exponent below 1e-6 and from 1e10 on, no zeros that say nothing."""
    if value == 0.0 or not math.isfinite(value):
        return repr(value).removesuffix(".0")
    size = abs(value)
    digits, exponent = f"{Decimal(repr(size)).normalize():e}".split("e")
    sign, power = "-" if value < 0 else "", int(exponent)
    if -6 <= power < 10:
        text = f"{Decimal(repr(size)).normalize():f}"
        return sign + text
    return f"{sign}{digits}e{'+' if power > 0 else '-'}{abs(power)}"


def _said_decimal(value: Decimal) -> str:
    text = f"{value:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def _said_moment(value: dt.date) -> str:
    if not isinstance(value, dt.datetime):
        return value.isoformat()
    zone = "" if value.tzinfo is None else "Z"
    value = value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
    return _shorter(value.isoformat(" ")).removesuffix(" 00:00:00" if not zone else "\0") + zone


_SAYERS: dict[str, Any] = {
    "number": _said_number,
    "flag": _said_flag,
    "instant": lambda value: _said_moment(value) if isinstance(value, dt.date) else None,
    "date": lambda value: value.isoformat()[:10] if isinstance(value, dt.date) else None,
    "time": _said_time,
    "duration": _said_duration,
}
"""By what a column means."""


def _shorter(text: str) -> str:
    """Return a time without the zeros behind its last digit."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def zone_named(name: str) -> dt.tzinfo | None:
    """Return the time zone that Arrow calls so, by its place or as an offset such as +02:00; None where there is no name.

    Raises
    ------
    ModelError
        There is no such zone, or this machine does not know it.

    """
    if not name:
        return None
    from zoneinfo import ZoneInfo  # noqa: PLC0415  as late as it is needed

    try:
        offset = re.fullmatch(r"([+-])(\d\d):?([0-5]\d)", name)
        if offset is None:
            return ZoneInfo(name)
        minutes = int(offset[2]) * 60 + int(offset[3])
        return dt.timezone(dt.timedelta(minutes=-minutes if offset[1] == "-" else minutes))
    except (KeyError, ValueError, OSError) as error:
        raise ModelError(
            f"takes parts of moments in the time zone {name[:80]!r}, which is not known here; if there is one of that name, "
            "install the package tzdata"
        ) from error


def part(value: Any, which: str, zone: dt.tzinfo | None) -> int | None:
    """Return the hour, weekday (Monday is 0) or month (January is 0) of a moment; None for null.

    Raises
    ------
    TypeError
        It is none, or has a time zone where training had none, or the reverse.

    """
    if value is None:
        return None
    if not isinstance(value, dt.date):
        raise TypeError(_is(value))
    if isinstance(value, dt.datetime) and zone:
        value = value.astimezone(zone)
    if which == "hour":
        return int(value.hour) if isinstance(value, dt.datetime) else 0
    found: int = value.weekday() if which == "weekday" else value.month - 1
    return found


def check_zone(value: Any, zone: bool) -> None:
    """Refuse a moment with a time zone where training had none, or the reverse.

    Raises
    ------
    TypeError
        It is one.

    """
    if isinstance(value, dt.date) and bool(getattr(value, "tzinfo", None)) != zone:
        raise TypeError(f"a moment with{'out' if zone else ''} a time zone")


def check_midnight(value: Any) -> None:
    """Refuse a moment where training had a date, if it is more than that.

    Raises
    ------
    TypeError
        It is.

    """
    if isinstance(value, dt.datetime) and (value.hour or value.minute or value.second or value.microsecond):
        raise TypeError(f"{value}, which is more than a date")


def refusal(name: str, means: str, error: Exception) -> DataError:
    """Return the error that says what a column of a row is, and what it was in training."""
    what = WHAT.get(means, means)
    return DataError(f"the row's {name!r} is {error}; the model needs {what} there, or None")


def _is(value: Any) -> str:
    return f"{value!r:.60} of type {type(value).__name__}"


WHAT = {
    "number": "a number",
    "flag": "a boolean",
    "instant": "a datetime",
    "date": "a date",
    "time": "a time",
    "duration": "a timedelta",
    "text": "a string",
    "bytes": "bytes or a string",
    "list": "a list",
    "map": "a dict from keys to numbers, or a list of pairs",
    "vector": "a list of numbers",
}
