"""Types that hold the values of several files exactly, for who writes rows of all of them into one.

What is read stays in the type of its file, so that no value changes. One file has one type for a column: that which the types
of the files say, if their values fit, else another of the same meaning that holds them all, else an error that names both.
Values are looked at only where types do not say by themselves that they fit.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from streamsgd.data.normalise import delivered, plain_type, undictionaried
from streamsgd.data.parquet.int96 import has_moments
from streamsgd.data.timings import Timings
from streamsgd.errors import DataError
from streamsgd.planning.chunks import Piece

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streamsgd.data.dataset import Dataset

UNITS = ("us", "ns", "ms", "s")

MOST_DIGITS = 76
"""Of decimals."""


class NoOneTypeError(DataError):
    """No type holds the values of a column of all files."""


@lru_cache(maxsize=1024)
def can_take(kind: Any) -> bool:
    """Whether Arrow can put rows of a column of this type in another order."""
    try:
        pa.nulls(2, kind).take(pa.array([1, 0]))
    except (pa.ArrowException, NotImplementedError, TypeError):
        return False
    return True


def row_type(kind: Any) -> Any:
    """Return the type in which rows of a column wait and are put in order: without dictionaries, which differ between parts."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return kind if can_take(kind) else _values(plain_type(kind))


def _values(kind: Any) -> Any:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def with_values(kind: Any, values: Any) -> Any:
    """Return a type with other values: a dictionary of those where it is one."""
    if not pa.types.is_dictionary(kind):
        return values
    index = kind.index_type if kind.index_type.bit_width >= pa.int32().bit_width else pa.int32()  # of all parts together
    return pa.dictionary(index, values)


# --- conversions


def as_exactly(column: Any, kind: Any) -> Any:
    """Return a column, chunked or not, as a type without dictionaries.

    Raises
    ------
    pa.ArrowException, ValueError
        A value would be another one.

    """
    if column.type == kind:
        return column
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return pa.chunked_array([_exactly(chunk, kind) for chunk in chunks], kind)


def _exactly(array: Any, kind: Any) -> Any:
    array = undictionaried(array)
    found = array.cast(kind)
    if array.type != kind and not holds(array.type, kind) and not found.cast(array.type).equals(array):
        raise ValueError("a value would be another one")
    return found


def holds(own: Any, wanted: Any) -> bool:
    """Whether every value of one type without dictionaries is a value of another, by the types alone."""
    if own == wanted or pa.types.is_null(own):
        return True
    if any(test(own) and test(wanted) for test in _LISTS):
        return holds(own.value_type, wanted.value_type)
    if pa.types.is_map(own) and pa.types.is_map(wanted):
        return holds(own.key_type, wanted.key_type) and holds(own.item_type, wanted.item_type)
    return _holds_numbers(own, wanted) or any(own in pair and wanted in pair for pair in _TEXTS)


def _holds_numbers(own: Any, wanted: Any) -> bool:
    if pa.types.is_integer(own) and pa.types.is_integer(wanted):
        unsigned = pa.types.is_unsigned_integer(own), pa.types.is_unsigned_integer(wanted)
        wider = own.bit_width < wanted.bit_width
        return bool(wider or (unsigned[0] == unsigned[1] and own.bit_width == wanted.bit_width)) and unsigned != (False, True)
    if pa.types.is_decimal(own) and pa.types.is_decimal(wanted):
        return bool(own.scale <= wanted.scale and own.precision - own.scale <= wanted.precision - wanted.scale)
    if pa.types.is_floating(own) and pa.types.is_floating(wanted):
        return bool(own.bit_width <= wanted.bit_width)
    return bool(pa.types.is_integer(own) and pa.types.is_floating(wanted) and own.bit_width < wanted.bit_width)


_TEXTS = (pa.string(), pa.large_string()), (pa.binary(), pa.large_binary())

_LISTS = (
    lambda kind: pa.types.is_list(kind) or pa.types.is_large_list(kind),
    pa.types.is_fixed_size_list,
)


# --- the choice


def candidates(wanted: Any, kinds: Sequence[Any]) -> list[Any]:
    """Return types that may hold what several types hold, the one that is wanted first."""
    found = [wanted]
    if pa.types.is_timestamp(wanted):
        found += [pa.timestamp(unit, wanted.tz) for unit in UNITS]
    elif pa.types.is_duration(wanted):
        found += [pa.duration(unit) for unit in UNITS]
    elif pa.types.is_floating(wanted) or pa.types.is_decimal(wanted):
        scale = max([kind.scale for kind in kinds if pa.types.is_decimal(kind)], default=0)
        found += [pa.int64(), pa.uint64(), pa.decimal256(MOST_DIGITS, scale)]
    elif any(test(wanted) for test in _LISTS):
        inner = candidates(wanted.value_type, [kind.value_type for kind in kinds if any(test(kind) for test in _LISTS)])
        found += [_list_of(wanted, kind) for kind in inner]
    elif pa.types.is_map(wanted):
        items = candidates(wanted.item_type, [kind.item_type for kind in kinds if pa.types.is_map(kind)])
        keys = candidates(wanted.key_type, [kind.key_type for kind in kinds if pa.types.is_map(kind)])
        found += [pa.map_(key, item) for key in keys for item in items]
    return list(dict.fromkeys(found))


def _list_of(like: Any, inner: Any) -> Any:
    if pa.types.is_fixed_size_list(like):
        return pa.list_(inner, like.list_size)
    return pa.large_list(inner) if pa.types.is_large_list(like) else pa.list_(inner)


def exact_schema(dataset: Dataset, schema: Any, *, stored: bool) -> Any:
    """Return a schema of some columns of a data set, with types that hold all their values; values are read where they decide.

    Parameters
    ----------
    dataset
        The rows.
    schema
        Of the columns, in the types that they are best of.
    stored
        Whether values are taken as their file has them, else as the data set has them.

    Raises
    ------
    NoOneTypeError
        There is none; the message names a file, the column and both types.

    """
    fields = [each.with_type(with_values(each.type, row_type(each.type))) for each in schema]
    kinds = {each.name: _kinds(dataset, each.name, stored=stored) for each in fields}
    doubtful = {
        each.name: candidates(_values(each.type), some)
        for each in fields
        if (some := kinds[each.name]) is not None and not all(holds(kind, _values(each.type)) for kind in some)
    }
    if not doubtful:
        return pa.schema(fields, schema.metadata)
    found = _fitting(dataset, doubtful, stored=stored)
    fields = [each.with_type(with_values(each.type, found[each.name])) if each.name in found else each for each in fields]
    return pa.schema(fields, schema.metadata)


def _kinds(dataset: Dataset, name: str, *, stored: bool) -> list[Any] | None:
    """Return the types in which a column is read, without dictionaries; None where nobody knows before."""
    told = getattr(dataset.source, "stored_types", None)
    if told is None or name not in dataset.source.schema.names or name in dataset.partition_names:
        return None
    wanted, types = dataset.schema.field(name).type, told(name)
    found = dict.fromkeys(kind for kind in types if kind is not None)
    if any(map(has_moments, found)) and (exact := getattr(dataset.source, "exact_type", None)) is not None:
        found = dict.fromkeys(exact(file, name) or kind for file, kind in enumerate(types) if kind is not None)
    return list(dict.fromkeys(row_type(kind if stored else delivered(kind, wanted)) for kind in found))


def _fitting(dataset: Dataset, doubtful: dict[str, list[Any]], *, stored: bool) -> dict[str, Any]:
    """Return the first of some types that holds every value of a column, for each."""
    left, names = {name: list(kinds) for name, kinds in doubtful.items()}, tuple(doubtful)
    for piece, columns in _read(dataset, names, stored=stored):
        for name, column in zip(names, columns, strict=True):
            left[name] = [kind for kind in left[name] if _fits(column, kind)]
            if not left[name]:
                raise no_one_type(dataset, piece, name, column.type)
    return {name: kinds[0] for name, kinds in left.items()}


def _fits(column: Any, kind: Any) -> bool:
    try:
        as_exactly(column, kind)
    except (pa.ArrowException, ValueError):
        return False
    return True


def _read(dataset: Dataset, names: tuple[str, ...], *, stored: bool) -> Iterator[tuple[Piece, list[Any]]]:
    reader = dataset.reader(keeps_open=False)
    for group, rows in enumerate(dataset.rows.tolist()):
        piece = Piece(0, group, group + 1, 0, rows, 0)
        if rows:
            parts = reader.read_stored(piece, names) if stored else reader.read(piece, names, Timings())
            for columns in parts:
                yield piece, columns


def no_one_type(dataset: Dataset, piece: Piece, name: str, kind: Any) -> NoOneTypeError:
    """Return the error that says that a column of a piece, of a type, does not go together with the column in other files."""
    told = getattr(dataset.source, "stored_types", None)
    here = int(dataset.file[piece.first])
    types = list(told(name)) if told is not None and name in dataset.source.schema.names else []
    exact = getattr(dataset.source, "exact_type", None)
    if exact is not None:
        types = [exact(file, name) or kind for file, kind in enumerate(types)]
    own = plain_type(types[here]) if types and types[here] is not None else plain_type(kind)
    others = [k for k, other in enumerate(types) if other is not None and plain_type(other) != own]
    other = f"{types[others[0]]} in {dataset.source.files[others[0]].name}" if others else "another elsewhere"
    return NoOneTypeError(
        f"{dataset.source.where(piece)}: column {name!r} is of type {own} there and {other}, and no one type holds the values "
        "of both exactly, as a file of shuffled rows must: write the column in one type, or leave it out of the files"
    )
