"""Columns and their roles: target, weight, features, ids; chosen by name, checked by type."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from streamsgd.categories import is_category, is_text, zone_of
from streamsgd.errors import DataError, SettingsError
from streamsgd.tails import is_list, is_map

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from streamsgd.encode import Encoding
    from streamsgd.settings import Settings

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


@dataclass(frozen=True, slots=True)
class Roles:
    """What each column of the data is for."""

    target: str
    weight: str | None
    features: tuple[str, ...]
    ids: tuple[str, ...] = ()
    kinds: dict[str, Kind] = field(default_factory=dict)
    """What each feature is taken for."""
    named_categories: frozenset[str] = frozenset()
    """Features that the settings call categories."""

    @property
    def read(self) -> tuple[str, ...]:
        """Columns that training reads."""
        return (*self.features, self.target, *((self.weight,) if self.weight else ()))


def choose(settings: Settings, schema: Any) -> Roles:
    """Give every column its role.

    Raises
    ------
    SettingsError
        A column that was named is not there, or has two roles.
    DataError
        A feature is of a type that this version cannot use.

    """
    names = list(schema.names)
    for name in filter(None, (settings.target, settings.weight)):
        _known(name, names)
    ids = expand(settings.id, names)
    taken = {settings.target, settings.weight, *ids}
    chosen = expand(settings.features, names) if settings.features else names
    excluded = set(expand(settings.exclude, names))
    features = tuple(name for name in chosen if name not in taken | excluded)
    both = [name for name in features if name in {settings.target, settings.weight}]
    if both:
        raise SettingsError(f"column {both[0]!r} is both a feature and the target or weight")
    if not features:
        raise SettingsError("no feature column is left; see --features and --exclude, and the columns: " + _few(names))
    kinds = choose_kinds(settings, features, schema)
    named = frozenset(expand(settings.categorical, features))
    return Roles(settings.target, settings.weight, features, ids, kinds, named)


def choose_kinds(settings: Settings, features: Sequence[str], schema: Any) -> dict[str, Kind]:
    """Decide what each feature is, by its type and by what the settings say.

    Raises
    ------
    SettingsError
        A setting names a column that is no feature, or cannot be what it says.
    DataError
        A feature is of a type that cannot be used.

    """
    categorical, text = (frozenset(expand(names, features)) for names in (settings.categorical, settings.text))
    both = sorted(categorical & text)
    if both:
        raise SettingsError(f"column {both[0]!r} is both --categorical and --text")
    kinds: dict[str, Kind] = {}
    wrong = []
    for name in features:
        kind = schema.field(name).type
        own = "category" if name in categorical else "text" if name in text else None
        if own and not fits(own, kind):
            raise SettingsError(f"column {name!r} is of type {kind}, which cannot be {WHAT[own]}")
        found = own or kind_of(kind)
        if found is None:
            wrong.append(name)
        else:
            kinds[name] = found  # type: ignore[assignment]
    if wrong:
        first = schema.field(wrong[0])
        flags = " ".join(f"--exclude '{name}'" for name in wrong)
        these = "it" if len(wrong) == 1 else f"these {len(wrong)}"
        raise DataError(
            f"feature {first.name!r} is of type {first.type}; features must be numbers, dates, strings, lists of those, or "
            f"maps from them to numbers. Leave {these} out with: {flags}"
        )
    return kinds


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


def check_columns(encoding: Encoding, schema: Any, what: str) -> None:
    """Refuse data that lacks a column of an encoding, or has one of another kind.

    Raises
    ------
    DataError
        It does; the message names the column.

    """
    wanted = [(column.column, "number" if column.item < 0 else "vector") for column in encoding.columns]
    wanted += [(c.column, "moment" if c.part else "number" if c.edges else "category") for c in encoding.categories]
    wanted += [(tail.name, tail.kind) for tail in encoding.tails]
    for name, kind in wanted:
        if name not in schema.names:
            raise DataError(f"{what} has no column {name!r}, which the model was trained with")
        found = schema.field(name).type
        if not fits(kind, found):
            raise DataError(f"column {name!r} of {what} is of type {found}; the model needs {WHAT[kind]} there")
    for name, size in _sizes(encoding).items():
        found = schema.field(name).type.list_size
        if found != size:
            raise DataError(f"column {name!r} of {what} has lists of {found} numbers; the model needs {size}")
    for category in encoding.categories:
        if category.part and bool(category.zone) != bool(zone_of(schema.field(category.column).type)):
            raise DataError(
                f"column {category.column!r} of {what} has {'no' if category.zone else 'a'} time zone; in training it had "
                f"{category.zone or 'none'}"
            )


def _sizes(encoding: Encoding) -> dict[str, int]:
    """Return how long the vectors of each column are that has some."""
    sizes: dict[str, int] = {}
    for column in encoding.columns:
        if column.item >= 0:
            sizes[column.column] = max(sizes.get(column.column, 0), column.item + 1)
    return sizes


def expand(patterns: Iterable[str], names: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that names and globs stand for, in the order of the data, each once.

    Raises
    ------
    SettingsError
        A pattern matches nothing.

    """
    matched: set[str] = set()
    for pattern in patterns:
        hits = [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]
        if not hits:
            _known(pattern, names)
        matched.update(hits)
    return tuple(name for name in names if name in matched)


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


def _known(name: str, names: Sequence[str]) -> None:
    if name in names:
        return
    close = difflib.get_close_matches(name, names, n=1)
    hint = f", did you mean {close[0]!r}?" if close else f"; the columns are {_few(names)}"
    raise SettingsError(f"there is no column {name!r}{hint}")


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:20])
    return shown if len(names) <= 20 else f"{shown} ... ({len(names)} in all)"
