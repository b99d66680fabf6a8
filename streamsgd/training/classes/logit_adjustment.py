"""Logit adjustment: the log-odds of the classes, counted in the target column, that scores are to be free of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.errors import DataError, SettingsError
from streamsgd.features.choose_target import class_counts

if TYPE_CHECKING:
    from streamsgd.features.sample import Sample
    from streamsgd.features.target import Target
    from streamsgd.kernels.structs.block import Parts
    from streamsgd.settings.fields import Settings

ADJUSTS = "log_odds"
"""The field of losses that do it; 0 is to be counted."""


def adjustment(loss: Any) -> float:
    """Return what a loss adds to scores while learning; 0 of most."""
    return float(loss.adjust * loss.log_odds) if hasattr(loss, ADJUSTS) else 0.0


def with_log_odds(parts: Parts, settings: Settings, look: Sample | None, target: Target, known: float) -> Parts:
    """Return the parts of a run whose loss knows the log-odds of the classes, if it wants to.

    Parameters
    ----------
    parts, settings, target
        Of the run.
    look
        Rows that were looked at; None where the run goes on from another one.
    known
        The log-odds of that one.

    Raises
    ------
    SettingsError
        There are weights of classes too.
    DataError
        A class has no row.

    """
    if not hasattr(parts.loss, ADJUSTS):
        return parts
    if settings.class_weight:
        raise SettingsError(
            f"--loss {settings.loss} makes classes count as if they were as frequent, and so does --class-weight: leave one of "
            "them out"
        )
    if parts.loss.log_odds:
        return parts
    return parts._replace(loss=parts.loss._replace(log_odds=known if look is None else _counted(settings, look, target)))


def _counted(settings: Settings, look: Sample, target: Target) -> float:
    negatives, positives = class_counts(look, target).tolist()
    if not (negatives and positives):
        name = target.classes[int(not positives)]
        raise DataError(f"--loss {settings.loss}: no row of target {target.name!r} is {name!r}; look at --filter")
    return float(np.log(positives / negatives))
