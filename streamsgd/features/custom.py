"""Kinds of columns of one's own: found by name, kept in a model by name, and never imported because a file says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from streamsgd.errors import ModelError, SettingsError
from streamsgd.features.kinds import BY_NAME, KINDS
from streamsgd.features.names import expand
from streamsgd.settings.policies import split_kind
from streamsgd.settings.registry import make_own

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from streamsgd.features.column import ColumnKind
    from streamsgd.settings.fields import Settings


class CustomColumns(msgspec.Struct, frozen=True):
    """The columns of one kind of one's own, as a model keeps them."""

    name: str
    """Of the kind."""
    place: str
    """Where it is, package.module:Class."""
    kind: Any
    """The kind, a frozen dataclass; as read from a file its fields, until it is given."""
    configs: tuple[Any, ...]
    """As read from a file: JSON objects."""


class Kinds(NamedTuple):
    """The kinds that may take a column."""

    everywhere: tuple[ColumnKind, ...]
    """Those that are asked about every column, in this order."""
    by_name: dict[str, ColumnKind]
    own: tuple[ColumnKind, ...] = ()
    """Those that are not streamsgd's."""
    columns: tuple[tuple[str, str], ...] = ()
    """Names or globs of columns, and the name of the kind that they are to be."""

    def asked(self, features: Sequence[str]) -> dict[str, str]:
        """Return the kind of one's own that the settings name, by feature."""
        return {name: kind for pattern, kind in self.columns for name in expand((pattern,), features)}


def kinds_with(own: Iterable[tuple[str, ColumnKind]]) -> Kinds:
    """Return the kinds there are, with those of one's own: each for columns by name or glob, or for all if that is ''.

    Raises
    ------
    SettingsError
        Two kinds have one name.

    """
    by_name: dict[str, ColumnKind] = {}
    everywhere, columns = [], []
    for pattern, kind in own:
        if kind.name in BY_NAME or by_name.get(kind.name, kind) != kind:
            raise SettingsError(f"two kinds of columns are called {kind.name!r}: rename yours, {place_of(kind)}")
        kind = by_name.setdefault(kind.name, kind)  # noqa: PLW2901  one of equal ones
        if pattern:
            columns.append((pattern, kind.name))
        else:
            everywhere.append(kind)
    return Kinds((*dict.fromkeys(everywhere), *KINDS), {**BY_NAME, **by_name}, tuple(by_name.values()), tuple(columns))


def kinds_of(settings: Settings) -> Kinds:
    """Return the kinds there are, with those that the settings add.

    Raises
    ------
    SettingsError
        One cannot be imported, or two have one name.

    """
    entries = map(split_kind, settings.column_kind)
    return kinds_with((pattern, make_own("column kind", spec)) for pattern, spec in entries)


def place_of(kind: Any) -> str:
    """Return where the class of a kind is, package.module:Class."""
    cls = kind if isinstance(kind, type) else type(kind)
    return f"{cls.__module__}:{cls.__qualname__}"


def custom_columns(kind: ColumnKind, configs: Sequence[Any]) -> CustomColumns:
    """Return the columns of a kind of one's own, as a model keeps them."""
    return CustomColumns(kind.name, place_of(kind), kind, tuple(configs))


def with_kind(columns: CustomColumns, given: Sequence[Any]) -> CustomColumns:
    """Return columns that were read from a file with their kind, if it was given: loading imports no code by itself.

    Parameters
    ----------
    columns
        Those columns.
    given
        Kinds, their classes, or where they are: package.module:Class.

    Raises
    ------
    ModelError
        The kind was not given, or what the file says does not fit it.
    SettingsError
        It cannot be imported.

    """
    if not isinstance(columns.kind, dict):
        return columns
    made = [make_own("column kind", split_kind(one)[1].partition(",")[0]) if isinstance(one, str) else one for one in given]
    found = next((one for one in made if place_of(one) == columns.place), None)
    if found is None:
        raise ModelError(
            f"the model has columns of the kind {columns.name!r}, {columns.place}, which is not streamsgd's, and no file makes "
            f"us import code: say where it is with --column-kind {columns.place}, or load(path, column_kind=...)"
        )
    cls: Any = found if isinstance(found, type) else type(found)
    try:
        kind: Any = msgspec.convert(columns.kind, cls)
        configs: Any = msgspec.convert(columns.configs, tuple[cls.config, ...])
    except (msgspec.ValidationError, TypeError) as error:
        raise ModelError(
            f"the model's columns of the kind {columns.name!r} are not as {columns.place} has them: {error}"
        ) from error
    return msgspec.structs.replace(columns, kind=kind, configs=configs)
