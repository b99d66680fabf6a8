"""The one training loop and the one scoring loop, for every loss, penalty, optimizer, schedule and row layout.

The gradient of the running batch lives in the state, not in the loop: a batch may begin in one chunk and end in
another, so full batch is merely a batch that spans them all, and the number of steps does not depend on chunking.
"""

import math

from streamsgd.kernels.compile.jit import dispatch, lean_kernel
from streamsgd.kernels.compile.verbs import (
    add,
    adds,
    ahead,
    bounded,
    count_rows,
    dot,
    dots,
    move,
    prepare,
    pull,
    shrink,
    slope,
    slopes,
    value,
)
from streamsgd.kernels.learn.averaging import arrive, leave, weigh
from streamsgd.kernels.learn.clipping import clip
from streamsgd.kernels.learn.coin import bet_rows_many, bet_rows_one, settle_bets
from streamsgd.kernels.learn.factors import learn_rows_factored
from streamsgd.kernels.learn.layers import learn_layers
from streamsgd.kernels.learn.modelled import learn_modelled
from streamsgd.kernels.learn.nag import learn_rows_dense, learn_rows_many, learn_rows_one
from streamsgd.kernels.learn.pair_factors import learn_rows_paired
from streamsgd.kernels.learn.race import learn_rows_race, settle_race
from streamsgd.kernels.learn.sparse import learn_entries_many, learn_entries_one, move_touched, settle_all
from streamsgd.kernels.learn.stirring import stir
from streamsgd.kernels.learn.svrg import (
    move_drifting,
    reduce_entries_many,
    reduce_entries_one,
    reduce_many,
    reduce_one,
    settle_drifts,
)
from streamsgd.kernels.models.machines import by_columns, in_layers, is_linear
from streamsgd.kernels.parts.traits import is_sequential, reduces, rule_of
from streamsgd.kernels.structs.block import SPAN
from streamsgd.kernels.structs.state import FILLED, LOSS, ROWS, SEEN, STEPS, WEIGHED, WEIGHT
from streamsgd.kernels.structs.step import rate_now

AHEAD = 2
"""Rows of a tile to ask for ahead of time: hundreds of tiles take turns, which is more than the processor foresees."""


def learn(parts, block, members, n, state, pace, epoch, shared, scratch):
    """Learn the rows `members[:n]`: add their gradients, or move by them one after another.

    Parameters
    ----------
    parts, block, state, scratch
        As their classes say.
    members, n
        Rows of the block, of one batch.
    pace, epoch
        As its class says, and the passes done before the first of the rows, for those who move.
    shared
        What the optimizer prepared, for those who catch up.

    Returns
    -------
    loss, weight
        Sums over the rows, of weighted losses before learning from them, and of weights.

    """
    alike = state.weights.dtype == state.grad.dtype
    return _learner(type(parts.optimizer), type(block.rows), type(parts.loss), type(parts.model), alike=alike)(
        parts, block, members, n, state, pace, epoch, shared, scratch
    )


def _learn_one(parts, block, members, n, state, pace, epoch, shared, scratch):
    loss, weights, grad = parts.loss, state.weights, state.grad
    # Three short loops, not one: the middle one becomes vector code, worth half of a logistic row.
    rows, scores, slopes = block.rows, scratch.numbers[0], scratch.numbers[1]
    targets, row_weights = scratch.numbers[2], scratch.numbers[3]
    for k in range(n):
        i = members[k]
        scores[k] = dot(rows, i, weights)
        targets[k], row_weights[k] = block.y[i], block.weight[i]
    total_loss, total_weight = 0.0, 0.0
    for k in range(n):
        scores[k] = bounded(loss, targets[k], scores[k], state.sums)
        slopes[k] = row_weights[k] * slope(loss, targets[k], scores[k])
        total_loss += row_weights[k] * value(loss, targets[k], scores[k])
        total_weight += row_weights[k]
    for k in range(n):
        add(rows, members[k], slopes[k], grad)
    return total_loss, total_weight


def _learn_many(parts, block, members, n, state, pace, epoch, shared, scratch):
    loss, weights, grad = parts.loss, state.weights, state.grad
    scores, gradient = scratch.numbers[0], scratch.numbers[1]
    total_loss, total_weight = 0.0, 0.0
    for k in range(n):
        i = members[k]
        y, weight = block.y[i], block.weight[i]
        dots(block.rows, i, weights, scores)
        slopes(loss, y, scores, gradient)
        for output in range(gradient.shape[0]):
            gradient[output] *= weight
        adds(block.rows, i, gradient, grad)
        total_loss += weight * value(loss, y, scores)
        total_weight += weight
    return total_loss, total_weight


RULES = {
    "batch": (_learn_one, _learn_many, learn_entries_one, learn_entries_many),
    "svrg": (reduce_one, reduce_many, reduce_entries_one, reduce_entries_many),
    "nag": (learn_rows_dense, learn_rows_many, learn_rows_one, learn_rows_many),
    "coin": (bet_rows_one, bet_rows_many, bet_rows_one, bet_rows_many),
    "race": (learn_rows_race, learn_rows_race, learn_rows_race, learn_rows_race),
}
"""How each rule learns rows: dense ones of one score and of several, then lists of entries likewise."""

RULES_OF_MODELS = {"batch": (learn_modelled, learn_modelled), "factors": (learn_rows_factored, learn_rows_paired)}
"""How each rule learns rows of models that are not linear, and of those that ask for places."""


def _learner(optimizer, rows, loss, model, *, alike):
    if not is_linear(model):
        if in_layers(model) and hasattr(rows, "dot") and alike:
            return learn_layers
        return RULES_OF_MODELS[rule_of(optimizer)][by_columns(model)]
    return RULES[rule_of(optimizer)][2 * (not hasattr(rows, "dot")) + hasattr(loss, "slopes")]


@dispatch(learn)
def _(parts, block, members, n, state, pace, epoch, shared, scratch):
    kinds = dict(zip(parts.fields, parts.types, strict=True))
    rows = block.types[block.fields.index("rows")]
    classes = (kinds[kind].instance_class for kind in ("loss", "model"))
    weights, grad = (state.types[state.fields.index(name)].dtype for name in ("weights", "grad"))
    return _learner(kinds["optimizer"].instance_class, rows.instance_class, *classes, alike=weights == grad)


def _update(parts, state, pace, n_rows, epoch):
    """Move the weights by the mean gradient of `n_rows` rows and clear it."""
    state.clock[STEPS] += 1
    step = state.clock[STEPS]
    count_rows(parts.optimizer, state.sums, n_rows)
    shared = prepare(parts.optimizer, step, n_rows, state.sums[SEEN])
    # A short last batch moves less, or its rows would weigh more than the others'.
    eta = rate_now(parts, pace, step, epoch) * (n_rows / pace.batch_size)
    if min(pace.clip_norm, pace.clip_value) < math.inf:
        clip(state, pace, n_rows)
    stir(parts, state, n_rows, eta)
    move_on(parts, state, pace, n_rows, eta, shared)
    state.clock[FILLED] = 0


def move_on(parts, state, pace, n_rows, eta, shared):
    """Move the weights that have a gradient, all of them or those that the batch touched."""
    _mover(state.touched.ndim)(parts, state, pace, n_rows, eta, shared)


def _mover(dimensions):
    return _move_listed if dimensions == 1 else _move_all


@dispatch(move_on)
def _(parts, state, pace, n_rows, eta, shared):
    return _mover(state.types[state.fields.index("touched")].ndim)


def _move_listed(parts, state, pace, n_rows, eta, shared):
    move_few(parts, state, pace.n_penalised, n_rows, eta, shared)


def _move_all(parts, state, pace, n_rows, eta, shared):
    weights, slots, grad, optimizer, penalty = state.weights, state.slots, state.grad, parts.optimizer, parts.penalty
    before = weigh(state.clock, state.clock[STEPS])
    leave(state.lag, before, weights)
    for j in range(pace.n_penalised):
        w = weights[j]
        g = grad[j] / n_rows + pull(penalty, w)
        grad[j] = 0.0
        moved, stride = move(optimizer, w, g, slots, j, eta, shared)
        weights[j] = shrink(penalty, moved, stride)
    for j in range(pace.n_penalised, weights.shape[0]):
        g = grad[j] / n_rows
        grad[j] = 0.0
        moved, _stride = move(optimizer, weights[j], g, slots, j, eta, shared)
        weights[j] = moved
    arrive(state.lag, before, weights)


def move_few(parts, state, n_penalised, n_rows, eta, shared):
    """Move the weights that the batch touched, of many."""
    _few_mover(type(parts.optimizer))(parts, state, n_penalised, n_rows, eta, shared)


def _few_mover(optimizer):
    return move_drifting if reduces(optimizer) else move_touched


@dispatch(move_few)
def _(parts, state, n_penalised, n_rows, eta, shared):
    return _few_mover(parts.types[parts.fields.index("optimizer")].instance_class)


def end_batch(parts, state, pace, n_rows, epoch):
    """Move the weights at the end of a batch, if they have not moved before."""
    _batch_ender(type(parts.optimizer))(parts, state, pace, n_rows, epoch)


def _batch_ender(optimizer):
    return _stay if is_sequential(optimizer) else update


def _stay(parts, state, pace, n_rows, epoch):
    state.clock[FILLED] = 0


@dispatch(end_batch)
def _(parts, state, pace, n_rows, epoch):
    ender = _batch_ender(parts.types[parts.fields.index("optimizer")].instance_class)
    return ender if ender is _stay else _update


def settle_up(parts, state, n_penalised, shared, weights):
    """Fill `weights` with what the weights are once all penalties are paid and all bets are settled."""
    _settler(type(parts.optimizer))(parts, state, n_penalised, shared, weights)


def _settler(optimizer):
    return {"svrg": settle_drifts, "coin": settle_bets, "race": settle_race}.get(rule_of(optimizer), settle_all)


@dispatch(settle_up)
def _(parts, state, n_penalised, shared, weights):
    return _settler(parts.types[parts.fields.index("optimizer")].instance_class)


@lean_kernel
def settled(parts, state, n_penalised, weights):
    """Fill `weights` with what the weights are: those of `state` owe penalties, or are yet to be worked out."""
    settle_up(
        parts, state, n_penalised, prepare(parts.optimizer, state.clock[STEPS], state.clock[FILLED], state.sums[SEEN]), weights
    )


update = lean_kernel(_update)
"""The kernel that does nothing else: update(parts, state, pace, n_rows, epoch)."""


@lean_kernel
def fit(parts, block, order, heads, state, pace, scratch):
    """Learn the rows named by `order`, updating the weights after every `pace.batch_size` of them.

    Parameters
    ----------
    parts, block, state, pace
        As their classes say.
    order
        int32 (n,): the tile that gives the next row. If it is empty, the running batch ends as it is: a kernel of its own for
        that would compile the update twice.
    heads
        int64 (n_tiles,): the next unread row of each tile; advanced.
    scratch
        As of `new_scratch`.

    """
    rows, clock, tally = block.rows, state.clock, state.tally
    filled = clock[FILLED]
    total_loss, total_weight = 0.0, 0.0
    members = scratch.counts[SPAN:]
    t, early = 0, order.shape[0] == 0
    while t < order.shape[0] or early:
        # Rows of one batch meet the same weights, so some of them can be taken side by side.
        n = min(min(SPAN, order.shape[0] - t), pace.batch_size - filled)
        for k in range(n):
            tile = order[t + k]
            members[k] = heads[tile]
            heads[tile] += 1
            ahead(rows, members[k] + AHEAD)
        shared = prepare(parts.optimizer, clock[STEPS] + 1, filled + n, state.sums[SEEN] + filled + n)
        epoch = pace.epoch + pace.epoch_per_row * t
        loss, weight = learn(parts, block, members, n, state, pace, epoch, shared, scratch)
        total_loss += loss
        total_weight += weight
        if weight > 0.0:
            clock[WEIGHED] = 1
        t += n
        filled += n
        if filled == pace.batch_size or early:
            if clock[WEIGHED]:  # what nobody weighs is no batch: an optimizer with a memory would go on moving
                # The rate is that of where the batch began, or the last one of a cosine would not move at all.
                end_batch(parts, state, pace, filled, pace.epoch + pace.epoch_per_row * (t - filled))
            clock[WEIGHED] = 0
            filled, early = 0, False
    clock[FILLED] = filled
    tally[LOSS] += total_loss
    tally[WEIGHT] += total_weight
    tally[ROWS] += order.shape[0]
