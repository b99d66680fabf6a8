"""Scores counted in bins: how far predictions are off, as a model file keeps it.

Scores are counted by the first `KEPT_BITS` bits of their float32, within 0.05 % of their size. The end of the bin of a rank is
taken, so what a sketch loses only adds to the level: by less than the share of rows in that bin, which is told. Sketches of any
rows add up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamsgd.model.validate import ArraySpec, check_arrays, refuse

if TYPE_CHECKING:
    from collections.abc import Mapping

KEPT_BITS = 20
"""Sign, exponent and eleven binary digits."""

DROPPED = 32 - KEPT_BITS

PREFIX = "conformal."
"""Of the arrays in a file."""

LEAST_OFF = 2.0**-14
"""By which a class may not fit before bins are told apart: so that there are at most `CLASS_BINS` of them."""

CLASS_BINS = 15 << (KEPT_BITS - 9)

OTHER_BINS = 1 << (KEPT_BITS - 1)
"""Bins of numbers that are not negative."""

LEAST_MEAN = 1e-12
"""Of a count: below it residuals are not divided by its root."""


class Spread(NamedTuple):
    """How large residuals are, by row, in units of the target."""

    weights: np.ndarray
    """float64 (n_coordinates,): of a linear function of the encoded row."""
    least: float
    """What it is taken for at least."""
    mean: float
    """Of the residuals that it was learned from."""


class Quantile(NamedTuple):
    """A quantile of scores."""

    value: float
    """Infinite if there are too few rows."""
    rank_error: float
    """By how much the level may be above what was asked for: the share of rows within a bin."""
    rows: int


@dataclass(frozen=True)
class ScoreSketch:
    """How many scores fall into which bins."""

    keys: np.ndarray
    """int64, ascending: class times 2^20 plus the bits of a bin."""
    counts: np.ndarray
    """int64, above 0."""

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return int(self.keys.nbytes + self.counts.nbytes)

    @property
    def rows(self) -> int:
        """Scores in all."""
        return int(self.counts.sum())

    @classmethod
    def of(cls, classes: np.ndarray, scores: np.ndarray) -> ScoreSketch:
        """Return the sketch of scores of at least 0, each of a class; NaN counts as infinite."""
        bits = np.where(np.isnan(scores), np.inf, np.abs(scores)).astype(np.float32).view(np.uint32)
        keys, counts = np.unique(
            (classes.astype(np.int64) << KEPT_BITS) + (bits >> DROPPED).astype(np.int64), return_counts=True
        )
        return cls(keys, counts.astype(np.int64))

    def merge(self, other: ScoreSketch) -> ScoreSketch:
        """Return the sketch of the rows of both."""
        keys, where = np.unique(np.concatenate([self.keys, other.keys]), return_inverse=True)
        counts = np.zeros(len(keys), np.int64)
        np.add.at(counts, where, np.concatenate([self.counts, other.counts]))
        return ScoreSketch(keys, counts)

    def only(self, of_class: int) -> ScoreSketch:
        """Return that of one class alone."""
        mine = self.keys >> KEPT_BITS == of_class
        return ScoreSketch(self.keys[mine], self.counts[mine])

    def of_class(self, of_class: int) -> ScoreSketch:
        """Return one of a single class as that of another."""
        return ScoreSketch((self.keys & ((1 << KEPT_BITS) - 1)) + (of_class << KEPT_BITS), self.counts)

    def quantile(self, level: float, of_class: int = 0) -> Quantile:
        """Return the conformal quantile of a class's scores."""
        mine = self.keys >> KEPT_BITS == of_class
        counts = np.cumsum(self.counts[mine])
        n = int(counts[-1]) if len(counts) else 0
        rank = math.ceil((n + 1) * level)
        if rank > n:
            return Quantile(math.inf, 0.0, n)
        at = int(np.searchsorted(counts, rank))
        code = (int(self.keys[mine][at]) & ((1 << KEPT_BITS) - 1)) + 1
        end = np.array([min(code << DROPPED, 0x7F800000)], np.uint32).view(np.float32)
        return Quantile(float(end[0]), float(counts[at] - rank) / n, n)


def new_sketch() -> ScoreSketch:
    """Return one of no rows."""
    return ScoreSketch(np.zeros(0, np.int64), np.zeros(0, np.int64))


def sketch_arrays(sketch: ScoreSketch | None, spread: Spread | None) -> dict[str, np.ndarray]:
    """Return the arrays of a model file."""
    found = {} if sketch is None else {"keys": sketch.keys, "counts": sketch.counts}
    if spread is not None:
        found |= {"spread": spread.weights, "spread_ends": np.array([spread.least, spread.mean])}
    return {f"{PREFIX}{key}": array for key, array in found.items()}


def split_sketch(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the arrays of a model file without those of a sketch, and those."""
    rest = {key: array for key, array in arrays.items() if not key.startswith(PREFIX)}
    return rest, {key.removeprefix(PREFIX): array for key, array in arrays.items() if key.startswith(PREFIX)}


def read_spread(arrays: dict[str, np.ndarray], n_coordinates: int, name: str) -> tuple[dict[str, np.ndarray], Spread | None]:
    """Return the arrays of a file without those of a spread, and it, all of which is checked.

    Raises
    ------
    ModelError
        They are none of ours; the message names the file and the array.

    """
    mine = {key: array for key, array in arrays.items() if key.startswith("spread")}
    rest = {key: array for key, array in arrays.items() if key not in mine}
    if not mine:
        return rest, None
    check_arrays(
        mine, {"spread": ArraySpec(("float64",), (n_coordinates,)), "spread_ends": ArraySpec(("float64",), (2,))}, name
    )
    least, mean = mine["spread_ends"].tolist()
    if not (np.isfinite(mine["spread"]).all() and 0.0 < least <= mean < math.inf):
        refuse(name, f"array '{PREFIX}spread'", "is not the scale of residuals")
    return rest, Spread(mine["spread"], least, mean)


def read_sketch(arrays: dict[str, np.ndarray], n_classes: int, name: str) -> ScoreSketch | None:
    """Return the sketch of so many classes from the arrays of a file, all of which are checked.

    Raises
    ------
    ModelError
        They are none of ours; the message names the file and the array.

    """
    if not arrays:
        return None
    size = len(arrays["keys"]) if "keys" in arrays and arrays["keys"].ndim else None
    check_arrays(arrays, {"keys": ArraySpec(("int64",), (None,)), "counts": ArraySpec(("int64",), (size,))}, name)
    keys, counts = arrays["keys"], arrays["counts"]
    if not ((np.diff(keys) > 0).all() and (keys >= 0).all() and (keys < max(n_classes, 1) << KEPT_BITS).all()):
        refuse(name, f"array '{PREFIX}keys'", "is not ascending within the bins there are")
    if not ((counts > 0) & (counts < 1 << 53)).all():
        refuse(name, f"array '{PREFIX}counts'", "are no counts")
    return ScoreSketch(keys, counts)


def said_of(sketch: ScoreSketch, classes: tuple[Any, ...]) -> dict[str, Any]:
    """Return what there is to say of a calibration, as JSON values: rows, and the quantile and rank error at 90 %."""
    found = [sketch.quantile(0.9, k) for k in range(max(len(classes), 1))]
    values = [one.value if math.isfinite(one.value) else None for one in found]
    return {
        "rows": sketch.rows,
        "rank_error": max(one.rank_error for one in found),
        "quantile_90": dict(zip(map(str, classes), values, strict=True)) if classes else values[0],
        "rows_by_class": {str(name): one.rows for name, one in zip(classes, found, strict=True)} if classes else None,
    }
