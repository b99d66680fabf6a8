"""Permutation importance, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamsgd.show.tables import MOST_ROWS, number, table

if TYPE_CHECKING:
    from streamsgd.model.explaining.importance import Importance


def importance_text(found: Importance) -> list[str]:
    """Return the lines of `importance`: a column each, the one that matters most first."""
    said = found.loss.replace("_", " ")
    rows = []
    for entry in found.columns[:MOST_ROWS]:
        low, high = entry["interval"]
        rows.append(
            (entry["column"], number(entry["increase"]), f"{entry['standard_error']:.3g}", f"{number(low)} .. {number(high)}")
        )
    left = len(found.columns) - MOST_ROWS
    return [
        f"{said} {number(found.value)} of {found.rows:,} rows, and by how much it grows when a column is shuffled among them",
        *table(("column", "increase", "std. error", "95 % interval"), rows),
        *([f"... and {left:,} more columns; --json has all"] if left > 0 else []),
    ]
