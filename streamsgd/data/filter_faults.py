"""What is wrong with a condition, in words for who wrote it: Python's own are about Python."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

ALLOWED = (
    "allowed are comparisons (== != < <= > >=), and, or, not, in [...], is None, + - * / %, parentheses, "
    "numbers, 'text', True, False, and columns (`in backticks` if not a plain name)"
)

_QUOTED = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|`[^`]*`")

_DATE = re.compile(r"(?<![\w.])\d{4}-\d{1,2}-\d{1,2}(?:[T ]\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?Z?)?(?![\w.-])")

_SHARE = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*%\s*")

_PIECE = re.compile(r"\w+|[=<>!&|%*/+-]+|\S")

_OTHERWISE = {
    "=": "==",
    "===": "==",
    "=>": ">=",
    "=<": "<=",
    "<>": "!=",
    "&&": "and",
    "||": "or",
    "!": "not",
    **{word.upper(): word for word in ("and", "or", "not", "in", "is")},
}
"""How other languages write, and how it is written here."""

_CONSTANTS = {"true": "True", "false": "False"}

_NULLS = ("null", "none", "nil", "nan", "na")

_PYTHONS = ("never closed", "unmatched", "does not match", "invalid character", "nested", "decimal literal", "null bytes")
"""Faults that Python says well."""


def in_quotes(piece: str) -> str:
    """Return what to say of a date that stands without quotes; nothing of anything else."""
    return f" (put dates in quotes: '{piece}')" if _DATE.fullmatch(piece) else ""


def syntax_fault(text: str, error: SyntaxError) -> str:
    """Return what is wrong with a text that is no expression, and where, characters being counted from 1."""
    bare = _QUOTED.sub(lambda match: "'" + " " * (len(match[0]) - 2) + "'", text)
    if date := _DATE.search(bare):
        return f"{date[0]!r} at character {date.start() + 1} is no number: put dates in quotes, '{date[0]}'"
    at, said = _place(text, error), error.msg
    if "unterminated" in said:
        return f"the text that begins at character {at + 1} does not end: a quote is missing"
    if "leading zeros" in said:
        return f"the number at character {at + 1} begins with 0: leave the 0 out, or put text in quotes"
    if any(known in said for known in _PYTHONS):
        return f"{said} at character {at + 1}"
    return _ends(text) if at >= len(text) else _unexpected(text, at)


def _unexpected(text: str, at: int) -> str:
    pieces = [piece for piece in _PIECE.finditer(text) if piece.start() <= at < piece.end()]
    piece = pieces[0][0] if pieces else text[at]
    start = pieces[0].start() if pieces else at
    if piece == "`":
        return f"the name that begins at character {start + 1} does not end: a backtick is missing"
    instead = _OTHERWISE.get(piece)
    return f"{piece!r} at character {start + 1} " + (f"is written {instead} here" if instead else "is not expected there")


def unknown_column(name: str, columns: Iterable[str]) -> str:
    """Return what to say of a name that is no column's: the one that was meant, or the constant."""
    if constant := _CONSTANTS.get(name.lower()):
        return f"is not a column (did you mean {constant!r}?)"
    known = {column.lower(): column for column in columns}
    close = [known[word] for word in get_close_matches(name.lower(), list(known), 1, 0.5)]
    if not close and name.lower() in _NULLS:
        return "is not a column (write `is None` for missing values)"
    return "is not a column" + (f" (did you mean {close[0]!r}?)" if close else "")


def _place(text: str, error: SyntaxError) -> int:
    """Return which character an error is at, from 0; the length of the text where it ends too early."""
    if not error.offset:
        return len(text)
    lines = text.splitlines(keepends=True)[: (error.lineno or 1) - 1]
    return sum(map(len, lines)) + error.offset - 1


def _ends(text: str) -> str:
    share = _SHARE.fullmatch(text)
    hint = f"; a share is a number, {float(share[1]) / 100:g}" if share else ""
    last = [*_PIECE.finditer(text)][-1]
    return f"it ends with {last[0]!r} at character {last.start() + 1}, after which a value is missing{hint}"
