"""Folds, as `--validation fold:2/5` names one of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from streamsgd.errors import SettingsError

if TYPE_CHECKING:
    from streamsgd.settings.fields import Settings

MOST = 100
"""Folds of cross-validation: each is a model that learns nearly all rows."""

FOLD = re.compile(r"fold:\s*([^/]*)/(.*)")


def fold_of(settings: Settings) -> tuple[int, int] | None:
    """Return the number of the fold that is held out, from 1, and how many there are; None where none is.

    Raises
    ------
    SettingsError
        There is no such fold.

    """
    found = FOLD.fullmatch(settings.validation.strip()) if isinstance(settings.validation, str) else None
    if found is None:
        return None
    if not all(text.strip().isdecimal() for text in found.groups()):
        raise SettingsError(f"--validation {settings.validation}: write fold:NUMBER/FOLDS, e.g. fold:1/5")
    number, folds = map(int, found.groups())
    check_folds(folds, f"--validation {settings.validation}")
    if not 1 <= number <= folds:
        raise SettingsError(f"--validation {settings.validation}: the folds are fold:1/{folds} to fold:{folds}/{folds}")
    return number, folds


def check_folds(folds: int, what: str) -> None:
    """Refuse a number of folds that is none; `what` is how it was asked for.

    Raises
    ------
    SettingsError
        It is below 2 or above 100.

    """
    if not 2 <= folds <= MOST:
        raise SettingsError(f"{what}: rows are cut into 2 to {MOST} folds")
