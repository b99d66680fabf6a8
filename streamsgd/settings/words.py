"""Messages in the words of who reads them: they are written with flags, and Python is told of arguments instead."""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from functools import cache, wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from streamsgd.errors import StreamSGDError
from streamsgd.settings.arguments import fitter_of
from streamsgd.settings.describe import describe
from streamsgd.settings.policies import POLICIES
from streamsgd.settings.told import one_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streamsgd.settings.describe import Setting

P = ParamSpec("P")

R = TypeVar("R")

OTHERS = (
    "out",
    "to",
    "at",
    "also",
    "threshold",
    "prune",
    "grid",
    "random",
    "halving",
    "table",
    "folds",
    "columns",
    "restarts",
    "rows",
    "repeats",
    "seeds",
)
"""Flags that are no settings, and arguments of the same names in Python."""

_FLAG = re.compile(
    r"--(?P<no>no-)?(?P<name>[a-z][a-z-]*[a-z])(?![\w-])"
    r"""(?: (?P<value>'[^']*'|"[^"]*"|\d[\d.,]* ?[kMGT]i?B\b|[^\s;()]+))?"""
)

_END = re.compile(r"[,.:]*$")

_NUMBER = re.compile(r"-?\d[\d.]*(?:e-?\d+)?")

_TWICE = re.compile(r"\b(\w+)=\[([^\]]*)\] \1=\[")


def in_arguments(text: str) -> str:
    """Return a message that speaks of flags in the words of Python: `--bad-rows skip` is `bad_rows='skip'`."""
    found = _FLAG.sub(_argument, text)
    while (joined := _TWICE.sub(r"\1=[\2, ", found)) != found:
        found = joined
    return found


@cache
def _settings() -> dict[str, Setting]:
    return {setting.flag[2:]: setting for setting in describe()} | {s.name.replace("_", "-"): s for s in describe()}


def _argument(match: re.Match[str]) -> str:
    name, value = match["name"], match["value"] or ""
    setting = _settings().get(name)
    if setting is None and name not in OTHERS:
        return match[0]
    plain = setting.name if setting else name.replace("-", "_")
    rest = match[0][match.start("value") - match.start() - 1 :] if value else ""
    if setting is not None and setting.metavar == "":
        return f"{plain}={not match['no']}{rest}"
    if not value:
        after = match.string[match.end() : match.end() + 1]
        return plain if after == ":" else f"{plain}="
    end = _END.search(value)
    bare = value[: end.start()] if end else value
    tail = value[len(bare) :]
    written = _written(bare, setting, named=tail.startswith(":"))
    return f"{plain}={rest}" if written is None else f"{plain}={written}{tail}"


def _written(value: str, setting: Setting | None, *, named: bool) -> str | None:
    """Return a value as Python has it; None for a word that is none, but goes on with the sentence."""
    quoted = value.startswith(("'", '"'))
    if _NUMBER.fullmatch(value) and (setting is None or setting.metavar != "TEXT"):
        return value
    if value.isalpha() and value.isupper():  # what stands for a value
        return value
    known = quoted or named or value[:1].isdigit() or "/" in value or value.partition(":")[0] in choices_of(setting)
    if not known:
        return None
    text = value if quoted else repr(value)
    return f"[{text}]" if setting is not None and setting.is_list else text


def choices_of(setting: Setting | None) -> tuple[str, ...]:
    """Return the values of a setting that have names."""
    if setting is None:
        return ()
    from streamsgd.settings.registry import PARTS  # noqa: PLC0415  what --help need not pay

    return (*setting.choices, *POLICIES.get(setting.name, ()), *PARTS.get(setting.name, ()))


log = logging.getLogger("streamsgd")


@contextmanager
def speaking_flags() -> Iterator[None]:
    """Leave what is logged and shown meanwhile in the words of the command line."""
    spoke_python = _in_own_words in log.filters
    log.removeFilter(_in_own_words)
    try:
        yield
    finally:
        if spoke_python:
            log.addFilter(_in_own_words)


def own_words(text: str) -> str:
    """Return a message in the words of Python, unless a command line runs."""
    return in_arguments(text) if _in_own_words in log.filters else text


def _in_own_words(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    said = in_arguments(text)
    if said != text:
        record.msg, record.args = said, None
    return True


log.addFilter(_in_own_words)


def speaks_python(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function that people call from Python: its arguments are of the types that it says, and errors speak of arguments.

    The command line finds its own words.
    """
    fitter = fitter_of(function)

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with one_run():
                if fitter is not None:
                    placed, named = fitter(args, kwargs)
                    return function(*placed, **named)
                return function(*args, **kwargs)
        except StreamSGDError as error:
            if error.in_flags is None and error.args and isinstance(error.args[0], str):
                error.in_flags = error.args[0]
                error.args = (in_arguments(error.in_flags), *error.args[1:])
            raise

    return called
