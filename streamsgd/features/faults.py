"""What is wrong with an encoding or a target that came from a file: kernels take both at their word."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from streamsgd.data.types import MEANT
from streamsgd.features.calendar import TIME_PARTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streamsgd.features.categories import CategoryColumn
    from streamsgd.features.crosses import Cross
    from streamsgd.features.encoding import Encoding
    from streamsgd.features.hashing import Hashed
    from streamsgd.features.numbers import NumberColumn
    from streamsgd.features.ragged import RaggedColumn
    from streamsgd.features.target import Target

Fault = tuple[str, str]
"""The field and what it is, for "its FIELD WHAT"."""

MOST_COORDINATES = 2**31 - 1
"""Coordinates are int32."""

LEAST_BITS, MOST_BITS = 1, 30
"""Of a hashed space."""

MOST_LONGEST = 8
"""Words in the longest sequence of a text, as `--ngrams` allows."""

MOST_ITEM = 2**31 - 2
"""Fixed-size lists of Arrow have int32 lengths."""

MOST_ENTRIES = 1e9
"""Entries per row of a ragged column, on average."""


def encoding_faults(encoding: Encoding) -> Iterator[Fault]:
    """Yield what would make a kernel read or write beyond its arrays, or a formula fail; nothing for what training made.

    Faults are to be asked for one at a time: those that come later may not be computable where an earlier one is.
    """
    yield from _twice("columns", [column.name for column in encoding.columns])
    yield from _twice("categories", [category.name for category in encoding.categories])
    yield from _twice("tails", [tail.name for tail in encoding.tails])
    for k, column in enumerate(encoding.columns):
        yield from _of_number(f"columns[{k}]", column)
    at = encoding.width + sum(columns.kind.needs(columns.configs).weights for columns in encoding.custom or ())
    for k, category in enumerate(encoding.categories):
        yield from _of_category(f"categories[{k}]", category, at)
        at += category.own
    for k, tail in enumerate(encoding.tails):
        yield from _of_ragged(f"tails[{k}]", tail)
    yield from _twice("types", [column.name for column in encoding.types])
    for k, kept in enumerate(encoding.types):
        if not 0 <= kept.size <= MOST_ITEM:
            yield f"types[{k}].size", f"is {kept.size}, not from 0 to {MOST_ITEM}"
        if kept.of and kept.of not in MEANT:
            yield f"types[{k}].of", f"is {kept.of!r}, none of {', '.join(MEANT)}"
    yield from _of_sentinels(encoding)
    yield from _of_crosses(encoding)
    yield from _of_space(encoding.hashed, at)
    hashed = [category.name for category in encoding.categories if not category.own]
    hashed += [c.name for c in encoding.custom or () if (needs := c.kind.needs(c.configs)).n_hashed or needs.ragged]
    hashed += [tail.name for tail in encoding.tails] + [cross.name for cross in encoding.crosses]
    if hashed and encoding.hashed is None:
        yield "hashed", f"is missing, but {hashed[0]!r} is hashed"
    if encoding.n_coordinates > MOST_COORDINATES:
        yield "columns", f"and others have {encoding.n_coordinates:,} coordinates, more than {MOST_COORDINATES:,}"


def _twice(field: str, names: Sequence[str]) -> Iterator[Fault]:
    seen: set[str] = set()
    for k, name in enumerate(names):
        if name in seen:
            yield f"{field}[{k}].name", f"is {name!r} again"
        seen.add(name)


def _of_number(field: str, column: NumberColumn) -> Iterator[Fault]:
    for name in ("shift", "scale", "fill"):
        if not math.isfinite(getattr(column, name)):
            yield f"{field}.{name}", f"is {getattr(column, name)}, not a finite number"
    if column.scale == 0.0 or not math.isfinite(1.0 / column.scale):
        yield f"{field}.scale", f"is {column.scale}, by which nothing can be divided"
    if not -1 <= column.item <= MOST_ITEM:
        yield f"{field}.item", f"is {column.item}, not -1 or the number of an item"


def _of_category(field: str, category: CategoryColumn, first: int) -> Iterator[Fault]:
    if category.part and category.part not in TIME_PARTS:
        yield f"{field}.part", f"is {category.part!r}, none of {', '.join(TIME_PARTS)}"
    ways = [name for name in ("part", "values", "edges") if getattr(category, name)]
    if len(ways) > 1:
        yield f"{field}.{ways[1]}", f"is there beside {ways[0]}, one of which must be empty"
    yield from _twice(f"{field}.values", category.values)
    if not all(map(math.isfinite, category.edges)) or any(a >= b for a, b in pairwise(category.edges)):
        yield f"{field}.edges", "are not finite and ascending"
    if category.distinct < 0:
        yield f"{field}.distinct", f"is {category.distinct}, below 0"
    if category.first != first:
        yield f"{field}.first", f"is {category.first}, not {first}, where its weights are"


def _of_ragged(field: str, tail: RaggedColumn) -> Iterator[Fault]:
    if not 1 <= tail.longest <= MOST_LONGEST:
        yield f"{field}.longest", f"is {tail.longest}, not from 1 to {MOST_LONGEST}"
    if tail.distinct < 0:
        yield f"{field}.distinct", f"is {tail.distinct}, below 0"
    if not 0.0 <= tail.mean_entries <= MOST_ENTRIES:
        yield f"{field}.mean_entries", f"is {tail.mean_entries}, not from 0 to {MOST_ENTRIES:g}"


def _of_sentinels(encoding: Encoding) -> Iterator[Fault]:
    for k, sentinel in enumerate(encoding.sentinels or ()):
        if sentinel.column not in encoding.sources:
            yield f"sentinels[{k}].column", f"is {sentinel.column!r}, which is no column"
        if not all(map(math.isfinite, sentinel.values)):
            yield f"sentinels[{k}].values", "are not all finite"


def _of_crosses(encoding: Encoding) -> Iterator[Fault]:
    categories = {category.name for category in encoding.categories}
    numbers = {"", *(column.name for column in encoding.columns)}
    for k, cross in enumerate(encoding.crosses):
        strange = [name for name in cross.members if name not in categories]
        if strange or not cross.members:
            yield f"crosses[{k}].members", f"name {strange[0]!r}, which is no category" if strange else "are none"
        if cross.number not in numbers:
            yield f"crosses[{k}].number", f"is {cross.number!r}, which is no number"
    if any(_by_number(a) > _by_number(b) for a, b in pairwise(encoding.crosses)):
        yield "crosses", "have one with a number before one without"


def _by_number(cross: Cross) -> bool:
    return bool(cross.number)


def _of_space(space: Hashed | None, first: int) -> Iterator[Fault]:
    if space is None:
        return
    if not LEAST_BITS <= space.bits <= MOST_BITS:
        yield "hashed.bits", f"is {space.bits}, not from {LEAST_BITS} to {MOST_BITS}"
    if space.first != first:
        yield "hashed.first", f"is {space.first}, not {first}, where its weights are"


def target_faults(target: Target) -> Iterator[Fault]:
    """Yield what makes a target unusable; nothing for what training made."""
    classes, kinds = target.classes, {type(value) for value in target.classes}
    least = {"binary": 2, "multiclass": 2}.get(target.task, 0)
    most = {"binary": 2, "multiclass": MOST_COORDINATES}.get(target.task, 0)
    if not least <= len(classes) <= most:
        yield "classes", f"are {len(classes)}, which a {target.task} target has not"
    if str in kinds and len(kinds) > 1:
        yield "classes", "are partly text, partly not"
    if not all(math.isfinite(value) for value in classes if isinstance(value, float)):
        yield "classes", "are not all finite"
    if any(a >= b for a, b in pairwise(classes)):  # type: ignore[operator]
        yield "classes", "are not sorted, or one is there twice"
    if not math.isfinite(target.shift):
        yield "shift", f"is {target.shift}, not a finite number"
    if not math.isfinite(target.scale) or target.scale <= 0.0 or not math.isfinite(1.0 / target.scale):
        yield "scale", f"is {target.scale}, not a finite number above 0"
