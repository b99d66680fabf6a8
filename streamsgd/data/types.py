"""What columns of each Arrow type can be."""

from __future__ import annotations

from typing import Any, Literal

import pyarrow as pa


def is_text(kind: Any) -> bool:
    """Whether values of this Arrow type are strings or bytes, dictionary-encoded or not."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(kind) for test in tests) or is_bytes(kind)


def is_bytes(kind: Any) -> bool:
    """Whether values are bytes that need not be text."""
    tests = (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_fixed_size_binary,
        pa.types.is_binary_view,
    )
    return any(test(kind) for test in tests) and not pa.types.is_decimal(kind)


def is_category(kind: Any) -> bool:
    """Whether values of this Arrow type can be a category."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    simple = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal, pa.types.is_temporal)
    known = is_text(kind) or pa.types.is_null(kind) or any(test(kind) for test in simple)
    return bool(known and not pa.types.is_interval(kind))


def zone_of(kind: Any) -> str:
    """Return the time zone of moments of this Arrow type, or ''."""
    return (kind.tz or "") if pa.types.is_timestamp(kind) else ""


Kind = Literal["number", "category", "text", "list", "map", "vector"]

WHAT = {
    "number": "a number, a boolean, a date or a timestamp",
    "moment": "a date or a timestamp",
    "category": "a category",
    "text": "a string",
    "list": "a list of strings or numbers",
    "map": "a map, or a list of pairs of a key and a number",
    "vector": "a fixed-size list of numbers",
}
"""What a column of each kind holds, for messages."""


def kind_of(kind: Any) -> Kind | None:
    """Return what columns of an Arrow type are taken for, if nobody says otherwise."""
    order: tuple[Kind, ...] = ("number", "category", "vector", "map", "list")
    return next((found for found in order if fits(found, kind)), None)


def fits(what: str, kind: Any) -> bool:
    """Whether a column of an Arrow type can be this."""
    if what == "vector":
        return bool(pa.types.is_fixed_size_list(kind) and is_number(kind.value_type))
    if what == "moment":
        return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))
    tests = {"number": is_number, "category": is_category, "text": is_text, "list": is_list, "map": is_map}
    return bool(tests[what](kind))


def is_number(kind: Any) -> bool:
    """Whether values of this Arrow type can be a number."""
    tests = (
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_boolean,
        pa.types.is_decimal,
        pa.types.is_temporal,
    )
    return any(test(kind) for test in tests) and not pa.types.is_interval(kind)


def is_list(kind: Any) -> bool:
    """Whether cells of this Arrow type are lists of categories."""
    return _is_any_list(kind) and is_category(kind.value_type)


def is_map(kind: Any) -> bool:
    """Whether cells map keys to numbers: a map, or a list of structs of a key and a number."""
    if pa.types.is_map(kind):
        return is_category(kind.key_type) and _is_real(kind.item_type)
    if not _is_any_list(kind) or not pa.types.is_struct(kind.value_type) or kind.value_type.num_fields != 2:
        return False
    return is_category(kind.value_type.field(0).type) and _is_real(kind.value_type.field(1).type)


def _is_any_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_real(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
