"""Choices that can differ by column: a setting is a list of `policy`, for all columns, or `column=policy`, names or globs.

Of several that fit a column the last one holds.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from streamsgd.errors import SettingsError
from streamsgd.messages import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


POLICIES: dict[str, tuple[str, ...]] = {
    "missing": ("mean", "median", "zero", "indicator", "error"),
    "scale": ("standard", "none", "max-abs", "robust"),
    "transform": ("auto", "tails", "none", "log1p", "bins"),
}
"""What can be chosen, by setting; the first is the default."""


KIND = re.compile(r"(?:(?P<columns>.*)=)?(?P<kind>[A-Za-z_][\w.]*:[A-Za-z_]\w*(?:,\w+=[^,=]*)*)", re.DOTALL)
"""An entry of `--column-kind`: `package.module:Class,field=value`, or `column=` and that."""


def split_kind(entry: str) -> tuple[str, str]:
    """Return the columns, a name or glob or '', and the kind of column that an entry of `--column-kind` names.

    Raises
    ------
    SettingsError
        It names none.

    """
    found = KIND.fullmatch(entry)
    if found is None:
        raise SettingsError(f"{entry!r} is no package.module:Class, nor COLUMN=package.module:Class")
    return found["columns"] or "", found["kind"]


def policy_of(setting: str, entries: Iterable[str], *names: str) -> str:
    """Return the policy of a column, which may go by several names, or without one that of all columns."""
    found = POLICIES[setting][0]
    for entry in entries:
        pattern, _, policy = entry.rpartition("=")
        if not pattern or any(pattern == name or fnmatchcase(name, pattern) for name in names):
            found = policy
    return found


def sentinels_of(entries: Iterable[str], name: str) -> tuple[float, ...] | None:
    """Return the numbers that `--sentinels` says are missing in a column; None if the first look decides.

    Raises
    ------
    SettingsError
        An entry is no `auto`, `none`, number, or one of these after a column and an equals sign.

    """
    found: tuple[float, ...] | None = None
    for entry in entries:
        pattern, _, given = entry.rpartition("=")
        if given not in ("auto", "none") and not _is_finite(given):
            raise SettingsError(f"{entry!r} is none of auto, none, NUMBER, COLUMN=auto, COLUMN=none, COLUMN=NUMBER")
        if pattern and pattern != name and not fnmatchcase(name, pattern):
            continue
        found = None if given == "auto" else () if given == "none" else (*(found or ()), float(given))
    return found


def _is_finite(text: str) -> bool:
    try:
        return abs(float(text)) < float("inf")
    except ValueError:
        return False


def check_policies(setting: str, entries: Iterable[str], names: Sequence[str] | None = None) -> None:
    """Refuse policies that do not exist, and, given the names of columns, patterns that fit none.

    Raises
    ------
    SettingsError
        There is one.

    """
    for entry in entries:
        pattern, _, policy = entry.rpartition("=")
        if policy not in POLICIES[setting]:
            choices = ", ".join(POLICIES[setting])
            raise SettingsError(f"{policy!r} is none of {choices}{nearest(policy, POLICIES[setting])}; or COLUMN=POLICY")
        if pattern and names is not None and not any(pattern == n or fnmatchcase(n, pattern) for n in names):
            raise SettingsError(f"--{setting} {entry}: no feature column fits {pattern!r}{nearest(pattern, names)}")
