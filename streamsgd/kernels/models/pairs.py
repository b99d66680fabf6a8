"""Field-weighted factorization machines: as `machines` has them, with a weight for every pair of columns.

Behind the coordinates stand the weights of pairs, those of place 0 with 0, 1, 2 ..., of 1 with 1, 2, 3 ..., and so on: that of
places a <= b is number a (2 n - a - 1) / 2 + b. A place is what a row has at most one entry of (a number, a category, a cross),
or a column of lists, maps or words, whose entries share it; what two of them are to each other has a weight as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from streamsgd.kernels.models.machines import check_machine, fill_factors, key_of
from streamsgd.kernels.parts.ranges import AtLeastOne, NotNegative, Positive, Whole

if TYPE_CHECKING:
    import numpy as np

MOST_COLUMNS = 1024
"""Places of a row, at most: half a million pairs."""


class FwFM(NamedTuple):
    """Field-weighted factorization machine: fm, where a weight for each pair of columns multiplies what pairs of values add.

    score = w0 + sum w_i x_i + sum_{i<j} r_{c(i) c(j)} <v_i, v_j> x_i x_j, c(i) being the column of i. The weights r begin at 1,
    where it is an fm. Fields are those of fm.
    """

    k: AtLeastOne = 8
    linear: str = "with"
    rate: Positive = 0.07
    start: NotNegative = 0.05
    draw: Whole = 0
    against: str = "linear"

    usual_rates = {"adam": 0.01, "adamw": 0.01, "amsgrad": 0.01, "adagrad": 0.1, "rmsprop": 0.003}  # noqa: RUF012
    by_columns = True
    source = "Pan, Xu, Ruiz, Zhao, Pan, Sun and Lu 2018, WWW"

    def compiled(self, seed: int = 0, columns: int = 0) -> PairWeighted:
        """Return what kernels take of rows of so many places.

        Raises
        ------
        ValueError
            A field is out of range, or there are too many columns.

        """
        check_machine(self)
        if columns > MOST_COLUMNS:
            raise ValueError(
                f"has a weight for every pair of columns, and of {columns:,} numbers, categories and lists there are too many; "
                f"up to {MOST_COLUMNS:,} are possible: take fm, or leave columns out"
            )
        linear, key = int(self.linear == "with"), key_of(seed, self.draw)
        form: Any = PairWeighted
        found: PairWeighted = form(self.k, linear, self.rate, self.start, key, columns)
        return found


class PairWeighted(NamedTuple):
    """A field-weighted machine in numbers."""

    k: int
    linear: int
    """1 with intercept and weights, 0 without."""
    rate: float
    start: float
    key: int
    """What random numbers are addressed by."""
    columns: int
    """Places of a row."""

    factored = True
    by_columns = True

    def width(model):
        return 1 + model.k

    def beyond(model):
        return model.columns * (model.columns + 1) // 2

    def room(model):
        return 0

    def output(model, index, x, count, weights, room):
        k, across, n, score = model.k, 1 + model.k, model.columns, 0.0
        pairs = (index[count - 1] + 1) * across
        for e in range(count):
            score += model.linear * weights[index[e] * across] * x[e]
        for i in range(1, count - 1):
            high, there = index[count + i], index[i] * across + 1
            for e in range(i):
                low, at, product = index[count + e], index[e] * across + 1, 0.0
                for f in range(k):
                    product += weights[at + f] * weights[there + f]
                score += weights[pairs + low * (2 * n - low - 1) // 2 + high] * product * x[e] * x[i]
        return score

    def derive(model, index, x, count, weights, room, out):
        k, across, n = model.k, 1 + model.k, model.columns
        pairs, behind = (index[count - 1] + 1) * across, count * across
        for j in range(behind + n * (n + 1) // 2):
            out[j] = 0.0
        for e in range(count):
            out[e * across] = model.linear * x[e]
        for i in range(1, count - 1):
            high, there = index[count + i], index[i] * across + 1
            for e in range(i):
                low, at, product = index[count + e], index[e] * across + 1, 0.0
                pair, size = low * (2 * n - low - 1) // 2 + high, x[e] * x[i]
                pull = weights[pairs + pair] * size
                for f in range(k):
                    product += weights[at + f] * weights[there + f]
                    out[e * across + 1 + f] += pull * weights[there + f]
                    out[i * across + 1 + f] += pull * weights[at + f]
                out[behind + pair] += product * size

    def begin(model, weights: np.ndarray, n_coordinates: int, seed: int) -> None:
        """Fill factors with small numbers around 0, the intercept having none, and weights of pairs with 1."""
        fill_factors(model, weights, n_coordinates)
        weights[n_coordinates:].reshape(-1)[: model.beyond()] = 1.0
