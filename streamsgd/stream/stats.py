"""The account of a pass over data without training: rows, seconds and bytes."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streamsgd.data.timings import Timings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from streamsgd.stream.chunk import LoadedChunk

log = logging.getLogger("streamsgd")

MOST_PROBLEMS = 100
"""Problems that are said and kept."""


@dataclass
class Account:
    """What evaluating or scoring has done so far.

    Parameters
    ----------
    on_chunk
        Called with the account after every chunk.

    """

    on_chunk: Callable[[Account], None] | None = None
    rows: int = 0
    total_rows: int = 0
    wait_seconds: float = 0.0
    skipped: int = 0
    """Rows left out because they are unusable or unreadable, as the user allowed."""
    unseen: int = 0
    """Rows left out because training did not see their class."""
    filtered: int = 0
    problems: list[str] = field(default_factory=list)
    """Why pieces could not be read, each once, the first hundred."""
    spent: Timings = field(default_factory=Timings)
    began: float = field(default_factory=time.monotonic)

    def start(self, total_rows: int) -> None:
        """Begin a pass over so many rows."""
        self.total_rows += total_rows

    def add(self, filled: LoadedChunk) -> None:
        """Take in a chunk that is done."""
        self.rows += filled.chunk.rows
        self.wait_seconds += filled.waited
        self.skipped += sum(piece.skipped for piece in filled.pieces)
        self.unseen += sum(piece.unseen for piece in filled.pieces)
        self.filtered += sum(piece.filtered for piece in filled.pieces)
        self._tell(piece.problem for piece in filled.pieces if piece.problem)
        self.spent.add(filled.spent)
        if self.on_chunk is not None:
            self.on_chunk(self)

    def take(self, other: Account) -> None:
        """Take in what was done elsewhere."""
        self.rows += other.rows
        self.skipped += other.skipped
        self.unseen += other.unseen
        self.filtered += other.filtered
        self._tell(other.problems)
        self.spent.add(other.spent)
        if self.on_chunk is not None:
            self.on_chunk(self)

    def _tell(self, problems: Iterable[str]) -> None:
        for problem in problems:
            if problem not in self.problems and len(self.problems) < MOST_PROBLEMS:
                self.problems.append(problem)
                log.warning("left out: %s", problem)

    def settle(self) -> None:
        """Make sure that every row of the passes begun came by.

        Raises
        ------
        AssertionError
            One did not, which is a bug.

        """
        if self.rows != self.total_rows:
            raise AssertionError(f"{self.total_rows:,} rows were to be read, {self.rows:,} are accounted for")

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.began

    def where_time_went(self) -> dict[str, float]:
        """Return seconds by activity.

        Wait and compute add up to the pass; decode and encode are summed over threads.
        """
        return {
            "wait": self.wait_seconds,
            "compute": max(0.0, self.seconds - self.wait_seconds),
            "decode": self.spent.decode,
            "encode": self.spent.encode,
        }
