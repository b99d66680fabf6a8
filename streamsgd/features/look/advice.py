"""What the first look chooses beyond types: sentinels, integers that are names, strings that never come back, bins.

Each choice rests on a quick measurement, is said once with its numbers, and names the setting that undoes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.data.types import fits
from streamsgd.features.categories import MOST_EXACT
from streamsgd.features.crosses import Cross
from streamsgd.features.kinds import CATEGORIES, NUMBERS
from streamsgd.features.look.bins_pay import BinsPay
from streamsgd.features.look.crosses_pay import find_crosses
from streamsgd.features.look.ids import IdGain, find_ids
from streamsgd.features.look.sentinels import Spike, asked_for, find_spikes
from streamsgd.features.look.shrink import choose_ridge
from streamsgd.features.numbers import NumberColumn
from streamsgd.features.profile import profile_columns
from streamsgd.features.unset import knows_all_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from streamsgd.features.encoding import Encoding
    from streamsgd.features.roles import Roles
    from streamsgd.features.sample import Sample
    from streamsgd.features.target import Target

LEFT_OUT, MISSING = "left out", "taken as missing"
"""What lines begin with by which a column, or a value, is not what the data says ..."""

GROWING = "learned as numbers"
"""... or by which rows to come are far from all that is learned."""

MOST_NAMED = 8
"""Columns that a line names."""

Profiles = dict[str, dict[Any, Any]]


@dataclass
class Advice:
    """Asks what the values of columns are, and keeps the answers in words.

    Parameters
    ----------
    look, target
        Of the run.

    """

    look: Sample
    target: Target
    lines: list[str] = field(default_factory=list)

    @property
    def line(self) -> str:
        """The answers that are worth saying, a line each."""
        return "\n".join(self.lines)

    def __call__(self, configs: Callable[[], list[Any]]) -> bool:
        """Whether the bins among the configs of all columns are worth it; they are made only where that is tried."""
        bins = BinsPay(self.look, self.target)
        pays = bins(configs)
        self.lines += [bins.line] if pays else []
        return pays

    def crosses(self, configs: list[Any], *, has_own: bool) -> list[Cross]:
        """Return crosses of pairs of categories that say together what they do not say apart."""
        found = [] if has_own else find_crosses(self.look, self.target, configs)
        if found:
            self.lines.append(
                f"crossed: {', '.join(gain.told for gain in found)}, on {found[0].judges:,} rows of the first look that were "
                "not fitted; --cross none leaves them out"
            )
        return [Cross("*".join(gain.members), gain.members) for gain in found]

    def growing(self, configs: list[Any], profiles: Profiles) -> None:
        """Say which moments are numbers that grow with the rows: those to come lie beyond all that is learned."""
        schema = self.look.dataset.schema
        names = dict.fromkeys(config.column for config in configs if isinstance(config, NumberColumn) and config.item < 0)
        moments = [name for name in names if fits("moment", schema.field(name).type)]
        found = [name for name in moments if profiles[name][NUMBERS.profile].grows]
        self.lines += [_of_growing(found)] if found else []

    def shrinks(self, encoding: Encoding) -> str:
        """Return the penalty that wide and little data wants; nothing where none pays."""
        found, n_rows = choose_ridge(self.look, self.target, encoding), self.look.dataset.n_rows
        if found is None:
            return ""
        self.lines.append(found.line(n_rows))
        return found.spec(n_rows)

    def revise(self, roles: Roles, profiles: Profiles) -> tuple[Roles, Profiles]:
        """Return roles and profiles of columns as they are once sentinels are null and names are categories."""
        free = knows_all_values(self.look.settings) and self.look.sees_all(roles.features)
        roles = self._coming_back(roles, profiles) if free else roles
        again = self._sentinels(roles, profiles)
        ids = find_ids(self.look, roles, self.target, {**profiles, **again})
        if ids:
            category = dict.fromkeys(ids, (CATEGORIES,))
            roles = replace(roles, asked={**roles.asked, **dict.fromkeys(ids, "category")}, kinds={**roles.kinds, **category})
            for name in ids:
                self.look.sentinels.pop(name, None)
            again |= _profiled(self.look, roles, list(ids))
            self.lines.append(_of_ids(ids))
        return roles, {**profiles, **again}

    def _coming_back(self, roles: Roles, profiles: Profiles) -> Roles:
        """Leave out strings that name rows, and say which others share the weight of rare values."""
        seen = {
            name: profiles[name][CATEGORIES.profile] for name in roles.kinds if self._is_category(roles, name, profiles[name])
        }
        named = {
            *self.look.settings.features,
            *(part.strip() for entry in self.look.settings.cross for part in entry.split("*")),
        }
        never = [name for name, profile in seen.items() if name not in named and not profile.comes_back]
        never = never if len(never) < len(roles.kinds) else []
        shared = {name: p for name, p in seen.items() if name not in never and p.many_rare and 0 < p.n_common <= MOST_EXACT}
        self.lines += [_of_names(never)] if never else []
        self.lines += [_of_rare(shared)] if shared and self.look.settings.values else []
        return replace(roles, kinds={name: kinds for name, kinds in roles.kinds.items() if name not in never})

    @staticmethod
    def _is_category(roles: Roles, name: str, profiles: Mapping[Any, Any]) -> bool:
        """Whether nobody said what a column is, and it is strings that are no sentences."""
        kinds = roles.kinds[name]
        return (
            name not in roles.asked
            and CATEGORIES in kinds
            and kinds[0] not in roles.own
            and not any(kind.name == "text" and profiles[kind.profile].is_prose for kind in kinds)
        )

    def _sentinels(self, roles: Roles, profiles: Profiles) -> Profiles:
        """Find the sentinels of numbers, make them null from now on, and return profiles of those columns without them."""
        spikes = {name: found for name in roles.kinds if (found := self._spikes(roles, name, profiles[name]))}
        self.look.sentinels.update({name: tuple(spike.value for spike in found) for name, found in spikes.items()})
        if not spikes:
            return {}
        told = {name: found for name, found in spikes.items() if any(spike.of for spike in found)}
        self.lines += [_of_sentinels(told)] if told else []
        return _profiled(self.look, roles, list(spikes))

    def _spikes(self, roles: Roles, name: str, profiles: Mapping[Any, Any]) -> list[Spike]:
        if NUMBERS not in roles.kinds[name] or name in roles.asked:
            return []
        given = asked_for(self.look.settings, name, self.look.dataset.schema.field(name).type)
        if given is not None:
            return [Spike(value, 0, 0) for value in given]
        return find_spikes(np.concatenate([np.zeros(0), *profiles[NUMBERS.profile].kept]))


def warns(line: str) -> bool:
    """Whether a line is a warning, which Python shows where nobody asked for more: of data that is changed, or outgrown."""
    return line.startswith((LEFT_OUT, MISSING, GROWING))


def of_unknown(names: list[str]) -> str:
    """Say which columns of new data a model does not know, on one line; nothing where there is none."""
    which = "a column" if len(names) == 1 else "columns"
    told = _few([repr(name) for name in names])
    return (
        f"{LEFT_OUT}, {which} that the model does not know: {told}; a run that begins anew learns new columns" if names else ""
    )


def _profiled(look: Sample, roles: Roles, names: list[str]) -> Profiles:
    return profile_columns(look, replace(roles, features=tuple(names), kinds={name: roles.kinds[name] for name in names}))


def _few(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _of_names(names: list[str]) -> str:
    return (
        f"{LEFT_OUT}, for hardly a value comes back: {_few([repr(name) for name in names])}; --categorical takes them as "
        "categories, --text as words"
    )


def _of_rare(seen: Mapping[str, Any]) -> str:
    told = [
        f"{name!r} ({p.n_values - p.n_common:,} of {p.n_values:,} values, {p.rare_share:.1%} of its rows)"
        for name, p in seen.items()
    ]
    return f"values that come once or twice share the weight of values not seen: {_few(told)}; --categorical gives each its own"


def _of_sentinels(spikes: Mapping[str, list[Spike]]) -> str:
    told = [f"{s.value:.15g} in {name!r} ({s.rows / s.of:.2%} of its values)" for name, found in spikes.items() for s in found]
    return (
        f"{MISSING}: {_few(told)}, far from all other values of the column; --sentinels none takes numbers as they are, "
        "--sentinels COLUMN=NUMBER says which are missing"
    )


def _of_growing(names: list[str]) -> str:
    first = names[0]
    return (
        f"{GROWING}, moments that grow with the rows: {_few([repr(name) for name in names])}; later ones are beyond all that "
        f"is seen here, and what is learned goes on there as a line. --exclude '{first}' leaves one out; --transform "
        f"'{first}=bins' gives later ones the weight of the last seen, and --time-parts '{first}' beside that learns hour, "
        "weekday and month"
    )


def _of_ids(ids: Mapping[str, IdGain]) -> str:
    told = [
        f"{name!r} ({gain.values:,} values: {1.0 - gain.by_value:.1%} of the target's variance by value, "
        f"{1.0 - gain.by_order:.1%} by order)"
        for name, gain in ids.items()
    ]
    return (
        f"integers that are names, taken as categories: {_few(told)}, of {max(gain.rows for gain in ids.values()):,} rows of "
        "the first look; --transform COLUMN=tails keeps one a number"
    )
