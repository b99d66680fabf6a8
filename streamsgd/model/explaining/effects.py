"""What a number does to the score over its range: its weight, its logarithm and its bins together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from streamsgd.data.types import arrow_type
from streamsgd.errors import StreamSGDError
from streamsgd.features.categories import CategoryColumn
from streamsgd.model.explaining.contributions import Contributions

if TYPE_CHECKING:
    from streamsgd.features.numbers import NumberColumn
    from streamsgd.model.model import Model

POINTS = 81
"""Of a curve."""

DEVIATIONS = 3.0
"""To either side of where a column without bins is usual."""

MOST_NUMBERS = 1 << 17
"""In a row, vectors included, beyond which there are no curves: the other columns are there for every point of one."""


class Effect(NamedTuple):
    """A curve."""

    column: str
    x: np.ndarray
    """(n,), in units of the column."""
    score: np.ndarray
    """(n, n_outputs): what the column adds to the score, in units of the target where it is a number."""


def numeric_effects(model: Model, most: int = 12) -> list[Effect]:
    """Return the curves of the plain numbers that move the score most, the strongest first.

    None where missing values are an error, since the other columns are left empty, or where a column is of no known type.
    """
    kinds = {column.name: arrow_type(column) for column in model.encoding.types}
    if not kinds.keys() >= set(model.encoding.sources) or sum(map(_length, kinds.values())) > MOST_NUMBERS:
        return []
    found = []
    for config in model.encoding.columns:
        kind = kinds.get(config.column)
        if config.item >= 0 or kind is None or not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            continue
        try:
            found.append(_effect(model, config, kinds))
        except (StreamSGDError, pa.ArrowInvalid):
            return []
    return sorted(found, key=lambda effect: -float(np.ptp(effect.score, axis=0).max(initial=0.0)))[:most]


def _length(kind: Any) -> int:
    """Return the numbers of a value of this type."""
    return int(kind.list_size) if pa.types.is_fixed_size_list(kind) else 1


def _effect(model: Model, config: NumberColumn, kinds: dict[str, Any]) -> Effect:
    x, kind = _range(model, config), kinds[config.column]
    if pa.types.is_integer(kind):
        x = np.unique(np.round(x))
    table = pa.table(
        {
            name: pa.array(x).cast(kind) if name == config.column else pa.nulls(len(x), kinds[name])
            for name in model.encoding.sources
        }
    )
    block, _pools = model.encode(table)
    parts = Contributions(model)
    scores = parts.matrix(block, 0, len(x))[:, parts.columns.index(config.column)]
    return Effect(config.column, x, scores / (model.target.scale if model.target.task == "regression" else 1.0))


def _range(model: Model, config: NumberColumn) -> np.ndarray:
    """Return values over the range of a column: that of its bins, else some deviations."""
    bins = [c for c in model.encoding.categories if isinstance(c, CategoryColumn) and c.edges and c.column == config.column]
    if bins:
        edges = bins[0].edges
        slack = (edges[-1] - edges[0]) / 20 or 1.0
        return np.linspace(edges[0] - slack, edges[-1] + slack, POINTS)
    z = np.linspace(config.shift - DEVIATIONS / config.scale, config.shift + DEVIATIONS / config.scale, POINTS)
    values: np.ndarray = np.sign(z) * np.expm1(np.abs(z)) if config.transform == "log1p" else z
    return values
