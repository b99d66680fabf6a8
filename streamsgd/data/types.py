"""What columns of each Arrow type can be, and what they mean: the logical type of a column."""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec
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


def is_number_list(kind: Any) -> bool:
    """Whether cells are lists of numbers of any length, as writers without vectors write those."""
    return _is_any_list(kind) and is_number(kind.value_type) and not pa.types.is_temporal(kind.value_type)


def _is_real(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


# --- logical types


Meaning = Literal[
    "number", "flag", "instant", "date", "time", "duration", "text", "bytes", "missing", "list", "map", "vector", "other"
]

MEANT = {
    "number": "numbers",
    "flag": "booleans",
    "instant": "timestamps",
    "date": "dates",
    "time": "times of day",
    "duration": "durations",
    "text": "strings",
    "bytes": "bytes",
    "missing": "nothing but nulls",
    "list": "lists",
    "map": "maps",
    "vector": "vectors",
    "other": "values that cannot be used",
}
"""What a column of each meaning holds, for messages."""

FAMILY = {"flag": "number", "date": "instant", "bytes": "text", "vector": "list"}
"""Meanings that convert into each other where no value is lost."""


class ColumnType(msgspec.Struct, frozen=True, omit_defaults=True):
    """The logical type of a column: what its values mean, whatever width, unit, view or dictionary holds them."""

    name: str
    means: Meaning
    stored: str = ""
    """The Arrow type in training, for messages."""
    category: bool = False
    """Whether its writer calls it a category: a dictionary."""
    zone: str = ""
    """Of instants; '' if they have none."""
    of: str = ""
    """What the values of a list, the keys of a map, or the numbers of a vector mean."""
    size: int = 0
    """Numbers in a vector."""

    @property
    def family(self) -> str:
        """The meanings that convert into this one."""
        return FAMILY.get(self.means, self.means)


def column_type(name: str, kind: Any) -> ColumnType:
    """Return the logical type of a column that Arrow holds as this type."""
    values = kind.value_type if pa.types.is_dictionary(kind) else kind
    means = meaning(values)
    inner = {"list": lambda: values.value_type, "vector": lambda: values.value_type, "map": lambda: key_type(values)}
    return ColumnType(
        name,
        means,
        str(kind),
        category=bool(pa.types.is_dictionary(kind)),
        zone=zone_of(values),
        of=meaning(inner[means]()) if means in inner else "",
        size=values.list_size if means == "vector" else 0,
    )


def meaning(kind: Any) -> Meaning:
    """Return what values of an Arrow type mean."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return next((means for means, test in _MEANINGS if test(kind)), "other")


def key_type(kind: Any) -> Any:
    """Return the type of the keys of a map, or of a list of pairs."""
    return kind.key_type if pa.types.is_map(kind) else kind.value_type.field(0).type


_MEANINGS: tuple[tuple[Meaning, Any], ...] = (
    ("missing", pa.types.is_null),
    ("flag", pa.types.is_boolean),
    ("number", lambda kind: pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)),
    ("instant", pa.types.is_timestamp),
    ("date", pa.types.is_date),
    ("time", pa.types.is_time),
    ("duration", pa.types.is_duration),
    ("bytes", is_bytes),
    ("text", is_text),
    ("vector", lambda kind: fits("vector", kind)),
    ("map", is_map),
    ("list", lambda kind: is_list(kind) or (_is_any_list(kind) and pa.types.is_null(kind.value_type))),
)


def arrow_type(column: ColumnType) -> Any:
    """Return an Arrow type that holds values of this meaning: that of training, if it can be told from its name."""
    stored = parse_type(column.stored)
    stored = stored.value_type if stored is not None and pa.types.is_dictionary(stored) else stored
    if stored is not None and meaning(stored) == column.means:
        return stored
    return _HOLDERS.get(column.means, lambda _: pa.null())(column)


_HOLDERS: dict[str, Any] = {
    "number": lambda _: pa.float64(),
    "flag": lambda _: pa.bool_(),
    "instant": lambda column: pa.timestamp("us", column.zone or None),
    "date": lambda _: pa.date32(),
    "time": lambda _: pa.time64("us"),
    "duration": lambda _: pa.duration("us"),
    "text": lambda _: pa.large_string(),
    "bytes": lambda _: pa.large_binary(),
    "list": lambda _: pa.list_(pa.string()),
    "map": lambda _: pa.map_(pa.string(), pa.float64()),
    "vector": lambda column: pa.list_(pa.float64(), column.size),
}


def parse_type(text: str) -> Any:
    """Return the Arrow type that a model file of an older version names, or None where it cannot be told."""
    if text.startswith("dictionary<values="):
        values = parse_type(text[len("dictionary<values=") : text.rindex(", indices=")])
        return None if values is None else pa.dictionary(pa.int32(), values)
    if (found := _PARAMETERS.fullmatch(text)) is not None:
        name, parameters = found[1], [part.strip() for part in found[2].split(",")]
        return _PARSERS[name](*parameters) if name in _PARSERS else None
    try:
        return pa.type_for_alias(text)
    except ValueError:
        return None


_PARAMETERS = re.compile(r"([a-z0-9_]+)[\[(](.*)[\])]")

_PARSERS: dict[str, Any] = {
    "timestamp": lambda unit, zone="": pa.timestamp(unit, zone.removeprefix("tz=") or None),
    "time32": pa.time32,
    "time64": pa.time64,
    "duration": pa.duration,
    "date32": lambda _unit: pa.date32(),
    "date64": lambda _unit: pa.date64(),
    "decimal32": lambda precision, scale: pa.decimal32(int(precision), int(scale)),
    "decimal64": lambda precision, scale: pa.decimal64(int(precision), int(scale)),
    "decimal128": lambda precision, scale: pa.decimal128(int(precision), int(scale)),
    "decimal256": lambda precision, scale: pa.decimal256(int(precision), int(scale)),
    "fixed_size_binary": lambda width: pa.binary(int(width)),
}
