"""The data's part of the objective at given weights: losses, gradient and curvature of a chunk added up. Nothing moves.

Sums are float64 whatever the rows are. Losses are added tile by tile, so that the caller can join the tiles without loss.
"""

from streamsgd.kernels.entries import take
from streamsgd.kernels.jit import dispatch, lean, lean_kernel
from streamsgd.kernels.loops import SPAN
from streamsgd.kernels.rows import OWN
from streamsgd.kernels.verbs import add, adds, dot, dots, slope, slopes, value

LOSS, SIZE, WEIGHT = 0, 1, 2
"""Places in the sums of a tile: weighted losses, their absolute values (which tell how far the sum may be trusted), weights."""

NEAR = 1e-4
"""Distance of the two slopes whose difference is the curvature of a loss; relative to a score beyond 1."""


@lean
def bend(loss, y, score):
    """Return the second derivative of a loss, or what the slope's square says where that is more.

    In expectation the two are the same for the right model; the square also sees a row that is far on the wrong side, where a
    logistic loss is straight.
    """
    step = NEAR * max(1.0, abs(score))
    below = slope(loss, y, score - step)
    here = slope(loss, y, score)
    above = slope(loss, y, score + step)
    return max((above - below) / (2.0 * step), here * here)


def add_rows(loss, block, first, n, weights, grad, curvature, sums, scratch):
    """Add up the rows `first` to `first + n`, at most `SPAN`.

    Parameters
    ----------
    loss, block
        A loss and rows.
    first, n
        Which of them.
    weights
        float64, [coordinate][output].
    grad, curvature
        float64, shape of `weights`: added to; `curvature` is empty where it is not wanted.
    sums
        float64 (3,): added to.
    scratch
        As of `new_scratch`, in float64.

    """
    _adder(type(block.rows), type(loss))(loss, block, first, n, weights, grad, curvature, sums, scratch)


def _add_one(loss, block, first, n, weights, grad, curvature, sums, scratch):
    rows, scores, gradient = block.rows, scratch.numbers[0], scratch.numbers[1]
    targets, row_weights = scratch.numbers[2], scratch.numbers[3]
    for k in range(n):
        scores[k] = dot(rows, first + k, weights)
        targets[k], row_weights[k] = block.y[first + k], block.weight[first + k]
    _judge_rows(loss, n, targets, row_weights, scores, gradient, sums)
    for k in range(n):
        add(rows, first + k, gradient[k], grad)
    if curvature.shape[0] > 0:
        n_columns = rows.values.shape[1] - OWN
        for k in range(n):
            c = row_weights[k] * bend(loss, targets[k], scores[k])
            for j in range(n_columns):
                curvature[j] += c * rows.values[first + k, j] * rows.values[first + k, j]
            curvature[n_columns] += c


@lean
def _judge_rows(loss, n, targets, row_weights, scores, gradient, sums):
    total, size, weight = 0.0, 0.0, 0.0
    for k in range(n):
        cost = row_weights[k] * value(loss, targets[k], scores[k])
        gradient[k] = row_weights[k] * slope(loss, targets[k], scores[k])
        total += cost
        size += abs(cost)
        weight += row_weights[k]
    sums[LOSS] += total
    sums[SIZE] += size
    sums[WEIGHT] += weight


def _add_many(loss, block, first, n, weights, grad, curvature, sums, scratch):
    rows, scores, gradient = block.rows, scratch.numbers[0], scratch.numbers[1]
    n_outputs, n_columns = scores.shape[0], rows.values.shape[1] - OWN
    for i in range(first, first + n):
        weight = block.weight[i]
        dots(rows, i, weights, scores)
        _judge_row(loss, block.y[i], weight, scores, gradient, sums)
        adds(rows, i, gradient, grad)
        if curvature.shape[0] > 0:
            for k in range(n_outputs):
                c = _bend_of_many(gradient[k], weight)
                for j in range(n_columns):
                    curvature[j * n_outputs + k] += c * rows.values[i, j] * rows.values[i, j]
                curvature[n_columns * n_outputs + k] += c


@lean
def _judge_row(loss, y, weight, scores, gradient, sums):
    cost = weight * value(loss, y, scores)
    slopes(loss, y, scores, gradient)
    for k in range(gradient.shape[0]):
        gradient[k] *= weight
    sums[LOSS] += cost
    sums[SIZE] += abs(cost)
    sums[WEIGHT] += weight


@lean
def _bend_of_many(part, weight):
    """Return the weighted square of a slope, given the weighted slope."""
    return part * part / weight if weight > 0.0 else 0.0


def _add_entries_one(loss, block, first, n, weights, grad, curvature, sums, scratch):
    scores, gradient = scratch.numbers[0], scratch.numbers[1]
    targets, row_weights = scratch.numbers[2], scratch.numbers[3]
    for r in range(n):
        scratch.counts[r] = take(block.rows, first + r, weights, scratch.index[r], scratch.x[r], 1)
    for r in range(n):
        index, x = scratch.index[r], scratch.x[r]
        score = 0.0
        for e in range(scratch.counts[r]):
            score += weights[index[e]] * x[e]
        scores[r], targets[r], row_weights[r] = score, block.y[first + r], block.weight[first + r]
    _judge_rows(loss, n, targets, row_weights, scores, gradient, sums)
    for r in range(n):
        index, x = scratch.index[r], scratch.x[r]
        for e in range(scratch.counts[r]):
            grad[index[e]] += gradient[r] * x[e]
    if curvature.shape[0] > 0:
        for r in range(n):
            index, x = scratch.index[r], scratch.x[r]
            c = row_weights[r] * bend(loss, targets[r], scores[r])
            for e in range(scratch.counts[r]):
                curvature[index[e]] += c * x[e] * x[e]


def _add_entries_many(loss, block, first, n, weights, grad, curvature, sums, scratch):
    scores, gradient = scratch.numbers[0], scratch.numbers[1]
    n_outputs = scores.shape[0]
    for i in range(first, first + n):
        index, x, weight = scratch.index[0], scratch.x[0], block.weight[i]
        count = take(block.rows, i, weights, index, x, n_outputs)
        scores[:] = 0.0
        for e in range(count):
            for k in range(n_outputs):
                scores[k] += weights[index[e] * n_outputs + k] * x[e]
        _judge_row(loss, block.y[i], weight, scores, gradient, sums)
        for e in range(count):
            for k in range(n_outputs):
                grad[index[e] * n_outputs + k] += gradient[k] * x[e]
        if curvature.shape[0] > 0:
            for e in range(count):
                for k in range(n_outputs):
                    curvature[index[e] * n_outputs + k] += _bend_of_many(gradient[k], weight) * x[e] * x[e]


def _adder(rows, loss):
    several = hasattr(loss, "slopes")
    if hasattr(rows, "entries"):
        return _add_entries_many if several else _add_entries_one
    return _add_many if several else _add_one


@dispatch(add_rows)
def _(loss, block, first, n, weights, grad, curvature, sums, scratch):
    rows = block.types[block.fields.index("rows")]
    return _adder(rows.instance_class, loss.instance_class)


@lean_kernel
def add_chunk(loss, block, starts, counts, weights, grad, curvature, tiles, scratch):
    """Add the rows of a chunk: of tile t `counts[t]` rows from `starts[t]` on, its sums to `tiles[t]`, float64 (n_tiles, 3)."""
    for t in range(starts.shape[0]):
        at, last = starts[t], starts[t] + counts[t]
        while at < last:
            n = min(SPAN, last - at)
            add_rows(loss, block, at, n, weights, grad, curvature, tiles[t], scratch)
            at += n
