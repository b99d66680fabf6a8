"""Whether a machine learns beside the linear model, and what that is; see `training.rival`."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from streamsgd.errors import BudgetError
from streamsgd.kernels.parts.traits import holds_factors
from streamsgd.settings.registry import make
from streamsgd.training.defaults import choose_parts
from streamsgd.training.memory import model_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.features.encoding import Encoding
    from streamsgd.features.target import Target
    from streamsgd.kernels.structs.block import Parts
    from streamsgd.planning import budget as budgets
    from streamsgd.planning.lanes import Lanes
    from streamsgd.settings.fields import Settings
    from streamsgd.training.job import Job

log = logging.getLogger("streamsgd")


def wants_rival(settings: Settings, parts: Parts, encoding: Encoding, lanes: Lanes, epochs: int) -> bool:
    """Whether a machine learns beside the linear model: at its defaults, in one pass, where rows are the same for both."""
    model = make("model", settings.model)
    asked = getattr(model, "against", "none") == "linear" and model.linear == "with" and holds_factors(parts.optimizer)
    plain = settings.optimizer == "auto" and settings.learning_rate is None and settings.schedule == "auto"
    return asked and plain and encoding.is_wide and lanes.number == 1 and epochs == 1 and settings.patience is None


def rival_parts(settings: Settings, target: Target, encoding: Encoding, n_rows: int, optimizer: str = "auto") -> Parts:
    """Return the parts of the linear run, whose optimizer a checkpoint may have said."""
    return choose_parts(msgspec.structs.replace(linear(settings), optimizer=optimizer), target, encoding, n_rows)


def linear(settings: Settings) -> Settings:
    """Return the settings of the linear run."""
    return msgspec.structs.replace(settings, model="linear")


def with_rival(job: Job, parts: Parts | None) -> Job:
    """Return a job with the linear run beside it, if it has parts."""
    return job if parts is None else replace(job, rival=replace(job, settings=linear(job.settings), parts=parts))


def bytes_beside(rival: Parts | None, encoding: Encoding, settings: Settings) -> int:
    """Return the bytes of the linear model, if there is one."""
    return 0 if rival is None else model_bytes(encoding.n_coordinates, rival.optimizer, settings.precision)


def with_room(
    budget_in: Callable[..., budgets.Budget], rival: Parts | None, encoding: Encoding, settings: Settings, *, must: bool
) -> tuple[budgets.Budget, Parts | None]:
    """Return the budget, and the linear model beside a machine if there is room for it, or `must` be.

    Raises
    ------
    BudgetError
        There is no room for the machine, or for what must be.

    """
    try:
        return budget_in(beside=bytes_beside(rival, encoding, settings)), rival
    except BudgetError as error:
        if rival is None or must:
            raise
        needed = error.least // 10**6 + 1
        alone = budget_in()
        log.warning(
            "--model %s learns without the linear model beside it, for which --memory would have to be %dMB: against=none in "
            "--model makes this model in any memory",
            *(settings.model, needed),
        )
        return alone, None
