"""The features: what every column becomes, decided by its kind on a sample and frozen in the model."""

from __future__ import annotations

import logging
import math
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from streamsgd.errors import DataError
from streamsgd.features.categories import CategoryColumn
from streamsgd.features.column import Candidate, NoValuesError
from streamsgd.features.crosses import Cross
from streamsgd.features.custom import CustomColumns, custom_columns
from streamsgd.features.encoding import Encoding
from streamsgd.features.hashing import Hashed
from streamsgd.features.kinds import KINDS
from streamsgd.features.look.sentinels import Sentinel
from streamsgd.features.numbers import NumberColumn
from streamsgd.features.profile import profile_columns
from streamsgd.features.ragged import RaggedColumn
from streamsgd.messages import counted
from streamsgd.settings.policies import check_policies

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamsgd.features.column import ColumnKind
    from streamsgd.features.look.advice import Advice
    from streamsgd.features.roles import Roles
    from streamsgd.features.sample import Sample
    from streamsgd.settings.fields import Settings


log = logging.getLogger("streamsgd")

ROOM = 4
"""Slots per distinct value of the hashed columns, so that few share one ..."""

LEAST_BITS, MOST_BITS = 18, 22
"""... within these powers of two (docs/defaults.md has the losses by `bits`)."""


class NoAdvice:
    """Columns are what their types say."""

    def revise(self, roles: Roles, profiles: Any) -> tuple[Roles, Any]:
        """Return them as they are."""
        return roles, profiles

    def __call__(self, configs: Callable[[], list[Any]]) -> bool:
        """Say that no bins pay."""
        return False

    def crosses(self, configs: list[Any], *, has_own: bool) -> list[Any]:
        """Return none."""
        return []

    def growing(self, configs: list[Any], profiles: Any) -> None:
        """Say nothing."""


def choose_encoding(look: Sample, roles: Roles, advice: Advice | NoAdvice | None = None) -> tuple[Encoding, dict[str, str]]:
    """Decide how every feature is encoded, and say why, by column.

    `advice` is asked what values stand for, and about numbers alone whether they are better with their bins.

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
    profiles, whole = profile_columns(look, roles), look.sees_all(roles.features)
    advice = advice or NoAdvice()
    roles, profiles = advice.revise(roles, profiles)

    def candidate(name: str, *, mixed: bool) -> Candidate:
        kind, features = schema.field(name).type, frozenset(roles.features)
        seen = (whole, mixed, features, name in look.sentinels, partial(look.scan, name))
        return Candidate(name, kind, settings, roles.asked.get(name), *seen)

    taken = {name: _taken(candidate(name, mixed=False), _own(roles, name), profiles[name]) for name in roles.kinds}
    mixed = any(_is_mixed(roles, name, chosen) for name, chosen in taken.items())
    empty = []
    mixed = mixed or _bins_pay(advice, candidate, roles, profiles)
    for name in roles.kinds:
        try:
            taken[name] = taken[name] or _taken(candidate(name, mixed=mixed), roles.kinds[name], profiles[name])
        except NoValuesError:
            empty.append(name)
            del taken[name]
    look.check_read(empty)
    _say_empty(empty, has_others=bool(taken))
    reasons = {}
    by_kind: dict[ColumnKind, list[Any]] = {}
    for name, chosen in taken.items():
        if chosen is None:
            raise _nobodys(candidate(name, mixed=mixed), roles.kinds[name])
        by_kind.setdefault(chosen[0], []).extend(chosen[1])
        reasons[name] = chosen[0].why(profiles[name][chosen[0].profile], whole=whole)
    configs = [config for kind, chosen in filter(None, taken.values()) if kind not in roles.own for config in chosen]
    for kind in roles.own:
        by_kind.setdefault(kind, []).extend(kind.combine(configs, roles, schema, settings))
    for kind in KINDS:
        configs += kind.combine(configs, roles, schema, settings)
    configs += advice.crosses(configs, has_own=bool(roles.own))
    advice.growing(configs, profiles)
    own = [custom_columns(kind, by_kind[kind]) for kind in roles.own if by_kind[kind]]
    encoding = _placed(_encoding(configs, own), settings, look.dataset.n_rows)
    found = tuple(Sentinel(*pair) for pair in look.sentinels.items() if pair[0] in encoding.sources)
    return msgspec.structs.replace(encoding, sentinels=found or msgspec.UNSET), reasons


def _bins_pay(advice: Advice | NoAdvice, candidate: Callable[..., Candidate], roles: Roles, profiles: Any) -> bool:
    """Ask whether numbers get their bins, whose quantiles take a while: they are made if that is tried."""

    def binned() -> list[Any]:
        found = [_taken(candidate(name, mixed=True), roles.kinds[name], profiles[name]) for name in roles.kinds]
        return [config for chosen in filter(None, found) for config in chosen[1]]

    try:
        return advice(binned)
    except NoValuesError:  # said later
        return False


def _say_empty(names: Sequence[str], *, has_others: bool) -> None:
    """Say once which features hold no value; refuse data that has no others."""
    if names and not has_others:
        raise NoValuesError(names[0])
    if names:
        holds, are = ("holds", "is") if len(names) == 1 else ("hold", "are")
        columns = counted(len(names), "column")
        log.warning("%s %s no value in any row and %s left out: %s", columns, holds, are, ", ".join(map(repr, names)))


Taken = tuple["ColumnKind", list[Any]]


def _own(roles: Roles, name: str) -> list[ColumnKind]:
    return [kind for kind in roles.kinds[name] if kind in roles.own]


def _taken(column: Candidate, kinds: Sequence[ColumnKind], profiles: dict[Any, Any]) -> Taken | None:
    """Ask one kind after another; the first that does not say "not for me" has the column."""
    for kind in kinds:
        configs = kind.choose(column, profiles[kind.profile])
        if configs:
            return kind, configs
    return None


def _is_mixed(roles: Roles, name: str, chosen: Taken | None) -> bool:
    """Whether a column makes rows lists of entries; what is one's own has chosen, others go by what they may choose."""
    if chosen is None:
        return any(not kind.dense for kind in roles.kinds[name] if kind not in roles.own)
    needs = chosen[0].needs(chosen[1])
    return bool(needs.slots or needs.ragged)


def _nobodys(column: Candidate, kinds: Sequence[ColumnKind]) -> DataError:
    names = " and ".join(kind.name for kind in kinds)
    return DataError(
        f"feature {column.name!r} of type {column.type} is not for {names}; leave it out with --exclude '{column.name}'"
    )


def _encoding(configs: Sequence[Any], own: Sequence[CustomColumns]) -> Encoding:
    """Sort the configs by what writes them; those of vectors after all other numbers."""
    numbers = sorted((config for config in configs if isinstance(config, NumberColumn)), key=lambda c: c.item >= 0)
    categories = [config for config in configs if isinstance(config, CategoryColumn)]
    crosses = tuple(config for config in configs if isinstance(config, Cross))
    tails = tuple(config for config in configs if isinstance(config, RaggedColumn))
    _check_names([(config.name, config.column) for config in categories])
    encoding = Encoding(tuple(numbers), tuple(categories), crosses, tails, custom=tuple(own) or msgspec.UNSET)
    others = [
        (number.name, columns.configs[0].column) for columns in own for number in columns.kind.needs(columns.configs).numbers
    ]
    _check_names([*((config.name, config.column) for config in numbers), *others])
    return encoding


def _check_names(features: Sequence[tuple[str, str]]) -> None:
    """Refuse two features of one name, such as the first item of the vectors `e` and a column `e[0]`."""
    name, times = Counter(name for name, _ in features).most_common(1)[0] if features else ("", 0)
    if times > 1:
        sources = [column for feature, column in features if feature == name]
        raise DataError(
            f"two features would be called {name!r}, of columns {sources[0]!r} and {sources[1]!r}; rename one, or leave it out "
            f"with --exclude '{sources[1]}'"
        )


def _placed(encoding: Encoding, settings: Settings, n_rows: int) -> Encoding:
    """Give every column the coordinates of its own weights, and the hashed space its size."""
    placed = [(group.kind, group.kind.place(group.configs, group.places.weight)) for group in encoding.groups]
    own = [columns.kind for columns in encoding.custom or ()]
    custom = [custom_columns(kind, configs) for kind, configs in placed if kind in own]
    encoding = _encoding([config for kind, configs in placed if kind not in own for config in configs], custom)
    needs = [group.needs for group in encoding.groups]
    if not any(each.n_hashed or each.ragged for each in needs):
        return encoding
    bits = settings.bits
    if bits == "auto":
        wanted = sum(group.kind.distinct(group.configs, n_rows) for group in encoding.groups)
        bits = max(LEAST_BITS, min(MOST_BITS, math.ceil(math.log2(max(2, ROOM * wanted)))))
    return msgspec.structs.replace(encoding, hashed=Hashed(encoding.width + encoding.n_own, int(bits)))
