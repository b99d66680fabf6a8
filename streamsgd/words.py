"""Words for people: what they may have meant, lists, plurals."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any


def nearest(word: str, known: Iterable[str], most: int = 1000) -> str:
    """Return ", did you mean 'x'?" when a known word is close, else the whole list.

    A list of more than `most` words is left out.
    """
    from difflib import get_close_matches  # noqa: PLC0415  only where something is wrong

    words = sorted(known)
    close = get_close_matches(word, words, n=1)
    if close:
        return f", did you mean {close[0]!r}?"
    return f"; there are {', '.join(words)}" if len(words) <= most else ""


def counted(n: int, what: str) -> str:
    """Return a number with what it counts: 1 file, 2 files."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def few(values: Sequence[Any], most: int = 10) -> str:
    """Return the first values, separated by commas."""
    shown = [f"{value:g}" if isinstance(value, float) else str(value) for value in values[:most]]
    return ", ".join(shown) + (" ..." if len(values) > most else "")
