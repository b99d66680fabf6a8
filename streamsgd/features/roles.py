"""Columns and their roles: target, weight, features, ids; chosen by name, checked by type."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from streamsgd.errors import DataError, SettingsError
from streamsgd.features.kinds import BY_NAME, KINDS
from streamsgd.features.names import check_known, expand, few_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamsgd.features.column import ColumnKind
    from streamsgd.settings.fields import Settings


@dataclass(frozen=True, slots=True)
class Roles:
    """What each column of the data is for."""

    target: str
    weight: str | None
    features: tuple[str, ...]
    ids: tuple[str, ...] = ()
    kinds: dict[str, tuple[ColumnKind, ...]] = field(default_factory=dict)
    """What each feature may be taken for, in the order in which kinds are asked."""
    asked: dict[str, str] = field(default_factory=dict)
    """The kind that the settings name, by feature."""

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
        check_known(name, names)
    ids = expand(settings.id, names)
    taken = {settings.target, settings.weight, *ids}
    chosen = expand(settings.features, names) if settings.features else names
    excluded = set(expand(settings.exclude, names))
    features = tuple(name for name in chosen if name not in taken | excluded)
    both = [name for name in features if name in {settings.target, settings.weight}]
    if both:
        raise SettingsError(f"column {both[0]!r} is both a feature and the target or weight")
    if not features:
        raise SettingsError("no feature column is left; see --features and --exclude, and the columns: " + few_of(names))
    asked = asked_kinds(settings, features)
    return Roles(settings.target, settings.weight, features, ids, choose_kinds(asked, features, schema), asked)


def asked_kinds(settings: Settings, features: Sequence[str]) -> dict[str, str]:
    """Return the kind that the settings name, by feature.

    Raises
    ------
    SettingsError
        A setting names a column that is no feature, or two kinds for one.

    """
    categorical, text = (frozenset(expand(names, features)) for names in (settings.categorical, settings.text))
    both = sorted(categorical & text)
    if both:
        raise SettingsError(f"column {both[0]!r} is both --categorical and --text")
    return {**dict.fromkeys(categorical, "category"), **dict.fromkeys(text, "text")}


def choose_kinds(asked: Mapping[str, str], features: Sequence[str], schema: Any) -> dict[str, tuple[ColumnKind, ...]]:
    """Return the kinds that each feature may be of, by its type and by what the settings say.

    Raises
    ------
    SettingsError
        A feature cannot be what the settings say.
    DataError
        A feature is of a type that cannot be used.

    """
    kinds: dict[str, tuple[ColumnKind, ...]] = {}
    wrong = []
    for name in features:
        found, own = schema.field(name).type, asked.get(name)
        kinds[name] = tuple(kind for kind in KINDS if kind.accepts(found, own))
        if own and not kinds[name]:
            raise SettingsError(f"column {name!r} is of type {found}, which cannot be {BY_NAME[own].what}")
        if not kinds[name]:
            wrong.append(name)
    if wrong:
        first = schema.field(wrong[0])
        flags = " ".join(f"--exclude '{name}'" for name in wrong)
        these = "it" if len(wrong) == 1 else f"these {len(wrong)}"
        raise DataError(
            f"feature {first.name!r} is of type {first.type}; features must be numbers, dates, strings, lists of those, or "
            f"maps from them to numbers. Leave {these} out with: {flags}"
        )
    return kinds
