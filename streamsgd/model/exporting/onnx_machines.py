"""What ONNX says of models that are not linear: the score of a row from the parameters of its entries."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.kernels.models.machines import compiled

if TYPE_CHECKING:
    from collections.abc import Sequence

UNITS = {"relu": "Relu", "tanh": "Tanh", "logistic": "Sigmoid", "identity": "Identity"}
"""Operators, by activation."""


def machine_score(graph: Any, entries: Sequence[str], places: Sequence[int]) -> str:
    """Add what makes a score; return its name, (n_rows, 1).

    Parameters
    ----------
    graph
        That entries stand in, a `model.exporting.onnx.Graph`.
    entries
        The intercept's parameters, (1, width), then those of every entry times its factor, (n_rows, width).
    places
        Of the entries behind the intercept.

    """
    model = graph.model
    form = compiled(model.structure, columns=model.encoding.n_places)
    behind = model.weights[model.encoding.n_coordinates :].astype(np.float64).ravel()
    if hasattr(form, "k"):
        return _factored(graph, entries, places, form, behind)
    return _network(graph, entries, behind)


def _factored(graph: Any, entries: Sequence[str], places: Sequence[int], form: Any, behind: np.ndarray) -> str:
    """Return w0 + sum w_i x_i + the sum over pairs of r <v_i, v_j> x_i x_j; r is 1 where a model has none."""
    one, int64 = graph.constant([1], np.int64), np.int64
    stacked = graph.node("Concat", [graph.node("Unsqueeze", [entry, one]) for entry in entries[1:]], axis=1)

    def columns(of: str, first: int, last: int, axis: int) -> str:
        return str(graph.node("Slice", [of, *(graph.constant([value], int64) for value in (first, last, axis))]))

    linear = graph.node("ReduceSum", [columns(stacked, 0, 1, 2), one], keepdims=0)
    factors = columns(stacked, 1, 1 + form.k, 2)
    mixed = graph.node("MatMul", [graph.constant(_pairs(places, form, behind)), factors])
    both = graph.node("Mul", [factors, mixed])
    twice = graph.node("ReduceSum", [graph.node("ReduceSum", [both, graph.constant([2], int64)], keepdims=0), one], keepdims=1)
    half = graph.node("Mul", [twice, graph.constant(0.5)])
    sums = graph.node("Add", [columns(entries[0], 0, 1, 1), linear])
    weighted = graph.node("Mul", [sums, graph.constant(float(form.linear))])
    return str(graph.node("Add", [weighted, half]))


def _pairs(places: Sequence[int], form: Any, behind: np.ndarray) -> np.ndarray:
    """Return the weights of pairs of entries, (n, n), of which none is paired with itself."""
    n = len(places)
    found = np.ones((n, n))
    if form.beyond():
        columns = form.columns
        whole = np.zeros((columns, columns))
        whole[np.triu_indices(columns)] = behind[: form.beyond()]
        whole += np.triu(whole, 1).T
        found = whole[np.ix_(places, places)]
    np.fill_diagonal(found, 0.0)
    return found


def _network(graph: Any, entries: Sequence[str], behind: np.ndarray) -> str:
    """Return the last of the layers over the sum of the entries."""
    structure = graph.model.structure
    units = graph.node("Sum", entries) if len(entries) > 1 else entries[0]
    at = 0
    for before, size in pairwise([*map(int, structure.hidden.split("-")), 1]):
        units = graph.node(UNITS[structure.activation], [units])
        weights, offsets = behind[at : at + before * size], behind[at + before * size : at + (before + 1) * size]
        units = graph.node("MatMul", [units, graph.constant(weights.reshape(before, size))])
        units = graph.node("Add", [units, graph.constant(offsets)])
        at += (before + 1) * size
    return units
