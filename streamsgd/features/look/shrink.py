"""How much weights of wide and little data are shrunk: a ridge that some rows of the first look choose and others judge.

Ten passes over few rows of many numbers learn them by heart.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamsgd.features.look.bins_pay import ERRORS, FOLD, PAYS, encoded, targets_of
from streamsgd.features.look.look_rows import look_rows
from streamsgd.features.look.quick_fit import FAMILIES, Rows, fit
from streamsgd.features.unset import leaves_open, may_thin

if TYPE_CHECKING:
    from streamsgd.features.encoding import Encoding
    from streamsgd.features.sample import Sample
    from streamsgd.features.target import Target
    from streamsgd.settings.fields import Settings

MOST_VALUES = 1_600_000
"""Numbers of all rows that are fitted, ..."""

LEAST_ROWS = 200
"""... and rows: fewer judge too little."""

ROWS_PER_NUMBER = 50
"""Rows of data per number below which ridges are tried: more are hardly learned by heart."""

RIDGES = (0.1, 1.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0)
"""Penalties on squared weights, in rows; the first is next to none."""


class Shrinkage(NamedTuple):
    """What a ridge brings on rows that were not fitted."""

    ridge: float
    """In rows: as many of them would move a weight as much."""
    judges: int
    without: float
    with_it: float
    """Mean losses."""

    def spec(self, n_rows: int) -> str:
        """Return the penalty of a run over so many rows."""
        return f"l2:l2={self.ridge / n_rows:.6g}"

    def line(self, n_rows: int) -> str:
        """Say what was chosen, and how to do without."""
        return (
            f"weights are shrunk by --penalty {self.spec(n_rows)}: on {self.judges:,} rows of the first look that it did not "
            f"fit, a linear fit comes to a loss of {self.with_it:.4g} with it and {self.without:.4g} without; "
            "--penalty l2:l2=0 leaves it out"
        )


def tries_ridges(settings: Settings) -> bool:
    """Whether the settings leave it to the look how weights are shrunk."""
    unset = leaves_open(settings) and not may_thin(settings) and settings.penalty == "none"
    return unset and settings.epochs != 1 and settings.model == "linear" and settings.loss == "auto"


def choose_ridge(look: Sample, target: Target, encoding: Encoding) -> Shrinkage | None:
    """Return the ridge that pays, if one does: of few rows of numbers alone."""
    width, n_rows = encoding.width, look.dataset.n_rows
    if not tries_ridges(look.settings) or encoding.is_wide or encoding.custom or target.task == "poisson":
        return None
    most = MOST_VALUES // max(1, width)
    if n_rows >= ROWS_PER_NUMBER * width or min(n_rows, most) < LEAST_ROWS:
        return None
    columns, y = look_rows(look, target, list(dict.fromkeys(c.column for c in encoding.columns)), most)
    if len(y) < LEAST_ROWS:
        return None
    values = np.column_stack([*(encoded(c, columns[c.column]) for c in encoding.columns), np.ones(len(y))])
    family = "class" if target.classes else "squares"
    return _best(values, targets_of(target, y, 1)[0], family)


def _best(values: np.ndarray, y: np.ndarray, family: str) -> Shrinkage | None:
    """Return the ridge of the least loss if it is less than without, judged by a quarter of the rows."""
    judges = np.arange(len(y)) % FOLD == FOLD - 1
    rows = Rows(values, np.zeros((len(y), 0), np.int64), 0)
    fitted, judged = rows.some(~judges, bins=False), rows.some(judges, bins=False)
    losses = []
    for ridge in RIDGES:
        free = np.append(np.full(values.shape[1] - 1, ridge), 1e-6)  # not the intercept
        losses.append(FAMILIES[family].loss(judged.times(fit(fitted, y[~judges], family, free)), y[judges]))
    best = min(range(len(RIDGES)), key=lambda k: float(losses[k].mean()))
    saved = losses[0] - losses[best]
    error = float(saved.std()) / math.sqrt(len(saved))
    if float(saved.mean()) <= max(PAYS * float(losses[0].mean()), ERRORS * error):
        return None
    # What fewer rows want is what more rows want in rows.
    return Shrinkage(RIDGES[best], int(judges.sum()), float(losses[0].mean()), float(losses[best].mean()))
