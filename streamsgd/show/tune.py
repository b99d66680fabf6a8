"""What tuning came to, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamsgd.settings.grid import in_words
from streamsgd.show.tables import number, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamsgd.training.together.many import Progress
    from streamsgd.training.together.tuning import Tuned

SHOWN = 10
"""Configurations of the table that are shown, the best first."""


def progress_line(progress: Progress, each: Sequence[dict[str, Any]]) -> str:
    """Return a line about how far configurations are."""
    dropped = f", {progress.dropped:,} dropped" if progress.dropped else ""
    return (
        f"{progress.rows:>14,} rows  {progress.passes:8.4g} passes  {progress.going:,} learn{dropped}; best so far "
        f"{number(progress.loss)} of {progress.best} ({in_words(each[progress.best])})"
    )


def tuned_text(tuned: Tuned) -> list[str]:
    """Return lines about the best configurations."""
    ranked = sorted(tuned.table, key=lambda line: (line["status"] != "done", line["loss"] is None, line["loss"] or 0.0))
    cells = [
        (str(line["configuration"]), *(f"{line[name]}" for name in tuned.settings), number(line["loss"]), line["status"])
        for line in ranked[:SHOWN]
    ]
    more = [f"... and {len(ranked) - SHOWN:,} more"] if len(ranked) > SHOWN else []
    best = f"best: configuration {tuned.best} ({in_words(tuned.settings)}), loss {number(tuned.loss)}"
    return [*table(("", *tuned.settings, "loss", ""), cells), *more, best]
