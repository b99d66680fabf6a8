"""The short way for rows of numbers and categories with one score: weights looked up at once, nothing else called.

It returns None for a row that holds anything but integers, floats, strings and None, or that lacks a column: the general way of
`served` has it then, or its error.
"""

from __future__ import annotations

from bisect import bisect_right
from math import inf, log1p
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from streamsgd.serving.hashing import NULL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamsgd.serving.columns import Number, Reader, Space
    from streamsgd.serving.hashing import Lanes


class Categories(NamedTuple):
    """The categories of an encoding, by how they are looked up."""

    bins: dict[str, list[dict[str, Any]]]
    """Bins of numbers, by column."""
    texts: list[dict[str, Any]]
    """Strings whose values have weights of their own."""
    hashed: list[tuple[str, Callable[[Any], bytes | None]]]
    """Strings that share the hashed space, and what reads others than strings."""
    lanes: Lanes | None
    space: Space
    other: bool
    """Whether there are others."""


def sort_categories(
    configs: Sequence[dict[str, Any]], readers: dict[str, Reader], hashed: list[Any], lanes: Lanes | None, space: Space
) -> Categories:
    """Return the categories by how they are looked up."""
    bins: dict[str, list[dict[str, Any]]] = {}
    texts, other = [], False
    for config in configs:
        means = readers[config["column"]].means
        if config["edges"]:
            bins.setdefault(config["column"], []).append(config)
        elif config["values"] and means == "text":
            texts.append(config)
        elif config["values"] or config["part"] or means != "text":
            other = True
    return Categories(bins, texts, hashed, lanes, space, other)


def text_of(value: Any, read: Callable[[Any], bytes | None]) -> bytes:
    """Return the bytes by which a value of a hashed column is known."""
    if type(value) is str:
        return value.encode()
    found = read(value)
    return NULL if found is None else found


def _number(
    name: str, numbers: Sequence[Number], bins: Sequence[dict[str, Any]], weights: Any, most: float
) -> tuple[str, float, float, float, bool, float, float, Sequence[float], list[float], float] | None:
    """Return a column's least infinite number, its shift, its weight per unit, the same of its logarithm, its bins and theirs.

    And what None comes to.

    None if it has several of one of these, or may not be missing.
    """
    plain = [number for number in numbers if not number.logs]
    logs = [number for number in numbers if number.logs]
    if len(plain) > 1 or len(logs) > 1 or len(bins) > 1 or any(number.forbidden for number in numbers):
        return None
    shift, unit = (plain[0].shift, plain[0].scale * weights[plain[0].place]) if plain else (0.0, 0.0)
    log_shift, log_unit = (logs[0].shift, logs[0].scale * weights[logs[0].place]) if logs else (0.0, 0.0)
    edges = bins[0]["edges"] if bins else ()
    binned = [weights[bins[0]["first"] + k] for k in range(len(edges) + 2)] if bins else [0.0, 0.0]
    absent = sum(number.fill * weights[number.place] for number in numbers) + binned[-1]
    absent += sum(weights[number.flag] for number in numbers if number.flag >= 0)
    least = min([most / number.scale - abs(number.shift) for number in plain], default=inf)
    return name, least, shift, unit, bool(logs), log_shift, log_unit, edges, binned, absent


def fast_path(  # noqa: C901  the same
    numbers: Sequence[Any], categories: Categories, weights: Any, most: float
) -> Callable[[dict[str, Any]], float | None] | None:
    """Return what scores a row, or None if these columns need the general way.

    Parameters
    ----------
    numbers
        As of `Served`: for each column its name, whether it means numbers, its reader, and what it becomes.
    categories
        As sorted.
    weights
        In one dimension, the intercept's last.
    most
        Encoded numbers from here on are infinite.

    """
    bins = dict(categories.bins)
    made = [_number(name, became, bins.pop(name, ()), weights, most) for name, _, _, became in numbers]
    if bins or None in made or not all(plain for _, plain, _, _ in numbers):
        return None
    columns = [each for each in made if each is not None]
    texts = [(config["column"], *_looked_up(config, weights)) for config in categories.texts]
    intercept, lanes, (first, mask) = weights[-1], categories.lanes, categories.space
    hashed_weight = weights[first : first + mask + 1].__getitem__
    names = [name for name, _ in categories.hashed]
    several = itemgetter(*names) if len(names) > 1 else lambda row: tuple(row[name] for name in names)

    def score(row: dict[str, Any]) -> float | None:
        total = intercept
        try:
            for name, least, shift, unit, logs, log_shift, log_unit, edges, binned, absent in columns:
                x = row[name]
                if x is None:
                    total += absent
                    continue
                kind = type(x)
                if not ((kind is int or kind is float) and -least < x < least):
                    return None
                total += (x - shift) * unit
                if logs:
                    total += ((log1p(x) if x >= 0 else -log1p(-x)) - log_shift) * log_unit
                total += binned[bisect_right(edges, x)]
            for name, known, other in texts:
                x = row[name]
                weight = known.get(x)
                if weight is None:
                    if type(x) is not str:
                        return None
                    weight = other
                total += weight
            if lanes is not None:
                # What is neither a string nor None has no `encode`.
                found = lanes.hash([NULL if x is None else x.encode() for x in several(row)])
                total += sum(map(hashed_weight, found))
        except (KeyError, TypeError, AttributeError, OverflowError, ValueError):
            return None
        return total if -inf < total < inf else None

    return score


def _looked_up(config: dict[str, Any], weights: Any) -> tuple[dict[str | None, float], float]:
    """Return the weights of values and of None, and that of any other value."""
    first, values = config["first"], config["values"]
    known = {value: weights[first + k] for k, value in enumerate(values)}
    return {**known, None: weights[first + len(values)]}, weights[first + len(values) + 1]
