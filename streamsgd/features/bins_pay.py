"""Whether quantile bins pay for a table of numbers alone: a quick comparison on rows of the first look.

Two linear fits, by least squares or, of classes, by logistic regression: of the numbers as they are encoded, and of these and
their bins. Three rows of four are fitted, the fourth judges both. It takes half a second at most, whatever the size
of the data, and neither a compiler nor a library whose bits depend on its threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamsgd.features.arrow import as_float
from streamsgd.features.categories import CategoryColumn
from streamsgd.features.numbers import NumberColumn, number_values
from streamsgd.features.target import encode_target
from streamsgd.settings.fields import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamsgd.features.sample import Sample
    from streamsgd.features.target import Target

MOST_VALUES = 400_000
"""Numbers of all rows that are fitted, classes counted apart: what bounds the time ..."""

MOST_ROWS = 20_000
"""... and rows, which tell enough."""

MOST_PIECES = 16
"""Pieces of the look that they are taken from."""

LEAST_ROWS = 400
"""Rows below which bins are not tried: a quarter of fewer judges too little, ..."""

ROWS_PER_NUMBER = 10
"""... and rows per number, for fewer are fitted by numbers alone as they come, and whatever shrinks them looks better."""

LARGE = 1_000_000
"""Rows of data from which on it stays dense: there is one pass, at the speed of reading, and lists of entries take longer."""

UNSET = (
    *("optimizer", "learning_rate", "schedule", "batch_size", "rate_scaling", "clip_norm", "clip_value", "steps", "average"),
    *("penalty", "polish", "standard_errors", "noise", "method", "rare", "phases", "start", "combine"),
)
"""Settings of which none is set where bins are tried: what is asked for is asked of the columns as they are."""

MOST_CLASSES = 2
"""Classes, the most frequent first, each against all others."""

FOLD = 4
"""Of so many rows one judges."""

STEPS = 30
"""Of conjugate gradients, ..."""

NEWTON_STEPS, STEPS_OF_NEWTON = 5, 8
"""... and of a logistic regression, each with so many."""

SMALL = 1e-10
"""Share of the squared length of the first residual at which they end."""

RIDGE = 10.0
"""Penalty on squared weights, in rows."""

PAYS = 0.005
"""Share of the loss that bins must save, ..."""

ERRORS = 2.0
"""... and how many of its standard errors."""


@dataclass
class BinsPay:
    """Asks whether bins pay, and keeps the answer in words.

    Parameters
    ----------
    look, target
        Of the run.

    """

    look: Sample
    target: Target
    line: str = ""

    def __call__(self, configs: list[Any]) -> bool:
        """Whether the bins among the configs of all columns are worth it."""
        if not tries_bins(self.look.settings) or self.look.dataset.n_rows >= LARGE or self.target.task == "poisson":
            return False  # of counts with far values bins lose what the logarithms of counts seem to gain
        numbers = [config for config in configs if isinstance(config, NumberColumn)]
        bins = [config for config in configs if isinstance(config, CategoryColumn)]
        if len(numbers) + len(bins) < len(configs):
            return False  # kinds of one's own
        gain = gain_by_bins(self.look, self.target, numbers, bins)
        if gain is None or not gain.pays:
            return False
        self.line = (
            f"numbers come with quantile bins too: on {gain.judges:,} rows of the first look that it did not fit, a linear fit "
            f"comes to a loss of {gain.with_bins:.4g} with them and {gain.without:.4g} without; --transform tails leaves them "
            "out"
        )
        return True


def tries_bins(settings: Settings) -> bool:
    """Whether the settings leave it to the look if numbers get bins; two that differ in it may have other encodings."""
    default = Settings(target="")
    return settings.epochs != 1 and all(getattr(settings, name) == getattr(default, name) for name in UNSET)


class Gain(NamedTuple):
    """What bins bring on rows that were not fitted."""

    judges: int
    """Rows that were not fitted."""
    without: float
    """Mean loss by numbers alone: log loss, or squared error in units of the target's variance ..."""
    with_bins: float
    """... and with their bins."""
    error: float
    """Standard error of the difference."""

    @property
    def pays(self) -> bool:
        """Whether bins are worth their weights."""
        saved = self.without - self.with_bins
        return saved > PAYS * self.without and saved > ERRORS * self.error


@dataclass(frozen=True)
class Rows:
    """Rows of a fit: numbers (n, d), with a 1 as the last, and of each bin column the number of a weight, (n, b)."""

    numbers: np.ndarray
    codes: np.ndarray
    n_bins: int

    def times(self, weights: np.ndarray) -> np.ndarray:
        """Return the products of rows with weights, (n,)."""
        d = self.numbers.shape[1]
        scores: np.ndarray = np.einsum("ij,j->i", self.numbers, weights[:d])
        return scores + weights[d:][self.codes].sum(axis=1) if self.n_bins else scores

    def transposed(self, residuals: np.ndarray) -> np.ndarray:
        """Return the products of columns with a number for each row, (d + n_bins,)."""
        ours = np.einsum("ij,i->j", self.numbers, residuals)
        each = np.broadcast_to(residuals[:, None], self.codes.shape).ravel()
        return np.append(ours, np.bincount(self.codes.ravel(), each, self.n_bins)) if self.n_bins else ours

    def sizes(self) -> np.ndarray:
        """Return the sum of squares of every column."""
        ours = np.einsum("ij,ij->j", self.numbers, self.numbers)
        return np.append(ours, np.bincount(self.codes.ravel(), minlength=self.n_bins)) if self.n_bins else ours

    def some(self, which: np.ndarray, *, bins: bool) -> Rows:
        """Return some of the rows, with or without their bins."""
        return Rows(self.numbers[which], self.codes[which], self.n_bins if bins else 0)


def gain_by_bins(look: Sample, target: Target, numbers: Sequence[NumberColumn], bins: Sequence[CategoryColumn]) -> Gain | None:
    """Return what bins bring; None where there are too few rows, or columns, to say."""
    n_targets = max(1, min(MOST_CLASSES, len(target.classes) if len(target.classes) > 2 else 1))
    most = min(MOST_ROWS, MOST_VALUES // (n_targets * (len(numbers) + len(bins) + 1)))
    least = max(LEAST_ROWS, ROWS_PER_NUMBER * len(numbers))
    if not bins or min(most, look.dataset.n_rows) < least:
        return None
    rows, y = _read(look, target, numbers, bins, most)
    if len(y) < least:
        return None
    judges = np.arange(len(y)) % FOLD == FOLD - 1
    of_class = bool(target.classes)
    errors = [_errors(rows, column, judges, of_class=of_class) for column in _targets(target, y, n_targets)]
    without, with_bins = (np.mean([pair[k] for pair in errors], axis=0) for k in (0, 1))
    differences = without - with_bins
    error = float(differences.std()) / math.sqrt(max(1, len(differences)))
    return Gain(int(judges.sum()), float(without.mean()), float(with_bins.mean()), error)


def _errors(rows: Rows, y: np.ndarray, judges: np.ndarray, *, of_class: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the losses of the rows that judge, by numbers alone and with bins: squared errors, or log losses of a class."""
    found = []
    for bins in (False, True):
        weights = (_fit_class if of_class else _fit)(rows.some(~judges, bins=bins), y[~judges])
        score, truth = rows.some(judges, bins=bins).times(weights), y[judges]
        found.append(np.logaddexp(0.0, score) - truth * score if of_class else np.square(score - truth))
    return found[0], found[1]


def _fit(rows: Rows, y: np.ndarray) -> np.ndarray:
    """Return weights of least squares with a small ridge."""
    return _solve(rows, rows.transposed(y), np.ones(len(y)), STEPS)


def _fit_class(rows: Rows, y: np.ndarray) -> np.ndarray:
    """Return weights of a logistic regression with a small ridge, by Newton steps that are halved until the loss falls."""
    weights = np.zeros(rows.numbers.shape[1] + rows.n_bins)
    score, loss = np.zeros(len(y)), len(y) * math.log(2.0)
    for _ in range(NEWTON_STEPS):
        chance = 1.0 / (1.0 + np.exp(-np.clip(score, -30.0, 30.0)))
        slope = rows.transposed(y - chance) - RIDGE * weights
        step = _solve(rows, slope, np.maximum(chance * (1.0 - chance), 1e-3), STEPS_OF_NEWTON)
        for k in range(NEWTON_STEPS):
            moved = weights + step / 2.0**k
            reached = rows.times(moved)
            cost = float((np.logaddexp(0.0, reached) - y * reached).sum()) + RIDGE / 2.0 * float((moved * moved).sum())
            if cost <= loss:
                weights, score, loss = moved, reached, cost
                break
    return weights


def _solve(rows: Rows, right: np.ndarray, by: np.ndarray, steps: int) -> np.ndarray:
    """Solve (A' diag(by) A + ridge) x = right by conjugate gradients, each column in units of its size."""
    scale = 1.0 / np.sqrt(rows.sizes() * by.mean() + RIDGE)
    found = np.zeros(len(scale))
    residual = scale * right
    direction, size = residual.copy(), float(np.einsum("i,i->", residual, residual))
    least = size * SMALL
    for _ in range(steps):
        if size <= least:
            break
        moved = scale * (rows.transposed(by * rows.times(scale * direction)) + RIDGE * scale * direction)
        step = size / float(np.einsum("i,i->", direction, moved))
        found += step * direction
        residual -= step * moved
        size, before = float(np.einsum("i,i->", residual, residual)), size
        direction = residual + size / before * direction
    solved: np.ndarray = scale * found
    return solved


def _targets(target: Target, y: np.ndarray, n: int) -> list[np.ndarray]:
    """Return what is fitted: whether rows are of a class, or numbers, less what is far out, of variance 1."""
    if target.classes:
        counts = np.bincount(y.astype(np.int64), minlength=len(target.classes))
        return [(y == k).astype(float) for k in np.argsort(-counts, kind="stable")[:n]]
    column = np.clip(y, *np.quantile(y, [0.001, 0.999]))
    return [(column - column.mean()) / max(float(column.std()), 1e-12)]


def _read(
    look: Sample, target: Target, numbers: Sequence[NumberColumn], bins: Sequence[CategoryColumn], most: int
) -> tuple[Rows, np.ndarray]:
    """Return rows evenly spread over pieces of the look, in a fixed order in which neighbours are no neighbours in the data."""
    names = tuple(dict.fromkeys([*(column.column for column in numbers), *(column.column for column in bins), target.name]))
    pieces = look.sample(names)
    pieces = pieces[:: -(-len(pieces) // MOST_PIECES)]
    parts = [_of_piece(look.columns(piece, names), target, numbers, bins, -(-most // len(pieces))) for piece in pieces]
    values, codes, y = (np.concatenate([part[k] for part in parts]) for k in (0, 1, 2))
    order = np.random.Generator(np.random.PCG64(np.random.SeedSequence([look.settings.seed, 0xB175]))).permutation(len(y))
    first = np.cumsum([0, *(len(column.edges) + 2 for column in bins)])
    return Rows(np.column_stack([values, np.ones(len(y))])[order], (codes + first[:-1])[order], int(first[-1])), y[order]


def _of_piece(
    columns: dict[str, Any], target: Target, numbers: Sequence[NumberColumn], bins: Sequence[CategoryColumn], most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    y, usable = encode_target(target, columns[target.name])
    kept = np.flatnonzero(usable)
    kept = kept[np.linspace(0, len(kept) - 1, min(most, len(kept))).astype(np.int64)] if len(kept) else kept
    values = [_encoded(column, columns[column.column])[kept] for column in numbers]
    codes = [_code(column, columns[column.column])[kept] for column in bins]
    none = np.zeros((len(kept), 0))
    return np.column_stack([none, *values]), np.column_stack([none.astype(np.int64), *codes]), y[kept]


def _encoded(column: NumberColumn, values: Any) -> np.ndarray:
    encoded = (np.asarray(number_values(column, values), np.float64) - column.shift) * column.scale
    return np.where(np.isfinite(encoded), encoded, column.fill)


def _code(column: CategoryColumn, values: Any) -> np.ndarray:
    numbers = np.asarray(as_float(values), np.float64)
    return np.where(np.isnan(numbers), len(column.edges) + 1, np.searchsorted(column.edges, numbers, side="right"))
