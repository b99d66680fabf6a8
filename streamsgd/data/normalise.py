"""The one door of types: columns as writers hold them become columns of the few types that the rest knows, or an error.

Views become plain, dictionaries of other than text their values, half floats floats, run ends rows, extension types their
storage; dates beside timestamps become timestamps. No value changes: what would is refused.
"""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamsgd.data.time_texts import as_moments, moment_type, untold_of
from streamsgd.data.types import FAMILY, is_text, key_type, meaning
from streamsgd.errors import DataError
from streamsgd.settings.told import tell


@lru_cache(maxsize=4096)
def plain_type(kind: Any) -> Any:
    """Return the plain type of the same values."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.bool_() if kind.extension_name == "arrow.bool8" else plain_type(kind.storage_type)
    for test, become in _PLAIN:
        if test(kind):
            return become(kind)
    return kind


def _plain_map(kind: Any) -> Any:
    return pa.map_(plain_type(kind.key_type), plain_type(kind.item_type))


def _plain_struct(kind: Any) -> Any:
    return pa.struct([field.with_type(plain_type(field.type)) for field in kind])


_PLAIN: tuple[tuple[Any, Any], ...] = (
    (pa.types.is_string_view, lambda _: pa.large_string()),
    (pa.types.is_binary_view, lambda _: pa.large_binary()),
    (pa.types.is_float16, lambda _: pa.float32()),
    (lambda kind: pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind), lambda k: pa.decimal128(k.precision, k.scale)),
    (pa.types.is_run_end_encoded, lambda kind: plain_type(kind.value_type)),
    (pa.types.is_dictionary, lambda kind: pa.dictionary(kind.index_type, plain_type(kind.value_type))),
    (pa.types.is_list_view, lambda kind: pa.list_(_bare(kind.value_type))),
    (pa.types.is_large_list_view, lambda kind: pa.large_list(_bare(kind.value_type))),
    (pa.types.is_list, lambda kind: pa.list_(_bare(kind.value_type))),
    (pa.types.is_large_list, lambda kind: pa.large_list(_bare(kind.value_type))),
    (pa.types.is_fixed_size_list, lambda kind: pa.list_(_bare(kind.value_type), kind.list_size)),
    (pa.types.is_map, _plain_map),
    (pa.types.is_struct, _plain_struct),
)


def _bare(kind: Any) -> Any:
    """Return the plain type of what is inside lists, where dictionaries say nothing."""
    kind = plain_type(kind)
    return kind.value_type if pa.types.is_dictionary(kind) else kind


@lru_cache(maxsize=4096)
def delivered(kind: Any, wanted: Any) -> Any:
    """Return the type in which a column held as `kind` is handed on where the whole data set has `wanted`.

    Numbers and times stay in the width and unit of their file: what they mean does not depend on it.
    """
    plain, values = plain_type(kind), _bare(wanted)
    if pa.types.is_dictionary(plain) and not (is_text(plain.value_type) and is_text(values)):
        plain = plain.value_type
    here, there = meaning(plain), meaning(values)
    if here == "missing" or means_other(plain, values):
        return values
    if there == "instant" and here in ("instant", "date"):
        unit = plain.unit if here == "instant" else "ms" if pa.types.is_date64(plain) else "s"
        return pa.timestamp(unit, values.tz)
    if here == "text" and there == "instant":
        return moment_type(zoned=bool(values.tz))
    if {here, there} == {"list", "vector"} or (here == there and here in ("list", "vector", "map")):
        return _delivered_inside(plain, values, here, there)
    if here != there and {here, there} <= {"number", "flag"}:
        return pa.uint8() if there == "number" else pa.bool_()
    return pa.date32() if there == "date" and here == "instant" else plain


@lru_cache(maxsize=4096)
def means_other(kind: Any, wanted: Any) -> bool:
    """Whether no value of a plain type can be a value of another one."""
    kind, wanted = (each.value_type if pa.types.is_dictionary(each) else each for each in (kind, wanted))
    here, there = meaning(kind), meaning(wanted)
    if here == "missing" or kind == wanted or (here, there) == ("text", "instant"):
        return False
    if FAMILY.get(here, here) != FAMILY.get(there, there) or here == "other":
        return True
    if here == there == "vector" and kind.list_size != wanted.list_size:
        return True
    if here == "map":
        return means_other(key_type(kind), key_type(wanted))
    return here in ("list", "vector") and means_other(kind.value_type, wanted.value_type)


def _delivered_inside(plain: Any, values: Any, here: str, there: str) -> Any:
    if here == "map":
        return plain
    inner = delivered(plain.value_type, values.value_type)
    if there == "vector":
        return pa.list_(inner, values.list_size)
    return pa.large_list(inner) if pa.types.is_large_list(plain) else pa.list_(inner)


def deliver(column: Any, wanted: Any) -> Any:
    """Return a column, array or chunked, as `delivered` says; itself, without a copy, where that is its type.

    Raises
    ------
    ValueError
        A value would not be the same; the message says which.

    """
    kind = column.type
    if kind == wanted and not pa.types.is_dictionary(kind):
        return column
    target = delivered(kind, wanted)
    if kind == target:
        return column
    if isinstance(column, pa.ChunkedArray):
        return pa.chunked_array([_convert(chunk, target) for chunk in column.chunks], target)
    return _convert(column, target)


def _convert(array: Any, target: Any) -> Any:
    array = plain(array)
    if pa.types.is_dictionary(array.type) and not pa.types.is_dictionary(target):
        array = _decoded(array)
    if array.type == target:
        return array
    special = next((made for applies, made in _CONVERSIONS if applies(array.type, target)), None)
    try:
        return array.cast(target) if special is None else special(array, target)
    except pa.ArrowInvalid as error:
        raise ValueError(str(error)) from error


def plain(array: Any) -> Any:
    """Return an Arrow array in its plain type; dictionaries with plain values."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        inner = plain(array.storage)
        return inner.cast(pa.bool_()) if kind.extension_name == "arrow.bool8" else inner
    if pa.types.is_run_end_encoded(kind):
        return plain(pc.run_end_decode(array))
    if pa.types.is_dictionary(kind):
        values = plain(array.dictionary)
        return array if values is array.dictionary else pa.DictionaryArray.from_arrays(array.indices, values)
    target = plain_type(kind)
    if kind == target:
        return array
    if any(test(kind) for test in _NESTED):
        return _plain_nested(array, target)
    return array.cast(target)


_NESTED = (
    pa.types.is_list_view,
    pa.types.is_large_list_view,
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_map,
    pa.types.is_struct,
)


def _plain_nested(array: Any, target: Any) -> Any:
    """Return an array of lists, maps or structs with plain values inside."""
    kind, mask = array.type, array.is_null() if array.null_count else None
    if pa.types.is_struct(kind):
        parts = [plain(array.field(k)) for k in range(kind.num_fields)]
        return pa.StructArray.from_arrays(parts, fields=list(target), mask=mask)
    if pa.types.is_map(kind):
        keys, items = undictionaried(array.keys), undictionaried(array.items)
        return pa.MapArray.from_arrays(_offsets(array), keys, items).cast(target)
    if pa.types.is_fixed_size_list(kind):
        size = kind.list_size
        inner = undictionaried(array.values.slice(array.offset * size, len(array) * size))
        return pa.FixedSizeListArray.from_arrays(inner, type=target, mask=mask)
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return _from_view(array, target, mask)
    made = pa.LargeListArray if pa.types.is_large_list(kind) else pa.ListArray
    return made.from_arrays(_offsets(array), undictionaried(array.values)).cast(target)


def _from_view(array: Any, target: Any, mask: Any) -> Any:
    """Return lists held as views in their order: Arrow's own cast leaves the last one without an end."""
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    made, index = (pa.LargeListArray, np.int64) if pa.types.is_large_list(target) else (pa.ListArray, np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(index)
    return made.from_arrays(offsets, undictionaried(array.flatten()), type=target, mask=mask)


def undictionaried(values: Any) -> Any:
    """Return an Arrow array in its plain type, the values of a dictionary row by row."""
    values = plain(values)
    return _decoded(values) if pa.types.is_dictionary(values.type) else values


def _decoded(array: Any) -> Any:
    return array.dictionary.take(array.indices) if len(array.dictionary) else pa.nulls(len(array), array.type.value_type)


def _offsets(array: Any) -> Any:
    """Return the offsets of a list array, null where a cell is, which is how Arrow takes them."""
    if not array.null_count:
        return array.offsets
    absent = pa.array([*array.is_null().to_pylist(), False])
    return pc.if_else(absent, pa.scalar(None, array.offsets.type), array.offsets)


def _as_vectors(array: Any, target: Any) -> Any:
    """Return lists of any length as vectors.

    Raises
    ------
    ValueError
        One has another length.

    """
    size = target.list_size
    lengths = pc.list_value_length(array)
    if (wrong := pc.fill_null(pc.not_equal(lengths, size), False)).true_count:
        first = lengths.filter(wrong)[0].as_py()
        raise ValueError(f"a list of {first} numbers where the others have {size}")
    inner = deliver(array.flatten(), target.value_type)
    if not array.null_count:
        return pa.FixedSizeListArray.from_arrays(inner, type=target)
    places = pc.if_else(array.is_valid(), pa.scalar(1), pa.scalar(0)).to_numpy(zero_copy_only=False).cumsum() - 1
    whole = pa.FixedSizeListArray.from_arrays(inner, type=target)
    return whole.take(pc.if_else(array.is_valid(), pa.array(places), pa.scalar(None, pa.int64())))


def _as_days(array: Any, target: Any) -> Any:
    """Return moments as days.

    Raises
    ------
    ValueError
        One is not midnight.

    """
    days = array.cast(target)
    odd = pc.fill_null(pc.not_equal(days.cast(array.type), array), False)
    if odd.true_count:
        raise ValueError(f"{array.filter(odd)[0]} is not midnight, so it is more than a date")
    return days


def _as_flags(array: Any, _target: Any) -> Any:
    if pa.types.is_floating(array.type):  # NaN is no value
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    wide = array.cast(pa.decimal256(76, array.type.scale)) if pa.types.is_decimal(array.type) else array
    zero, one = pa.array([Decimal(0), Decimal(1)] if wide is not array else [0, 1]).cast(wide.type)
    wrong = pc.invert(pc.is_in(pc.drop_null(wide), value_set=pa.array([zero, one])))
    if wrong.true_count:
        raise ValueError(f"the number {pc.drop_null(array).filter(wrong)[0]} is no boolean")
    return pc.equal(wide, one)


def _as_nulls(array: Any, target: Any) -> Any:
    """Return a column without a value as one of another type.

    Raises
    ------
    ValueError
        It holds one.

    """
    values = pc.drop_null(array)
    values = values.filter(pc.invert(pc.is_nan(values))) if pa.types.is_floating(array.type) else values
    if len(values):
        raise ValueError(f"{str(values[0])[:100]!r} is no such value")
    return pa.nulls(len(array), target)


_CONVERSIONS: tuple[tuple[Any, Any], ...] = (
    (lambda kind, _: pa.types.is_null(kind), lambda array, target: pa.nulls(len(array), target)),
    (means_other, _as_nulls),
    (lambda kind, target: pa.types.is_fixed_size_list(target) and not pa.types.is_fixed_size_list(kind), _as_vectors),
    (lambda kind, target: pa.types.is_boolean(target) and not pa.types.is_boolean(kind), _as_flags),
    (lambda kind, target: pa.types.is_date(target) and pa.types.is_timestamp(kind), _as_days),
    (lambda kind, target: is_text(kind) and pa.types.is_timestamp(target), as_moments),
)


def tell_untold(name: str, column: Any, made: Any, source: Any = None) -> None:
    """Count the texts of a column that came to no moments, for the run to say; see `told.tell`."""
    if pa.types.is_timestamp(made.type) and meaning(column.type) == "text":
        tell(name, untold_of(column, made), zoned=bool(made.type.tz), source=source)


def refusal(name: str, where: str, kind: Any, wanted: Any, error: Exception) -> DataError:
    """Return the error that says which column of which file is not what the data set, or training, has it as."""
    return DataError(
        f"{where}: column {name!r} is of type {kind} there and {wanted} elsewhere or in training, and not every value is the "
        f"same in both: {error}. Write the column in one type, or train without it: --exclude '{name}'"
    )
