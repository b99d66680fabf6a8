"""What each setting is, in words, for flags and docs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import inspect

from streamsgd.settings.fields import Settings
from streamsgd.settings.scope import PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Setting:
    """One field of `Settings`, as help pages and error messages need it."""

    name: str
    description: str
    default: Any
    """None also where there is no default."""
    takes: str
    """What values there are, in words."""
    metavar: str
    """The same as command lines write it; empty for a switch."""
    choices: tuple[str, ...] = ()
    is_list: bool = False

    @property
    def is_number(self) -> bool:
        """Whether a number is among what it takes."""
        return not self.is_list and any(word in self.metavar.split("|") for word in ("INTEGER", "NUMBER"))

    @property
    def flag(self) -> str:
        """Its flag on the command line; `from` is a word of Python's, which no field can be called."""
        return "--from" if self.name == "start" else f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return PREFIX + self.name.upper()


@cache
def describe() -> tuple[Setting, ...]:
    """Return every setting in the order of `Settings`."""
    return tuple(map(_setting, inspect.type_info(Settings).fields))  # type: ignore[attr-defined]


def _setting(field: Any) -> Setting:
    kinds = _kinds(field.type)
    takes, metavars = zip(*(_words(kind) for kind in kinds), strict=True)
    return Setting(
        field.name,
        field.type.extra_json_schema["description"],
        None if field.default is msgspec.NODEFAULT else field.default,
        " or ".join(takes),
        "|".join(filter(None, metavars)),
        tuple(word for kind in kinds for word in _named(kind)),
        isinstance(kinds[0], inspect.VarTupleType),
    )


def _kinds(kind: Any) -> list[Any]:
    if isinstance(kind, inspect.Metadata):
        return _kinds(kind.type)
    if isinstance(kind, inspect.UnionType):
        return [one for member in kind.types for one in _kinds(member)]
    return [] if isinstance(kind, inspect.NoneType) else [kind]


def _words(kind: Any) -> tuple[str, str]:
    words: dict[Any, Callable[[], tuple[str, str]]] = {
        inspect.StrType: lambda: (" or ".join(_named(kind)) or "text", "|".join(_named(kind)) or "TEXT"),
        inspect.VarTupleType: lambda: ("a list of texts", "TEXT,..."),
        inspect.BoolType: lambda: ("true or false", ""),
        inspect.LiteralType: lambda: (" or ".join(kind.values), "|".join(kind.values)),
        inspect.IntType: lambda: (f"a whole number{_range(kind)}", "INTEGER"),
        inspect.FloatType: lambda: (f"a number{_range(kind)}", "NUMBER"),
    }
    return words[type(kind)]()


def _named(kind: Any) -> tuple[str, ...]:
    """Return the words that can be chosen: those of a literal, or of a pattern that lists them."""
    if isinstance(kind, inspect.LiteralType):
        return tuple(map(str, kind.values))
    pattern = getattr(kind, "pattern", None) or ""
    return tuple(word.partition("(")[0] for word in pattern.strip("^()$").split("|") if word)


def _range(kind: Any) -> str:
    words = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}
    limits = [f"{word} {getattr(kind, key):g}" for key, word in words.items() if getattr(kind, key) is not None]
    return f" {' and '.join(limits)}" if limits else ""
