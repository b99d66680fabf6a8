"""The features: what every column becomes, decided by its kind on a sample and frozen in the model."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from streamsgd.errors import DataError
from streamsgd.features.categories import CategoryColumn
from streamsgd.features.column import Candidate
from streamsgd.features.crosses import Cross
from streamsgd.features.encoding import Encoding
from streamsgd.features.hashing import Hashed
from streamsgd.features.kinds import KINDS
from streamsgd.features.numbers import NumberColumn
from streamsgd.features.profile import profile_columns
from streamsgd.features.ragged import RaggedColumn
from streamsgd.settings.policies import check_policies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamsgd.features.column import ColumnKind
    from streamsgd.features.roles import Roles
    from streamsgd.features.sample import Sample
    from streamsgd.settings.fields import Settings


ROOM = 4
"""Slots per distinct value of the hashed columns, so that few share one ..."""

LEAST_BITS, MOST_BITS = 18, 22
"""... within these powers of two (docs/defaults.md has the losses by `bits`)."""


def choose_encoding(look: Sample, roles: Roles) -> tuple[Encoding, dict[str, str]]:
    """Decide how every feature is encoded, and say why, by column.

    Raises
    ------
    DataError
        A feature has no value at all, or has missing values where the settings forbid them.
    SettingsError
        A policy, a part of a moment or a cross names what is not there.

    """
    settings, schema = look.settings, look.dataset.schema
    for name in ("missing", "scale", "transform"):
        check_policies(name, getattr(settings, name), roles.features)
    profiles = profile_columns(look, roles)
    whole = look.sees_all(roles.features)
    mixed = any(not kind.dense for kinds in roles.kinds.values() for kind in kinds)
    configs: list[Any] = []
    reasons: dict[str, str] = {}
    for name, kinds in roles.kinds.items():
        asked, features = roles.asked.get(name), frozenset(roles.features)
        scan = partial(look.scan, name)
        column = Candidate(name, schema.field(name).type, settings, asked, whole, mixed, features, scan)
        kind, chosen = _choose(column, kinds, profiles[name])
        configs += chosen
        reasons[name] = kind.why(profiles[name][kind.profile], whole=whole)
    for kind in KINDS:
        configs += kind.combine(configs, roles, schema, settings)
    encoding = _placed(_encoding(configs), settings, look.dataset.n_rows)
    return encoding, reasons


def _choose(column: Candidate, kinds: Sequence[ColumnKind], profiles: dict[Any, Any]) -> tuple[ColumnKind, list[Any]]:
    """Ask one kind after another; the first that does not say "not for me" has the column."""
    for kind in kinds:
        configs = kind.choose(column, profiles[kind.profile])
        if configs:
            return kind, configs
    names = " and ".join(kind.name for kind in kinds)
    raise DataError(
        f"feature {column.name!r} of type {column.type} is not for {names}; leave it out with --exclude '{column.name}'"
    )


def _encoding(configs: Sequence[Any]) -> Encoding:
    """Sort the configs by what writes them; those of vectors after all other numbers."""
    numbers = sorted((config for config in configs if isinstance(config, NumberColumn)), key=lambda c: c.item >= 0)
    categories = [config for config in configs if isinstance(config, CategoryColumn)]
    _check_names(numbers)
    _check_names(categories)
    crosses = tuple(config for config in configs if isinstance(config, Cross))
    return Encoding(
        tuple(numbers), tuple(categories), crosses, tuple(config for config in configs if isinstance(config, RaggedColumn))
    )


def _check_names(columns: Sequence[NumberColumn | CategoryColumn]) -> None:
    """Refuse two features of one name, such as the first item of the vectors `e` and a column `e[0]`."""
    name, times = Counter(column.name for column in columns).most_common(1)[0] if columns else ("", 0)
    if times > 1:
        sources = [column.column for column in columns if column.name == name]
        raise DataError(
            f"two features would be called {name!r}, of columns {sources[0]!r} and {sources[1]!r}; rename one, or leave it out "
            f"with --exclude '{sources[1]}'"
        )


def _placed(encoding: Encoding, settings: Settings, n_rows: int) -> Encoding:
    """Give every column the coordinates of its own weights, and the hashed space its size."""
    placed = [config for group in encoding.groups for config in group.kind.place(group.configs, group.places.weight)]
    encoding = _encoding([*placed])
    needs = [group.needs for group in encoding.groups]
    if not any(each.n_hashed or each.ragged for each in needs):
        return encoding
    bits = settings.bits
    if bits == "auto":
        wanted = sum(group.kind.distinct(group.configs, n_rows) for group in encoding.groups)
        bits = max(LEAST_BITS, min(MOST_BITS, math.ceil(math.log2(max(2, ROOM * wanted)))))
    return msgspec.structs.replace(encoding, hashed=Hashed(encoding.width + encoding.n_own, int(bits)))
