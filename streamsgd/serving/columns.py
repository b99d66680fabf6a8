"""Columns of an encoding as functions of one row, each of which adds to its score: the plain Python of `features`."""

from __future__ import annotations

import logging
import math
import re
import struct
from bisect import bisect_right
from typing import TYPE_CHECKING, Any, NamedTuple

from streamsgd.errors import DataError
from streamsgd.serving.exact import MOST_DIGITS, TOLD, check_told
from streamsgd.serving.hashing import NULL, absorb_all, finish, murmur
from streamsgd.serving.values import as_number, as_text, check_midnight, check_zone, moment_in, part, refusal, zone_named
from streamsgd.settings.scalars import USUAL, plain

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable

    Entries = list[tuple[int, float]]
    """Coordinates and factors."""

log = logging.getLogger("streamsgd")

SIZES = {"hour": 24, "weekday": 7, "month": 12}
"""Values of each part of a moment, as in `features.calendar`."""


class Space(NamedTuple):
    """The hashed space."""

    first: int
    mask: int


class Number(NamedTuple):
    """One encoded number of a column."""

    place: int
    flag: int
    """Coordinate of what is 1 where it is missing, or -1."""
    shift: float
    scale: float
    fill: float
    logs: bool
    item: int
    """Which number of a vector it is, or -1."""
    forbidden: bool
    """Whether it may not be missing."""

    def entry(self, name: str, x: float, *, infinite: bool, most: float) -> float:
        """Return the encoded value of a number, NaN where missing; `infinite` is whether those from `most` on are missing.

        Raises
        ------
        DataError
            It is infinite, or missing, and may not be.

        """
        z = x
        if self.logs:
            z = math.copysign(math.log1p(abs(x)), x)
        z = (z - self.shift) * self.scale
        if -most < z < most:
            return z
        if x != x:  # noqa: PLR0124  NaN
            if self.forbidden:
                raise DataError(f"the row's {name!r} is missing, which --missing error forbids in training and after it")
        elif not infinite:
            raise DataError(f"the row's {name!r} is infinite; clean it, or train with --infinite missing")
        return self.fill


class Reader(NamedTuple):
    """Reads a column of a row as what it meant in training."""

    name: str
    means: str
    of: str
    zone: bool
    size: int
    says_moments: bool = False
    """Whether texts say moments, as in training."""
    nulls: frozenset[float] = frozenset()
    """Numbers that are missing."""
    told: list[str] = []  # noqa: RUF012
    """The first text that said no moment, of which there was word."""
    stored: str = ""
    """What type of number it held in training, of a list its elements; '' if none."""

    def number(self, value: Any) -> float:
        """Return it as a number, NaN for null."""
        found: float = self._checked(as_number, value)
        return math.nan if found in self.nulls else found

    def text(self, value: Any) -> bytes | None:
        """Return the bytes by which it is known."""
        found: bytes | None = self._checked(self._as_text, value)
        return found

    def _as_text(self, value: Any, means: str) -> bytes | None:
        if self.stored:
            value = float(value) if type(value) is int and abs(value) >= 10**MOST_DIGITS else value  # as Arrow has it
            check_told(value, self.stored)
            value = plain(value)
            if isinstance(value, float) and value != value and self.stored not in TOLD:  # noqa: PLR0124  NaN
                return None
        return as_text(value, means)

    def part(self, value: Any, which: str, zone: dt.tzinfo | None) -> int | None:
        """Return a part of it as a moment."""
        found: int | None = self._checked(lambda given, _: part(given, which, zone), value)
        return found

    def _checked(self, read: Callable[[Any, str], Any], value: Any) -> Any:
        try:
            if type(value) not in USUAL or (type(value) is float and self.means != "number"):
                value = self._understood(value)
            if self.says_moments and isinstance(value, str):
                value = self._moment_in(value)
            if self.means in ("instant", "date") and value is not None:
                self._check_moment(value)
            return read(value, self.means)
        except TypeError as error:
            raise refusal(self.name, self.means, error) from error

    def _understood(self, value: Any) -> Any:
        """Return a value as one of Python's; NaN, which pandas has for whatever is missing, is None but in numbers."""
        if self.means == "number" and getattr(value, "itemsize", 8) < 8:
            return value  # what a float says depends on its width
        value = plain(value)
        return None if isinstance(value, float) and value != value and self.means != "number" else value  # noqa: PLR0124

    def _moment_in(self, text: str) -> Any:
        """Return the moment that a text says, None where it says none, of which the first is told."""
        text.encode()  # what is no Unicode is an error, too
        found = moment_in(text, zoned=self.zone)
        if found is None and not self.told:
            self.told.append(text)
            why = f": it has {'no' if self.zone else 'a'} time zone" if moment_in(text, zoned=not self.zone) else ""
            log.warning(
                "the row's %r is %.60r, no moment as training saw them%s; it is missing, as others will be",
                self.name,
                text,
                why,
            )
        return found

    def _check_moment(self, value: Any) -> None:
        if self.means == "date":
            check_midnight(value)
            check_zone(value, False)
        elif hasattr(value, "tzinfo"):
            check_zone(value, self.zone)
        elif self.zone:
            raise TypeError("a date, which has no time zone")

    def numbers(self, value: Any) -> list[float]:
        """Return it as a vector."""
        if (value := whole(value)) is None:
            return [math.nan] * self.size
        try:
            found = [as_number(x, self.of) for x in _items(value)]
        except TypeError as error:
            raise refusal(self.name, self.means, error) from error
        if len(found) != self.size:
            raise DataError(f"the row's {self.name!r} is a list of {len(found)} numbers; the model needs {self.size}")
        return found

    def texts(self, values: list[Any]) -> list[bytes | None]:
        """Return the bytes by which the elements of a list, or the keys of a map, are known."""
        if self.of == "number" and any(isinstance(value, float) for value in values):
            values = [value if value is None else float(value) for value in values]  # as one list of Arrow's
        try:
            self._check_flags(values)
            return [self._as_text(value, self.of) for value in values]
        except TypeError as error:
            raise refusal(self.name, self.means, error) from error

    def _check_flags(self, values: list[Any]) -> None:
        """Refuse booleans among numbers, and the reverse: as categories 1 is not true."""
        odd = [value for value in values if value is not None and isinstance(plain(value), bool) != (self.of == "flag")]
        if odd and self.of in ("number", "flag"):
            raise TypeError(f"a list with {odd[0]!r:.60}")


def _items(value: Any) -> list[Any]:
    if isinstance(value, str | bytes | dict) or not hasattr(value, "__iter__"):
        raise TypeError(f"{value!r:.60} of type {type(value).__name__}")
    return list(value)


# --- categories


def one_hot(config: dict[str, Any], reader: Reader) -> Callable[[Any], int]:
    """Return what gives the coordinate of a value among those that have weights of their own."""
    first, values = int(config["first"]), config["values"]
    places: dict[bytes | None, int] = {value.encode(): first + k for k, value in enumerate(values)}
    places[None] = first + len(values)
    other = first + len(values) + 1

    def place(value: Any) -> int:
        return places.get(reader.text(value), other)

    return place


def binned(config: dict[str, Any], reader: Reader) -> Callable[[Any], int]:
    """Return what gives the coordinate of the bin of a number."""
    edges, first = config["edges"], int(config["first"])
    null, read = first + len(edges) + 1, reader.number

    def place(value: Any) -> int:
        x = read(value)  # infinite ones too have a bin
        return null if x != x else first + bisect_right(edges, x)  # noqa: PLR0124  NaN

    return place


def part_of(config: dict[str, Any], reader: Reader) -> Callable[[Any], int]:
    """Return what gives the coordinate of a part of a moment."""
    first, which, zone = int(config["first"]), config["part"], zone_named(config["zone"])

    def place(value: Any) -> int:
        found = reader.part(value, which, zone)
        return first + (SIZES[which] if found is None else found)

    return place


def hashed(config: dict[str, Any], reader: Reader, space: Space) -> Callable[[Any], int]:
    """Return what gives the coordinate of a value in the hashed space."""
    seed = murmur(config["name"].encode(), 0)

    def place(value: Any) -> int:
        text = reader.text(value)
        return space.first + (murmur(NULL if text is None else text, seed) & space.mask)

    return place


def crossed(config: dict[str, Any], space: Space) -> Callable[[dict[str, int]], int]:
    """Return what gives the coordinate of a combination from the coordinates of its members, by their names."""
    seed, members = murmur(config["name"].encode(), 0), config["members"]

    def place(places: dict[str, int]) -> int:
        h = absorb_all([places[name] for name in members], seed)
        return space.first + (finish(h, 4 * len(members)) & space.mask)

    return place


# --- many values per cell


def whole(value: Any) -> Any:
    """Return a value of many as one of Python's; NaN, which pandas has for a cell without a value, is None."""
    found = plain(value)
    return None if isinstance(found, float) and math.isnan(found) else found


_WORDS = re.compile(rb"[A-Za-z0-9_\x80-\xff]+")


def words(config: dict[str, Any], reader: Reader, space: Space) -> Callable[[Any], Entries]:
    """Return what gives the entries of a text: its words, and sequences of them."""
    seed, longest, fold = murmur(config["name"].encode(), 0), config["longest"], config["fold"]

    def entries(value: Any) -> Entries:
        text = reader.text(value) or b""
        tokens = [murmur(word, seed) for word in _WORDS.findall(_folded(text) if fold else text)]
        found = list(tokens)
        for size in range(2, longest + 1):
            runs = (tokens[k : k + size] for k in range(len(tokens) - size + 1))
            found += [finish(absorb_all(run, seed), 4 * size) for run in runs]
        return [(space.first + (h & space.mask), 1.0) for h in found]

    return entries


def _folded(text: bytes) -> bytes:
    """Return a text in small letters, character by character, as Arrow does; of what is no UTF-8 only ASCII."""
    if text.isascii():
        return text.lower()
    try:
        return "".join([character.lower()[0] for character in text.decode()]).encode()
    except UnicodeDecodeError:
        return text.lower()


def listed(config: dict[str, Any], reader: Reader, space: Space) -> Callable[[Any], Entries]:
    """Return what gives the entries of a list."""
    seed = murmur(config["name"].encode(), 0)

    def entries(value: Any) -> Entries:
        try:
            values = [] if (value := whole(value)) is None else _items(value)
        except TypeError as error:
            raise refusal(reader.name, reader.means, error) from error
        texts = reader.texts(values)
        return [(space.first + (murmur(NULL if text is None else text, seed) & space.mask), 1.0) for text in texts]

    return entries


def mapped(config: dict[str, Any], reader: Reader, space: Space, *, infinite: bool) -> Callable[[Any], Entries]:
    """Return what gives the entries of a map, whose numbers are kept as float32."""
    seed = murmur(config["name"].encode(), 0)

    def entries(value: Any) -> Entries:
        value = whole(value)
        pairs = [] if value is None else list(value.items()) if isinstance(value, dict) else _pairs(reader, value)
        texts = reader.texts([key for key, _ in pairs])
        factors = [_factor(reader, number, infinite=infinite) for _, number in pairs]
        places = [space.first + (murmur(NULL if text is None else text, seed) & space.mask) for text in texts]
        return list(zip(places, factors, strict=True))

    return entries


def _pairs(reader: Reader, value: Any) -> list[tuple[Any, Any]]:
    try:
        return [(key, number) for key, number in _items(value)]
    except (TypeError, ValueError) as error:
        raise refusal(reader.name, reader.means, error) from error


def _factor(reader: Reader, value: Any, *, infinite: bool) -> float:
    try:
        x = as_number(value, "number")
        x = struct.unpack("f", struct.pack("f", x))[0]
    except OverflowError:
        x = math.inf
    except TypeError as error:
        raise refusal(reader.name, reader.means, error) from error
    if math.isinf(x) and not infinite:
        raise DataError(f"the row's {reader.name!r} is infinite; clean it, or train with --infinite missing")
    return x if math.isfinite(x) else 0.0
