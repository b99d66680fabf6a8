"""What a run says once, at its end, with the numbers of all its rows: values that are missing since nobody can read them."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

from streamsgd.messages import counted, verb

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger("streamsgd")


@dataclass
class Untold:
    """Texts of a column that say no moment as training read them."""

    source: Any
    """Whose rows they are, so that they are counted once; None of rows that are read once."""
    values: int = 0
    untold: int = 0
    other_zone: int = 0
    """Those that have a time zone where training saw none, or the reverse."""
    example: str = ""

    def add(self, found: tuple[int, int, int, str]) -> None:
        """Take in some rows, as of `time_texts.untold_of`."""
        values, untold, other_zone, example = found
        self.values += values
        self.untold += untold
        self.other_zone += other_zone
        self.example = self.example or example

    def said(self, name: str, *, zoned: bool) -> str:
        """Return what there is to say."""
        zone = ""
        if self.other_zone:
            here, before = ("no", "one") if zoned else ("a", "none")
            zone = (
                f" ({self.other_zone:,} {verb(self.other_zone, 'has', 'have')} {here} time zone, where training saw {before})"
            )
        are, they = verb(self.untold, "is no moment", "are no moments"), verb(self.untold, "it is", "they are")
        return (
            f"column {name!r}: {self.untold:,} of {counted(self.values, 'value')} {are} as training saw them{zone}, for "
            f"example {self.example[:60]!r}; {they} missing"
        )


_lock = Lock()

_runs = [0]

_said: set[tuple[str, bool]] = set()
"""Columns of which there was word outside of a run."""

_found: dict[tuple[str, bool, int], Untold] = {}


@contextmanager
def one_run() -> Iterator[None]:
    """Say at the end of the outermost of these what was told within."""
    with _lock:
        _runs[0] += 1
    try:
        yield
    finally:
        with _lock:
            _runs[0] -= 1
            last = {} if _runs[0] else dict(_found)
            if last:
                _found.clear()
        for (name, zoned, _), tally in last.items():
            if tally.untold:
                log.warning("%s", tally.said(name, zoned=zoned))


def tell(name: str, found: tuple[int, int, int, str], *, zoned: bool, source: Any = None) -> None:
    """Count texts of a column, of a source those of its first pass; outside of a run, as in a worker, say the first at once."""
    with _lock:
        running = bool(_runs[0])
        tally = _found.setdefault((name, zoned, id(source)), Untold(source)) if running else Untold(source)
        rows = None if source is None else int(source.groups.rows.sum())
        if rows is None or tally.values < rows:
            tally.add(found)
    if not running and tally.untold and (name, zoned) not in _said:
        _said.add((name, zoned))
        log.warning("%s", tally.said(name, zoned=zoned))
