"""Which check belongs to which kind of part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamsgd.testing.losses import check_loss
from streamsgd.testing.optimizers import check_optimizer
from streamsgd.testing.penalties import check_penalty
from streamsgd.testing.plans import check_sampler
from streamsgd.testing.schedules import check_schedule

if TYPE_CHECKING:
    from collections.abc import Callable


CHECKS: dict[str, Callable[[Any], None]] = {
    "loss": check_loss,
    "penalty": check_penalty,
    "optimizer": check_optimizer,
    "schedule": check_schedule,
    "shuffle": check_sampler,
}
"""The check of every kind of part, by its name in `registry.PARTS`."""
