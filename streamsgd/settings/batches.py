"""What `--batch-size` says of batches that grow."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec

from streamsgd.errors import SettingsError
from streamsgd.messages import nearest
from streamsgd.planning.batches import FOLLOWS, GROUPS, TESTS
from streamsgd.settings.registry import make, spec_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamsgd.planning.batches import Adaptive, Pilot
    from streamsgd.settings.fields import Settings


def adaptive(settings: Settings) -> Adaptive | None:
    """Return how batches grow, or None where they do not."""
    size = settings.batch_size
    return _made(size) if isinstance(size, str) and size.startswith("adaptive") else None


HELD = 0.1
"""Share of rows that is held out for a pilot to compare by, if nobody says."""


def piloted(settings: Settings) -> Pilot | None:
    """Return the pilot by which the size of batches is found, or None where it is known."""
    size = settings.batch_size
    return make("batch_size", size) if isinstance(size, str) and size.startswith("pilot") else None


def largest_of_pilot(settings: Settings) -> Settings:
    """Return settings with the largest size that a pilot would try, which takes as much memory as any: what can be planned."""
    pilot = piloted(settings)
    return settings if pilot is None else msgspec.structs.replace(settings, batch_size=pilot.numbers[-1])


def with_size(settings: Settings, size: int) -> Settings:
    """Return the settings of a branch of a pilot."""
    held = HELD if settings.validation == "auto" else settings.validation
    return msgspec.structs.replace(settings, batch_size=size, validation=held)


def found_before(settings: Settings, found: Mapping[str, Any] | None) -> Settings | None:
    """Return the settings with the size that a pilot found, if it was one as these ask for."""
    pilot = piloted(settings)
    if pilot is None or not found or found.get("asked") != spec_of("batch_size", pilot):
        return None
    return with_size(settings, int(found["chosen"]))


def check_known(settings: Settings) -> None:
    """Refuse a size that a pilot is to find, where there is none.

    Raises
    ------
    SettingsError
        It is.

    """
    if piloted(settings) is not None:
        raise SettingsError(
            f"--batch-size {settings.batch_size} is for train, which goes on from the branch of the size that is found: pass a "
            "number here, such as 'streamsgd pilot' recommends"
        )


def check_pilot(pilot: Pilot) -> None:
    """Refuse pilots that compare nothing.

    Raises
    ------
    SettingsError
        A field is out of range.

    """
    try:
        sizes = pilot.numbers
    except ValueError:
        sizes = []
    if len(sizes) < 2 or sizes[0] < 1:
        raise SettingsError(f"sizes={pilot.sizes}: a pilot compares two sizes of 1 row or more, e.g. sizes=16-64-256-1024")
    if pilot.seeds < 1:
        raise SettingsError(f"seeds={pilot.seeds}: pass 1 or more; with 3 the error of what is found is known")
    if pilot.rows and pilot.rows < sizes[-1]:
        raise SettingsError(
            f"rows={pilot.rows}: the largest size makes no step of {sizes[-1]} rows: pass rows={10 * sizes[-1]}"
        )


@cache
def _made(spec: str) -> Adaptive:
    made: Adaptive = make("batch_size", spec)
    return made


def check_adaptive(batch: Adaptive) -> None:
    """Refuse what cannot be.

    Raises
    ------
    SettingsError
        A field is out of range.

    """
    if batch.test not in TESTS:
        raise SettingsError(f"test={batch.test} is none of {', '.join(TESTS)}{nearest(batch.test, TESTS)}")
    if batch.rate not in ("auto", *FOLLOWS):
        rates = ("auto", *FOLLOWS)
        raise SettingsError(f"rate={batch.rate} is none of {', '.join(rates)}{nearest(batch.rate, rates)}")
    if not 0.0 < batch.theta <= 1.0:
        raise SettingsError(f"theta={batch.theta:g}: it is above 0 and at most 1, e.g. 0.5 for four times the rows of 1")
    if not 0.0 < batch.nu < math.inf:
        raise SettingsError(f"nu={batch.nu:g}: it is above 0, e.g. 5.84")
    if not 0.0 <= batch.half_life < math.inf:
        raise SettingsError(f"half_life={batch.half_life:g}: it is a number of steps, 0 for no memory of earlier steps")
    for name in ("start", "most"):
        rows = getattr(batch, name)
        if (rows or name == "start") and (rows < GROUPS or rows % GROUPS):
            raise SettingsError(f"{name}={rows}: rows are dealt to {GROUPS} groups, so take a multiple of {GROUPS}")
    if batch.most and batch.most < batch.start:
        raise SettingsError(
            f"most={batch.most} is below the start of {batch.start} rows: raise most, or pass start={batch.most} too"
        )
