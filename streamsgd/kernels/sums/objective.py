"""The data's part of the objective at given weights: losses, gradient and curvature of a chunk added up. Nothing moves.

Sums are float64 whatever the rows are. Losses are added tile by tile, so that the caller can join the tiles without loss.

Curvature is the second derivative by two weights, sum over rows of h d^2 loss / ds^2 x_i x_j: for all weights the diagonal, for
those of a *block* all pairs.
"""

from typing import Any, NamedTuple

import numpy as np

from streamsgd.kernels.compile.jit import dispatch, lean, lean_kernel
from streamsgd.kernels.compile.tiles import add_triangle
from streamsgd.kernels.compile.verbs import add, dot, slope, slopes, value
from streamsgd.kernels.structs.block import SPAN
from streamsgd.kernels.structs.rows import OWN, take

LOSS, SIZE, WEIGHT = 0, 1, 2
"""Places in the sums of a tile: weighted losses, their absolute values (which tell how far the sum may be trusted), weights."""

OF_ROWS = 4
"""Where rows begin in the room of `Curvature`."""

NEAR = 1e-4
"""Half the distance of the two slopes whose difference is the curvature of a loss; relative to a score beyond 1."""

MOST_OUTPUTS = 32
"""Outputs up to which every pair of them has a curvature; beyond, the squares of slopes have to do."""


class Curvature(NamedTuple):
    """What is added up of curvature; of size 0 where it is not wanted."""

    diagonal: Any
    """float64, shape of the weights."""
    place: Any
    """int32 (n_coordinates,): the place of each coordinate in the block, -1 for none."""
    members: Any
    """int32 (n_members,): the coordinates in the block."""
    block: Any
    """float64 (n_members * n_outputs, same): the lower triangle counts."""
    every: Any
    """int64 (1,): of how many rows one is in the block."""
    room: Any
    """float64 (3 + n_outputs, at least n_members and n_outputs): for what is worked out per row; of one output `OF_ROWS` lines
    and twice `SPAN` for rows side by side."""
    caution: Any = np.ones(1)
    """float64 (1,): times which the square of a slope counts as curvature, where that is more; of several outputs once."""


def new_curvature(n_weights: int, members: Any, n_outputs: int, every: int, caution: float = 1.0) -> Curvature:
    """Return zeros for all of the weights and a block of some coordinates."""
    place = np.full(n_weights // n_outputs, -1, np.int32)
    place[members] = np.arange(len(members))
    size = len(members) * n_outputs
    lines = OF_ROWS + 2 * SPAN if n_outputs == 1 else 3 + n_outputs
    room = np.zeros((lines, max(len(members), n_outputs)))
    block = np.zeros((size, size))
    return Curvature(np.zeros(n_weights), place, members, block, np.array([every]), room, np.array([caution]))


@lean
def safe_curvature(loss, y, score, caution):
    """Return the second derivative of a loss, or `caution` times what the slope's square says where that is more.

    In expectation the two are the same for the right model; the square also sees a row that is far on the wrong side, where a
    logistic loss is straight.
    """
    step = NEAR * max(1.0, abs(score))
    below, here, above = 0.0, 0.0, 0.0
    for side in range(-1, 2):  # one call of the verb, because Numba warns of names where it is written several times
        below, here, above = here, above, slope(loss, y, score + side * step)
    return max((above - below) / (2.0 * step), caution * here * here)


@lean
def safe_curvatures(loss, y, weight, scores, gradient, room):
    """Fill rows 3 and on of `room` with second derivatives by every two outputs, times the row's weight.

    As with one output, what the slopes' products say is added as far as their trace is more. `gradient` has the weight already.
    """
    n = scores.shape[0]
    room[3:, :n] = 0.0
    trace, squares = 0.0, 0.0
    if n <= MOST_OUTPUTS:
        for k in range(n):
            score = scores[k]
            step = NEAR * max(1.0, abs(score))
            for side in range(2):  # one call here too
                scores[k] = score + (2 * side - 1) * step
                slopes(loss, y, scores, room[side, :n])
            scores[k] = score
            for q in range(n):
                room[3 + q, k] = weight * (room[1, q] - room[0, q]) / (2.0 * step)
            trace += room[3 + k, k]
    for k in range(n):
        squares += gradient[k] * gradient[k]
    if squares <= trace * weight:
        return
    share = (1.0 - trace * weight / squares) / weight
    for k in range(n):
        if n <= MOST_OUTPUTS:
            for q in range(n):
                room[3 + k, q] += share * gradient[k] * gradient[q]
        else:
            room[3 + k, k] = share * gradient[k] * gradient[k]


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
    grad
        float64, shape of `weights`: added to.
    curvature
        As its class says: added to.
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
    judge_rows(loss, n, targets, row_weights, scores, gradient, scratch.numbers[4], sums)
    for k in range(n):
        add(rows, first + k, gradient[k], grad)
    if curvature.diagonal.shape[0] > 0:
        bends = scratch.numbers[4]
        for k in range(n):
            bends[k] = row_weights[k] * safe_curvature(loss, targets[k], scores[k], curvature.caution[0])
        _bend_dense(rows.values, first, n, bends, curvature)


def judge_rows(loss, n, targets, row_weights, scores, gradient, costs, sums):
    """Fill `gradient` with slopes of n rows times their weights, and add up their losses; `costs` is room for n numbers."""
    _judge(type(loss))(loss, n, targets, row_weights, scores, gradient, costs, sums)


def _judge(loss):
    return _judge_offset if getattr(loss, "offset", False) else _judge_any


@dispatch(judge_rows)
def _(loss, n, targets, row_weights, scores, gradient, costs, sums):
    return _judge(loss.instance_class)


def _judge_any(loss, n, targets, row_weights, scores, gradient, costs, sums):
    _judge_rows(loss, n, targets, row_weights, scores, gradient, sums)


def _judge_offset(loss, n, targets, row_weights, scores, gradient, costs, sums):
    """Do the same with losses that become vector code; what is added up in order, apart, leaves it so."""
    for k in range(n):
        costs[k] = row_weights[k] * value(loss, targets[k], scores[k])
        gradient[k] = row_weights[k] * slope(loss, targets[k], scores[k])
    add_in_order(costs, row_weights, n, sums)


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


def add_in_order(costs, row_weights, n, sums):
    """Add up costs, their sizes and weights of n rows, one after another."""
    total, size, weight = 0.0, 0.0, 0.0
    for k in range(n):
        total += costs[k]
        size += abs(costs[k])
        weight += row_weights[k]
    sums[LOSS] += total
    sums[SIZE] += size
    sums[WEIGHT] += weight


@dispatch(add_in_order, exact=True, within=True)
def _(costs, row_weights, n, sums):
    return add_in_order


@lean
def _bend_dense(values, first, n, bends, curvature):
    diagonal, members, room = curvature.diagonal, curvature.members, curvature.room
    n_columns = values.shape[1] - OWN
    for k in range(n):
        for j in range(n_columns):
            diagonal[j] += bends[k] * values[first + k, j] * values[first + k, j]
        diagonal[n_columns] += bends[k]
    if members.shape[0] > 0:
        x, bent, taken = room[OF_ROWS : OF_ROWS + SPAN], room[OF_ROWS + SPAN :], 0
        for k in range(n):
            if (first + k) % curvature.every[0] == 0:
                for a in range(members.shape[0]):
                    x[taken, a] = values[first + k, members[a]] if members[a] < n_columns else 1.0
                    bent[taken, a] = bends[k] * x[taken, a]
                taken += 1
        add_triangle(bent, x, curvature.block, taken)


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
def _add_pair(a, b, product, n_outputs, curvature):
    block, room = curvature.block, curvature.room
    for k in range(n_outputs):
        for q in range(n_outputs):
            block[a * n_outputs + k, b * n_outputs + q] += product * room[3 + k, q]


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
    judge_rows(loss, n, targets, row_weights, scores, gradient, scratch.numbers[4], sums)
    for r in range(n):
        index, x = scratch.index[r], scratch.x[r]
        for e in range(scratch.counts[r]):
            grad[index[e]] += gradient[r] * x[e]
    if curvature.diagonal.shape[0] > 0:
        for r in range(n):
            curvature.room[3, 0] = row_weights[r] * safe_curvature(loss, targets[r], scores[r], curvature.caution[0])
            _bend_entries(first + r, scratch.index[r], scratch.x[r], scratch.counts[r], 1, curvature)


def _add_entries_many(loss, block, first, n, weights, grad, curvature, sums, scratch):
    scores, gradient = scratch.numbers[0], scratch.numbers[1]
    n_outputs = scores.shape[0]
    for i in range(first, first + n):
        index, x = scratch.index[0], scratch.x[0]
        count = take(block.rows, i, weights, index, x, n_outputs)
        scores[:] = 0.0
        for e in range(count):
            for k in range(n_outputs):
                scores[k] += weights[index[e] * n_outputs + k] * x[e]
        _judge_row(loss, block.y[i], block.weight[i], scores, gradient, sums)
        for e in range(count):
            for k in range(n_outputs):
                grad[index[e] * n_outputs + k] += gradient[k] * x[e]
        if curvature.diagonal.shape[0] > 0:
            safe_curvatures(loss, block.y[i], block.weight[i], scores, gradient, curvature.room)
            _bend_entries(i, index, x, count, n_outputs, curvature)


@lean
def _bend_entries(i, index, x, count, n_outputs, curvature):
    diagonal, place, room = curvature.diagonal, curvature.place, curvature.room
    for e in range(count):
        for k in range(n_outputs):
            diagonal[index[e] * n_outputs + k] += room[3 + k, k] * x[e] * x[e]
    if curvature.members.shape[0] > 0 and i % curvature.every[0] == 0:
        for e in range(count):
            a = place[index[e]]
            if a >= 0:
                for f in range(e + 1):
                    b = place[index[f]]
                    if b >= 0:
                        twice = 2.0 if a == b and e != f else 1.0
                        _add_pair(max(a, b), min(a, b), twice * x[e] * x[f], n_outputs, curvature)


def _adder(rows, loss):
    several = hasattr(loss, "slopes")
    # Rows side by side cost a quarter of lists of entries, but add up in another order. Bits of all other losses are those of
    # lists, so only thinned rows, whose passes are there to be cheap, take the short way.
    if not (hasattr(rows, "dot") and getattr(loss, "offset", False)):
        return _add_entries_many if several else _add_entries_one
    return _add_one


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
