"""Scores of models that are not linear: the plain Python of `kernels.models`, of the entries of one row."""

from __future__ import annotations

import math
from itertools import pairwise
from operator import add, mul
from typing import TYPE_CHECKING, Any

from streamsgd.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Entries = Sequence[tuple[int, float, int]]
    """Coordinates, factors and places of a row, without the intercept."""
    Score = Callable[[Entries], float]


def scorer(said: dict[str, Any], weights: Any, width: int, n_places: int) -> Score:
    """Return what makes the score of a row.

    Parameters
    ----------
    said
        What a file says of the model: its `name` and `fields`.
    weights
        float32 or float64, in one dimension, in rows of `width`: one of each coordinate, the intercept's last, then what
        belongs to none.
    width, n_places
        Parameters of a coordinate, and places of a row: numbers, categories, crosses, columns of lists.

    Raises
    ------
    ModelError
        The model is not streamsgd's.
    ValueError
        It does not fit the weights.

    """
    if said["name"] not in MAKERS:
        raise ModelError(f"the model {said['name']} is not streamsgd's, and serving runs no code of others: use streamsgd.load")
    return MAKERS[said["name"]](said["fields"], weights, width, n_places)


def _rows(weights: Any, width: int, beyond: int) -> int:
    """Return the coordinates of weights behind which so many more stand."""
    n = len(weights) // width + -beyond // width
    if n < 1:
        raise ValueError("there are fewer weights than the model has")
    return n


def _check_machine(fields: dict[str, Any], width: int) -> tuple[int, float]:
    """Return the factors of a value, and what weights are multiplied by."""
    if width != 1 + fields["k"]:
        raise ValueError(f"{width} parameters of a value do not fit k={fields['k']}")
    return int(fields["k"]), float(fields["linear"] == "with")


def factored(fields: dict[str, Any], weights: Any, width: int, _n_places: int) -> Score:
    """Return the score of `models.machines.Factored`: a pair of entries adds the product of their factors."""
    k, linear = _check_machine(fields, width)
    intercept = linear * weights[(_rows(weights, width, 0) - 1) * width]

    def score(entries: Entries) -> float:
        total, joint, squares = intercept, [0.0] * k, 0.0
        for j, x, _place in entries:
            weight, *factors = weights[j * width : (j + 1) * width]
            total += linear * weight * x
            parts = [v * x for v in factors]
            joint = list(map(add, joint, parts))
            squares += sum(map(mul, parts, parts))
        found: float = total + 0.5 * (sum(map(mul, joint, joint)) - squares)
        return found

    return score


def pair_weighted(fields: dict[str, Any], weights: Any, width: int, n_places: int) -> Score:
    """Return the score of `models.pairs.PairWeighted`: products are multiplied by the weight of a pair of places."""
    _, linear = _check_machine(fields, width)
    n = _rows(weights, width, n_places * (n_places + 1) // 2)
    intercept, pairs = linear * weights[(n - 1) * width], weights[n * width :]

    def score(entries: Entries) -> float:
        total, before = intercept, list[tuple[int, list[float]]]()
        for j, x, high in sorted(entries, key=_place):
            weight, *factors = weights[j * width : (j + 1) * width]
            total += linear * weight * x
            parts = [v * x for v in factors]
            for low, others in before:
                total += pairs[low * (2 * n_places - low - 1) // 2 + high] * sum(map(mul, parts, others))
            before.append((high, parts))
        return float(total)

    return score


def _place(entry: tuple[int, float, int]) -> int:
    return entry[2]


ACTIVATIONS: dict[str, Callable[[float], float]] = {
    "relu": lambda z: max(z, 0.0),
    "tanh": math.tanh,
    "logistic": lambda z: 1.0 / (1.0 + math.exp(-z)) if z > -700.0 else 0.0,
    "identity": lambda z: z,
}


def network(fields: dict[str, Any], weights: Any, width: int, _n_places: int) -> Score:
    """Return the score of `models.networks.Network`: layers of hidden units over the sum of the rows of entries."""
    activate, sizes = ACTIVATIONS[fields["activation"]], [*map(int, fields["hidden"].split("-")), 1]
    if sizes[0] != width:
        raise ValueError(f"{width} parameters of a value do not fit hidden={fields['hidden']}")
    n = _rows(weights, width, sum((a + 1) * b for a, b in pairwise(sizes)))
    biases, at, layers = list(weights[(n - 1) * width : n * width]), n * width, []
    for before, size in pairwise(sizes):
        end = at + before * size
        layers.append(([list(weights[at + h : end : size]) for h in range(size)], list(weights[end : end + size])))
        at = end + size

    def score(entries: Entries) -> float:
        units = biases
        for j, x, _place in entries:
            if x != 0.0:
                units = [unit + x * w for unit, w in zip(units, weights[j * width : (j + 1) * width], strict=True)]
        for columns, offsets in layers:
            found = list(map(activate, units))
            units = [offset + sum(map(mul, found, column)) for column, offset in zip(columns, offsets, strict=True)]
        return float(units[0])

    return score


MAKERS: dict[str, Callable[[dict[str, Any], Any, int, int], Score]] = {
    "fm": factored,
    "fwfm": pair_weighted,
    "mlp": network,
}
"""By the name of a model."""
