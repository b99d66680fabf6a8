"""Small networks: as `machines` has them, with a row of the first layer for every coordinate.

The first hidden layer is the sum of the rows of a row's entries, times their factors: of a number its column of weights, of a
category its embedding, of the intercept the biases. Behind the coordinates stand the other layers, [from][to] and then biases,
and at last the weights and the bias of the score.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from streamsgd.kernels.models.machines import AT_ONCE, key_of, spread
from streamsgd.kernels.parts.ranges import Decay, Whole

ACTIVATIONS = ("relu", "tanh", "logistic", "identity")

MOST_LAYERS, MOST_UNITS = 3, 1024

LIKELY_ENTRIES = 64
"""Entries of a row that a network begins for, at most: of millions of coordinates a row meets a few."""


class MLP(NamedTuple):
    """Multilayer perceptron: one to three layers of hidden units; activation is relu, tanh, logistic or identity.

    Numbers meet it as they are encoded, categories by an embedding each, which is as wide as the first layer. `draw` says which
    of a seed's starts it has. While it learns, each hidden unit of each row is left out with a probability of `dropout`.
    """

    hidden: str = "64-32"
    activation: str = "relu"
    draw: Whole = 0
    dropout: Decay = 0.0

    usual_rates = {"adam": 0.003, "adamw": 0.003, "amsgrad": 0.003, "adagrad": 0.03, "rmsprop": 0.001}  # noqa: RUF012
    most_epochs = 40
    source = (
        "Rumelhart, Hinton and Williams 1986, Nature 323; the start of Glorot and Bengio 2010, AISTATS; dropout of Srivastava "
        "et al. 2014, JMLR 15"
    )

    def compiled(self, seed: int = 0) -> Network:
        """Return what kernels take.

        Raises
        ------
        ValueError
            A field is out of range.

        """
        sizes = self.hidden.split("-")
        fits = all(size.isascii() and size.isdigit() and 1 <= int(size) <= MOST_UNITS for size in sizes)
        if not (fits and len(sizes) <= MOST_LAYERS):
            raise ValueError(f"hidden={self.hidden!r} is not one to {MOST_LAYERS} sizes of up to {MOST_UNITS}, such as 64-32")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation={self.activation!r} is none of {', '.join(ACTIVATIONS)}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout={self.dropout:g} is not from 0 to below 1")
        layers = [*map(int, sizes), 0, 0][:MOST_LAYERS]
        form: Any = Network
        found: Network = form(*layers, ACTIVATIONS.index(self.activation), key_of(seed, self.draw), self.dropout)
        return found


class Network(NamedTuple):
    """A perceptron in numbers."""

    first: int
    second: int
    third: int
    """Units of each layer, 0 of one that is not there."""
    activation: int
    key: int
    dropout: float = 0.0
    """Share of hidden units that a row leaves out while it is learned. Behind outputs and derivatives `room` has by how much
    less than 1 each unit counts for the row: 0 for all where nothing is learned, as of a room of zeros."""

    drops, in_layers = True, True

    def span_room(model, entries: int, rows: int) -> tuple[int, int]:
        """Return, in Python, the numbers that `kernels.learn.layers` takes for rows of so many entries, and for all else."""
        units = model.first + model.second + model.third
        return rows * entries, 3 * (1 + rows) * units + model.second * max(model.first, model.third)

    def width(model):
        return model.first

    def beyond(model):
        second = (model.first + 1) * model.second
        third = (model.second + 1) * model.third
        return second + third + (model.third or model.second or model.first) + 1

    def room(model):
        return 3 * (model.first + model.second + model.third)

    def output(model, index, x, count, weights, room):
        n, at = model.first, 0
        for h in range(n):
            room[h] = 0.0
        for e in range(count):
            at = index[e] * n
            for h in range(n):
                room[h] += x[e] * weights[at + h]
        at, begin = (index[count - 1] + 1) * n, 0
        for layer in range(3):
            for h in range(begin, begin + n):
                if model.activation == 0:
                    room[h] = max(room[h], 0.0)
                elif model.activation == 1:
                    room[h] = math.tanh(room[h])
                elif model.activation == 2:
                    room[h] = 1.0 / (1.0 + math.exp(-room[h]))
                if model.dropout > 0.0:
                    room[h] *= 1.0 - room[2 * (model.first + model.second + model.third) + h]
            size = model.second if layer == 0 else model.third
            if size == 0 or layer == 2:
                break
            for h in range(size):
                room[begin + n + h] = weights[at + n * size + h]
            for i in range(n):
                for h in range(size):
                    room[begin + n + h] += room[begin + i] * weights[at + i * size + h]
            at, begin, n = at + (n + 1) * size, begin + n, size
        score = 0.0 + weights[at + n]
        for h in range(n):
            score += room[begin + h] * weights[at + h]
        return score

    def derive(model, index, x, count, weights, room, out):
        first, second, third = model.first, model.second, model.third
        units = first + second + third
        n, begin = (third, first + second) if third else ((second, first) if second else (first, 0))
        origin = (index[count - 1] + 1) * first
        at = (first + 1) * second + (second + 1) * third
        where = count * first
        for h in range(n):
            out[where + at + h] = room[begin + h]
            room[units + begin + h] = weights[origin + at + h]
        out[where + at + n] = 1.0
        while True:
            for h in range(begin, begin + n):
                a = room[h]
                if model.dropout > 0.0:
                    counts = 1.0 - room[2 * units + h]
                    a = a / counts if counts > 0.0 else 0.0
                    room[units + h] *= counts
                if model.activation == 0:
                    room[units + h] = room[units + h] if a > 0.0 else 0.0
                elif model.activation == 1:
                    room[units + h] *= 1.0 - a * a
                elif model.activation == 2:
                    room[units + h] *= a * (1.0 - a)
            if begin == 0:
                break
            before = second if begin == first + second else first
            at -= (before + 1) * n
            for h in range(n):
                out[where + at + before * n + h] = room[units + begin + h]
            for i in range(before):
                a, total = room[begin - before + i], 0.0
                for h in range(n):
                    delta = room[units + begin + h]
                    out[where + at + i * n + h] = a * delta
                    total += delta * weights[origin + at + i * n + h]
                room[units + begin - before + i] = total
            begin, n = begin - before, before
        for e in range(count):
            for h in range(first):
                out[e * first + h] = x[e] * room[units + h]

    def begin(model, weights: np.ndarray, n_coordinates: int, seed: int) -> None:
        """Fill layers with numbers around 0, biases with 0, and that of the score with the best constant."""
        best, n = float(weights[n_coordinates - 1, 0]), n_coordinates - 1
        weights[n_coordinates - 1] = 0.0
        deviation = model.deviation(min(n, LIKELY_ENTRIES), model.first)
        for first in range(0, n, AT_ONCE):
            last = min(n, first + AT_ONCE)
            some = np.arange(first * model.first, last * model.first)
            weights[first:last] = spread(model.key, some, deviation).reshape(-1, model.first)
        layers, at, before = weights[n_coordinates:].reshape(-1), 0, model.first
        for size in (model.second, model.third, 1):
            if size:
                places = weights.size + at + np.arange(before * size)
                layers[at : at + before * size] = spread(model.key, places, model.deviation(before, size))
                at, before = at + (before + 1) * size, size
        layers[at - 1] = best

    def deviation(model, before, size):
        """Return the standard deviation that a layer begins with, in Python alone: of Glorot and Bengio, as in scikit-learn."""
        return math.sqrt((2.0 / 3.0 if model.activation == 2 else 2.0) / (before + size))
