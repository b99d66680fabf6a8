"""One schema for many files: columns are unified by what they mean, and what cannot be is recorded.

A file's own columns stay in their own width and unit (see `normalise`): the type of the whole names what all of them mean.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from streamsgd.data.normalise import plain_type
from streamsgd.data.types import is_bytes, is_text
from streamsgd.errors import SchemaError


class Conflict(NamedTuple):
    """Two files whose types for one column no safe widening brings together."""

    file: str
    type: str
    other_file: str
    other_type: str


class Unified(NamedTuple):
    """One schema for many files, and what stood in its way (column -> file or files)."""

    schema: Any
    missing: dict[str, str]
    conflicts: dict[str, Conflict]
    duplicates: dict[str, str]
    aside: dict[str, str] = {}  # noqa: RUF012  never changed
    """Columns that are no features unless asked for, each with the reason."""


def bare(schema: Any) -> Any:
    """Return the schema without the metadata of its writer."""
    return pa.schema([field.remove_metadata() for field in schema])


def field_ids(schema: Any) -> tuple[int, ...]:
    """Return the ids that a writer gave to the columns of a file, -1 where it gave none."""
    return tuple(int((field.metadata or {}).get(b"PARQUET:field_id", -1)) for field in schema)


THE_SCHEMA = "the schema of the pyarrow.dataset"
"""What is called so has no rows, and its types are what somebody asked for."""


def unify(schemas: Sequence[Any], files: Sequence[str]) -> Unified:
    """Unify distinct schemas, each with the name of a file that has it.

    Columns are in order of first appearance.
    """
    fields: dict[str, Any] = {}
    first: dict[str, str] = {}
    conflicts: dict[str, Conflict] = {}
    duplicates: dict[str, str] = {}
    for schema, file in zip(schemas, files, strict=True):
        seen: set[str] = set()
        for field in schema:
            if field.name in seen:
                duplicates.setdefault(field.name, file)
                continue
            seen.add(field.name)
            plain = plain_type(field.type)
            old = fields.setdefault(field.name, field.with_type(plain))
            first.setdefault(field.name, file)
            type_ = widen(old.type, plain)
            if type_ is None:
                conflict = Conflict(first[field.name], str(old.type), file, str(field.type))
                conflicts.setdefault(field.name, conflict)
                continue
            fields[field.name] = pa.field(field.name, type_, old.nullable or field.nullable)
    missing: dict[str, str] = {}
    for schema, file in zip(schemas, files, strict=True):
        for name in fields.keys() - set(schema.names):
            missing.setdefault(name, file)
    return Unified(pa.schema(fields.values()), missing, conflicts, duplicates)


def column_problem(found: Any, name: str, *, nulls: bool = False) -> str:
    """Return why a column cannot be used: not every file has it (unless `nulls`), once, in types that agree. Else ''."""
    if name in found.duplicates:
        return f"{found.duplicates[name]}: has column {name!r} more than once; rename one of them"
    if name in found.missing and not nulls:
        return f"{found.missing[name]}: has no column {name!r}, which other files have; {AS_NULL}"
    if (conflict := found.conflicts.get(name)) is not None:
        return (
            f"column {name!r} is {conflict.type} in {conflict.file} but {conflict.other_type} in "
            f"{conflict.other_file}; nothing safe holds both: leave it out or write the files alike"
        )
    return ""


AS_NULL = "leave the file or the column out, write the column, or train with --missing-columns null: it is null there then"
"""What to do about a feature that some files lack."""


def require_filled(dataset: Any, columns: Iterable[str]) -> None:
    """Check that columns which may not be null in all rows of a file, as a target may not, are in every file.

    Raises
    ------
    SchemaError
        One is not, or cannot be used.

    """
    for name in columns:
        if name in dataset.schema.names and (problem := dataset.problem(name)):
            raise SchemaError(
                problem.replace(AS_NULL, "a target or weight is needed in every row: write it there, or leave the file out")
            )


_UNITS = ("s", "ms", "us", "ns")


def widen(a: Any, b: Any) -> Any:
    """Return the type that holds the values of both, or None. Integers with floats become float64."""
    for rule in _RULES:
        result = rule(a, b) or rule(b, a)
        if result is not None:
            return result
    return None


def _same(a: Any, b: Any) -> Any:
    return a if a == b else b if pa.types.is_null(a) else None


def _dictionary(a: Any, b: Any) -> Any:
    if not pa.types.is_dictionary(a):
        return None
    values = widen(a.value_type, b.value_type if pa.types.is_dictionary(b) else b)
    # A category of numbers in one file is one in all; of text it is nothing but a way to store it.
    return values if values is None or is_text(values) else pa.dictionary(pa.int32(), values)


def _lists(a: Any, b: Any) -> Any:
    if not (_is_list(a) and _is_list(b)):
        return None
    sizes = {kind.list_size for kind in (a, b) if pa.types.is_fixed_size_list(kind)}
    values = widen(a.value_type, b.value_type)
    if values is None or len(sizes) > 1:
        return None
    if sizes:
        return pa.list_(values, sizes.pop())
    return pa.large_list(values) if pa.types.is_large_list(a) or pa.types.is_large_list(b) else pa.list_(values)


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _maps(a: Any, b: Any) -> Any:
    if not (pa.types.is_map(a) and pa.types.is_map(b)):
        return None
    keys, items = widen(a.key_type, b.key_type), widen(a.item_type, b.item_type)
    return None if keys is None or items is None else pa.map_(keys, items)


def _text(a: Any, b: Any) -> Any:
    if not (is_text(a) and is_text(b)):
        return None
    return pa.large_binary() if is_bytes(a) or is_bytes(b) else pa.large_string()


def _flags(a: Any, b: Any) -> Any:
    """Return the numbers beside flags, which are 0 and 1."""
    numbers = pa.types.is_integer(b) or pa.types.is_floating(b) or pa.types.is_decimal(b)
    return b if pa.types.is_boolean(a) and numbers else None


_SIGNED = {8: pa.int8(), 16: pa.int16(), 32: pa.int32(), 64: pa.int64()}

_UNSIGNED = {8: pa.uint8(), 16: pa.uint16(), 32: pa.uint32(), 64: pa.uint64()}


def _integers(a: Any, b: Any) -> Any:
    if not (pa.types.is_integer(a) and pa.types.is_integer(b)):
        return None
    unsigned = pa.types.is_unsigned_integer(a), pa.types.is_unsigned_integer(b)
    if unsigned == (True, True):
        return _UNSIGNED[max(a.bit_width, b.bit_width)]
    widths = [t.bit_width * (2 if u else 1) for t, u in zip((a, b), unsigned, strict=True)]
    return _SIGNED.get(max(widths), ALL_INTEGERS)


ALL_INTEGERS = pa.decimal128(20, 0)
"""Holds integers of 64 bits with a sign and without."""

_FLOATS = {16: pa.float16(), 32: pa.float32(), 64: pa.float64()}


def _floats(a: Any, b: Any) -> Any:
    if not pa.types.is_floating(a):
        return None
    if pa.types.is_floating(b):
        return _FLOATS[max(a.bit_width, b.bit_width)]
    return pa.float64() if pa.types.is_integer(b) or pa.types.is_decimal(b) else None


def _decimals(a: Any, b: Any) -> Any:
    if not pa.types.is_decimal(a) or not (pa.types.is_decimal(b) or pa.types.is_integer(b)):
        return None
    if pa.types.is_integer(b):
        return a if a == ALL_INTEGERS else pa.float64()
    scale = max(a.scale, b.scale)
    precision = max(a.precision - a.scale, b.precision - b.scale) + scale
    if precision > 76:
        return pa.float64()
    return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)


def _times(a: Any, b: Any) -> Any:
    if pa.types.is_date(a) and pa.types.is_date(b):
        return pa.date64()
    if pa.types.is_date(a) and pa.types.is_timestamp(b) and b.tz is None:
        return pa.timestamp(_finer("ms" if pa.types.is_date64(a) else "s", b.unit))
    if pa.types.is_duration(a) and pa.types.is_duration(b):
        return pa.duration(_finer(a.unit, b.unit))
    if pa.types.is_time(a) and pa.types.is_time(b):
        unit = _finer(a.unit, b.unit)
        return pa.time64(unit) if unit in ("us", "ns") else pa.time32(unit)
    if not (pa.types.is_timestamp(a) and pa.types.is_timestamp(b)) or (a.tz is None) != (b.tz is None):
        return None
    return pa.timestamp(_finer(a.unit, b.unit), a.tz if a.tz == b.tz else "UTC")


def _finer(a: str, b: str) -> str:
    return max(a, b, key=_UNITS.index)


_RULES = (_same, _dictionary, _text, _flags, _integers, _floats, _decimals, _times, _lists, _maps)
