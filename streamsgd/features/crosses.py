"""Crosses: a value for every combination of some categories."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from streamsgd.errors import SettingsError
from streamsgd.features.categories import Categories
from streamsgd.messages import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamsgd.features.column import Candidate
    from streamsgd.settings.fields import Settings


class Cross(msgspec.Struct, frozen=True):
    """A value for every combination of some categories, hashed; times a number, if one is named."""

    name: str
    members: tuple[str, ...]
    """Names of categories."""
    number: str = ""

    @property
    def kind(self) -> str:
        """The name of its `ColumnKind`."""
        return "cross"


class Crosses(Categories):
    """Combinations that `--cross` asks for; they are encoded with the categories that they combine."""

    name = "cross"
    config: type[Any] = Cross

    def accepts(self, kind: Any, asked: str | None) -> bool:
        """Take no column: a cross is of features."""
        return False

    def choose(self, column: Candidate, profile: Any) -> list[Any]:
        """Take no column."""
        return []

    def combine(self, chosen: Sequence[Any], roles: Any, schema: Any, settings: Settings) -> list[Any]:
        """Return the crosses of the settings, those with a number last.

        Raises
        ------
        SettingsError
            A cross names what is no feature, or cannot be crossed, or is given twice.

        """
        crosses = [_cross(entry, chosen) for entry in settings.cross if entry not in ("auto", "none")]
        twice = Counter(cross.name for cross in crosses).most_common(1)
        if twice and twice[0][1] > 1:
            raise SettingsError(f"--cross {twice[0][0]} is given twice")
        return sorted(crosses, key=lambda cross: bool(cross.number))

    def sources(self, config: Any) -> tuple[str, ...]:
        """Return none: its members are read for themselves."""
        return ()

    def explain(self, config: Any) -> str:
        """Say what is combined."""
        number = f", times {config.number}" if config.number else ""
        return f"category for every combination of {' and '.join(config.members)}, hashed{number}"


def _cross(entry: str, chosen: Sequence[Any]) -> Cross:
    members = [part.strip() for part in entry.split("*")]
    categories = {config.name for config in chosen if hasattr(config, "own_names")}
    numbers = {config.name for config in chosen if hasattr(config, "shift")}
    ragged = {config.name for config in chosen if hasattr(config, "mean_entries")}
    numeric = [name for name in members if name in numbers]
    for name in members:
        if name not in categories | numbers | ragged:
            raise SettingsError(f"--cross {entry}: {name!r} is no feature{nearest(name, categories | numbers)}")
    wide = [name for name in members if name in ragged]
    if wide:
        raise SettingsError(f"--cross {entry}: {wide[0]!r} has many values per cell, which cannot be crossed")
    if len(members) < 2 or len(numeric) > 1 or len(members) == len(numeric):
        raise SettingsError(
            f"--cross {entry}: a cross is of two or more categories, or of categories and one number; make integers "
            f"categories with --categorical, and add products of numbers to the data as columns"
        )
    return Cross("*".join(members), tuple(m for m in members if m in categories), numeric[0] if numeric else "")
