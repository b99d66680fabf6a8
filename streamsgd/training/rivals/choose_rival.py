"""Whether a machine learns beside the linear model, and what that is; see `training.rivals.rival`."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from streamsgd.errors import BudgetError
from streamsgd.kernels.models.machines import rows_apart
from streamsgd.kernels.parts.traits import holds_factors
from streamsgd.settings.registry import make
from streamsgd.training.defaults import choose_parts
from streamsgd.training.memory import model_bytes
from streamsgd.training.rivals.factor_rates import at_rate, rates_beside

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.features.encoding import Encoding
    from streamsgd.kernels.structs.block import Parts
    from streamsgd.planning import budget as budgets
    from streamsgd.planning.lanes import Lanes
    from streamsgd.settings.fields import Settings
    from streamsgd.training.job import Job
    from streamsgd.training.look import Look

log = logging.getLogger("streamsgd")


def wants_rival(settings: Settings, parts: Parts, encoding: Encoding, lanes: Lanes, epochs: int) -> bool:
    """Whether a machine learns beside the linear model: at its defaults, in one pass, where rows are the same for both."""
    model = make("model", settings.model)
    asked = getattr(model, "against", "none") == "linear" and model.linear == "with" and holds_factors(parts.optimizer)
    plain = settings.optimizer == "auto" and settings.learning_rate is None and settings.schedule == "auto"
    return asked and plain and encoding.is_wide and lanes.number == 1 and epochs == 1 and settings.patience is None


class Beside(NamedTuple):
    """Who learns beside a machine."""

    rival: Parts | None = None
    """The parts of the linear model."""
    rates: tuple[float, ...] = ()
    """Of the factors of further machines."""
    raced: tuple[float, ...] = ()
    """... that are gone, since another one leads: of a run that is resumed."""

    def nbytes(self, parts: Parts, encoding: Encoding, settings: Settings) -> int:
        """Return the bytes of all of them; `parts` are the machine's."""
        n = encoding.n_coordinates
        own = 0 if self.rival is None else model_bytes(n, self.rival.optimizer, settings.precision)
        if not self.rates:
            return own
        return own + len(self.rates) * model_bytes(rows_apart(parts.model, n), parts.optimizer, settings.precision)

    def joined(self, job: Job) -> Job:
        """Return a job with all of them."""
        if self.rival is None:
            return job
        rival = replace(job, settings=linear(job.settings), parts=self.rival)
        return replace(job, rival=rival, others=tuple(at_rate(job, rate) for rate in self.rates), raced=self.raced)


def choose_beside(settings: Settings, parts: Parts, look: Look, frozen: dict[str, Any] | None) -> Beside:
    """Return who learns beside a machine, or did in a run that is resumed."""
    spec = frozen.get("rival") if frozen else "auto"
    if spec is None:
        return Beside()
    # What a checkpoint says of the optimizer: the end of a race brought another one.
    rival = choose_parts(
        msgspec.structs.replace(linear(settings), optimizer=spec), look.target, look.encoding, look.dataset.n_rows
    )
    if frozen is None:
        return Beside(rival, rates_beside(settings, parts))
    rates = tuple(frozen["rates"])
    return Beside(rival, raced=rates) if frozen["raced"] else Beside(rival, rates)


def beside_of(job: Job) -> Beside:
    """Return who learns beside the machine of a job."""
    rates = tuple(one.parts.model.rate for one in job.others)
    return Beside(None if job.rival is None else job.rival.parts, rates, job.raced)


def linear(settings: Settings) -> Settings:
    """Return the settings of the linear run."""
    return msgspec.structs.replace(settings, model="linear")


def with_room(
    budget_in: Callable[..., budgets.Budget],
    all_of_them: Beside,
    parts: Parts,
    encoding: Encoding,
    settings: Settings,
    *,
    must: bool,
) -> tuple[budgets.Budget, Beside]:
    """Return the budget, and who learns beside a machine: as many as there is room for, or all if they `must`.

    Raises
    ------
    BudgetError
        There is no room for the machine, or for what must be.

    """
    # Machines of other rates are the first to go: the linear model is the one that a machine must not be worse than.
    ways = [all_of_them] if must or not all_of_them.rates else [all_of_them, all_of_them._replace(rates=())]
    for beside in ways:
        try:
            budget = budget_in(beside=beside.nbytes(parts, encoding, settings))
        except BudgetError as error:
            refusal = error
            continue
        if beside.rates != all_of_them.rates:
            log.warning(
                "--model %s tries no other rates of its factors, for which --memory would have to be %dMB: rate=%g in --model "
                "makes this model in any memory",
                *(settings.model, refusal.least // 10**6 + 1, parts.model.rate),
            )
        return budget, beside
    if all_of_them.rival is None or must:
        raise refusal
    needed = refusal.least // 10**6 + 1
    alone = budget_in()
    log.warning(
        "--model %s learns without the linear model beside it, for which --memory would have to be %dMB: against=none in "
        "--model makes this model in any memory",
        *(settings.model, needed),
    )
    return alone, Beside()
