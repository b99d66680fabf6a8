"""Words and sizes of messages."""

from __future__ import annotations

import logging
import math
import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from streamsgd.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any


STAGES = logging.getLogger("streamsgd.stages")
"""Told at level INFO when something begins that may take a while, and when it ends; who shows progress listens to it."""


@contextmanager
def stage(what: str) -> Iterator[None]:
    """Say that something begins that may take a while, and that it ended."""
    STAGES.info("%s ...", what, extra={"stage": what, "seconds": None})
    began = time.monotonic()
    try:
        yield
    finally:
        seconds = time.monotonic() - began
        STAGES.info("%s: %.1f s", what, seconds, extra={"stage": what, "seconds": seconds})


@contextmanager
def said_once() -> Iterator[None]:
    """Let what several runs log in the same words be logged once."""
    said = set[tuple[int, str]]()

    def first(record: logging.LogRecord) -> bool:
        key = record.levelno, record.getMessage()
        new = key not in said
        said.add(key)
        return new

    logger = logging.getLogger("streamsgd")
    logger.addFilter(first)
    try:
        yield
    finally:
        logger.removeFilter(first)


_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}

_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def parse_bytes(text: str | int) -> int:
    """Return a number of bytes from text such as 1GB (10^9), 512MiB (2^20) or 1000000.

    Raises
    ------
    SettingsError
        The text is not a size.

    """
    match = re.fullmatch(r"\s*((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]{1,2})?)\s*([a-z]*)\s*", str(text).lower())
    n_bytes = float(match[1]) * _UNITS[match[2]] if match and match[2] in _UNITS else math.inf
    if not math.isfinite(n_bytes):
        raise SettingsError(f"{text!r} is not a size; write it like 4GB, 512MiB or 1000000")
    return int(n_bytes)


def parse_memory(text: str | int) -> int:
    """Return a memory limit in bytes; see `parse_bytes`.

    Raises
    ------
    SettingsError
        The text is not a size, or one of so few bytes that its unit was forgotten.

    """
    n_bytes, given = parse_bytes(text), str(text).strip()
    if given[-1].isdigit() and 0 < n_bytes < _UNITS["mb"]:
        raise SettingsError(f"{given} without a unit is that many bytes; did you mean {given}GB, or {given}MB?")
    return n_bytes


def format_bytes(n_bytes: float) -> str:
    """Return a number of bytes with three digits and a decimal unit: 1.23 GB."""
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n_bytes >= size:
            value = n_bytes / size
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
    return f"{n_bytes:.0f} B"


def nearest(word: str, known: Iterable[str], most: int = 1000) -> str:
    """Return ", did you mean 'x'?" when a known word is close, else the whole list.

    A list of more than `most` words is left out.
    """
    words = sorted(known)
    if close := nearly(word, words):
        return f", did you mean {close!r}?"
    return f"; there are {', '.join(words)}" if len(words) <= most else ""


def nearly(word: str, known: Iterable[str]) -> str:
    """Return the known word that is the same in small letters, else the one that is close; '' if there is none."""
    from difflib import get_close_matches  # noqa: PLC0415  only where something is wrong

    words = sorted(known)
    same = [other for other in words if other.casefold() == word.casefold()]
    return next(iter([*same, *get_close_matches(word, words, n=1)]), "")


def counted(n: int, what: str) -> str:
    """Return a number with what it counts: 1 file, 2 files, 2 passes."""
    ending = "" if n == 1 else "es" if what.endswith("s") else "s"
    return f"{n:,} {what}{ending}"


def verb(n: int, one: str = "is", several: str = "are") -> str:
    """Return the form of a verb that goes with a number of things."""
    return one if n == 1 else several


def extra(name: str) -> str:
    """Return how one of the extras of `pyproject.toml` is installed: from a checkout, as streamsgd is on no index."""
    return f"install the extra streamsgd[{name}]: pip install '.[{name}]' in the checkout of streamsgd"


def few(values: Sequence[Any], most: int = 10) -> str:
    """Return the first values, separated by commas."""
    shown = [f"{value:g}" if isinstance(value, float) else str(value) for value in values[:most]]
    return ", ".join(shown) + (" ..." if len(values) > most else "")


def stamped(event: str, level: str, **fields: Any) -> dict[str, Any]:
    """Return a line of a log as plain values: time in UTC (ISO 8601), level, kind of event, and its fields."""
    from datetime import UTC, datetime  # noqa: PLC0415  not needed where text is shown

    return {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "level": level, "event": event, **fields}


def letters_apart(word: str, other: str) -> int:
    """Return the fewest letters to insert, delete or replace that make one word the other (Levenshtein 1966)."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(word, 1):
        before, row[0] = row[0], i
        for j, its in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (letter != its))
    return row[-1]
