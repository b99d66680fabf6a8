"""Whether chunks mix enough: a bounded look at the target alone, which every run takes.

A learner that makes many steps within a chunk follows the chunk's own mean of the target. With M units of m rows, n of them
in a chunk, and S^2 the variance between the means of units, these means have the variance

    V_c = (1 - n/M) S^2 / n                                   (as in `inspection.order`)

and a model that follows them to the end loses about V_c / (2 sigma^2) of a nat more per row: of a label that is
sorted, 3 units of 32 in a chunk, 0.3 sigma^2 and a log loss of 0.68 instead of 0.55. Of S^2 what as many rows in random
order would have is taken off.

The units are those of chunks as large as are of use, whatever the memory limit, so that what follows from the look follows from
data and settings alone.
"""

from __future__ import annotations

import logging
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from streamsgd.data.timings import Timings
from streamsgd.errors import StreamSGDError
from streamsgd.features.target import encode_target
from streamsgd.inspection.order import target_numbers, units_of
from streamsgd.planning.chunks import Piece
from streamsgd.planning.variance import between_chunks, design_effect

if TYPE_CHECKING:
    from streamsgd.data.dataset import Dataset
    from streamsgd.data.source import Reader
    from streamsgd.features.target import Target
    from streamsgd.planning.chunks import Plan


log = logging.getLogger("streamsgd")

LEAST_UNITS, MOST_UNITS = 24, 64
"""Units whose target is read ..."""

LOOK_ROWS = 8 << 20
"""... as many as have about so many rows ..."""

UNIT_ROWS = 1 << 20
"""... of each no more than these."""

DEEPEST = 1 << 26
"""Rows of a row group before the slice that is read, at most: they are decoded too, once for all of its slices."""

READERS = 8
"""Threads that read at most: a store takes long to answer."""

RISKY = 0.005
"""V_c / sigma^2 from which on the order is a risk: about a quarter of a percent of a nat per row."""

SIGNIFICANT = 4.0
"""Standard deviations by which S^2 exceeds that of random order."""

LEAST_BATCH = 64
"""Rows over which the noise of batches is told at least."""


@dataclass(frozen=True)
class OrderLook:
    """What the target of some units says about the order of the rows."""

    units: int
    """Units of reading in all, large ones in slices."""
    units_read: int
    rows_read: int
    rows_per_unit: float
    between_units: float
    """S^2 / sigma^2, less what random order would have: about 1 where rows are sorted."""
    significant: bool

    def per_chunk(self, chunk_rows: int) -> float:
        """Return how many units a chunk of so many rows mixes; those that are larger go two by two."""
        return min(float(self.units), max(chunk_rows / self.rows_per_unit, 1.0 if chunk_rows >= self.rows_per_unit else 2.0))

    def drift(self, chunk_rows: int, *, mixed: bool = True) -> float:
        """Return V_c / sigma^2 at chunks of so many rows; of one unit where chunks are not `mixed`."""
        if not self.significant:
            return 0.0
        return between_chunks(self.between_units, self.units, self.per_chunk(chunk_rows) if mixed else 1.0)

    def noise(self, per_chunk: float, batch: int) -> float:
        """Return how many times noisier a batch is than of rows drawn at random, if a chunk mixes so many units."""
        between = self.between_units + 1.0 / self.rows_per_unit
        return design_effect(between, self.units, per_chunk, self.rows_per_unit, max(LEAST_BATCH, batch))

    def needed(self) -> int:
        """Return the rows of the smallest chunk, by steps of a quarter, that is no risk."""
        n = 1.0
        while n < self.units and between_chunks(self.between_units, self.units, n) > RISKY:
            n *= 1.25
        return math.ceil(min(n, self.units) * self.rows_per_unit)

    def to_dict(self, chunk_rows: int, batch: int, *, mixed: bool = True) -> dict[str, Any]:
        """Return plain values, with what they come to at chunks of so many rows."""
        drift, per_chunk = self.drift(chunk_rows, mixed=mixed), self.per_chunk(chunk_rows) if mixed else 1.0
        told = {"units_per_chunk": per_chunk, "between_chunks": drift, "risk": drift > RISKY}
        return asdict(self) | told | {"batch_noise": self.noise(per_chunk, batch) if self.significant else 1.0}


def look_at_order(
    dataset: Dataset,
    target: Target,
    plan: Plan,
    condition: Any = None,
    columns: tuple[str, ...] = (),
    *,
    threads: int = READERS,
) -> OrderLook | None:
    """Read the target of some units of a plan, of rows that fulfil a condition on some columns.

    Memory is that of a batch of rows per thread. None where the target does not vary, or where rows would have to be computed
    first.
    """
    if getattr(dataset.source, "computes", False):
        return None
    pieces = units_of(plan)
    if len(pieces) < 2:
        return None
    chosen = _choose(pieces, plan.seed)
    dataset.source.prefetch([group for piece in chosen for group in range(piece.first, piece.last)])
    reader = dataset.reader(keeps_open=False)
    together = [list(some) for _, some in groupby(chosen, key=lambda piece: piece.first)]
    with ThreadPoolExecutor(min(threads, READERS), thread_name_prefix="look") as pool:
        found = pool.map(lambda some: _moments(dataset, reader, some, target, condition=condition, columns=columns), together)
        parts = [part for some in found for part in some if part.rows]
    pa.default_memory_pool().release_unused()  # it would count against the budget for the whole run
    look = _look(parts, len(pieces), plan.n_rows / len(pieces))
    if look is None and len(chosen) < len(pieces):
        log.warning(
            "whether the order of the rows is a risk could not be told: the target is one and the same in all %d of %d places "
            "that were looked at; if the rows are sorted by it, pass --shuffle external",
            len(parts),
            len(pieces),
        )
    return look


def _choose(pieces: list[Piece], seed: int) -> list[Piece]:
    """Return the pieces to read, by seed, cut to what is read of them."""
    near = [piece for piece in pieces if piece.start <= DEEPEST]
    rows = sum(min(piece.rows, UNIT_ROWS) for piece in near) / len(near)
    most = max(LEAST_UNITS, min(MOST_UNITS, int(LOOK_ROWS / rows)))
    if len(near) > most:
        seeds = np.random.SeedSequence([seed, 0x0DF])
        kept = np.sort(np.random.Generator(np.random.PCG64(seeds)).permutation(len(near))[:most])
        near = [near[k] for k in kept.tolist()]
    return [_cut(piece) for piece in near]


def _cut(piece: Piece) -> Piece:
    if piece.last > piece.first + 1 or piece.rows <= UNIT_ROWS:
        return piece
    return Piece(0, piece.first, piece.last, piece.start, piece.start + UNIT_ROWS, 0)


@dataclass
class _Moments:
    """Of the targets of a unit."""

    rows: int = 0
    total: Any = 0.0
    """float64 (n_numbers,)."""
    squares: float = 0.0

    def add(self, numbers: np.ndarray) -> None:
        """Take in targets, (n_rows, n_numbers)."""
        self.rows += len(numbers)
        self.total = self.total + numbers.sum(axis=0)
        self.squares += float(np.square(numbers).sum())


def _moments(
    dataset: Dataset, reader: Reader, pieces: list[Piece], target: Target, *, condition: Any, columns: tuple[str, ...]
) -> list[_Moments]:
    """Return the moments of the usable targets that the condition keeps, of pieces of one row group, or of one run of several.

    The row group is read once, from the first row that is wanted to the last, batch by batch. What cannot be read counts for
    nothing here: training will say so.
    """
    names = tuple(dict.fromkeys([target.name, *columns]))
    found = [_Moments() for _ in pieces]
    whole, at = replace(pieces[0], stop=pieces[-1].stop), pieces[0].start
    try:
        for part in reader.read(whole, names, Timings()):
            n = len(part[0])
            for piece, moments in zip(pieces, found, strict=True):
                first, last = max(piece.start, at) - at, min(piece.stop, at + n) - at
                if first < last:
                    some = {name: column.slice(first, last - first) for name, column in zip(names, part, strict=True)}
                    moments.add(_numbers(dataset, piece, some, target, condition if columns else None))
            at += n
    except StreamSGDError:
        return []
    return found


def _numbers(dataset: Dataset, piece: Piece, columns: dict[str, Any], target: Target, condition: Any) -> np.ndarray:
    values, usable = encode_target(target, columns[target.name])
    if condition is not None:
        usable = usable & condition.keep(columns, dataset.source.where(piece))
    return target_numbers(values if usable.all() else values[usable], target)


def _look(parts: list[_Moments], units: int, rows_per_unit: float) -> OrderLook | None:
    """Judge; None where the target does not vary over the parts."""
    if len(parts) < 2:
        return None
    rows = np.array([part.rows for part in parts], np.float64)
    means = np.stack([part.total / part.rows for part in parts])
    mean = np.average(means, axis=0, weights=rows)
    variance = sum(part.squares for part in parts) / rows.sum() - float(np.square(mean).sum())
    if variance <= 1e-12:
        return None
    spread = float((rows[:, None] * np.square(means - mean)).sum()) / (len(rows) - 1)  # sigma^2 where the order is random
    ratio = float(spread / variance)
    between = max(0.0, ratio - 1.0) / float(rows.mean())
    significant = bool(ratio > 1.0 + SIGNIFICANT * math.sqrt(2.0 / (len(rows) - 1)))
    return OrderLook(units, len(rows), int(rows.sum()), rows_per_unit, between, significant)
