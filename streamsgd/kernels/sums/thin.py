"""Rows of a block thinned by chance, their addresses deciding; what those that are left say of all."""

import math
from typing import NamedTuple

import numpy as np

from streamsgd.kernels.compile.jit import dispatch, lean, lean_kernel
from streamsgd.kernels.compile.verbs import ahead, entries
from streamsgd.kernels.encode.shuffle import mix
from streamsgd.kernels.structs.block import SPAN
from streamsgd.kernels.structs.rows import OWN
from streamsgd.kernels.sums.offset import BASE, MOST_OFFSET, offset_of, target_of

TARGETED, UNIFORM, LOCAL = 0, 1, 2
"""How rows are thinned."""

ROWS, KEPT, WEIGHT, POSITIVE, EXPECTED, PILOT_WEIGHT, PILOT_POSITIVE, FORESEEN = 0, 1, 2, 3, 4, 5, 6, 7
"""Places in the sums: rows before and after, weights before, those of positives, probabilities of having been kept; weights of
rows that the pilot learned, and those of positives among them; positives that the pilot predicts of all rows, by weight."""

N_SUMS = 8

MIXED = 0.1
"""Share of the negatives that are drawn as if all were as likely to be positive: where the pilot is too sure of itself, rows
that are rarely kept would count too much (a defensive mixture: Hesterberg 1995, Technometrics 37). With pilots of 20 positives
the variance at c = 5 was 1.19 times that of all rows, and 1.24 without."""

AHEAD = 2 * SPAN
"""Rows that are asked for before the first of them is looked at."""

OFTEN = 2.0**64
"""Different random words."""


class Rule(NamedTuple):
    """How likely a row is kept."""

    kind: int
    c: float
    """Of `UNIFORM` the probability itself."""
    size: float
    """Mean length of the rows' entries."""
    weighs: bool
    """Whether rows that are kept make up for others by their weight, not by an offset."""
    mean: float = 0.0
    """Of `TARGETED` the share of positives, which a part of the probabilities is mixed with; 0 for no mixing."""


@lean
def chance(rule, positive, p, length):
    """Return the probability that a row is kept; of `LOCAL` possibly above 1, by which the row then weighs more."""
    if rule.kind == LOCAL:
        return rule.c * ((1.0 - p) if positive else p)
    if positive:
        return 1.0
    if rule.kind != TARGETED:
        return min(1.0, rule.c)
    mixed = p + MIXED * (rule.mean - p) if rule.mean > 0.0 else p
    return min(1.0, rule.c * mixed * length / rule.size)


@lean
def offset(rule, p, length):
    """Return the logarithm of the odds by which positives were kept more often than negatives of the same features."""
    if rule.weighs:
        return 0.0
    ratio = (1.0 - p) / p if rule.kind == LOCAL else 1.0 / max(chance(rule, False, p, length), 1e-300)
    return min(max(math.log(ratio), -MOST_OFFSET), MOST_OFFSET)


@lean
def inverse(rule, y):
    """Return by what the weight of a row in a thinned block is to be multiplied, so that sums are of the population."""
    if abs(y) <= 1.0:
        return 1.0
    if rule.kind == LOCAL:
        p = 1.0 / (1.0 + math.exp(offset_of(y)))
        return 1.0 / (rule.c * ((1.0 - p) if y > 0.0 else p))
    return 1.0 if y > 0.0 else math.exp(offset_of(y))


def reach(rows, i, weights, scratch):
    """Return score and squared length of a row's entries."""
    return _reacher(type(rows))(rows, i, weights, scratch)


def _reach_dense(rows, i, weights, scratch):
    values = rows.values
    n_columns = values.shape[1] - OWN
    score, square = weights[n_columns], weights.dtype.type(1.0)
    for j in range(n_columns):
        score += values[i, j] * weights[j]
        square += values[i, j] * values[i, j]
    return score, square


def _reach_entries(rows, i, weights, scratch):
    index, x = scratch.index[0], scratch.x[0]
    score, square = weights.dtype.type(0.0), weights.dtype.type(0.0)
    for e in range(entries(rows, i, index, x)):
        score += weights[index[e]] * x[e]
        square += x[e] * x[e]
    return score, square


def _reacher(rows):
    return _reach_dense if hasattr(rows, "dot") else _reach_entries


@dispatch(reach)
def _(rows, i, weights, scratch):
    return _reacher(rows.instance_class)


def carry(rows, i, j):
    """Make row j what row i is."""
    _carrier(type(rows))(rows, i, j)


def _carry_numbers(rows, i, j):
    for k in range(rows.values.shape[1]):
        rows.values[j, k] = rows.values[i, k]


def _carry_all(rows, i, j):
    for k in range(rows.ids.shape[1]):  # as integers: an id need not be a number that a float keeps
        rows.ids[j, k] = rows.ids[i, k]
    for k in range(rows.tails.shape[1]):
        rows.tails[j, k, 0], rows.tails[j, k, 1] = rows.tails[i, k, 0], rows.tails[i, k, 1]


def _carrier(rows):
    return _carry_numbers if hasattr(rows, "dot") else _carry_all


@dispatch(carry)
def _(rows, i, j):
    return _carrier(rows.instance_class)


@lean_kernel
def thin(block, starts, counts, ends, weights, rule, key, sums, scratch):
    """Leave rows of every tile out by chance; those that are kept move to its end, before rows held out.

    Parameters
    ----------
    block
        Whose targets and weights change, and whose rows move.
    starts, counts
        int64 (n_tiles,): first row to learn and their number; changed.
    ends
        int64 (n_tiles,): behind which rows those that are kept move to, not before `starts + counts`.
    weights
        Of the pilot, (n_weights,).
    rule
        A `Rule`.
    key
        uint64, of the chunk; row i of the block is kept if `mix(key, i)` is small enough.
    sums
        float64 (N_SUMS,): added to.
    scratch
        As of `new_scratch`.

    """
    rows, scores, squares = block.rows, scratch.numbers[0], scratch.numbers[1]
    for tile in range(starts.shape[0]):
        first, end = starts[tile], starts[tile] + counts[tile]
        at, i = ends[tile], end
        while i > first:
            some = min(SPAN, i - first)
            for k in range(some):  # apart, since what calls `exp` is no vector code
                scores[k], squares[k] = reach(rows, i - 1 - k, weights, scratch)
            for k in range(some):
                i -= 1
                h, positive = np.float64(block.weight[i]), block.y[i] > 0.5
                sums[WEIGHT] += h
                sums[POSITIVE] += h if positive else 0.0
                score = min(max(np.float64(scores[k]), -MOST_OFFSET), MOST_OFFSET)
                p, length = 1.0 / (1.0 + math.exp(-score)), math.sqrt(np.float64(squares[k]))
                sums[FORESEEN] += h * p
                often = chance(rule, positive, p, length)
                sums[EXPECTED] += min(1.0, often)
                if np.float64(mix(key, i)) >= often * OFTEN:
                    continue
                at -= 1
                if at != i:
                    carry(rows, i, at)
                if rule.weighs:
                    block.weight[at] = h / often
                else:
                    if often > 1.0:
                        block.weight[at] = h * often
                    code = BASE + offset(rule, p, length)
                    block.y[at] = code if positive else -code
        sums[ROWS] += end - first
        sums[KEPT] += ends[tile] - at
        starts[tile], counts[tile] = at, ends[tile] - at


@lean_kernel
def population_loss(block, order, heads, weights, rule, scratch, sums):
    """Add the log losses of rows and their weights, as of the rows that they stand for, to `sums`, float64 (2,).

    Parameters
    ----------
    block, order, heads, scratch
        As of `fit`; heads, int64 (n_tiles,), are advanced.
    weights
        At which, (n_weights,).
    rule
        By which the rows were thinned.

    """
    total, weight, members, n = 0.0, 0.0, scratch.counts, order.shape[0]
    for t in range(0, n, AHEAD):
        some = min(AHEAD, n - t)
        for k in range(some):  # which are far apart: all are asked for before the first is looked at
            tile = order[t + k]
            members[k] = heads[tile]
            heads[tile] += 1
            ahead(block.rows, members[k])
        for k in range(some):
            i = members[k]
            y = np.float64(block.y[i])
            h = np.float64(block.weight[i]) * inverse(rule, y)
            found, _square = reach(block.rows, i, weights, scratch)
            score = min(max(np.float64(found), -50.0), 50.0)
            total += h * (max(score, 0.0) - target_of(y) * score + math.log1p(math.exp(-abs(score))))
            weight += h
    sums[0] += total
    sums[1] += weight


@lean_kernel
def list_rows(block, members, rule, index, x, ends, weights, scratch):
    """List the entries of some rows, one after another, and what each row stands for; return how many fit.

    Parameters
    ----------
    block
        Of rows.
    members
        int64 (n,): which.
    rule
        By which they were thinned.
    index, x
        uint32 and float64 (room,), filled: coordinates and factors.
    ends
        int64 (n,), filled: where the entries of each row end.
    weights
        float64 (n,), filled: how much of the population each row is; below 0 of positives.
    scratch
        As of `new_scratch`.

    """
    at = 0
    for k in range(members.shape[0]):
        i = members[k]
        count = entries(block.rows, i, scratch.index[0], scratch.x[0])
        if at + count > index.shape[0]:
            return k
        for e in range(count):
            index[at + e], x[at + e] = scratch.index[0, e], scratch.x[0, e]
        at += count
        ends[k] = at
        stands = np.float64(block.weight[i]) * inverse(rule, np.float64(block.y[i]))
        weights[k] = -stands if block.y[i] > 0.5 else stands
    return members.shape[0]
