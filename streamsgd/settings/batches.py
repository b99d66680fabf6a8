"""What `--batch-size` says of batches that grow."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

from streamsgd.errors import SettingsError
from streamsgd.messages import nearest
from streamsgd.planning.batches import FOLLOWS, GROUPS, TESTS
from streamsgd.settings.registry import make

if TYPE_CHECKING:
    from streamsgd.planning.batches import Adaptive
    from streamsgd.settings.fields import Settings


def adaptive(settings: Settings) -> Adaptive | None:
    """Return how batches grow, or None where they do not."""
    size = settings.batch_size
    return _made(size) if isinstance(size, str) and size.startswith("adaptive") else None


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
