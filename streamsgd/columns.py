"""Columns and their roles: target, weight, features, ids; chosen by name, checked by type."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from streamsgd.errors import DataError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from streamsgd.settings import Settings


@dataclass(frozen=True, slots=True)
class Roles:
    """What each column of the data is for."""

    target: str
    weight: str | None
    features: tuple[str, ...]
    ids: tuple[str, ...] = ()

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
    check_numeric(features, schema)
    return Roles(settings.target, settings.weight, features, ids)


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


def check_numeric(features: tuple[str, ...], schema: Any) -> None:
    """Refuse features that are not numbers, all by name.

    Raises
    ------
    DataError
        There is one.

    """
    wrong = [name for name in features if not is_number(schema.field(name).type)]
    if wrong:
        first = schema.field(wrong[0])
        flags = " ".join(f"--exclude '{name}'" for name in wrong)
        these = "it" if len(wrong) == 1 else f"these {len(wrong)}"
        raise DataError(
            f"feature {first.name!r} is of type {first.type}; features must be integer, float, boolean, decimal, date or "
            f"timestamp (strings come in a later release). Leave {these} out with: {flags}"
        )


def _known(name: str, names: Sequence[str]) -> None:
    if name in names:
        return
    close = difflib.get_close_matches(name, names, n=1)
    hint = f", did you mean {close[0]!r}?" if close else f"; the columns are {_few(names)}"
    raise SettingsError(f"there is no column {name!r}{hint}")


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:20])
    return shown if len(names) <= 20 else f"{shown} ... ({len(names)} in all)"
