"""Layouts of a block's rows: how row i meets the weights.

A layout is a NamedTuple of arrays; the last weight of each output belongs to the intercept. Weights and gradients are flat
arrays of `n_coordinates * n_outputs` numbers ordered [coordinate][output], so that the outputs of a coordinate share a cache
line. Every layout has

ahead(rows, i)                            ask for row i, which will be needed soon
entries(rows, i, index, x)                fill coordinates and factors of row i, the intercept last; return how many. A
                                          coordinate may come twice: both count. No factor is 0.
places(rows, i, index, count)             fill index[count], index[count + 1] ... with the places of the entries that are
                                          listed: which number, category, cross or column of lists each is from
doubles                                   whether rows may well have two entries of one coordinate

`Dense`, which meets all weights in order, has

dot(rows, i, weights)                     score of row i, one output
add(rows, i, slope, grad)                 grad += slope * row i, one output
dots(rows, i, weights, scores)            scores (n_outputs,) of row i
adds(rows, i, slopes, grad)               grad += row i (x) slopes

while `Mixed` meets a few of millions.
"""

from typing import Any, NamedTuple

from streamsgd.kernels.compile.jit import lean
from streamsgd.kernels.compile.memory import LINE, address_of, load32, load_int32, touch, touch_item
from streamsgd.kernels.compile.verbs import entries


@lean
def take(rows, i, weights, index, x, n_outputs):
    """List the entries of a row and ask for their weights; return how many there are."""
    count = entries(rows, i, index, x)
    for e in range(count):
        touch_item(weights, index[e] * n_outputs)
    return count


OWN = 2
"""Columns of a row that are not features: its target and its weight."""

TAIL = 8
"""Bytes of an entry outside the row: an int32 coordinate and a float32 factor."""


class Dense(NamedTuple):
    """Every row has a number in every column.

    A row ends in its target and its weight, so that it is one run of memory: with three arrays side by side, reading many
    tiles at once costs 150 ns per row, with one 60.
    """

    values: Any
    """float32 or float64, shape (n_rows, n_columns + 2), C order."""
    doubles: bool = False

    def entries(rows, i, index, x):
        values = rows.values
        n_columns = values.shape[1] - OWN
        n = 0
        for j in range(n_columns):
            if values[i, j] != 0.0:
                index[n], x[n] = j, values[i, j]
                n += 1
        index[n], x[n] = n_columns, 1.0
        return n + 1

    def places(rows, i, index, count):
        values = rows.values
        n_columns = values.shape[1] - OWN
        n = count
        for j in range(n_columns):
            if values[i, j] != 0.0:
                index[n] = j
                n += 1
        index[n] = n_columns

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


class Mixed(NamedTuple):
    """Some numbers, one weight per category, and any number of further entries per row.

    A row is a list of entries (coordinate, x) whose sum of weight times x is its score. In memory it is one run: the numbers,
    target and weight, then the coordinates of its categories and crosses as integers of the same size.
    """

    values: Any
    """float32 or float64, shape (n_rows, n_numbers + 2 + n_slots), C order."""
    ids: Any
    """The same memory as int32 or int64."""
    by: Any
    """int32 (n_slots,): the number that a slot's weight is multiplied by, -1 for one: the last are products of both kinds."""
    tails: Any
    """int64 (n_rows, n_tails, 2): where in memory more entries are, and how many; `TAIL` bytes each."""
    n_numbers: int
    n_plain: int
    """Leading slots that are not multiplied."""
    intercept: int
    """Coordinate of the intercept."""
    doubles: bool
    """Whether rows may well have two entries of one coordinate: a word that a text repeats, values of one hash."""

    def entries(rows, i, index, x):
        values, ids = rows.values, rows.ids
        first = rows.n_numbers + OWN
        n = 0
        for j in range(rows.n_numbers):
            if values[i, j] != 0.0:
                index[n], x[n] = j, values[i, j]
                n += 1
        for f in range(rows.n_plain):
            index[n], x[n] = ids[i, first + f], 1.0
            n += 1
        for f in range(rows.n_plain, rows.by.shape[0]):
            if values[i, rows.by[f]] != 0.0:
                index[n], x[n] = ids[i, first + f], values[i, rows.by[f]]
                n += 1
        for k in range(rows.tails.shape[1]):
            at = rows.tails[i, k, 0]
            for e in range(rows.tails[i, k, 1]):
                if load32(at, 2 * e + 1) != 0.0:
                    index[n], x[n] = load_int32(at, 2 * e), load32(at, 2 * e + 1)
                    n += 1
        index[n], x[n] = rows.intercept, 1.0
        return n + 1

    def places(rows, i, index, count):
        values = rows.values
        n = count
        for j in range(rows.n_numbers):
            if values[i, j] != 0.0:
                index[n] = j
                n += 1
        for f in range(rows.by.shape[0]):
            if f < rows.n_plain or values[i, rows.by[f]] != 0.0:
                index[n] = rows.n_numbers + f
                n += 1
        for k in range(rows.tails.shape[1]):
            at = rows.tails[i, k, 0]
            for e in range(rows.tails[i, k, 1]):
                if load32(at, 2 * e + 1) != 0.0:
                    index[n] = rows.n_numbers + rows.by.shape[0] + k
                    n += 1
        index[n] = rows.n_numbers + rows.by.shape[0] + rows.tails.shape[1]

    def ahead(rows, i):
        values = rows.values
        width = values.shape[1] * values.itemsize
        at = address_of(values) + i * width
        last = at + width
        while at < last:
            touch(at)
            at += LINE
