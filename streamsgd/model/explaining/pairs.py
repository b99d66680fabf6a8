"""What a factorization machine says of pairs: which columns, and which of their named values, matter most together.

What a pair of columns adds to a score is r x_i x_j <v_i, v_j> for the values i and j of a row. Its size is the root of the mean
square, for a value of each drawn alone: with C = mean v v' of a column's values, r^2 tr(C_a C_b). Values count as often as they
were counted in training, those of one-hot columns alike, and numbers as one standard deviation. Of hashed columns it is that of
the values that the model names. The work is bounded: pairs of `MOST_VALUES` values a column, of `MOST_PAIRS` pairs of columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamsgd.features.encoder import Encoder
from streamsgd.kernels.models.machines import compiled

if TYPE_CHECKING:
    from streamsgd.model.model import Model

MOST_VALUES = 512
"""Values of a column whose pairs are compared: those with the longest factors."""

MOST_PAIRS = 16
"""Pairs of columns whose values are compared."""

TOP = 20
"""Pairs that are returned, if nobody says."""


class Side(NamedTuple):
    """One place of a row: a number, a category, a cross, or a column of lists."""

    name: str
    place: int
    values: list[str]
    """Named ones; one empty text of a number."""
    factors: np.ndarray
    """float64 (n_values, k)."""
    shares: np.ndarray
    """float64 (n_values,), of sum 1."""

    @property
    def moments(self) -> np.ndarray:
        """The mean of v v', (k, k)."""
        found: np.ndarray = (self.factors * self.shares[:, None]).T @ self.factors
        return found


def strongest_pairs(model: Model, top: int = TOP) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the strongest pairs of columns and of values, as plain JSON values.

    Of columns `columns`, `strength` and, where the model has one, `weight` of the pair; of values `columns`, `values` and what
    they `add`: in units of the score, which in regression are those of the target.
    """
    sides, unit = _sides(model), 1.0 / model.target.scale if model.target.task == "regression" else 1.0
    weights = _pair_weights(model)
    moments = np.array([side.moments.ravel() for side in sides]).reshape(len(sides), -1)
    places = [side.place for side in sides]
    size = np.sqrt(np.maximum(moments @ moments.T, 0.0)) * np.abs(weights[np.ix_(places, places)]) * unit
    rows, columns = np.triu_indices(len(sides), 1)
    order = np.lexsort((columns, rows, -size[rows, columns]))[: max(top, MOST_PAIRS)]
    pairs = [(sides[rows[k]], sides[columns[k]]) for k in order]
    told = [
        {
            "columns": [a.name, b.name],
            "strength": float(size[rows[k], columns[k]]),
            **({"weight": float(weights[a.place, b.place])} if hasattr(compiled_of(model), "columns") else {}),
        }
        for k, (a, b) in zip(order, pairs, strict=True)
        if size[rows[k], columns[k]] > 0.0
    ]
    values = [entry for a, b in pairs[:MOST_PAIRS] for entry in _of_values(a, b, float(weights[a.place, b.place]) * unit, top)]
    values.sort(key=lambda entry: -abs(entry["add"]))
    return told[:top], values[:top]


def compiled_of(model: Model) -> Any:
    """Return the model as kernels take it."""
    return compiled(model.structure, columns=model.encoding.n_places)


def _pair_weights(model: Model) -> np.ndarray:
    """Return the weight of every pair of places, (n, n); 1 where a model has none."""
    n, form = model.encoding.n_places, compiled_of(model)
    if not form.beyond():
        return np.ones((n, n))
    whole = np.zeros((n, n))
    whole[np.triu_indices(n)] = model.weights[model.encoding.n_coordinates :].ravel()[: form.beyond()]
    found: np.ndarray = whole + np.triu(whole, 1).T
    return found


def _sides(model: Model) -> list[Side]:
    """Return the places that have named values, each with the longest factors first."""
    encoding, sides = model.encoding, list[Side]()
    v = model.weights[: encoding.n_coordinates, 1:].astype(np.float64)
    for j, number in enumerate(encoding.numbers):
        if number.scale is not None:
            sides.append(Side(number.name, j, [""], v[j : j + 1], np.ones(1)))
    named: dict[str, list[Any]] = {}
    for kind in Encoder(encoding).kinds:
        for label in kind.labels(model.common):
            named.setdefault(label[0], []).append(label)
    for name, place in encoding.places.items():
        if labels := named.get(name):
            coordinates = np.array([label[2] for label in labels])
            counts = np.array([label[3] for label in labels], np.float64)
            shares = counts / counts.sum() if counts.any() else np.full(len(labels), 1.0 / len(labels))
            factors = v[coordinates]
            longest = np.argsort(-(factors**2).sum(axis=1), kind="stable")
            sides.append(Side(name, place, [str(labels[k][1]) for k in longest], factors[longest], shares[longest]))
    return sides


def _of_values(a: Side, b: Side, weight: float, top: int) -> list[dict[str, Any]]:
    """Return the strongest pairs of values of two columns; of two numbers none, which would be the pair of columns again."""
    if a.values == [""] and b.values == [""]:
        return []
    added = weight * a.factors[:MOST_VALUES] @ b.factors[:MOST_VALUES].T
    order = np.argsort(-np.abs(added), axis=None, kind="stable")[:top]
    places = (np.unravel_index(int(k), added.shape) for k in order)
    return [
        {"columns": [a.name, b.name], "values": [a.values[i] or None, b.values[j] or None], "add": float(added[i, j])}
        for i, j in places
        if added[i, j] != 0.0
    ]
