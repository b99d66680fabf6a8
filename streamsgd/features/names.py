"""Names and globs of columns."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from streamsgd.errors import SettingsError
from streamsgd.messages import nearly

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


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
            check_known(pattern, names)
        matched.update(hits)
    return tuple(name for name in names if name in matched)


def matching(patterns: Iterable[str], names: Sequence[str]) -> set[str]:
    """Return the columns that names and globs stand for, if there are any."""
    given = tuple(patterns)
    return {name for name in names if any(name == one or (one not in names and fnmatchcase(name, one)) for one in given)}


def check_known(name: str, names: Sequence[str]) -> None:
    """Refuse a name that is none of these.

    Raises
    ------
    SettingsError
        It is none; the message says the nearest.

    """
    if name in names:
        return
    close = nearly(name, names)
    hint = f", did you mean {close!r}?" if close else f"; the columns are {few_of(names)}"
    raise SettingsError(f"there is no column {name!r}{hint}")


def few_of(names: Sequence[str]) -> str:
    """Return the first of some names, and how many there are."""
    shown = ", ".join(names[:20])
    return shown if len(names) <= 20 else f"{shown} ... ({len(names)} in all)"
