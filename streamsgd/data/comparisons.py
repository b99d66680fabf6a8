"""Comparisons of a column with a literal, exact in every type: no rounding, no overflow, null where the column is null.

A number beside a column of integers, of decimals or of times is moved to the next value that the column can hold, so that
Arrow compares equals; beside a column of floats it is rounded to their precision, as SQL does, so that `x == 0.1` finds 0.1.
"""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta
from decimal import Context, Decimal
from fractions import Fraction
from operator import eq, ge, gt, le, lt, ne
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamsgd.data.types import is_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Refuse = Callable[[str], Any]
    """Raises an error that says why a literal cannot be compared."""


PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

DAY_MS = 86_400_000

LITERALS = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}

LARGEST, LEAST = (1 << 64) - 1, -(1 << 63)

_FINE = re.compile(r"[.,]\d{6}(\d+)", re.ASCII)

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  moments without a zone are counted from it too


class Scale(NamedTuple):
    """Values that are evenly spaced: their numbers, and how Arrow holds the n-th."""

    low: int
    high: int
    make: Callable[[int], Any]


def compare(operator: Any, column: Any, kind: Any, literal: Any, refuse: Refuse) -> Any:
    """Return the expression `column operator literal` for a column of an Arrow type."""
    column, kind = _comparable(column, kind)
    if pa.types.is_null(kind):
        return column.cast(pa.bool_())
    found = position(kind, literal, refuse)
    if not isinstance(found, Fraction):
        return operator(column, pc.scalar(found))
    scale = scale_of(kind)
    whole = math.floor(found)
    if whole == found and scale.low <= whole <= scale.high:
        return operator(column, pc.scalar(scale.make(whole)))
    if operator in (eq, ne) or not scale.low <= whole < scale.high:
        above = found > scale.low  # then every value is below
        holds = operator is ne or (operator in (lt, le) if above else operator in (gt, ge))
        return column == column if holds else column != column  # noqa: PLR0124  null stays null
    return column <= pc.scalar(scale.make(whole)) if operator in (lt, le) else column > pc.scalar(scale.make(whole))


def is_in(column: Any, kind: Any, literals: Sequence[Any], refuses: Sequence[Refuse]) -> Any:
    """Return the expression of whether a column's value is one of some literals; false where it is null."""
    column, kind = _comparable(column, kind)
    if pa.types.is_null(kind):
        return column.is_valid()
    scalars = []
    for literal, refuse in zip(literals, refuses, strict=True):
        found = position(kind, literal, refuse)
        if isinstance(found, Fraction):
            scale = scale_of(kind)
            if found.denominator != 1 or not scale.low <= found <= scale.high:
                continue
            found = scale.make(int(found))
        scalars.append(found)
        if found.as_py() == 0 and pa.types.is_floating(found.type):
            scalars.append(pa.scalar(-found.as_py(), found.type))  # Arrow tells 0 from -0 there
    return column.isin(pa.array([scalar.as_py() for scalar in scalars], scalars[0].type) if scalars else pa.array([], kind))


def _comparable(column: Any, kind: Any) -> tuple[Any, Any]:
    """Return bytes of a fixed size as others: Arrow compares those of one size only."""
    return (column.cast(pa.large_binary()), pa.large_binary()) if pa.types.is_fixed_size_binary(kind) else (column, kind)


def scale_of(kind: Any) -> Scale:
    """Return the values that a type of evenly spaced ones can hold."""
    if pa.types.is_decimal(kind):
        most = 10**kind.precision - 1
        return Scale(-most, most, lambda n: pa.scalar(Decimal(n).scaleb(-kind.scale, Context(prec=80)), kind))
    if pa.types.is_date64(kind):
        return Scale(-(1 << 63), (1 << 63) - 1, lambda n: pa.scalar(n, pa.int64()).cast(kind))
    signed = not pa.types.is_unsigned_integer(kind)
    bits = kind.bit_width
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    return Scale(low, high, lambda n: pa.scalar(n, kind))


def position(kind: Any, literal: Any, refuse: Refuse) -> Any:
    """Return the literal as a multiple of the type's step, or, of types without one, as an Arrow scalar."""
    if isinstance(literal, str):
        return _text(kind, literal, refuse)
    if pa.types.is_boolean(kind) and literal in (0, 1):
        return pa.scalar(bool(literal))
    if isinstance(literal, bool) or not is_number(kind):
        return refuse(f"cannot be compared with {kind}")
    check_range(literal, refuse)
    if pa.types.is_floating(kind):
        return pa.scalar(float(np.float32(literal)) if pa.types.is_float32(kind) else float(literal), kind)
    if isinstance(literal, float) and not math.isfinite(literal):
        return pa.scalar(literal)
    exact = Fraction(Decimal(repr(literal)))
    return exact * 10**kind.scale if pa.types.is_decimal(kind) else exact


def check_range(literal: Any, refuse: Refuse) -> None:
    """Refuse whole numbers beyond 64 bits."""
    if isinstance(literal, int) and not LEAST <= literal <= LARGEST:
        refuse("is too large for 64 bits")


def is_number(kind: Any) -> bool:
    """Whether one can calculate with values of a type."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _text(kind: Any, literal: str, refuse: Refuse) -> Any:
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return _moment(kind, literal, refuse)
    if is_bytes(kind):
        return pa.scalar(literal.encode(), pa.large_binary() if pa.types.is_large_binary(kind) else pa.binary())
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return pa.scalar(literal) if any(test(kind) for test in texts) else refuse(f"cannot be compared with {kind}")


def _moment(kind: Any, literal: str, refuse: Refuse) -> Any:
    try:
        moment = datetime.fromisoformat(literal)
    except ValueError:
        return refuse(f"is compared with {kind}: write it like 2024-01-31 12:30")
    beyond = _below_microseconds(literal)
    if pa.types.is_date(kind):
        since = moment.replace(tzinfo=None) - EPOCH
        if moment.tzinfo is not None or since % timedelta(days=1) or beyond:
            return refuse("has a time but the column is a date")
        return Fraction(since.days * (DAY_MS if pa.types.is_date64(kind) else 1))
    if kind.tz is None:
        if moment.tzinfo is not None:
            return refuse("has a time zone but the column has none")
        scalar = pa.scalar(moment, pa.timestamp("us"))
    elif moment.tzinfo is not None:
        scalar = pa.scalar(moment, pa.timestamp("us", kind.tz))
    else:
        scalar = pc.assume_timezone(pa.scalar(moment, pa.timestamp("us")), kind.tz)
    return (scalar.value + beyond) * Fraction(PER_SECOND[kind.unit], PER_SECOND["us"])


def _below_microseconds(literal: str) -> Fraction:
    """Return the part of a moment in microseconds that a `datetime` drops, below 1."""
    found = _FINE.search(literal)
    return Fraction(int(found[1]), 10 ** len(found[1])) if found else Fraction(0)


def in_common(left: Any, left_kind: Any, right: Any, right_kind: Any) -> tuple[Any, Any]:
    """Return two columns in a type that holds the values of both, where Arrow's own choice does not."""
    kinds = (left_kind, right_kind)
    if any(map(pa.types.is_null, kinds)):  # nothing is compared: null in every row
        return left.cast(pa.bool_()) if pa.types.is_null(left_kind) else left.is_valid(), pc.scalar(pa.scalar(None, pa.bool_()))
    if all(map(pa.types.is_integer, kinds)) and len(set(map(pa.types.is_unsigned_integer, kinds))) > 1:
        return left.cast(pa.decimal128(20, 0)), right.cast(pa.decimal128(20, 0))
    if all(map(is_number, kinds)) and any(map(pa.types.is_floating, kinds)) and left_kind != right_kind:
        return left.cast(pa.float64()), right.cast(pa.float64())
    if any(map(pa.types.is_decimal, kinds)) and all(map(is_number, kinds)):
        scale = max(getattr(kind, "scale", 0) for kind in kinds)
        return left.cast(pa.decimal256(76, scale)), right.cast(pa.decimal256(76, scale))
    return left, right
