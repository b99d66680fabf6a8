"""Chains of Langevin dynamics by stochastic gradients, which walk through the posterior of the weights.

With U(w) = -log posterior, whose gradient is estimated by b rows drawn anew from the N of the data,

    G = prior + scale sum over the batch of h_i g_i(w),   scale = N / (b s^2)   (s^2 = 1 but for squared losses)

or with control variates at the mode m (Baker et al. 2019), where the whole gradient is known,

    G = grad U(m) + prior(w) - prior(m) + scale sum h_i (g_i(w) - g_i(m))

a step is  w += -h P G + N(0, 2 h T P)  with P = W'W, W being whatever whitens the curvature at the mode. Both are worked out in
whitened coordinates, in which P is the identity: the noise then needs no factor. With a momentum r (Chen et al. 2014)

    r += -a h r - h W G + N(0, 2 a h T),   whitened w += h r

All numbers are addressed: row k of a step and normal number j of a step depend on key, step and place alone.
"""

import math
from typing import Any, NamedTuple

from streamsgd.kernels.compile.jit import dispatch, lean, lean_kernel
from streamsgd.kernels.compile.verbs import add, adds, dot, dots, slope, slopes
from streamsgd.kernels.encode.shuffle import below, mix
from streamsgd.kernels.structs.rows import take

TURN = 2.0 * math.pi


class Law(NamedTuple):
    """The numbers of a walk."""

    step: float
    """h."""
    scale: float
    """Of the sum over a batch."""
    noise: float
    """Standard deviation of what is added to each whitened coordinate."""
    friction: float
    """a; 0 without momentum."""
    batch: int
    sides: int
    """2 with control variates, else 1."""
    burn_in: int
    thin: int
    every: int
    """Of how many recorded draws one is stored."""


class Center(NamedTuple):
    """What is known of the posterior."""

    pull: Any
    """float64 (n,): the gradient of U at the mode."""
    precision: Any
    """float64 (n,): of the prior, by weight."""
    gauge: Any
    """float64 (n_coordinates,), or empty: a pull on the mean over the outputs, where nothing else determines it."""
    whiten: Any
    """float64 (n, n), lower triangular, or (1, n) for a diagonal: W."""


class Chain(NamedTuple):
    """What a walk changes."""

    places: Any
    """float64 (2, n): the weights, and the mode."""
    momentum: Any
    """float64 (n,)."""
    mean: Any
    """float64 (n,): of what is recorded, less the mode."""
    squares: Any
    """float64 (n, n), lower triangle, or (1, n): sums of products of what is left."""
    draws: Any
    """float64 (room, n): filled with what is stored."""
    counts: Any
    """int64 (3,): steps done, of all; draws recorded and stored now."""
    room: Any
    """float64 (3, n)."""


def add_slopes(loss, block, i, factor, sides, places, grad, scratch):
    """Add factor h_i (g_i at the first place, less g_i at the second if there are two sides) to a gradient."""
    _adder(type(block.rows), type(loss))(loss, block, i, factor, sides, places, grad, scratch)


def _slopes_dense_one(loss, block, i, factor, sides, places, grad, scratch):
    total = 0.0
    for side in range(sides):
        s = slope(loss, block.y[i], dot(block.rows, i, places[side]))
        total += s if side == 0 else -s
    add(block.rows, i, factor * block.weight[i] * total, grad)


def _slopes_dense_many(loss, block, i, factor, sides, places, grad, scratch):
    scores, found, total = scratch.numbers[0], scratch.numbers[1], scratch.numbers[2]
    total[:] = 0.0
    for side in range(sides):
        dots(block.rows, i, places[side], scores)
        slopes(loss, block.y[i], scores, found)
        for k in range(found.shape[0]):
            total[k] += found[k] if side == 0 else -found[k]
    for k in range(total.shape[0]):
        total[k] *= factor * block.weight[i]
    adds(block.rows, i, total, grad)


def _slopes_entries_one(loss, block, i, factor, sides, places, grad, scratch):
    index, x, total = scratch.index[0], scratch.x[0], 0.0
    count = take(block.rows, i, grad, index, x, 1)
    for side in range(sides):
        score = 0.0
        for e in range(count):
            score += places[side, index[e]] * x[e]
        s = slope(loss, block.y[i], score)
        total += s if side == 0 else -s
    total *= factor * block.weight[i]
    for e in range(count):
        grad[index[e]] += total * x[e]


def _slopes_entries_many(loss, block, i, factor, sides, places, grad, scratch):
    scores, found, total = scratch.numbers[0], scratch.numbers[1], scratch.numbers[2]
    index, x, n_outputs = scratch.index[0], scratch.x[0], scores.shape[0]
    count = take(block.rows, i, grad, index, x, n_outputs)
    total[:] = 0.0
    for side in range(sides):
        scores[:] = 0.0
        for e in range(count):
            for k in range(n_outputs):
                scores[k] += places[side, index[e] * n_outputs + k] * x[e]
        slopes(loss, block.y[i], scores, found)
        for k in range(n_outputs):
            total[k] += found[k] if side == 0 else -found[k]
    for k in range(n_outputs):
        total[k] *= factor * block.weight[i]
    for e in range(count):
        for k in range(n_outputs):
            grad[index[e] * n_outputs + k] += total[k] * x[e]


def _adder(rows, loss):
    several = hasattr(loss, "slopes")
    if hasattr(rows, "dot"):
        return _slopes_dense_many if several else _slopes_dense_one
    return _slopes_entries_many if several else _slopes_entries_one


@dispatch(add_slopes)
def _(loss, block, i, factor, sides, places, grad, scratch):
    rows = block.types[block.fields.index("rows")]
    return _adder(rows.instance_class, loss.instance_class)


@lean
def row_at(place, starts, ends):
    """Return the row of a block at a place among those of runs that begin at `starts` and end at `ends`, counted through."""
    first, last = 0, ends.shape[0] - 1
    while first < last:
        middle = (first + last) // 2
        if place < ends[middle]:
            last = middle
        else:
            first = middle + 1
    return starts[first] + place - (ends[first - 1] if first > 0 else 0)


@lean
def normals(key, counter, out):
    """Fill `out` with independent standard normal numbers (Box and Muller 1958), addressed by key and counter."""
    n = out.shape[0]
    for j in range(0, n, 2):
        one, other = mix(key, counter + j), mix(key, counter + j + 1)
        radius = math.sqrt(-2.0 * math.log((float(one >> 11) + 1.0) * 2.0**-53))
        angle = TURN * (float(other >> 11) * 2.0**-53)
        out[j] = radius * math.cos(angle)
        if j + 1 < n:
            out[j + 1] = radius * math.sin(angle)


@lean
def whitened(whiten, vector, out):
    """Fill `out` with W v."""
    n = vector.shape[0]
    if whiten.shape[0] < n:
        for j in range(n):
            out[j] = whiten[0, j] * vector[j]
    else:
        for a in range(n):
            total = 0.0
            for b in range(a + 1):
                total += whiten[a, b] * vector[b]
            out[a] = total


@lean
def add_coloured(whiten, vector, out):
    """Add W'v."""
    n = vector.shape[0]
    if whiten.shape[0] < n:
        for j in range(n):
            out[j] += whiten[0, j] * vector[j]
    else:
        for a in range(n):
            for b in range(a + 1):
                out[b] += whiten[a, b] * vector[a]


@lean
def _add_prior(center, places, sides, grad):
    n, n_gauged = grad.shape[0], center.gauge.shape[0]
    for j in range(n):
        w = places[0, j]
        grad[j] += center.precision[j] * (w - places[1, j]) + center.pull[j] if sides == 2 else center.precision[j] * w
    if n_gauged > 0:
        n_outputs = n // n_gauged
        for j in range(n_gauged):
            mean = 0.0
            for k in range(j * n_outputs, (j + 1) * n_outputs):
                mean += places[0, k] - (places[1, k] if sides == 2 else 0.0)
            mean *= center.gauge[j] / n_outputs
            for k in range(j * n_outputs, (j + 1) * n_outputs):
                grad[k] += mean


@lean
def _record(law, chain):
    """Take the weights into mean and covariance (Welford 1962), and every so often into the store."""
    counts, mean, squares, left = chain.counts, chain.mean, chain.squares, chain.room[0]
    n = mean.shape[0]
    counts[1] += 1
    share = 1.0 / counts[1]
    for j in range(n):
        left[j] = chain.places[0, j] - chain.places[1, j] - mean[j]
        mean[j] += share * left[j]
    if squares.shape[0] < n:
        for j in range(n):
            squares[0, j] += (1.0 - share) * left[j] * left[j]
    else:
        for a in range(n):
            part = (1.0 - share) * left[a]
            for b in range(a + 1):
                squares[a, b] += part * left[b]
    number = (counts[0] - law.burn_in) // law.thin
    if number % law.every == 0 and counts[2] < chain.draws.shape[0]:
        for j in range(n):
            chain.draws[counts[2], j] = chain.places[0, j]
        counts[2] += 1


@lean_kernel
def walk(loss, block, starts, ends, keys, n_steps, law, center, chain, scratch):
    """Make steps of a chain with rows of a block.

    Parameters
    ----------
    loss, block
        A loss and rows.
    starts, ends
        int64: first rows of the runs that rows are drawn from, and how many rows there are up to the end of each.
    keys
        uint64 (2,): of rows and of noise, for this chain.
    n_steps
        How many.
    law, center, chain
        As their classes say; the chain is changed.
    scratch
        As of `new_scratch`, in float64.

    """
    n, total = chain.mean.shape[0], ends[ends.shape[0] - 1]
    grad, move, noise = chain.room[0], chain.room[1], chain.room[2]
    n_normals = n + n % 2
    for _ in range(n_steps):
        step = chain.counts[0]
        for j in range(n):
            grad[j] = 0.0
        for k in range(law.batch):
            i = row_at(below(mix(keys[0], step * law.batch + k), total), starts, ends)
            add_slopes(loss, block, i, law.scale, law.sides, chain.places, grad, scratch)
        _add_prior(center, chain.places, law.sides, grad)
        whitened(center.whiten, grad, move)
        if law.noise > 0.0:
            normals(keys[1], step * n_normals, noise)
        else:
            for j in range(n):
                noise[j] = 0.0
        if law.friction > 0.0:
            for j in range(n):
                chain.momentum[j] += law.noise * noise[j] - law.step * (law.friction * chain.momentum[j] + move[j])
                move[j] = law.step * chain.momentum[j]
        else:
            for j in range(n):
                move[j] = law.noise * noise[j] - law.step * move[j]
        add_coloured(center.whiten, move, chain.places[0])
        chain.counts[0] = step + 1
        if step + 1 > law.burn_in and (step + 1 - law.burn_in) % law.thin == 0:
            _record(law, chain)


@lean_kernel
def draw_normal(keys, first, spread, center, chain):
    """Fill the draws of a chain with the mode plus `spread` W' z, z standard normal: numbers `first` and on of these."""
    n = chain.mean.shape[0]
    n_normals = n + n % 2
    for k in range(chain.draws.shape[0]):
        normals(keys[1], (first + k) * n_normals, chain.room[2])
        for j in range(n):
            chain.draws[k, j] = chain.places[1, j]
            chain.room[2, j] *= spread
        add_coloured(center.whiten, chain.room[2], chain.draws[k])


@lean_kernel
def probe(loss, block, starts, ends, keys, n_rows, law, center, chain, out, scratch):
    """Add up, over rows drawn from a block, squares of what one row's corrected gradient moves each weight, per posterior draw.

    Of each row i a draw z = m + W'x of the posterior is made, and N W'W (g_i(z) - g_i(m)) / s^2 added to `out`, float64 (n,),
    squared: its mean is the variance of a row's part of the noise, in units of the weights.
    """
    n, total = chain.mean.shape[0], ends[ends.shape[0] - 1]
    grad, move, noise = chain.room[0], chain.room[1], chain.room[2]
    n_normals = n + n % 2
    for r in range(n_rows):
        normals(keys[1], r * n_normals, noise)
        for j in range(n):
            grad[j], chain.places[0, j] = 0.0, chain.places[1, j]
        add_coloured(center.whiten, noise, chain.places[0])
        i = row_at(below(mix(keys[0], r), total), starts, ends)
        add_slopes(loss, block, i, law.scale * law.batch, 2, chain.places, grad, scratch)
        whitened(center.whiten, grad, move)
        for j in range(n):
            grad[j] = 0.0
        add_coloured(center.whiten, move, grad)
        for j in range(n):
            out[j] += grad[j] * grad[j]


@lean_kernel
def drift(loss, block, starts, ends, keys, n_rows, law, center, chain, out, scratch):
    """Say what rows drawn from a block, in the place of all, make of the curvature W'W = H^-1 in a random direction z.

    Fills `out`, float64 (n,), with W (H_B W'z) - z, H_B being the curvature of the rows, as many of them as all are, and of the
    prior, from the slopes at m + W'z and m - W'z. It is 0 but for noise where the rows are like all.
    """
    n, total = chain.mean.shape[0], ends[ends.shape[0] - 1]
    grad, mode, noise = chain.room[0], chain.room[1], chain.room[2]
    normals(keys[1], 0, noise)
    for j in range(n):
        grad[j], mode[j], chain.places[0, j] = -center.pull[j], chain.places[1, j], chain.places[1, j]
    add_coloured(center.whiten, noise, chain.places[0])
    _add_prior(center, chain.places, 2, grad)
    for j in range(n):
        chain.places[1, j] -= chain.places[0, j] - mode[j]
    for r in range(n_rows):
        i = row_at(below(mix(keys[0], r), total), starts, ends)
        add_slopes(loss, block, i, 0.5 * law.scale * law.batch / n_rows, 2, chain.places, grad, scratch)
    for j in range(n):
        chain.places[1, j] = mode[j]
    whitened(center.whiten, grad, out)
    for j in range(n):
        out[j] -= noise[j]
