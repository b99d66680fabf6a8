"""Columns and their roles: target, weight, features, ids; chosen by name, checked by type."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from streamsgd.errors import DataError, SettingsError
from streamsgd.features.custom import kinds_of
from streamsgd.features.names import check_known, expand, few_of, matching

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamsgd.features.column import ColumnKind
    from streamsgd.features.custom import Kinds
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
    own: tuple[ColumnKind, ...] = ()
    """Kinds that are not streamsgd's."""

    @property
    def read(self) -> tuple[str, ...]:
        """Columns that training reads."""
        return (*self.features, self.target, *((self.weight,) if self.weight else ()))


def choose(settings: Settings, schema: Any, kinds: Kinds | None = None, aside: Mapping[str, str] | None = None) -> Roles:
    """Give every column its role.

    Parameters
    ----------
    settings
        As checked.
    schema
        Of the data.
    kinds
        By default those of the settings.
    aside
        Columns that are no features unless the settings name them, each with the reason.

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
    ids, features = _ids_and_features(settings, names, aside or {})
    both = [name for name in features if name in {settings.target, settings.weight}]
    if both:
        raise SettingsError(f"column {both[0]!r} is both a feature and the target or weight")
    if not features:
        raise SettingsError("no feature column is left; see --features and --exclude, and the columns: " + few_of(names))
    kinds = kinds or kinds_of(settings)
    asked = asked_kinds(settings, features, kinds)
    return Roles(
        settings.target, settings.weight, features, ids, choose_kinds(kinds, asked, features, schema), asked, kinds.own
    )


def choose_as(settings: Settings, names: Sequence[str], features: tuple[str, ...]) -> Roles:
    """Give every column its role where a model chose the features.

    What settings say of columns was said of those of training: nothing is asked of columns that the data lacks now.

    Raises
    ------
    SettingsError
        Target, weight or an id is not there, or is a feature of the model.

    """
    for name in filter(None, (settings.target, settings.weight)):
        check_known(name, names)
    if settings.weight in features:
        raise SettingsError(f"column {settings.weight!r} is both a feature and the target or weight")
    return Roles(settings.target, settings.weight, features, expand(settings.id, names))


def not_of_model(settings: Settings, names: Sequence[str], aside: Mapping[str, str], roles: Roles) -> list[str]:
    """Return the columns that would be features by the settings, and are none of the model's."""
    wanted = matching(settings.features, names) if settings.features else {*names}
    left_out = matching(settings.exclude, names) | (set(aside) - _named(settings, names))
    return [name for name in names if name in wanted - left_out - {*roles.read, *roles.ids}]


def _ids_and_features(
    settings: Settings, names: Sequence[str], aside: Mapping[str, str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    ids = expand(settings.id, names)
    taken = {settings.target, settings.weight, *ids}
    chosen = expand(settings.features, names) if settings.features else names
    excluded = set(expand(settings.exclude, names)) | (set(aside) - _named(settings, names))
    return ids, tuple(name for name in chosen if name not in taken | excluded)


def of_no_kind(settings: Settings, schema: Any, aside: Mapping[str, str]) -> list[str]:
    """Return the columns that would be features and that no kind takes by their type."""
    kinds = kinds_of(settings).everywhere
    _, features = _ids_and_features(settings, list(schema.names), aside)
    return [name for name in features if not any(kind.accepts(schema.field(name).type, None) for kind in kinds)]


def _named(settings: Settings, names: Sequence[str]) -> set[str]:
    """Return the columns that the settings name as features, one way or another."""
    parts = [entry if entry in names else entry.rpartition(".")[0] for entry in settings.time_parts]
    given = [*settings.features, *settings.categorical, *settings.text, *parts]
    policies = (settings.scale, settings.transform, settings.missing, settings.sentinels, settings.column_kind)
    exactly = {entry.rpartition("=")[0] for entries in policies for entry in entries}
    exactly |= {member.strip() for entry in settings.cross for member in entry.split("*")}
    matched = {name for name in names if any(name == entry or (entry != "*" and fnmatchcase(name, entry)) for entry in given)}
    return matched | (exactly & set(names))


def asked_kinds(settings: Settings, features: Sequence[str], kinds: Kinds) -> dict[str, str]:
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
    named = {**dict.fromkeys(categorical, "category"), **dict.fromkeys(text, "text")}
    own = kinds.asked(features)
    both = sorted(own.keys() & named.keys())
    if both:
        flag = "--categorical" if both[0] in categorical else "--text"
        raise SettingsError(f"column {both[0]!r} is both {flag} and --column-kind {own[both[0]]}")
    return named | own


def choose_kinds(
    kinds: Kinds, asked: Mapping[str, str], features: Sequence[str], schema: Any
) -> dict[str, tuple[ColumnKind, ...]]:
    """Return the kinds that each feature may be of, by its type and by what the settings say.

    Raises
    ------
    SettingsError
        A feature cannot be what the settings say.
    DataError
        A feature is of a type that cannot be used.

    """
    candidates: dict[str, tuple[ColumnKind, ...]] = {}
    wrong = []
    for name in features:
        found, own = schema.field(name).type, asked.get(name)
        some = (kinds.by_name[own], kinds.by_name["list"]) if own else kinds.everywhere  # a list may be asked as categories
        candidates[name] = tuple(kind for kind in dict.fromkeys(some) if kind.accepts(found, own))
        if own and not candidates[name]:
            raise SettingsError(f"column {name!r} is of type {found}, which cannot be {kinds.by_name[own].what}")
        if not candidates[name]:
            wrong.append(name)
    if wrong:
        first = schema.field(wrong[0])
        flags = " ".join(f"--exclude '{name}'" for name in wrong)
        these = "it" if len(wrong) == 1 else f"these {len(wrong)}"
        raise DataError(
            f"feature {first.name!r} is of type {first.type}; features must be numbers, dates, strings, lists of those, or "
            f"maps from them to numbers. Leave {these} out with: {flags}"
        )
    return candidates
