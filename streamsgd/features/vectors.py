"""Columns of vectors: fixed-size lists of numbers, each item a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.data.types import WHAT, fits
from streamsgd.errors import DataError
from streamsgd.features.arrow import as_float, nth_item
from streamsgd.features.column import NoValuesError
from streamsgd.features.moments import farthest
from streamsgd.features.numbers import NumberProfile, Numbers, number_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamsgd.features.column import Candidate, Limits


@dataclass
class VectorProfile:
    """What a sample says of every item of the vectors."""

    items: list[NumberProfile]

    def join(self, other: VectorProfile) -> None:
        """Take in what another one saw."""
        for mine, further in zip(self.items, other.items, strict=True):
            mine.join(further)


class Vectors(Numbers):
    """Fixed-size lists of numbers; the encoder is that of numbers, so that both are written by one call."""

    name = "vector"
    what = WHAT["vector"]

    def accepts(self, kind: Any, asked: str | None) -> bool:
        """Take fixed-size lists of numbers."""
        return asked in (None, self.name) and fits("vector", kind)

    def profile(self, column: Any, limits: Limits) -> Any:
        """Return the profile of every item."""
        items = []
        for k in range(column.type.list_size):
            items.append(NumberProfile(max(1, limits.values)))
            items[-1].add(np.asarray(as_float(nth_item(column, k))))
        return VectorProfile(items)

    def choose(self, column: Candidate, profile: Any) -> list[Any]:
        """Return the numbers of every item.

        Raises
        ------
        DataError
            An item has the name of another column.

        """
        names = [f"{column.name}[{k}]" for k in range(len(profile.items))]
        both = [name for name in names if name in column.features]
        if both:
            raise DataError(
                f"numbers of the lists {column.name!r} and the column {both[0]!r} would have one name; rename one, or leave "
                f"it out with --exclude '{both[0]}'"
            )
        if not any(item.raw.n for item in profile.items) and not _holds_numbers(column):
            raise NoValuesError(column.name)
        items = enumerate(zip(names, profile.items, strict=True))
        return [config for k, (name, seen) in items for config in number_columns(column, name, k, seen)]

    def check(self, configs: Sequence[Any], schema: Any, data: str) -> None:
        """Refuse other columns, and vectors of another size."""
        super().check(configs, schema, data)
        sizes: dict[str, int] = {}
        for config in configs:
            sizes[config.column] = max(sizes.get(config.column, 0), config.item + 1)
        for name, size in sizes.items():
            found = schema.field(name).type.list_size
            if found != size:
                raise DataError(f"column {name!r} of {data} has lists of {found} numbers; the model needs {size}")

    def why(self, profile: Any, *, whole: bool) -> str:
        """Say how many items there are, and how far out their values."""
        off = max((farthest(item.raw) for item in profile.items), default=0.0)
        return f"{len(profile.items):,} numbers; the farthest value is {off:.1f} deviations off"


def _holds_numbers(column: Candidate) -> bool:
    """Whether any vector of the whole column holds a number."""
    items = range(column.type.list_size)
    return any(np.isfinite(np.asarray(as_float(nth_item(some, k)))).any() for some in column.scan() for k in items)
