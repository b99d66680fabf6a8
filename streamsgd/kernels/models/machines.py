"""Models: how the entries of a row become a score, and how the score changes with each parameter, as plain Python.

Every coordinate has `width` parameters, in a run of memory; the last coordinate is the intercept's, and it is the last entry of
every row. Behind it there are `beyond` parameters that belong to no coordinate, the layers of a network: of the flat array of
parameters those from `(index[count - 1] + 1) * width` on.

width(model), beyond(model)                       how many there are
room(model)                                       numbers that `output` keeps for `derive`
output(model, index, x, count, weights, room)     the score of a row of `count` entries (coordinate, factor)
derive(model, index, x, count, weights, room, out)   after `output` of the row: fills out[e * width + f] with the derivative of
                                                  the score by parameter f of entry e, then `beyond` further ones
begin(model, weights, n_coordinates, seed)        in Python alone: fills parameters, zeros of (rows, width), with what learning
                                                  starts from; the best constant score stands in weights[n_coordinates - 1, 0]

What people name is a NamedTuple of its fields, whose `compiled(seed)` returns the NamedTuple of numbers that has these verbs;
without it, it has them itself. `usual_rates` are learning rates by optimizer that suit it, where nobody says.

A model that asks what columns entries are from says so by `by_columns`: then `compiled(seed, columns)` is told how many places
a row has, and index[count + e] is the place of entry e, which never falls from one entry to the next: numbers first, then
categories and crosses, then lists, maps and words (`features.encoding.Encoding.places` names them). The intercept has none.
A model is linear if it says so (`is_linear`); it has none of these verbs, for every kernel knows sums of weights.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from streamsgd.kernels.parts.ranges import AtLeastOne, NotNegative, Positive, Whole


class Linear(NamedTuple):
    """A weight for every number, category and value: their sum is the score."""

    is_linear = True
    source = "Nelder and Wedderburn 1972, JRSS A (generalised linear models)"


_linear: Any = Linear

LINEAR = _linear()
"""The one linear model."""


class FM(NamedTuple):
    """Factorization machine: a weight and k factors for every value; each pair of a row adds the product of their factors.

    score = w0 + sum w_i x_i + sum_{i<j} <v_i, v_j> x_i x_j, the intercept being in no pair. `rate` is that of the factors where
    rows are learned one by one, `start` the standard deviation that factors begin with, `draw` which of a seed's starts it is;
    linear=none leaves out intercept and weights. In one pass at the defaults the linear model learns beside it, and machines of
    half and twice the rate where none is named, and the best one is kept; against=none learns it alone.
    """

    k: AtLeastOne = 8
    linear: str = "with"
    rate: Positive = 0.07
    start: NotNegative = 0.05
    draw: Whole = 0
    against: str = "linear"

    usual_rates = {"adam": 0.01, "adamw": 0.01, "amsgrad": 0.01, "adagrad": 0.1, "rmsprop": 0.003}  # noqa: RUF012
    source = "Rendle 2010, ICDM"

    def compiled(self, seed: int = 0) -> Factored:
        """Return what kernels take.

        Raises
        ------
        ValueError
            A field is out of range.

        """
        check_machine(self)
        form: Any = Factored
        found: Factored = form(self.k, int(self.linear == "with"), self.rate, self.start, key_of(seed, self.draw))
        return found


def check_machine(machine: Any) -> None:
    """Refuse fields out of range.

    Raises
    ------
    ValueError
        One is.

    """
    if not 1 <= machine.k <= MOST_FACTORS:
        raise ValueError(f"k={machine.k} is not within 1 and {MOST_FACTORS}")
    if machine.linear not in ("with", "none"):
        raise ValueError(f"linear={machine.linear!r} is neither with nor none")
    if machine.against not in ("linear", "none"):
        raise ValueError(f"against={machine.against!r} is neither linear nor none")
    if not (machine.rate > 0.0 and machine.start >= 0.0):
        raise ValueError(f"rate={machine.rate:g} must be above 0, start={machine.start:g} at least 0")


MOST_FACTORS = 256
"""Factors of a value, at most."""

MOST_DRAWS = 1_000_000
"""Number of the last start of a seed."""


class Factored(NamedTuple):
    """A factorization machine in numbers."""

    k: int
    linear: int
    """1 with intercept and weights, 0 without."""
    rate: float
    start: float
    key: int
    """What random numbers are addressed by."""

    factored = True

    def width(model):
        return 1 + model.k

    def beyond(model):
        return 0

    def room(model):
        return 2 * model.k

    def output(model, index, x, count, weights, room):
        k, across, score = model.k, 1 + model.k, 0.0
        for f in range(2 * k):
            room[f] = 0.0
        for e in range(count):
            score += model.linear * weights[index[e] * across] * x[e]
        for e in range(count - 1):
            at = index[e] * across + 1
            for f in range(k):
                part = weights[at + f] * x[e]
                room[f] += part
                room[k + f] += part * part
        for f in range(k):
            score += 0.5 * (room[f] * room[f] - room[k + f])
        return score

    def derive(model, index, x, count, weights, room, out):
        k, across = model.k, 1 + model.k
        for e in range(count):
            out[e * across] = model.linear * x[e]
            at, inner = index[e] * across + 1, e < count - 1
            for f in range(k):
                out[e * across + 1 + f] = x[e] * (room[f] - weights[at + f] * x[e]) if inner else 0.0

    def begin(model, weights: np.ndarray, n_coordinates: int, seed: int) -> None:
        """Fill factors with small numbers around 0; the intercept has none."""
        fill_factors(model, weights, n_coordinates)


def fill_factors(model: Any, weights: np.ndarray, n_coordinates: int) -> None:
    """Fill the factors of a machine with small numbers around 0; the intercept has none."""
    n = n_coordinates - 1
    for first in range(0, n, AT_ONCE):
        some = np.arange(first * model.k, min(n, first + AT_ONCE) * model.k)
        weights[first : min(n, first + AT_ONCE), 1:] = spread(model.key, some, model.start).reshape(-1, model.k)
    weights[:n_coordinates, 0] *= model.linear


AT_ONCE = 1 << 16
"""Coordinates that are filled at a time."""

GAMMA, MIX1, MIX2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
"""Of SplitMix64."""

ROOT_OF_3 = 3.0**0.5


def key_of(seed: int, draw: int = 0) -> int:
    """Return the address of the random numbers of a start, below 2^63 so that every seed is of one type.

    Raises
    ------
    ValueError
        The draw is out of range.

    """
    if not 0 <= draw <= MOST_DRAWS:
        raise ValueError(f"draw={draw} is not within 0 and {MOST_DRAWS}")
    words = [seed, 0xFAC7, draw] if draw else [seed, 0xFAC7]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))


def spread(key: int, places: np.ndarray, deviation: float) -> np.ndarray:
    """Return numbers of this standard deviation around 0, uniform, float64, addressed by key and places (n,)."""
    z = np.uint64(key) + (places.astype(np.uint64) + np.uint64(1)) * GAMMA
    z = (z ^ (z >> np.uint64(30))) * MIX1
    z = (z ^ (z >> np.uint64(27))) * MIX2
    z ^= z >> np.uint64(31)
    unit: np.ndarray = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return deviation * ROOT_OF_3 * (2.0 * unit - 1.0)


def compiled(model: Any, seed: int = 0, columns: int = 0) -> Any:
    """Return the model that kernels take of one that a person named, for rows of so many places."""
    if not hasattr(model, "compiled"):
        return model
    return model.compiled(seed, columns) if by_columns(model) else model.compiled(seed)


def by_columns(model: Any) -> bool:
    """Whether a model asks what columns entries are from."""
    return bool(getattr(model, "by_columns", False))


def in_layers(model: Any) -> bool:
    """Whether batches of numbers go through a model as matrices: see `kernels.learn.layers`."""
    return bool(getattr(model, "in_layers", False))


def is_linear(model: Any) -> bool:
    """Whether scores are sums of weights."""
    return bool(getattr(model, "is_linear", False))


def width_of(model: Any, n_outputs: int) -> int:
    """Return the parameters of a coordinate."""
    return n_outputs if is_linear(model) else int(model.width())


def numbers_of_entry(model: Any) -> int:
    """Return the numbers that a kernel keeps of an entry, twice: its parameters, where pairs are looped over whole vectors."""
    width = int(model.width())
    return -(-width // 8) * 8 if by_columns(model) else width


def rows_apart(model: Any, n_coordinates: int) -> int:
    """Return the weights of a learner that keeps factors elsewhere: one per coordinate, then those that belong to none."""
    return n_coordinates + int(model.beyond())


def rows_of(model: Any, n_coordinates: int) -> int:
    """Return the rows of `width_of` parameters that a model has: one per coordinate, then those that belong to none."""
    return n_coordinates if is_linear(model) else n_coordinates - int(-model.beyond() // model.width())
