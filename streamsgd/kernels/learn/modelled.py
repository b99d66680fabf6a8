"""Batches of a model that is not linear: the gradient of a row is its slope times what the model derives."""

import numpy as np

from streamsgd.kernels.compile.jit import dispatch
from streamsgd.kernels.compile.memory import touch_item
from streamsgd.kernels.compile.verbs import beyond, bounded, derive, listed, output, slope, value, width
from streamsgd.kernels.encode.shuffle import mix
from streamsgd.kernels.learn.sparse import pay_all, remember
from streamsgd.kernels.structs.state import STEPS, TOUCHED

BELOW_A_ROW, FAR = 2.0**40, 1 << 32
"""Parts of a pass, and rows of a step, that addresses tell apart."""


def veil(model, room, epoch, step, i):
    """Draw which hidden units row i leaves out, addressed by where in the run it is; see `kernels.models.networks`."""
    _veiler(type(model))(model, room, epoch, step, i)


def _veiler(model_class):
    return _drop if getattr(model_class, "drops", False) else _keep_all


def _keep_all(model, room, epoch, step, i):
    pass


def _drop(model, room, epoch, step, i):
    if model.dropout > 0.0:
        units = model.first + model.second + model.third
        run = np.uint64(mix(np.uint64(model.key), np.uint64(epoch * BELOW_A_ROW)))
        row = np.uint64(mix(run, np.uint64(step * FAR + i)))
        for h in range(units):
            left_out = np.float64(np.uint64(mix(row, np.uint64(h))) >> np.uint64(11)) * 2.0**-53 < model.dropout
            room[2 * units + h] = 1.0 if left_out else 1.0 - 1.0 / (1.0 - model.dropout)


@dispatch(veil)
def _(model, room, epoch, step, i):
    return _veiler(model.instance_class)


def learn_modelled(parts, block, members, n, state, pace, epoch, shared, scratch):
    """Add the gradients of rows, of any layout; see `kernels.models.machines` for the verbs."""
    loss, model, weights, grad = parts.loss, parts.model, state.weights, state.grad
    touched, n_touched, across, further = state.touched, state.clock[TOUCHED], width(model), beyond(model)
    out, kept = scratch.out, scratch.kept
    total_loss, total_weight = 0.0, 0.0
    for r in range(n):
        scratch.counts[r] = listed(model, block.rows, members[r], scratch.index[r], scratch.x[r])
        for e in range(scratch.counts[r]):
            touch_item(weights, np.int64(scratch.index[r, e]) * across)
    for r in range(n):
        i, index, x, count = members[r], scratch.index[r], scratch.x[r], scratch.counts[r]
        if state.paid.shape[0] > 0:
            pay_all(parts, state, index, count, across, shared)
        y, h = block.y[i], block.weight[i]
        veil(model, kept, epoch, state.clock[STEPS], i)
        score = bounded(loss, y, output(model, index, x, count, weights, kept), state.sums)
        total_loss += h * value(loss, y, score)
        total_weight += h
        g = h * slope(loss, y, score)
        if g == 0.0:
            continue
        derive(model, index, x, count, weights, kept, out)
        first = (np.int64(index[count - 1]) + 1) * across
        for e in range(count + 1):
            # Behind the entries stands what belongs to no coordinate.
            at, size = (np.int64(index[e]) * across, across) if e < count else (first, further)
            for f in range(size):
                j, part = at + f, g * out[e * across + f]
                if part != 0.0:
                    if grad[j] == 0.0 and n_touched >= 0:
                        n_touched = remember(touched, n_touched, j)
                    grad[j] += part
    state.clock[TOUCHED] = n_touched
    return total_loss, total_weight
