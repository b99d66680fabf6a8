"""Averaging from outside: from where on, and with what."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from streamsgd.errors import SettingsError
from streamsgd.kernels.parts.traits import bets, is_race, is_sequential
from streamsgd.kernels.structs.state import NEVER, SINCE, STEPS, State
from streamsgd.training.race import RACE_ROWS

if TYPE_CHECKING:
    from streamsgd.kernels.structs.block import Parts
    from streamsgd.settings.fields import Settings


FIRST_SHARE = 0.1
"""Of the epochs, what comes before averaging begins if nobody says when."""

MOST_EAGER = 1 << 16
"""Weights up to which all are moved in every step where a penalty would be paid late."""


def average_from(settings: Settings, epochs: int) -> float:
    """Return the epoch, as a fraction, from which on the weights are averaged; infinite for never."""
    if settings.average == "none":
        return math.inf
    return FIRST_SHARE * epochs if settings.average == "auto" else float(settings.average)


def begin(state: State, start: float, epoch: float, per_row: float, most: int) -> int:
    """Begin to average if it is time to; return how many rows, of at most so many, may be learned before the next call.

    Parameters
    ----------
    state
        Its steps count from the next one on.
    start, epoch, per_row
        Where to begin, where we are, and what a row adds to it, in epochs.
    most
        Rows.

    """
    if not state.lag.size or state.clock[SINCE] != NEVER:
        return most
    if epoch < start:
        return min(most, max(1, math.ceil((start - epoch) / per_row)))
    state.clock[SINCE] = state.clock[STEPS]
    return most


def check_average(settings: Settings, parts: Parts, n_weights: int, *, wide: bool) -> None:
    """Refuse to average what is not there to be averaged.

    Raises
    ------
    SettingsError
        The optimizer's weights are worked out of other sums, or penalties would be paid late.

    """
    if settings.average == "none":
        return
    optimizer: Any = parts.optimizer
    name = type(optimizer).__name__.lower()
    if bets(optimizer):
        raise SettingsError(
            f"--average is for optimizers that step from weights to weights, which {name} does not: take normalized"
        )
    if not parts.penalty._fields:
        return
    if is_sequential(optimizer):
        raise SettingsError(
            f"--average with --penalty {settings.penalty} needs an optimizer of batches, such as adagrad: learning row by row, "
            f"{name} lets weights that rest pay late"
        )
    if wide and n_weights > MOST_EAGER:
        raise SettingsError(
            f"--average with --penalty {settings.penalty} moves every weight in every step, of which there may be "
            f"{MOST_EAGER:,}; here are {n_weights:,}: leave --penalty out, or set --bits lower"
        )


def check_race_ends(settings: Settings, parts: Parts, n_rows: int, epochs: int) -> None:
    """Refuse to average the weights of a race that lasts as long as the run: it keeps one set of weights for every rate.

    Raises
    ------
    SettingsError
        It does.

    """
    if settings.average != "none" and is_race(parts.optimizer) and epochs == 1 and n_rows <= RACE_ROWS:
        raise SettingsError(
            f"--average begins once a race is over, after {RACE_ROWS:,} rows or the first pass, and here is one pass over "
            f"{n_rows:,} rows: pass --optimizer normalized, or leave --average out"
        )
