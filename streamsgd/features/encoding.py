"""Encoding: what a column's values become in a block, frozen when training starts and kept in the model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from streamsgd.data.types import ColumnType
from streamsgd.features.categories import CategoryColumn
from streamsgd.features.column import Needs, Number, Places
from streamsgd.features.crosses import Cross
from streamsgd.features.custom import CustomColumns, with_kind
from streamsgd.features.hashing import Hashed
from streamsgd.features.kinds import BY_NAME, CATEGORIES, LISTS, NUMBERS
from streamsgd.features.layout import Layout
from streamsgd.features.look.sentinels import Sentinel
from streamsgd.features.numbers import NumberColumn
from streamsgd.features.ragged import RaggedColumn
from streamsgd.kernels.structs.rows import OWN, TAIL
from streamsgd.messages import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamsgd.features.column import ColumnKind


def check_columns(encoding: Encoding, schema: Any, what: str) -> None:
    """Refuse data that lacks a column of an encoding, or has one of another kind.

    Raises
    ------
    DataError
        It does; the message names the column.

    """
    for kind, configs in encoding.by_kind().items():
        kind.check(configs, schema, what)


TAIL_SLACK = 1.5
"""By how much rows may have more entries than in the sample before memory runs short."""

RARE = 8
"""If fewer than one row in 2 * `RARE` has two values of one hash, it is not looked for: n^2 / 2 pairs of n, per coordinate."""


@dataclass(frozen=True)
class Group:
    """Columns that one encoder writes, by one call of a kernel."""

    kind: ColumnKind
    configs: tuple[Any, ...]
    needs: Needs
    places: Places


class Encoding(msgspec.Struct, frozen=True, dict=True):
    """How a table becomes a block: numbers, their indicators, categories, crosses, and columns of many values per cell."""

    columns: tuple[NumberColumn, ...] = ()
    categories: tuple[CategoryColumn, ...] = ()
    crosses: tuple[Cross, ...] = ()
    """Those with a number come last."""
    tails: tuple[RaggedColumn, ...] = ()
    hashed: Hashed | None = None
    custom: tuple[CustomColumns, ...] | msgspec.UnsetType = msgspec.UNSET
    """Columns of kinds of one's own; not in the file where there are none."""
    sentinels: tuple[Sentinel, ...] | msgspec.UnsetType = msgspec.UNSET
    """Numbers that are null, by column; not in the file where there are none."""
    moments: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    """Columns of texts that say moments, read as such; not in the file where there are none."""
    types: tuple[ColumnType, ...] = ()
    """The logical types of all columns that training read; none in models of older versions."""

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The columns by encoder, in the order of the block and of the weights."""
        listed = self.members
        needs = [kind.needs(configs) for kind, configs in listed]
        width = sum(len(each.numbers) for each in needs)
        groups: list[Group] = []
        number, slot, weight, ragged = 0, width + OWN, width, 0
        for (kind, configs), each in zip(listed, needs, strict=True):
            groups.append(Group(kind, configs, each, Places(number, slot, weight, ragged, width, self.hashed)))
            number, slot = number + len(each.numbers), slot + len(each.slots)
            weight, ragged = weight + each.weights, ragged + each.ragged
        return tuple(groups)

    @property
    def members(self) -> list[tuple[ColumnKind, tuple[Any, ...]]]:
        """The columns that each encoder writes; slots that a number multiplies come last, and so does their kind."""
        custom = [(columns.kind, columns.configs) for columns in self.custom or ()]
        slots = (*self.categories, *self.crosses)
        return [(NUMBERS, self.columns), *custom, (CATEGORIES, slots), (LISTS, self.tails)]

    def with_kinds(self, given: Sequence[Any]) -> Encoding:
        """Return an encoding that was read from a file with the kinds of one's own that it names; see `with_kind`.

        Raises
        ------
        ModelError
            One was not given, or does not fit what the file says.

        """
        if not self.custom:
            return self
        return msgspec.structs.replace(self, custom=tuple(with_kind(columns, given) for columns in self.custom))

    def pairs(self) -> list[tuple[ColumnKind, Any]]:
        """Return every config with the kind that decided on it."""
        own = (NUMBERS, CATEGORIES, LISTS)
        members = [(kind, config) for kind, configs in self.members for config in configs]
        return [(BY_NAME[config.kind] if kind in own else kind, config) for kind, config in members]

    def by_kind(self) -> dict[ColumnKind, list[Any]]:
        """Return the columns by the kind that decided on them."""
        configs: dict[ColumnKind, list[Any]] = {}
        for kind, config in self.pairs():
            configs.setdefault(kind, []).append(config)
        return configs

    @property
    def indicators(self) -> tuple[str, ...]:
        """Names of the columns that have an indicator, in the order of the block."""
        return tuple(column.name for column in self.columns if column.indicator)

    @cached_property
    def numbers(self) -> tuple[Number, ...]:
        """Every number of a block."""
        return tuple(number for group in self.groups for number in group.needs.numbers)

    @property
    def width(self) -> int:
        """Numbers per row of a block."""
        return len(self.numbers)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the block's numbers."""
        return tuple(number.name for number in self.numbers)

    @property
    def n_own(self) -> int:
        """Weights of one-hot values, bins and parts of moments."""
        return sum(group.needs.weights for group in self.groups)

    @property
    def n_coordinates(self) -> int:
        """Weights per output: of numbers, of categories, of the hashed space, and the intercept."""
        return self.width + self.n_own + (1 << self.hashed.bits if self.hashed else 0) + 1

    @property
    def sizes(self) -> str:
        """How many weights there are, and of what."""
        parts = [counted(self.n_own, "value")] if self.n_own else []
        parts += [f"{1 << self.hashed.bits:,} hashed"] if self.hashed else []
        *first, last = [*([counted(self.width, "number")] if self.width or not parts else []), *parts]
        return f"{', '.join(first)} and {last}" if first else last

    def taken_as(self) -> dict[str, list[str]]:
        """Say what every column of the data becomes."""
        words: dict[str, list[str]] = {name: [] for name in self.sources}
        for kind, configs in self.by_kind().items():
            for config in configs:
                for name in kind.sources(config):
                    words[name].append(kind.explain(config))
        for name in self.moments or ():
            words.get(name, []).insert(0, "texts that say moments, in seconds since 1970")
        for sentinel in self.sentinels or ():
            words[sentinel.column].append(sentinel.told)
        return words

    @cached_property
    def nulls(self) -> dict[str, tuple[float, ...]]:
        """Numbers that are null, by column."""
        return {sentinel.column: sentinel.values for sentinel in self.sentinels or ()}

    @property
    def sources(self) -> tuple[str, ...]:
        """Columns of the data that are read, each once."""
        return tuple(dict.fromkeys(name for kind, config in self.pairs() for name in kind.sources(config)))

    @property
    def is_wide(self) -> bool:
        """Whether rows meet a few of many weights."""
        return any(group.needs.slots or group.needs.ragged for group in self.groups)

    @property
    def n_places(self) -> int:
        """Places of a row: its numbers, categories and crosses, and columns of many values per cell."""
        return self.width + sum(len(group.needs.slots) + group.needs.ragged for group in self.groups)

    @property
    def places(self) -> dict[str, int]:
        """Places of a row behind its numbers, each of which has its own, by the names of categories, crosses and lists."""
        found, place = dict[str, int](), self.width
        for sort in ("slots", "ragged"):
            for group in self.groups:
                needs, names = group.needs, [config.name for config in group.configs]
                n = len(needs.slots) if sort == "slots" else needs.ragged
                found |= {name: place + k for k, name in enumerate(names)} if len(names) == n else {}
                place += n
        return found

    def layout(self, *, mixed: bool | None = None) -> Layout:
        """Return how rows lie in memory; as lists of entries if they must, or if asked."""
        places = {name: k for k, name in enumerate(self.names)}
        needs = [group.needs for group in self.groups]
        n_hashed = sum(each.n_hashed for each in needs)
        n_ragged = sum(each.ragged for each in needs)
        return Layout(
            width=self.width,
            by=tuple(places[number] if number else -1 for each in needs for number in each.slots),
            n_tails=n_ragged,
            n_coordinates=self.n_coordinates,
            mixed=bool(mixed) or self.is_wide,
            tail_bytes=math.ceil(TAIL * TAIL_SLACK * sum(each.entries for each in needs)),
            doubles=bool(n_ragged) or n_hashed**2 * RARE > self.n_coordinates,
        )
