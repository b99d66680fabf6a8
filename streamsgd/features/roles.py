"""Columns and their roles: target, weight, features, ids; chosen by name, checked by type."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from streamsgd.data.types import WHAT, fits, kind_of
from streamsgd.errors import DataError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from streamsgd.data.types import Kind
    from streamsgd.settings.fields import Settings


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


def _known(name: str, names: Sequence[str]) -> None:
    if name in names:
        return
    close = difflib.get_close_matches(name, names, n=1)
    hint = f", did you mean {close[0]!r}?" if close else f"; the columns are {_few(names)}"
    raise SettingsError(f"there is no column {name!r}{hint}")


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:20])
    return shown if len(names) <= 20 else f"{shown} ... ({len(names)} in all)"
