"""Scores counted in bins: how far predictions are off, as a model file keeps it.

A bin is all scores above the end of the bin before it, up to and with its own end. Ends are float32 numbers, so that up to
`MOST_BINS` different scores of a class are each a bin and a quantile is that of the sorted scores. Of more, as many of the last
binary digits are dropped as leave that many bins. Since the bins of few digits are made of those of many, and more scores never
need fewer dropped, it does not matter in which order and in how many parts scores come: sketches of any rows add up. The end
of the bin of a rank is taken, so what a sketch loses only adds to the level: by the share of rows in that bin, which is told.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamsgd.model.validate import ArraySpec, check_arrays, refuse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    _Bins = tuple[np.ndarray, np.ndarray]
    """Keys, ascending, and how many scores each has."""

MOST_BINS = 1 << 16
"""Of a class: a megabyte."""

CLASS_SHIFT = 32
"""Bits of a key below the class: those of a float32."""

MOST_DROPPED = 23
"""Then a bin is a power of two, of which there are 254."""

INFINITE = 0x7F800000
"""The bits of the float32, and the end of the last bin however many are dropped."""

OLD_BITS = 20
"""Of bins in older files: sign, exponent and eleven binary digits, of one minus the probability where that is odds now."""

PREFIX = "conformal."
"""Of the arrays in a file."""

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
    """int64, ascending: class times 2^32 plus the bits of the end of a bin."""
    counts: np.ndarray
    """int64, above 0."""
    dropped: np.ndarray
    """int64 (classes so far,): binary digits that the bins of a class lack."""

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return int(self.keys.nbytes + self.counts.nbytes + self.dropped.nbytes)

    @property
    def rows(self) -> int:
        """Scores in all."""
        return int(self.counts.sum())

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays of a file, of which `read_sketch` makes it again."""
        return {"ends": self.keys, "counts": self.counts, "dropped": self.dropped}

    @classmethod
    def of(cls, classes: np.ndarray, scores: np.ndarray) -> ScoreSketch:
        """Return the sketch of scores of at least 0, each of a class; NaN counts as infinite."""
        known = np.where(np.isnan(scores), np.inf, np.abs(scores))
        keys = np.sort((classes.astype(np.int64) << CLASS_SHIFT) + _bits_above(known))
        return _fitted([(keys, np.ones(len(keys), np.int64))], np.zeros(int(classes.max(initial=-1)) + 1, np.int64))

    def merge(self, other: ScoreSketch) -> ScoreSketch:
        """Return the sketch of the rows of both."""
        dropped = np.zeros(max(len(self.dropped), len(other.dropped)), np.int64)
        for one in (self, other):
            dropped[: len(one.dropped)] = np.maximum(dropped[: len(one.dropped)], one.dropped)
        return _fitted([(self.keys, self.counts), (other.keys, other.counts)], dropped)

    def only(self, of_class: int) -> ScoreSketch:
        """Return that of one class alone."""
        mine = _of_class(self.keys, of_class)
        return ScoreSketch(self.keys[mine], self.counts[mine], self.dropped[: of_class + 1])

    def of_class(self, of_class: int) -> ScoreSketch:
        """Return one of a single class as that of another."""
        dropped = np.zeros(of_class + 1, np.int64)
        dropped[of_class] = self.dropped.max(initial=0)
        return ScoreSketch((self.keys & ((1 << CLASS_SHIFT) - 1)) + (of_class << CLASS_SHIFT), self.counts, dropped)

    def quantile(self, level: float, of_class: int = 0) -> Quantile:
        """Return the conformal quantile of a class's scores."""
        mine = _of_class(self.keys, of_class)
        counts = np.cumsum(self.counts[mine])
        n = int(counts[-1]) if len(counts) else 0
        rank = math.ceil((n + 1) * level)
        if rank > n:
            return Quantile(math.inf, 0.0, n)
        at = int(np.searchsorted(counts, rank))
        end = (self.keys[mine][at : at + 1] & ((1 << CLASS_SHIFT) - 1)).astype(np.uint32).view(np.float32)
        return Quantile(float(end[0]), float(counts[at] - rank) / n, n)


def _bits_above(scores: np.ndarray) -> np.ndarray:
    """Return the bits of the least float32 above 0 that is not below each score, int64."""
    with np.errstate(over="ignore"):
        rounded = scores.astype(np.float32)
    rounded = np.where(rounded < scores, np.nextafter(rounded, np.float32(np.inf)), rounded)
    return np.maximum(rounded.view(np.uint32), 1).astype(np.int64)


def _of_class(keys: np.ndarray, of_class: int) -> slice:
    """Return where the keys of a class are."""
    return slice(*np.searchsorted(keys, [of_class << CLASS_SHIFT, (of_class + 1) << CLASS_SHIFT]).tolist())


def _fitted(parts: Sequence[_Bins], dropped: np.ndarray) -> ScoreSketch:
    """Return the sketch of all parts, with as many digits dropped of each class as it needs, or more if `dropped` says so.

    Class by class, so that what is made on the way is no larger for many classes: `SORTED` of the phase counts it once.
    """
    need, found = dropped.copy(), []
    starts = [np.searchsorted(keys, np.arange(len(need) + 1) << CLASS_SHIFT) for keys, _ in parts]
    for first, stop in _groups(np.sum(np.diff(starts), axis=0).tolist()):
        keys, counts = _together(
            [(keys[at[first] : at[stop]], n[at[first] : at[stop]]) for (keys, n), at in zip(parts, starts, strict=True)]
        )
        if len(keys) > MOST_BINS:
            need[first] = max(need[first], _least_dropped(keys))
        digits = need[keys >> CLASS_SHIFT]
        found.append(_added_up(((keys - 1 >> digits) + 1) << digits, counts))
    ends, sums = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return ScoreSketch(ends, sums, need)


def _groups(sizes: list[int]) -> Iterator[tuple[int, int]]:
    """Yield classes, first to stop, which are fitted at a time: one, or some that have no more keys than one may keep."""
    first, held = 0, 0
    for k, size in enumerate(sizes):
        if k > first and held + size > MOST_BINS:
            yield first, k
            first, held = k, 0
        held += size
    yield first, len(sizes)


def _together(parts: Sequence[_Bins]) -> _Bins:
    """Return the different keys of all parts, ascending, and how many scores each has."""
    keys, counts = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    if len(parts) > 1:
        order = np.argsort(keys, kind="stable")  # which finds that there are two runs, and merges them
        keys, counts = keys[order], counts[order]
    return _added_up(keys, counts)


def _added_up(keys: np.ndarray, counts: np.ndarray) -> _Bins:
    """Return the different ones of ascending keys, and the sums of their counts."""
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    return keys[first], np.add.reduceat(counts, first)


def _least_dropped(keys: np.ndarray) -> int:
    """Return how many digits to drop so that more than `MOST_BINS` keys, which differ and ascend, become no more than that.

    Neighbours stay apart if they differ above the digits that are dropped, which that many pairs less one may.
    """
    apart, most = (keys[1:] - 1) ^ (keys[:-1] - 1), len(keys) - 1 - MOST_BINS
    return int(np.partition(apart, most)[most]).bit_length()


def new_sketch() -> ScoreSketch:
    """Return one of no rows."""
    return ScoreSketch(*(np.zeros(0, np.int64) for _ in range(3)))


def sketch_arrays(sketch: ScoreSketch | None, spread: Spread | None) -> dict[str, np.ndarray]:
    """Return the arrays of a model file."""
    found = {} if sketch is None else sketch.arrays()
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
    keys = "keys" if "keys" in arrays else "ends"
    size = len(arrays[keys]) if keys in arrays and arrays[keys].ndim else None
    specs = {key: ArraySpec(("int64",), (length,)) for key, length in ((keys, None), ("counts", size))}
    check_arrays(arrays, specs | ({"dropped": ArraySpec(("int64",), (None,))} if keys == "ends" else {}), name)
    shift, found, counts = OLD_BITS if keys == "keys" else CLASS_SHIFT, arrays[keys], arrays["counts"]
    if not ((np.diff(found) > 0).all() and (found >= 0).all() and (found < max(n_classes, 1) << shift).all()):
        refuse(name, f"array '{PREFIX}{keys}'", "is not ascending within the bins there are")
    if not ((counts > 0) & (counts < 1 << 53)).all():
        refuse(name, f"array '{PREFIX}counts'", "are no counts")
    if keys == "keys":
        return _of_old_bins(found, counts, n_classes)
    ends, dropped = found & ((1 << CLASS_SHIFT) - 1), arrays["dropped"]
    if not ((ends > 0) & (ends <= INFINITE)).all():
        refuse(name, f"array '{PREFIX}ends'", "are no ends of bins")
    if not (((dropped >= 0) & (dropped <= MOST_DROPPED)).all() and (found >> CLASS_SHIFT < len(dropped)).all()):
        refuse(name, f"array '{PREFIX}dropped'", "are no binary digits of each class")
    return ScoreSketch(found, counts, dropped)


def _of_old_bins(keys: np.ndarray, counts: np.ndarray, n_classes: int) -> ScoreSketch:
    """Return the sketch of an older file, whose keys end in the bits before the end of a bin."""
    digits = CLASS_SHIFT - OLD_BITS
    bits = np.minimum(((keys & ((1 << OLD_BITS) - 1)) + 1) << digits, INFINITE)
    ends = bits.astype(np.uint32).view(np.float32).astype(np.float64)
    if n_classes:
        ends = odds_against(np.maximum(1.0 - ends, 0.0))
    again = (keys >> OLD_BITS << CLASS_SHIFT) + _bits_above(ends)
    # Odds of such ends are no ends of so few digits: rounded up once more, they would hold labels that they did not.
    return _fitted([(again, counts)], np.full(max(n_classes, 1), 0 if n_classes else digits))


def odds_against(fits: np.ndarray) -> np.ndarray:
    """Return the score of outcomes that fit so well, from 0 to 1: odds, as fine next to 1 as next to 0."""
    with np.errstate(divide="ignore"):
        found: np.ndarray = (1.0 - fits) / fits
    return found


def said_of(sketch: ScoreSketch, classes: tuple[Any, ...]) -> dict[str, Any]:
    """Return what there is to say of a calibration, as JSON values: rows, and the quantile and rank error at 90 %."""
    found = [sketch.quantile(0.9, k) for k in range(max(len(classes), 1))]
    ends = [one.value / (1.0 + one.value) if classes else one.value for one in found]
    values = [end if math.isfinite(end) else None for end in ends]
    return {
        "rows": sketch.rows,
        "rank_error": max(one.rank_error for one in found),
        "quantile_90": dict(zip(map(str, classes), values, strict=True)) if classes else values[0],
        "rows_by_class": {str(name): one.rows for name, one in zip(classes, found, strict=True)} if classes else None,
    }
