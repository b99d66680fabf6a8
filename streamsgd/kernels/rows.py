"""Layouts of a block's rows: how row i meets the weights.

A layout is a NamedTuple of arrays with four functions; the last weight of each output belongs to the intercept.
Weights and gradients are flat arrays of `n_slots * n_outputs` numbers ordered [slot][output], so that the outputs
of a slot share a cache line.

dot(rows, i, weights)                     score of row i, one output
add(rows, i, slope, grad)                 grad += slope * row i, one output
dots(rows, i, weights, scores)            scores (n_outputs,) of row i
adds(rows, i, slopes, grad)               grad += row i (x) slopes
ahead(rows, i)                            ask for row i, which will be needed soon
"""

from typing import Any, NamedTuple

from streamsgd.kernels.memory import LINE, address_of, touch

OWN = 2
"""Columns of a dense row that are not features: its target and its weight."""


class Dense(NamedTuple):
    """Every row has a number in every column.

    A row ends in its target and its weight, so that it is one run of memory: with three arrays side by side, reading many
    tiles at once costs 150 ns per row, with one 60.
    """

    values: Any
    """float32 or float64, shape (n_rows, n_columns + 2), C order."""

    def dot(rows, i, weights):
        values = rows.values
        n_columns = values.shape[1] - OWN
        score = weights[n_columns]
        for j in range(n_columns):
            score += values[i, j] * weights[j]
        return score

    def add(rows, i, slope, grad):
        values = rows.values
        n_columns = values.shape[1] - OWN
        for j in range(n_columns):
            grad[j] += slope * values[i, j]
        grad[n_columns] += slope

    def dots(rows, i, weights, scores):
        values = rows.values
        n_columns = values.shape[1] - OWN
        n = scores.shape[0]
        for k in range(n):
            scores[k] = weights[n_columns * n + k]
        for j in range(n_columns):
            for k in range(n):
                scores[k] += values[i, j] * weights[j * n + k]

    def adds(rows, i, slopes, grad):
        values = rows.values
        n_columns = values.shape[1] - OWN
        n = slopes.shape[0]
        for j in range(n_columns):
            for k in range(n):
                grad[j * n + k] += slopes[k] * values[i, j]
        for k in range(n):
            grad[n_columns * n + k] += slopes[k]

    def ahead(rows, i):
        values = rows.values
        at = address_of(values) + i * values.shape[1] * values.itemsize
        touch(at)
        touch(at + LINE)
