"""Whether the order of the rows is a risk: the variance of batches against that of the target.

A batch of b rows drawn at random has a mean target of variance sigma^2 / b, and the gradient's noise follows
it. Rows read in units and mixed in chunks are not drawn at random: with M units of m rows, n of them in a
chunk, B = n m, and S^2 the variance between the means of units,

    V_c = (1 - n/M) S^2 / n
    Var = V_c + (1/b - 1/B) B/(B-1) (sigma^2 - V_c)          (corgi; simulated within 1 %)

and the design effect is Var / (sigma^2 / b): how many times noisier a batch is, and by how much fewer rows it
is worth. Without mixing a batch is b neighbours, whose variance is measured. A target with classes counts as
one column of 0 and 1 for each, variances added.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.data.timings import Timings
from streamsgd.errors import DataError
from streamsgd.features.choose_target import choose_target
from streamsgd.features.sample import Sample
from streamsgd.features.target import Target, encode_target
from streamsgd.planning.chunks import Piece, Plan
from streamsgd.planning.variance import design_effect

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.data.dataset import Dataset
    from streamsgd.data.source import Reader
    from streamsgd.features.target import Target
    from streamsgd.planning.chunks import Plan
    from streamsgd.settings.fields import Settings


MOST_UNITS = MOST_GROUPS = 256
"""Units whose target is read, in runs of neighbours."""

RUN = 8

MOST_ROWS = 1 << 20
"""Rows of a unit that are read."""

LOOK_GROUPS = 16
"""Row groups from which the task and the classes are guessed."""

MOST_CLASSES = 64
"""Classes told apart; those beyond count as one."""

LEAST_BATCH = 64
"""Rows over which noise is judged at least: a batch of one row has the same variance in any order."""

FINE, POOR = 1.1, 2.0
"""Design effects up to which order does not matter, and above which it does."""


@dataclass(slots=True)
class GroupMix:
    """The target in one row group, or in a slice of a large one."""

    file: str
    row_group: int
    rows: int
    mean: float | None
    """Of the target, in its units; with two classes the share of the second."""
    shares: list[float] = field(default_factory=list)
    """With more classes, the share of each."""


@dataclass(slots=True)
class TargetMix:
    """The target over the units that were read."""

    name: str
    type: str
    task: str
    classes: tuple[Any, ...]
    rows: int
    unusable: int
    """Rows whose target is null, NaN or no class that was seen in the first look."""
    mean: float | None
    shares: list[float]
    row_groups: list[GroupMix]
    """Of the row groups that were read, at most 256."""


@dataclass(slots=True)
class OrderRisk:
    """What the order of the rows does to batches at a memory budget."""

    rows_averaged: int
    """The batch size, or `LEAST_BATCH` where that is less: small steps average over many batches."""
    units: int
    units_read: int
    rows_per_unit: float
    units_per_chunk: float
    rows_per_chunk: int
    between_units: float
    """S^2 / sigma^2: 1 / rows_per_unit where rows are in random order, about 1 where they are sorted."""
    neighbours: float | None
    """Correlation of the means of neighbouring units; None where there are too few."""
    design_effect: dict[str, float]
    """By sampler: variance of a batch's mean over that of as many rows drawn at random."""
    verdict: dict[str, str]
    summary: str
    on_disk: bool = False
    """Whether training would shuffle all rows on disk first, if nothing is set."""


def measure_order(dataset: Dataset, settings: Settings, plan_for: Callable[..., Plan]) -> tuple[TargetMix, OrderRisk | None]:
    """Read the target of units and judge; no risk is told where the target does not vary.

    `plan_for` of data, settings and target says how training would cut the data into chunks, with `useful=True` if memory were
    no limit.

    Raises
    ------
    DataError, SettingsError
        The target or the budget cannot be used.

    """
    look = Sample(dataset.select(_few(dataset, settings.seed)), settings)
    target = choose_target(look, settings.target, settings.task)
    plan = plan_for(dataset, settings, target)
    pieces = units_of(plan)
    chosen = _runs(len(pieces), settings.seed)
    reader, total = dataset.reader(), _Sums()
    full = settings.batch_size == "full"
    batch = LEAST_BATCH if full or settings.batch_size == "auto" else max(LEAST_BATCH, int(settings.batch_size))
    mix = TargetMix(
        target.name,
        str(dataset.schema.field(target.name).type),
        target.task,
        target.classes,
        0,
        0,
        None,
        [],
        [],
    )
    for k in chosen.tolist():
        if k and pieces[k].first != pieces[k - 1].first:
            reader.close()
        values, usable = _read(reader, pieces[k], target)
        mix.unusable += int((~usable).sum())
        if usable.any():
            total.add(k, target_numbers(values[usable], target), batch)
        if len(mix.row_groups) < MOST_GROUPS:
            mix.row_groups += _groups(dataset, pieces[k], target, values, usable)
    if not total.number:
        raise DataError(f"target {target.name!r} has no usable value in the {len(chosen)} units that were read")
    mix.row_groups = mix.row_groups[:MOST_GROUPS]
    mix.rows = sum(total.rows)
    mix.mean, mix.shares = _mix(total.mean, target)
    return mix, _risk(total, plan, len(pieces), batch, full=full)


def _few(dataset: Dataset, seed: int) -> np.ndarray:
    some = np.flatnonzero(dataset.rows > 0)
    seeds = np.random.SeedSequence([seed, 0x0DE])
    chosen = np.random.Generator(np.random.PCG64(seeds)).permutation(some)[:LOOK_GROUPS]
    keep = np.zeros(len(dataset.rows), np.bool_)
    keep[chosen] = True
    return keep


def units_of(plan: Plan) -> list[Piece]:
    """Return the units of the plan in the order of the data, oversized ones cut as chunks take them."""
    share = max(1, plan.chunk_rows // 2)
    pieces = []
    for first, last, rows in zip(plan.first.tolist(), plan.last.tolist(), plan.rows.tolist(), strict=True):
        step = rows if rows <= plan.chunk_rows else share
        pieces += [Piece(0, first, last, start, min(rows, start + step), 0) for start in range(0, rows, step)]
    return pieces


def _runs(n: int, seed: int) -> np.ndarray:
    """Return the units to read: all, or seeded runs of neighbours."""
    if n <= MOST_UNITS:
        return np.arange(n)
    seeds = np.random.SeedSequence([seed, 0x0DD])
    starts = np.random.Generator(np.random.PCG64(seeds)).permutation(n // RUN)[: MOST_UNITS // RUN]
    return np.sort((starts[:, None] * RUN + np.arange(RUN)).ravel())


def _read(reader: Reader, piece: Piece, target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Return targets, float64 (n,), and which are usable, bool (n,)."""
    whole = piece.last > piece.first + 1 or piece.rows <= MOST_ROWS
    read = piece if whole else Piece(0, piece.first, piece.last, piece.start, piece.start + MOST_ROWS, 0)
    parts = [encode_target(target, part[0]) for part in reader.read(read, (target.name,), Timings())]
    return np.concatenate([values for values, _ in parts]), np.concatenate([usable for _, usable in parts])


def target_numbers(y: np.ndarray, target: Target) -> np.ndarray:
    """Return targets as (n, 1), or with more than two classes (n, n_classes) of 0 and 1."""
    if target.task != "multiclass":
        return y[:, None]
    n = min(len(target.classes), MOST_CLASSES)
    return np.eye(n)[np.minimum(y.astype(np.int64), n - 1)]


def _mix(mean: np.ndarray, target: Target) -> tuple[float | None, list[float]]:
    """Return the mean in units of the target and no shares, or None and the share of each class."""
    if target.task == "multiclass":
        return None, mean.tolist()
    return float(mean[0]) / target.scale + target.shift, []


def _groups(dataset: Dataset, piece: Piece, target: Target, values: np.ndarray, usable: np.ndarray) -> list[GroupMix]:
    ends = np.cumsum(dataset.rows[piece.first : piece.last]) - piece.start
    found = []
    for group, y, good in zip(
        range(piece.first, piece.last), np.split(values, ends[:-1]), np.split(usable, ends[:-1]), strict=True
    ):
        if good.any():
            name = dataset.source.files[int(dataset.file[group])].name
            mix = _mix(target_numbers(y[good], target).mean(axis=0), target)
            found.append(GroupMix(name, int(dataset.index[group]), int(good.sum()), *mix))
    return found


@dataclass
class _Sums:
    """Means of units and of batches of neighbours."""

    number: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    means: list[np.ndarray] = field(default_factory=list)
    squares: float = 0.0
    batches: int = 0
    batch_sum: Any = 0.0
    batch_squares: float = 0.0

    def add(self, number: int, y: np.ndarray, batch: int) -> None:
        self.number.append(number)
        self.rows.append(len(y))
        self.means.append(y.mean(axis=0))
        self.squares += float(np.square(y).sum())
        n = len(y) // batch
        if n:
            means = y[: n * batch].reshape(n, batch, -1).mean(axis=1)
            self.batches += n
            self.batch_sum = self.batch_sum + means.sum(axis=0)
            self.batch_squares += float(np.square(means).sum())

    @property
    def mean(self) -> np.ndarray:
        return np.average(np.stack(self.means), axis=0, weights=self.rows)


def _risk(total: _Sums, plan: Plan, units: int, batch: int, *, full: bool) -> OrderRisk | None:
    rows, means = np.array(total.rows, np.float64), np.stack(total.means)
    variance = total.squares / rows.sum() - float(np.square(total.mean).sum())
    if variance <= 1e-12:
        return None
    away = means - total.mean
    n_read = len(rows)
    spread = float((rows[:, None] * np.square(away)).sum() / rows.sum())
    between = spread / variance * n_read / max(1, n_read - 1)
    neighbours = _correlation(np.array(total.number), away)
    per_unit, n_chunks = plan.n_rows / units, plan.n_chunks(0)
    per_chunk = units / n_chunks
    unmixed = 1.0
    if total.batches:
        center = total.batch_sum / total.batches
        of_batches = total.batch_squares / total.batches - float(np.square(center).sum())
        # Across batches of the units that were read; between them the mean of all is not known better.
        unmixed = max(0.0, of_batches) / (variance / batch)
    corgi = design_effect(between, units, per_chunk, per_unit, batch)
    effects = {"none": unmixed, "block": unmixed, "corgi": corgi}
    if full:
        effects = dict.fromkeys(effects, 0.0)
    needed = _needed(between, units, per_unit, batch)
    return OrderRisk(
        rows_averaged=batch,
        units=units,
        units_read=n_read,
        rows_per_unit=per_unit,
        units_per_chunk=per_chunk,
        rows_per_chunk=round(plan.n_rows / n_chunks),
        between_units=between,
        neighbours=neighbours,
        design_effect=effects,
        verdict={name: _words(name, effect, batch, neighbours, needed) for name, effect in effects.items()},
        summary=_summary(between * per_unit, unmixed, neighbours),
    )


def _correlation(number: np.ndarray, away: np.ndarray) -> float | None:
    pairs = np.flatnonzero(np.diff(number) == 1)
    power = float(np.square(away).sum()) / len(away)
    if len(pairs) < RUN - 1 or power <= 0.0:
        return None
    return float((away[pairs] * away[pairs + 1]).sum() / len(pairs) / power)


def _needed(between: float, units: int, rows: float, batch: int) -> int:
    """Return the rows of the smallest chunk, by steps of a quarter, that is not poor."""
    n = 1.0
    while n < units and design_effect(between, units, n, rows, batch) > POOR:
        n *= 1.25
    return round(min(n, units) * rows)


def _words(sampler: str, effect: float, batch: int, neighbours: float | None, needed: int) -> str:
    if effect == 0.0:
        return "one update per epoch: the order does not matter"
    noise = f"batch noise x{effect:.2f}"
    if effect <= FINE:
        return f"{noise}, fine"
    worth = f"{batch} rows are worth {max(1.0, batch / effect):.0f} drawn at random"
    if effect <= POOR:
        return f"{noise}, usable: {worth}"
    if sampler == "corgi":
        return f"{noise}, noisy: {worth}; chunks of {needed:,} rows (more --memory) would make it x{POOR:g}"
    return f"{noise}, {'would fail' if neighbours is None or neighbours > 0.5 else 'poor'}: {worth}"


def _summary(ratio: float, unmixed: float, neighbours: float | None) -> str:
    if ratio <= POOR and unmixed <= POOR:
        return "rows are in random order as far as the target goes"
    if neighbours is None or neighbours > 0.5:
        return "rows are sorted by the target, or by something that it follows"
    return "rows are clustered: row groups differ in the target, in no order"
