"""Checks of a schedule."""

from __future__ import annotations

import math
from typing import Any

from streamsgd.testing.laws import check_updates, close, has, parts_with, pickles, true


def check_schedule(schedule: Any) -> None:
    """Check a schedule: finite factors of at least zero, a warm-up that is linear, and a kernel that agrees.

    Parameters
    ----------
    schedule
        A NamedTuple as `kernels.parts.schedules` describes.

    Raises
    ------
    AssertionError
        A factor is negative or not finite; all are zero; a field `warmup` does not multiply by
        min(1, step / warmup); a kernel gives other numbers; it does not survive pickling.

    """
    has(schedule, ("factor",))
    pickles(schedule)
    places = [(step, epoch, 5.0) for step in (1, 2, 10, 10**4, 10**9) for epoch in (0.0, 0.25, 1.0, 4.999, 5.0)]
    factors = [schedule.factor(*place) for place in places]
    for place, got in zip(places, factors, strict=True):
        where = "step {}, epoch {} of {}".format(*place)
        true(
            0.0 <= got < math.inf,
            f"{schedule!r}: the factor at {where} is {got}; it must be finite and not negative",
        )
    true(any(factors), f"{schedule!r}: every factor is 0, so nothing would be learned")
    if "warmup" in schedule._fields:
        for step in (1, 2, 7, 8, 9, 100):
            cold = schedule._replace(warmup=0).factor(step, 0.5, 5.0)
            warm = schedule._replace(warmup=8).factor(step, 0.5, 5.0)
            close(
                warm,
                cold * min(1.0, step / 8),
                1e-12,
                f"{schedule!r} with warmup=8: the factor of step {step}",
            )
    check_updates(parts_with(schedule=schedule), schedule)
