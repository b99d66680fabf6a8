"""Tables after one another: which of them can be one table, because every value stays what it is in one schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from streamsgd.data.normalise import plain, plain_type, undictionaried
from streamsgd.data.notes import aside_of, noted
from streamsgd.data.schemas import widen
from streamsgd.data.types import is_text

if TYPE_CHECKING:
    from collections.abc import Sequence


class First:
    """A table, and whether those after it can be one with it: in its schema, with the same columns of an index."""

    def __init__(self, number: int, table: Any) -> None:
        self.number, self.schema, self.aside = number, nullable(table), aside_of(noted(table.schema))

    def fitted(self, table: Any) -> Any:
        """Return a table in the schema of the first, or None."""
        return as_in(table, self.schema) if aside_of(noted(table.schema)) == self.aside else None


def runs_of(tables: Sequence[Any]) -> list[tuple[int, Any]]:
    """Return tables as fewer, each with the number of its first: another begins where a value might not stay what it is."""
    firsts: list[First] = []
    runs: list[list[Any]] = []
    for number, table in enumerate(tables):
        fitted = firsts[-1].fitted(table) if firsts else None
        if fitted is None:
            firsts.append(First(number, table))
            runs.append([])
            fitted = pa.table(table.columns, schema=firsts[-1].schema)
        runs[-1].append(fitted)
    return [(first.number, pa.concat_tables(run)) for first, run in zip(firsts, runs, strict=True)]


def nullable(table: Any) -> Any:
    """Return the schema of a table, in which columns may be null that are, whatever it says."""
    fields = [
        f.with_nullable(f.nullable or column.null_count > 0) for f, column in zip(table.schema, table.columns, strict=True)
    ]
    return pa.schema(fields, table.schema.metadata)


def as_in(table: Any, schema: Any) -> Any:
    """Return a table in another schema where every value stays what it is there, else None; columns may be in any order."""
    told = all(field.nullable or not column.null_count for field, column in zip(schema, table.columns, strict=False))
    if table.schema.equals(schema) and told:  # whatever their metadata
        return table.replace_schema_metadata(schema.metadata)
    names = table.column_names
    if sorted(names) != sorted(schema.names) or len(set(names)) < len(names):
        return None
    columns = []
    for field in schema:
        column = _as_type(table.column(field.name), field.type)
        if column is None or (column.null_count and not field.nullable):
            return None
        columns.append(column)
    return pa.table(columns, schema=schema)


def _as_type(column: Any, kind: Any) -> Any:
    if column.type == kind:
        return column
    if pa.types.is_null(column.type):
        return pa.chunked_array([pa.nulls(len(column), kind)])
    if not _holds(kind, plain_type(column.type)):
        return None
    try:
        return pa.chunked_array([_converted(chunk, kind) for chunk in column.chunks], kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def _holds(kind: Any, other: Any) -> bool:
    """Whether a column of one type can be of another, as far as types alone can tell."""
    if pa.types.is_dictionary(kind):
        return pa.types.is_dictionary(other) and _holds_category(kind, other)
    if plain_type(kind) != kind:  # half a float, say, which is no float
        return False
    if "decimal" in str(other) and "decimal" not in str(kind):  # Arrow rounds them to floats without a word
        return False
    return bool(widen(kind, other) == kind)


def _holds_category(kind: Any, other: Any) -> bool:
    values = plain_type(kind.value_type) if is_text(kind) else kind.value_type
    wide = kind.index_type.bit_width >= other.index_type.bit_width
    return bool(wide and values == other.value_type and kind.ordered == other.ordered)


def _converted(array: Any, kind: Any) -> Any:
    """Return an array as another type.

    Raises
    ------
    pyarrow.ArrowInvalid
        A value would not be the same.

    """
    if pa.types.is_dictionary(kind):
        array = plain(array)
        values = array.dictionary.cast(kind.value_type)
        return pa.DictionaryArray.from_arrays(array.indices.cast(kind.index_type), values, ordered=kind.ordered)
    array = undictionaried(array)
    found = array.cast(kind)
    if pa.types.is_temporal(kind) and pc.all(pc.equal(found.cast(array.type), array)).as_py() is False:
        raise pa.ArrowInvalid("a moment that the finer unit does not reach")
    return found
