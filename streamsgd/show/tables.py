"""Text for people: what `plan`, `inspect`, `show` and `parts` print, from the values that --json prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamsgd.messages import counted, format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


MOST_ROWS = 40
"""Lines of a table about columns before the rest is counted."""


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], left: int = 1) -> list[str]:
    """Return lines of columns, the first `left` aligned left, the others right."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.ljust(w) if k < left else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def number(value: Any) -> str:
    """Return a number with six digits, and what is no number as it is."""
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(value: int | None) -> str:
    """Return bytes as people write them, or a question mark."""
    return "?" if value is None else format_bytes(value)


def cut(rows: list[Any], what: str, most: int = MOST_ROWS) -> tuple[list[Any], list[str]]:
    """Return rows, at most so many, and a line that says how many more there are, if any."""
    left = len(rows) - most
    return (rows, []) if left <= 0 else (rows[:most], [f"... and {counted(left, f'more {what}')}; --json has all"])


def sizes(data: dict[str, Any]) -> str:
    """Return how much data there is."""
    files, groups = counted(data["files"], "file"), counted(data["row_groups"], "row group")
    return f"{files}, {groups}, {counted(data['rows'], 'row')}, {format_bytes(data['file_bytes'])}"


def short(text: str, most: int = 40) -> str:
    """Return a text, or its beginning."""
    return text if len(text) <= most else f"{text[: most - 3]}..."
