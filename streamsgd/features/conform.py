"""New data beside what training saw: each column is read as its type there, or refused by name."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from streamsgd.data.empty import is_empty
from streamsgd.data.time_texts import moment_type
from streamsgd.data.types import FAMILY, MEANT, ColumnType, arrow_type, column_type, is_text, meaning, parse_type
from streamsgd.errors import DataError
from streamsgd.features.encoding import check_columns
from streamsgd.messages import nearly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from streamsgd.data.dataset import Dataset
    from streamsgd.features.encoding import Encoding

log = logging.getLogger("streamsgd")


def with_types(encoding: Encoding, dataset: Dataset, names: Iterable[str]) -> Encoding:
    """Return an encoding that keeps the logical types of these columns."""
    types = tuple(column_type(name, dataset.schema.field(name).type) for name in dict.fromkeys(names))
    stored = dataset.source.schema
    told = [t.name for t in types if t.means == "instant" and t.name in stored.names and is_text(stored.field(t.name).type)]
    return msgspec.structs.replace(encoding, types=types, moments=tuple(told) or msgspec.UNSET)


def conform(
    encoding: Encoding,
    dataset: Dataset,
    *,
    nulls: bool = False,
    others: Iterable[str] = (),
    what: str = "the data",
    trains: bool = False,
) -> Dataset:
    """Return data whose columns are read as the types that training saw.

    Parameters
    ----------
    encoding
        Of training.
    dataset
        New data.
    nulls
        Whether a column that is in no file is a column of nulls.
    others
        Columns beside features whose types are compared too, as the target's is.
    what
        How messages call the data.
    trains
        Whether a run that trains reads it, which can be told what to do about a column that is not there.

    Raises
    ------
    DataError
        A column is missing, or of a type whose values are no values of training's.

    """
    read = column_types(
        *(encoding, dataset.schema, what),
        nulls=nulls,
        trains=trains,
        folders=dataset.partition_names,
        where=dataset.whose,
        is_empty=partial(is_empty, dataset),
    )
    trained = {column.name: column for column in encoding.types}
    for name in others:
        if name in trained and name in dataset.schema.names:
            found = _compared(trained[name], dataset.schema.field(name).type, what, dataset.whose)
            read[name] = found if trained[name].family == "instant" else dataset.schema.field(name).type
    return dataset.retyped(read)


def column_types(
    encoding: Encoding,
    schema: Any,
    what: str,
    *,
    nulls: bool = False,
    trains: bool = False,
    folders: tuple[str, ...] = (),
    where: Callable[[str], str] = lambda _: "",
    is_empty: Callable[[str], bool] = lambda _: False,
) -> dict[str, Any]:
    """Return the Arrow type as which each column of an encoding is to be read from data of another schema.

    `folders` names columns of folders, which are text until a type is chosen; `where` says where a column is, `is_empty`
    whether it holds no value: then it is a column of nulls, whatever its type.

    Raises
    ------
    DataError
        As `conform`.

    """
    trained = {column.name: column for column in encoding.types or _of_older(encoding)}
    read: dict[str, Any] = {}
    absent, empty = [], []
    for name in encoding.sources:
        before = trained.get(name)
        if name not in schema.names:
            if not nulls:
                raise DataError(_lost(name, schema.names, encoding, what, trains=trains))
            absent.append(name)
            read[name] = pa.float64() if before is None else arrow_type(before)
            continue
        found = schema.field(name).type
        if before is not None and meaning(found) == "text" and name in (encoding.moments or ()):
            found = moment_type(zoned=bool(before.zone))
        elif before is not None:
            if name not in folders and _is_other(before, found) and is_empty(name):
                empty.append(f"{name!r} (of type {found}, in training {before.stored})")
                found = pa.null()
            found = arrow_type(before) if name in folders else _compared(before, found, what, where)
        read[name] = found
    if absent:
        hints = [f"; {found}" for name in absent if (found := _may_be(name, schema.names, encoding))]
        named = ", ".join(map(repr, absent))
        log.warning("%s has no column %s: taken as null in every row%s", what, named, "".join(hints))
    if empty:
        log.warning("%s: no value in column %s: taken as null in every row", what, ", ".join(empty))
    check_columns(encoding, pa.schema(read.items()), what)
    return read


def _lost(name: str, names: list[str], encoding: Encoding, what: str, *, trains: bool) -> str:
    """Say that a column is lost, which other one may be it, and what to do."""
    may_be = f" ({found})" if (found := _may_be(name, names, encoding)) else ""
    way = "pass --missing-columns null to take" if trains else "a model that is trained with --missing-columns null takes"
    return f"{what} has no column {name!r}, which the model was trained with{may_be}; {way} it as null in every row"


def _may_be(name: str, names: list[str], encoding: Encoding) -> str:
    """Say which column of the data may be one that it lacks; '' if none that the model does not know has such a name."""
    close = nearly(name, [other for other in names if other not in encoding.sources])
    return f"if {close!r} is meant, write it under the name {name!r}" if close else ""


def _of_older(encoding: Encoding) -> list[ColumnType]:
    """Return what the model file of an older version says of types: their names in Arrow."""
    named = {
        name: config.type
        for kind, configs in encoding.by_kind().items()
        for config in configs
        for name in kind.sources(config)
        if hasattr(config, "type")
    }
    types = {name: parse_type(text) for name, text in named.items()}
    return [column_type(name, kind) for name, kind in types.items() if kind is not None]


def _is_other(trained: ColumnType, kind: Any) -> bool:
    """Whether no value of this type is one of training's type."""
    found = column_type(trained.name, kind)
    other = found.family != trained.family or not _same_inside(trained, found)
    other |= found.means == trained.means and found.size != trained.size
    return found.means != "missing" and (other or bool(trained.zone) != bool(found.zone))


def _compared(trained: ColumnType, kind: Any, what: str, where: Callable[[str], str]) -> Any:
    """Return the type as which a column is to be read."""
    found = column_type(trained.name, kind)
    if found.means == "missing":
        return arrow_type(trained)
    place = f"{what}{where(trained.name)}"
    if found.family != trained.family or not _same_inside(trained, found):
        raise DataError(
            f"column {trained.name!r} of {place} is of type {kind}, {_meant(found)}; in training it was of type "
            f"{trained.stored}, {_meant(trained)}: write it in that type, or train without it: --exclude '{trained.name}'"
        )
    if trained.family == "instant" and bool(trained.zone) != bool(found.zone):
        raise DataError(
            f"column {trained.name!r} of {place} is of type {kind}, which has {'a' if found.zone else 'no'} time zone; in "
            f"training it had {trained.zone or 'none'} ({trained.stored})"
        )
    if found.category and not trained.category and not is_text(kind):  # numbers that a writer keeps once each
        kind = kind.value_type
    return kind if found.means == trained.means else _READ_AS.get(trained.means, lambda kind, _: kind)(kind, trained)


def _same_inside(a: ColumnType, b: ColumnType) -> bool:
    if "missing" in (a.of, b.of) or a.of == b.of:
        return True
    # Of vectors booleans are numbers; as categories 1 is not true.
    apart = "flag" in (a.of, b.of) and "vector" not in (a.means, b.means)
    return not apart and FAMILY.get(a.of, a.of) == FAMILY.get(b.of, b.of)


def _meant(column: ColumnType) -> str:
    return f"{MEANT[column.means]} of {MEANT[column.of]}" if column.of else MEANT[column.means]


_READ_AS: dict[str, Any] = {
    "number": lambda _kind, _: pa.uint8(),
    "flag": lambda _kind, _: pa.bool_(),
    "date": lambda _kind, _: pa.date32(),
    "instant": lambda kind, _: pa.timestamp("ms" if pa.types.is_date64(kind) else "s"),
    "vector": lambda kind, trained: pa.list_(kind.value_type, trained.size),
    "list": lambda kind, _: pa.list_(kind.value_type),
}
"""By what training saw: the type that makes it of the other meaning of its family."""
