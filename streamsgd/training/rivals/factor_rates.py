"""Rates of factors: machines that differ in theirs learn the first rows beside, and who predicted best goes on.

As in the race of rates of linear models (`kernels.learn.race`), nobody knows the rate that suits new data; half and twice the
usual one are tried for as many rows. Each machine is what it is alone, bit for bit. What all of them predict, mixed, counts
as what the machine predicts in the mixture with the linear model (`training.rivals.rival`): with a half of the weight, of which
each has as much as the others. So the linear model has the other half, however many machines there are.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from streamsgd.kernels.structs.state import LOSS, ROWS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamsgd.kernels.structs.block import Parts
    from streamsgd.settings.fields import Settings
    from streamsgd.training.job import Job

log = logging.getLogger("streamsgd")

TIMES = (0.5, 2.0)
"""Rates that are tried beside the usual one, in units of it."""


def rates_beside(settings: Settings, parts: Parts) -> tuple[float, ...]:
    """Return the rates that are tried beside that of the machine: none where the model names one."""
    named = any(field.strip().startswith("rate=") for field in settings.model.partition(":")[2].split(","))
    return () if named else tuple(by * parts.model.rate for by in TIMES)


def at_rate(job: Job, rate: float) -> Job:
    """Return the job of the machine alone, whose factors have another rate."""
    return replace(job, parts=with_rate(job.parts, rate), rival=None, others=())


def with_rate(parts: Parts, rate: float) -> Parts:
    """Return parts whose factors have another rate."""
    return parts._replace(model=parts.model._replace(rate=rate))


def described(learner: Any, others: Sequence[Any]) -> dict[str, Any]:
    """Return what the machines came to, as plain values: rates, the best of them, sums of losses, and over how many rows.

    One that left the finite numbers has lost; its loss is None, which JSON has.
    """
    all_of_them = [learner, *others]
    sums = [float(one.tally[LOSS]) if one.is_finite else None for one in all_of_them]
    rates = [float(one.job.parts.model.rate) for one in all_of_them]
    losses = losses_of(sums)
    best = rates[min(range(len(rates)), key=losses.__getitem__)]
    return {"rate": best, "rates": rates, "losses": sums, "rows": int(learner.tally[ROWS])}


def losses_of(sums: Sequence[float | None]) -> list[float]:
    """Return the losses of machines as numbers: infinite of those that left the finite ones."""
    return [math.inf if one is None else one for one in sums]


def lead(found: dict[str, Any], others: Sequence[Any]) -> Any:
    """Say which machine leads; return it, or None where it is the first one."""
    rate = found["rate"]
    lost = [f"{one:g}" for one, loss in zip(found["rates"], found["losses"], strict=True) if loss is None]
    if lost:
        log.warning(
            "machines whose factors have rate %s left the finite numbers, and are out: rate=%g in --model makes this model "
            "without trying them",
            *(" and ".join(lost), rate),
        )
    log.info("after %d rows the machine whose factors have rate %g leads and goes on alone", found["rows"], rate)
    return next((one for one in others if one.job.parts.model.rate == rate), None)
