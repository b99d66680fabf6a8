"""Numbers that stand for "missing": -999999, 9999 and the like, far from all others and many of one value.

The first look finds them; they are kept in the encoding, and null wherever rows are read from then on.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamsgd.settings.policies import policy_of, sentinels_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from streamsgd.settings.fields import Settings


LEAST_ROWS = 5
"""Rows that have a sentinel, of those that are kept of a column, ..."""

LEAST_SHARE, SHARE = 5e-4, 0.01
"""... and their share: where it is written as sentinels are, and where it is any other whole number, which must also be ..."""

GAP, LARGE_GAP = 0.5, 3.0
"""... so many ranges of all other values away from the nearest of them: one that is written so, any other."""

LEAST_VALUES = 3
"""Other values that a column has at least: of two, neither is far off."""

MOST = 3
"""Sentinels of a column."""

LEAST_NINES = 3
"""Digits of 999, the shortest that is written as sentinels are."""

LIMITS = frozenset({*(-(2.0**k) for k in (15, 31, 63)), *(2.0**k - 1.0 for k in (15, 16, 31, 32, 63)), 1e6, -1e6, 1e9, -1e9})
"""Ends of integer types, and powers of ten that people write."""


class Sentinel(msgspec.Struct, frozen=True):
    """What is null in a column, as a number."""

    column: str
    values: tuple[float, ...]

    @property
    def told(self) -> str:
        """What it says of a column, in words."""
        return f"{' and '.join(f'{value:.15g}' for value in self.values)} as missing"


class Spike(NamedTuple):
    """A value that stands for "missing", and how many rows have it, of those looked at."""

    value: float
    rows: int
    of: int


def may_have_sentinels(kind: Any) -> bool:
    """Whether values of an Arrow type are plain numbers."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def written_so(value: float) -> bool:
    """Whether a number is written as sentinels are: three nines and more, the end of an integer type, a power of ten."""
    digits = f"{abs(value):.0f}"
    return value in LIMITS or (len(digits) >= LEAST_NINES and not digits.strip("9"))


def find_spikes(values: np.ndarray) -> list[Spike]:
    """Return the sentinels among some finite values of a column, float64 (n,)."""
    found: list[Spike] = []
    rest = values
    while len(rest) > LEAST_ROWS and len(found) < MOST:
        spike = next(filter(None, (_spike(rest, end, len(values)) for end in (rest.min(), rest.max()))), None)
        if spike is None:
            break
        found.append(spike)
        rest = rest[rest != spike.value]
    return found


def _spike(values: np.ndarray, end: Any, n: int) -> Spike | None:
    """Return the least or the largest of some values if it is a sentinel among n."""
    value, usual = float(end), written_so(float(end))
    if value != math.floor(value) or (not usual and abs(value) < 10.0**LEAST_NINES / 10):
        return None
    others = values[values != end]
    rows = len(values) - len(others)
    if rows < max(LEAST_ROWS, (LEAST_SHARE if usual else SHARE) * n) or not len(others):
        return None
    low, high = float(others.min()), float(others.max())
    gap, width = max(low - value, value - high), high - low
    alone = usual and value < 0.0 <= low  # the only negative number
    far = gap > (GAP if usual else LARGE_GAP) * width or (alone and gap > GAP * width / 10.0)
    several = len(np.unique(others[: 64 * LEAST_VALUES])) >= LEAST_VALUES or len(np.unique(others)) >= LEAST_VALUES
    return Spike(value, rows, n) if far and several else None


def without(column: Any, values: Iterable[float]) -> Any:
    """Return an Arrow column with these values as null."""
    kind = column.type
    wanted = []
    for value in values:
        with suppress(pa.ArrowInvalid, OverflowError, ValueError):  # a narrower type holds none of it
            exact = pa.scalar(int(value) if pa.types.is_integer(kind) else value)
            wanted.append(exact.cast(kind, safe=pa.types.is_integer(kind)).as_py())
    if not wanted:
        return column
    return pc.if_else(pc.is_in(column, value_set=pa.array(wanted, kind)), pa.scalar(None, kind), column)


def nulled(columns: Mapping[str, Any], sentinels: Mapping[str, tuple[float, ...]]) -> dict[str, Any]:
    """Return Arrow columns by name, sentinels as null."""
    return {name: without(column, sentinels[name]) if name in sentinels else column for name, column in columns.items()}


def asked_for(settings: Settings, name: str, kind: Any) -> tuple[float, ...] | None:
    """Return the sentinels that the settings name for a column; None where the look may find some."""
    if not may_have_sentinels(kind):
        return ()
    given = sentinels_of(settings.sentinels, name)
    if given is None and policy_of("missing", settings.missing, name) == "error":
        return ()
    return given
