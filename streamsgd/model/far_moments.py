"""Moments far beyond those that training saw: evaluating counts them, for the line through those seen goes on there."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from streamsgd.data.types import fits, parse_type
from streamsgd.features.numbers import MOST_DEVIATIONS, NumberColumn
from streamsgd.messages import few
from streamsgd.settings.policies import policy_of

if TYPE_CHECKING:
    from streamsgd.kernels.structs.block import Block
    from streamsgd.model.predictor import Predictor

log = logging.getLogger("streamsgd")

BOUNDED = ("standard", "max-abs")
"""Scalings by which no encoded value of the first look is beyond `MOST_DEVIATIONS`."""


def moments_of(model: Predictor) -> dict[str, int]:
    """Return the columns of moments that are numbers, and their places in a row."""
    scale = tuple(model.settings.get("scale", ()))
    return {column.column: place for place, column in enumerate(model.encoding.columns) if _is_bounded_moment(column, scale)}


def _is_bounded_moment(column: NumberColumn, scale: tuple[str, ...]) -> bool:
    plain = column.item < 0 and column.transform == "none" and policy_of("scale", scale, column.column) in BOUNDED
    kind = parse_type(column.type) if plain else None
    return kind is not None and fits("moment", kind)


@dataclass
class FarMoments:
    """How many rows have moments far beyond those seen, by column."""

    rows: int = 0
    far: dict[str, int] = field(default_factory=dict)
    places: dict[str, int] | None = None
    """Of the columns in a row of the model, once one was seen."""

    def add(self, model: Predictor, block: Block, start: int, stop: int) -> None:
        """Count rows start to stop of a block."""
        self.rows += stop - start
        if self.places is None:
            self.places = moments_of(model)
        for name, place in self.places.items():
            values = block.rows.values[start:stop, place]
            self.far[name] = self.far.get(name, 0) + int(np.count_nonzero(np.abs(values) > MOST_DEVIATIONS))

    def merge(self, other: FarMoments) -> None:
        """Add what another one counted."""
        self.rows += other.rows
        for name, n in other.far.items():
            self.far[name] = self.far.get(name, 0) + n

    def say(self) -> None:
        """Say it, where there are such rows."""
        told = [f"{name!r} in {n:,} of {self.rows:,} rows" for name, n in self.far.items() if n]
        if told:
            name = next(name for name, n in self.far.items() if n)
            log.warning(
                "moments beyond those that training saw by more than %g deviations, where what it learned of them goes on as a "
                "line: %s; train without them (--exclude '%s'), or with bins alone (--transform '%s=bins')",
                *(MOST_DEVIATIONS, few(told), name, name),
            )
