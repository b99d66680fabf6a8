"""Which pairs of categories say together what they do not say apart: a residual test on some rows of the first look.

An additive fit of all numbers and categories; then, of each pair, whether a step for every combination, fitted to what is left,
lowers the loss of rows that were not fitted. The best pair is kept, and the others are asked again.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamsgd.features.categories import CategoryColumn, CategoryEncoder
from streamsgd.features.hashing import Hashed
from streamsgd.features.look.bins_pay import FOLD, encoded, targets_of
from streamsgd.features.look.look_rows import look_rows
from streamsgd.features.look.quick_fit import FAMILIES, Rows, fit
from streamsgd.features.numbers import NumberColumn
from streamsgd.features.unset import leaves_open

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamsgd.features.sample import Sample
    from streamsgd.features.target import Target
    from streamsgd.settings.fields import Settings

MOST_ROWS = 16_000
"""Rows that are compared, ..."""

MOST_PAIRS = 190
"""... pairs, which is those of 20 columns, ..."""

MOST_AGAIN = 20
"""... of which so many are asked again beside those chosen, ..."""

MOST_CELLS = 1 << 16
"""... combinations of a pair that are told apart, ..."""

LARGEST = 3.0
"""... units of the score by which one may move it, ..."""

MOST_CROSSES = 3
"""... and crosses that are chosen."""

MOST_VALUES = 400_000
"""Numbers of all rows that are fitted."""

LEAST_ROWS = 1_000
"""Rows below which no pair is asked."""

PRIOR = 10.0
"""Curvature, in rows of the mean curvature, that stands against the step of a combination."""

PAYS = 0.01
"""Share of the loss that a cross must save, ..."""

ERRORS = 4.0
"""... and how many of its standard errors: one of two hundred pairs may seem to save two by chance."""


class CrossGain(NamedTuple):
    """What a cross brings on rows that were not fitted."""

    members: tuple[str, str]
    without: float
    with_it: float
    """Mean losses."""
    judges: int

    @property
    def told(self) -> str:
        """In words."""
        return f"{'*'.join(self.members)!r} (loss {self.without:.4g} to {self.with_it:.4g})"


CROSSED = ("linear", "fm", "fwfm")
"""Models that get them: a machine has the columns of the linear model that learns beside it."""


def tries_crosses(settings: Settings) -> bool:
    """Whether the settings leave it to the look which categories are crossed."""
    unset = leaves_open(settings) and settings.model.partition(":")[0] in CROSSED
    return "auto" in settings.cross or (settings.cross == () and unset)


def find_crosses(look: Sample, target: Target, configs: Sequence[Any]) -> list[CrossGain]:
    """Return the pairs of categories that are worth crossing, the best first."""
    categories = [config for config in configs if isinstance(config, CategoryColumn)]
    numbers = [config for config in configs if isinstance(config, NumberColumn) and config.item < 0]
    few = look.dataset.n_rows < LEAST_ROWS or len(categories) < 2
    if few or not tries_crosses(look.settings) or (len(categories) + len(numbers)) * LEAST_ROWS > MOST_VALUES:
        return []
    most = min(MOST_ROWS, MOST_VALUES // (len(categories) + len(numbers)))
    names = list(dict.fromkeys([*(config.column for config in categories), *(config.column for config in numbers)]))
    columns, y = look_rows(look, target, names, most)
    if len(y) < LEAST_ROWS:
        return []
    codes = [_codes(config, columns[config.column]) for config in categories]
    values = np.column_stack([*(encoded(config, columns[config.column]) for config in numbers), np.ones(len(y))])
    return _greedy(categories, values, codes, *_target(target, y))


def _target(target: Target, y: np.ndarray) -> tuple[np.ndarray, str]:
    """Return what is fitted, and the family of its loss; of several classes the most frequent against all others."""
    if target.task == "poisson":
        return y, "counts"
    return targets_of(target, y, 1)[0], "class" if target.classes else "squares"


def _codes(config: CategoryColumn, column: Any) -> np.ndarray:
    """Return the number of each row's value, int64 (n,), from 0 on."""
    found = CategoryEncoder(config, None if config.own else Hashed(0, 18)).codes(column)
    if isinstance(found, tuple):
        indices, table = found
        filled = np.asarray(indices.fill_null(len(table)), np.int64)
        found = np.append(table, np.int32(-1))[filled]
    codes: np.ndarray = np.unique(np.asarray(found), return_inverse=True)[1]
    return codes


def _greedy(
    columns: list[CategoryColumn], values: np.ndarray, codes: list[np.ndarray], y: np.ndarray, family: str
) -> list[CrossGain]:
    """Choose one pair after another, each with a fit that has those chosen before."""
    names, sources = [column.name for column in columns], [column.column for column in columns]
    judges = np.arange(len(y)) % FOLD == FOLD - 1
    pairs = [(a, b) for a, b in combinations(_best([int(code.max()) + 1 for code in codes]), 2) if sources[a] != sources[b]]
    found: list[CrossGain] = []
    while pairs and len(found) < MOST_CROSSES:
        test = _Test(values, codes, y, judges, family)
        savings = {pair: test.saved(pair) for pair in pairs}
        pairs = sorted(pairs, key=lambda pair: -float(savings[pair].mean()))[:MOST_AGAIN]
        (a, b), saved = pairs[0], savings[pairs[0]]
        gain, error = float(saved.mean()), float(saved.std()) / math.sqrt(len(saved))
        if gain <= PAYS * abs(test.loss) or gain <= ERRORS * error:
            break
        found.append(CrossGain((names[a], names[b]), test.loss, test.loss - gain, int(judges.sum())))
        codes, pairs = [*codes, joint(codes[a], codes[b])], pairs[1:]
    return found


class _Test:
    """An additive fit, and what a step for every combination of a pair would save beside it."""

    def __init__(self, values: np.ndarray, codes: list[np.ndarray], y: np.ndarray, judges: np.ndarray, family: str) -> None:
        self.codes, self.judges, self.truth = codes, judges, y[judges]
        self.of, slope = FAMILIES[family]
        first = np.cumsum([0, *(int(code.max()) + 1 for code in codes)])
        rows = Rows(values, np.column_stack(codes) + first[:-1], int(first[-1]))
        self.score = rows.times(fit(rows.some(~judges, bins=True), y[~judges], family))
        self.residual, self.curvature = slope(self.score, y)
        self.before = self.of(self.score[judges], self.truth)
        self.loss = float(self.before.mean())
        self.alone: dict[int, np.ndarray] = {}

    def saved(self, pair: tuple[int, int]) -> np.ndarray:
        """Return by how much the loss of each row that judges falls, beyond what either of the two would do alone."""
        alone = max((self._alone(k) for k in pair), key=lambda saved: float(saved.mean()))
        saved: np.ndarray = self._by(joint(self.codes[pair[0]], self.codes[pair[1]])) - np.maximum(alone.mean(), 0.0)
        return saved

    def _alone(self, k: int) -> np.ndarray:
        if k not in self.alone:
            self.alone[k] = self._by(self.codes[k])
        return self.alone[k]

    def _by(self, codes: np.ndarray) -> np.ndarray:
        """Return what a Newton step of the score for every code saves, fitted to the rows that do not judge."""
        known, n = ~self.judges, int(codes.max()) + 1
        up, down = (np.bincount(codes[known], part[known], n) for part in (self.residual, self.curvature))
        steps = np.clip(up / (down + PRIOR * float(self.curvature.mean())), -LARGEST, LARGEST)
        saved: np.ndarray = self.before - self.of(self.score[self.judges] + steps[codes[self.judges]], self.truth)
        return saved


def joint(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a code for every combination; of very many some share one."""
    size = int(b.max()) + 1
    codes: np.ndarray = a * size + b
    return codes if size * (int(a.max()) + 1) <= MOST_CELLS else codes * 40503 % MOST_CELLS


def _best(sizes: list[int]) -> list[int]:
    """Return so many columns that their pairs are few enough: those of fewest values, which come back most often."""
    n = int((1.0 + math.sqrt(1.0 + 8.0 * MOST_PAIRS)) / 2.0)
    order = sorted(range(len(sizes)), key=lambda k: (sizes[k] < 2, sizes[k]))
    return sorted(k for k in order[:n] if sizes[k] > 1)
