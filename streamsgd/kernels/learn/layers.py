"""Batches of a network whose rows are numbers: some rows at a time go through its layers together, as products of matrices.

With X the rows of a span, a 1 behind each for the biases, W the weights of the first layer and those above likewise, and D the
derivatives of the losses by what enters a layer's units:

    H_1 = act(X W_1),  H_l = act(H_{l-1} W_l + b_l),  score = H w + b
    G_l += H_{l-1}^T D_l,   D_{l-1} = (D_l W_l^T) * act'(H_{l-1})

What a row adds to a gradient is added row after row, so that bits do not depend on which rows share a span.
"""

import math

import numpy as np

from streamsgd.kernels.compile.jit import lean
from streamsgd.kernels.compile.memory import address_of, copy_bytes
from streamsgd.kernels.compile.tiles import ROWS, add_product
from streamsgd.kernels.compile.verbs import bounded, slope, value
from streamsgd.kernels.learn.modelled import veil
from streamsgd.kernels.structs.block import SPAN
from streamsgd.kernels.structs.rows import OWN
from streamsgd.kernels.structs.state import STEPS


@lean
def pack(rows, members, n, size, packed):
    """Fill `packed`, (size, inputs), with rows and a 1 behind each; what is beyond the rows with zeros."""
    values, width = rows.values, rows.values.itemsize
    columns = values.shape[1] - OWN
    inputs = columns + 1
    for r in range(n):
        source = address_of(values) + members[r] * values.shape[1] * width
        copy_bytes(address_of(packed) + r * inputs * width, source, columns * width)
        packed[r * inputs + columns] = 1.0
    for j in range(n * inputs, size * inputs):
        packed[j] = 0.0


@lean
def clear(numbers):
    for q in range(numbers.shape[0]):
        numbers[q] = 0.0


@lean
def activate(model, units):
    """Turn what enters units into what they put out."""
    if model.activation == 0:
        for q in range(units.shape[0]):
            units[q] = max(units[q], units.dtype.type(0.0))
    elif model.activation == 1:
        for q in range(units.shape[0]):
            units[q] = math.tanh(units[q])
    elif model.activation == 2:
        for q in range(units.shape[0]):
            units[q] = 1.0 / (1.0 + math.exp(-units[q]))


@lean
def deactivate(model, units, slopes):
    """Turn derivatives by what units put out into those by what enters them; see `Network.derive`."""
    if model.activation == 0:
        for q in range(units.shape[0]):
            slopes[q] = slopes[q] if units[q] > 0.0 else slopes.dtype.type(0.0)
    elif model.activation == 1:
        for q in range(units.shape[0]):
            slopes[q] *= 1.0 - units[q] * units[q]
    elif model.activation == 2:
        for q in range(units.shape[0]):
            slopes[q] *= units[q] * (1.0 - units[q])


@lean
def hide(model, room, at, share, n, begin, size):
    """Multiply outputs or derivatives of a layer, (n, size), by how much its units count for each row."""
    units = model.first + model.second + model.third
    for r in range(n):
        for h in range(size):
            room[at + r * size + h] *= room[share + r * units + begin + h]


@lean
def show_again(model, room, at, share, n, begin, size):
    """Undo `hide`, but for units that were left out, whose outputs stay 0."""
    units = model.first + model.second + model.third
    for r in range(n):
        for h in range(size):
            counts = room[share + r * units + begin + h]
            if counts > 0.0:
                room[at + r * size + h] /= counts


def learn_layers(parts, block, members, n, state, pace, epoch, shared, scratch):
    loss, model, weights, grad, packed, room = parts.loss, parts.model, state.weights, state.grad, scratch.out, scratch.kept
    first, second, third = model.first, model.second, model.third
    units, inputs = first + second + third, block.rows.values.shape[1] - OWN + 1
    size = -(-n // ROWS) * ROWS
    # Behind the room of one row: outputs of the units of each layer, (size, units of it), derivatives likewise, by how much
    # units count, (size, units), and the weights between two layers, turned.
    outs = 3 * units
    slopes, share = outs + SPAN * units, outs + 2 * SPAN * units
    turned = outs + 3 * SPAN * units
    zero, one = np.int64(0), np.int64(1)  # bare numbers are types of their own, for which helpers are compiled again
    ones, scores, steep = inputs - one, scratch.numbers[0], scratch.numbers[1]  # ones: the column of biases
    pack(block.rows, members, n, size, packed)
    if model.dropout > 0.0:
        for r in range(n):
            veil(model, room, epoch, state.clock[STEPS], members[r])
            for h in range(units):
                room[share + r * units + h] = 1.0 - room[2 * units + h]
    # Arrays are handed on in parts: an index that is counted from 0 needs no test of its sign, and loops become vectors.
    clear(room[outs : outs + size * first])
    add_product(packed, zero, inputs, one, weights, zero, first, room, outs, first, size, first, inputs)
    activate(model, room[outs : outs + size * first])
    if model.dropout > 0.0:
        hide(model, room, outs, share, n, zero, first)
    at, begin, width = inputs * first, zero, first
    for layer in range(2):
        after = second if layer == 0 else third
        if after == 0:
            break
        here, there = outs + SPAN * begin, outs + SPAN * (begin + width)
        clear(room[there : there + size * after])
        add_product(packed, ones, inputs, inputs, weights, at + width * after, after, room, there, after, size, after, one)
        add_product(room, here, width, one, weights, at, after, room, there, after, size, after, width)
        activate(model, room[there : there + size * after])
        if model.dropout > 0.0:
            hide(model, room, there, share, n, begin + width, after)
        at, begin, width = at + (width + 1) * after, begin + width, after
    here, there = outs + SPAN * begin, slopes + SPAN * begin
    clear(scores)
    add_product(room, here, width, one, weights, at, one, scores, zero, one, size, one, width)
    total_loss, total_weight = 0.0, 0.0
    clear(steep)
    for r in range(n):
        y, h = block.y[members[r]], block.weight[members[r]]
        score = bounded(loss, y, scores[r] + weights[at + width], state.sums)
        total_loss += h * value(loss, y, score)
        total_weight += h
        steep[r] = h * slope(loss, y, score)
        grad[at + width] += steep[r]
    add_product(steep, zero, one, one, room, here, width, grad, at, width, one, width, size)
    clear(room[there : there + size * width])
    add_product(steep, zero, one, one, weights, at, width, room, there, width, size, width, one)
    while True:
        here, there = outs + SPAN * begin, slopes + SPAN * begin
        if model.dropout > 0.0:
            hide(model, room, there, share, n, begin, width)
            show_again(model, room, here, share, n, begin, width)
        deactivate(model, room[here : here + size * width], room[there : there + size * width])
        if begin == 0:
            break
        before = second if begin == first + second else first
        below, slopes_below = outs + SPAN * (begin - before), slopes + SPAN * (begin - before)
        at -= (before + 1) * width
        add_product(room, below, one, before, room, there, width, grad, at, width, before, width, size)
        add_product(packed, ones, inputs, inputs, room, there, width, grad, at + before * width, width, one, width, size)
        for i in range(before):
            for h in range(width):
                room[turned + h * before + i] = weights[at + i * width + h]
        clear(room[slopes_below : slopes_below + size * before])
        add_product(room, there, width, one, room, turned, before, room, slopes_below, before, size, before, width)
        begin, width = begin - before, before
    add_product(packed, zero, one, inputs, room, slopes, first, grad, zero, first, inputs, first, size)
    return total_loss, total_weight
