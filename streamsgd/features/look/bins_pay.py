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
from streamsgd.features.look.quick_fit import Rows, fit_class, fit_squares
from streamsgd.features.numbers import NumberColumn, number_values
from streamsgd.features.target import encode_target
from streamsgd.features.unset import leaves_open

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamsgd.features.sample import Sample
    from streamsgd.features.target import Target
    from streamsgd.settings.fields import Settings

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

MOST_CLASSES = 2
"""Classes, the most frequent first, each against all others."""

FOLD = 4
"""Of so many rows one judges."""

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

    def __call__(self, make: Callable[[], list[Any]]) -> bool:
        """Whether the bins among the configs of all columns, which are made if that is tried, are worth it."""
        if not tries_bins(self.look.settings) or self.look.dataset.n_rows >= LARGE or self.target.task == "poisson":
            return False  # of counts with far values bins lose what the logarithms of counts seem to gain
        configs = make()
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
    return settings.epochs != 1 and leaves_open(settings)


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


def gain_by_bins(look: Sample, target: Target, numbers: Sequence[NumberColumn], bins: Sequence[CategoryColumn]) -> Gain | None:
    """Return what bins bring; None where there are too few rows, or columns, to say."""
    n_targets = max(1, min(MOST_CLASSES, len(target.classes) if len(target.classes) > 2 else 1))
    most = min(MOST_ROWS, MOST_VALUES // (n_targets * (len(numbers) + len(bins) + 1)))
    least = max(LEAST_ROWS, ROWS_PER_NUMBER * len(numbers))
    if not bins or min(most, look.dataset.n_rows) < least:
        return None
    rows, y = read_rows(look, target, numbers, bins, most)
    if len(y) < least:
        return None
    judges = np.arange(len(y)) % FOLD == FOLD - 1
    of_class = bool(target.classes)
    errors = [_errors(rows, column, judges, of_class=of_class) for column in targets_of(target, y, n_targets)]
    without, with_bins = (np.mean([pair[k] for pair in errors], axis=0) for k in (0, 1))
    differences = without - with_bins
    error = float(differences.std()) / math.sqrt(max(1, len(differences)))
    return Gain(int(judges.sum()), float(without.mean()), float(with_bins.mean()), error)


def _errors(rows: Rows, y: np.ndarray, judges: np.ndarray, *, of_class: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the losses of the rows that judge, by numbers alone and with bins: squared errors, or log losses of a class."""
    found = []
    for bins in (False, True):
        weights = (fit_class if of_class else fit_squares)(rows.some(~judges, bins=bins), y[~judges])
        score, truth = rows.some(judges, bins=bins).times(weights), y[judges]
        found.append(np.logaddexp(0.0, score) - truth * score if of_class else np.square(score - truth))
    return found[0], found[1]


def targets_of(target: Target, y: np.ndarray, n: int) -> list[np.ndarray]:
    """Return what is fitted: whether rows are of a class, or numbers, less what is far out, of variance 1."""
    if target.classes:
        counts = np.bincount(y.astype(np.int64), minlength=len(target.classes))
        return [(y == k).astype(float) for k in np.argsort(-counts, kind="stable")[:n]]
    column = np.clip(y, *np.quantile(y, [0.001, 0.999]))
    return [(column - column.mean()) / max(float(column.std()), 1e-12)]


def read_rows(
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
    values = [encoded(column, columns[column.column])[kept] for column in numbers]
    codes = [code_of(column, columns[column.column])[kept] for column in bins]
    none = np.zeros((len(kept), 0))
    return np.column_stack([none, *values]), np.column_stack([none.astype(np.int64), *codes]), y[kept]


def encoded(column: NumberColumn, values: Any) -> np.ndarray:
    """Return a column's values as they are encoded, float64 (n,)."""
    encoded = (np.asarray(number_values(column, values), np.float64) - column.shift) * column.scale
    return np.where(np.isfinite(encoded), encoded, column.fill)


def code_of(column: CategoryColumn, values: Any) -> np.ndarray:
    """Return the bin of each value, from 0 on, null last."""
    numbers = np.asarray(as_float(values), np.float64)
    return np.where(np.isnan(numbers), len(column.edges) + 1, np.searchsorted(column.edges, numbers, side="right"))
