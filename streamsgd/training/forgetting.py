"""Forgetting: what an optimizer remembers of old rows fades, so that its rate does not fall for ever and weights follow drift.

Sums of squares are halved every so many rows, in sixteen steps: a rate over their root then stays where it is once about a half
life is learned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamsgd.errors import SettingsError
from streamsgd.kernels.learn.race import CELL, SQUARES
from streamsgd.kernels.parts.optimizers import Adagrad, Normalized, NormalizedBatches, Race
from streamsgd.kernels.structs.block import MOST_LEARNERS
from streamsgd.training.job import WHOLE_EPOCH
from streamsgd.training.structure import name_of

if TYPE_CHECKING:
    from typing import Any

    from streamsgd.kernels.structs.block import Parts
    from streamsgd.kernels.structs.state import State
    from streamsgd.settings.fields import Settings

STEPS_PER_HALF = 16

LEAST_EVERY = 64
"""Rows between two steps, at least: each touches all weights."""

ADD_UP = (Race, Normalized, NormalizedBatches, Adagrad)
"""Optimizers whose first memory is a sum of squares."""


def check_forget(settings: Settings, parts: Parts, lanes: int) -> None:
    """Refuse to forget what is not remembered.

    Raises
    ------
    SettingsError
        The optimizer adds up no squares, penalties go by these sums, or there are several lanes.

    """
    if settings.forget is None:
        return
    if not isinstance(parts.optimizer, ADD_UP):
        name = name_of(parts.optimizer).lower()
        raise SettingsError(
            f"--forget fades sums of squares, which --optimizer {name} has not: pass --optimizer normalized, or adagrad for "
            "batches"
        )
    if parts.penalty._fields:
        raise SettingsError("--forget with --penalty: what weights pay goes by the sums that fade; leave one of them out")
    if lanes > 1:
        raise SettingsError("--forget counts the rows of one lane: leave --lanes out, or pass --lanes 1")


def rows_until_fading(half_life: int | None, rows: int) -> int:
    """Return the rows after so many until the next step of forgetting; more than there are where nothing is forgotten."""
    if half_life is None:
        return WHOLE_EPOCH
    every = _every(half_life)
    return every - rows % every


def fade(state: State, optimizer: Any, half_life: int | None, rows: int) -> None:
    """Make a step of forgetting if it is time to after so many rows."""
    if half_life is None or rows % (every := _every(half_life)):
        return
    factor = state.weights.dtype.type(0.5 ** (every / half_life))
    if isinstance(optimizer, Race):
        state.weights.reshape(-1, CELL)[:, SQUARES : SQUARES + MOST_LEARNERS] *= factor
    else:
        state.slots[0] *= factor


def _every(half_life: int) -> int:
    return max(LEAST_EVERY, half_life // STEPS_PER_HALF)
