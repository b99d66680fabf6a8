"""The first look: a bounded, seeded sample of row groups that decides how columns become numbers.

Everything decided here is frozen in the model. Small data is looked at as a whole.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from dask.system import CPU_COUNT

from streamsgd.budget import INTERPRETER, parse_limit
from streamsgd.columns import is_number
from streamsgd.encode import Encoding, NumberColumn, Target, as_double, as_float
from streamsgd.errors import DataError, SettingsError, UnreadableError
from streamsgd.parquet import PieceReader, Spent, reading_bytes, row_width
from streamsgd.plan import Piece, merge_neighbours

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamsgd.columns import Roles
    from streamsgd.dataset import Dataset
    from streamsgd.settings import Settings

SAMPLE_BYTES = 64 << 20
"""Decoded bytes of a sample of features; data of no more is looked at as a whole."""

SAMPLE_ROWS = 1 << 19
"""Rows of a sample ..."""

SAMPLE_GROUPS = 8
"""... which come from at least so many row groups, if there are as many ..."""

MOST_GROUPS = 1 << 14
"""... and of no more than about so many, at 30 microseconds each ..."""

SAMPLE_RUNS = 64
"""... or, if they are small, from about so many runs of neighbours: a read of each row group would take 0.3 ms."""

SCAN_ROWS = 1 << 20
"""Rows of a column that are read at a time when all of it is needed."""
MOST_CLASSES = 10_000

MOST_DEVIATIONS = 10.0
"""Largest encoded value of a feature in the first look."""


@dataclass
class Moments:
    """Mean and squared deviations of finite values, merged by Chan, Golub and LeVeque's formula (1979)."""

    n: int = 0
    missing: int = 0
    mean: float = 0.0
    m2: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def add(self, values: np.ndarray) -> None:
        """Take in float values, counting NaN and Inf as missing."""
        finite = values[np.isfinite(values)].astype(np.float64)
        self.missing += len(values) - len(finite)
        if not len(finite):
            return
        with np.errstate(over="ignore", invalid="ignore"):  # `check_moments` refuses what overflows
            mean = float(finite.mean())
            m2 = float(np.square(finite - mean).sum())
        self.join(Moments(len(finite), 0, mean, m2, float(finite.min()), float(finite.max())))

    def join(self, other: Moments) -> None:
        """Take in the values that another one has seen."""
        self.missing += other.missing
        if not other.n:
            return
        n, delta = self.n + other.n, other.mean - self.mean
        self.m2 += other.m2 + delta * delta * self.n * other.n / n
        self.mean += delta * other.n / n
        self.n = n
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)

    @property
    def deviation(self) -> float:
        """Population standard deviation, 1 where it is zero or lost in rounding."""
        deviation = math.sqrt(self.m2 / self.n) if self.n else 0.0
        return deviation if deviation > 1e-12 * abs(self.mean) else 1.0


def standard_scale(moments: Moments) -> float:
    """Return the factor that gives a centred feature a deviation of 1, or less if its tail is heavy.

    No encoded value of the first look exceeds `MOST_DEVIATIONS`: one row with a rare or far value would else move its own
    score by more than a whole step of the optimizer means. Linear, so the optimum stays the same; on covtype, whose rarest
    column has values of 141 deviations, the held-out loss falls from 3 % above a converged solver's to 0.5 %.
    """
    farthest = max(moments.high - moments.mean, moments.mean - moments.low, 0.0) if moments.n else 0.0
    return 1.0 / max(moments.deviation, farthest / MOST_DEVIATIONS)


def check_moments(moments: Moments, what: str) -> None:
    """Refuse values too large to have a variance, which are marks for missing values more often than numbers.

    Raises
    ------
    DataError
        The mean or the variance overflows.

    """
    if not (math.isfinite(moments.mean) and math.isfinite(moments.m2)):
        raise DataError(f"{what} has values so large that their variance overflows; clean them, or use a smaller unit")


@dataclass
class Look:
    """Reads samples and single columns of a data set, through the filter."""

    dataset: Dataset
    settings: Settings
    filter: Any = None
    filter_columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.reader = PieceReader(self.dataset, keeps_open=False)

    def sample(self, names: tuple[str, ...]) -> list[Piece]:
        """Return the pieces to look at for these columns: all of small data, else the head of row groups chosen by seed."""
        most = max(1, min(SAMPLE_ROWS, SAMPLE_BYTES // max(1, row_width(self.dataset, names))))
        if self.dataset.n_rows <= most and self.dataset.n_row_groups <= MOST_GROUPS:
            return self._pieces(-(-most // SAMPLE_GROUPS))
        pieces = self._pieces(-(-min(most, self.dataset.n_rows) // SAMPLE_RUNS))
        seeds = np.random.SeedSequence([self.settings.seed, 0x100C])
        order = np.random.Generator(np.random.PCG64(seeds)).permutation(len(pieces))
        heads = np.minimum([pieces[k].rows for k in order], -(-most // SAMPLE_GROUPS))
        groups = np.cumsum([pieces[k].last - pieces[k].first for k in order])
        n_pieces = int(min(np.searchsorted(np.cumsum(heads), most), np.searchsorted(groups, MOST_GROUPS))) + 1
        chosen = sorted(zip(order[:n_pieces].tolist(), heads[:n_pieces].tolist(), strict=True))
        return [replace(pieces[k], stop=head) if pieces[k].first + 1 == pieces[k].last else pieces[k] for k, head in chosen]

    def _pieces(self, most_rows: int) -> list[Piece]:
        """Return the whole data as row groups; where they are many, small neighbours together in runs of about so many rows."""
        few = self.dataset.n_row_groups <= SAMPLE_RUNS
        first, last = merge_neighbours(self.dataset.rows, self.dataset.file, 1 if few else most_rows)
        total = np.concatenate([[0], np.cumsum(self.dataset.rows)])
        runs = zip(first.tolist(), last.tolist(), (total[last] - total[first]).tolist(), strict=True)
        return [Piece(0, a, b, 0, rows, 0) for a, b, rows in runs if rows]

    def columns(self, piece: Piece, names: tuple[str, ...]) -> dict[str, Any]:
        """Return columns of a piece as Arrow arrays, filtered; no row of one that the settings allow to skip."""
        wanted = tuple(dict.fromkeys([*names, *self.filter_columns]))
        try:
            parts = list(self.reader.read(piece, wanted, Spent()))
        except UnreadableError:
            if piece.last - piece.first > 1:
                return self._one_by_one(piece, names)
            if self.settings.unreadable != "skip":
                raise
            return {name: pa.nulls(0, self.dataset.schema.field(name).type) for name in names}
        flat = {
            name: pa.chunked_array([chunk for part in parts for chunk in _chunks(part[k])], type=parts[0][k].type)
            for k, name in enumerate(wanted)
        }
        if self.filter is None:
            return flat
        table = self.reader.unified(flat).filter(self.filter)
        return {name: table.column(name) for name in names}

    def _one_by_one(self, piece: Piece, names: tuple[str, ...]) -> dict[str, Any]:
        """Read the row groups of a run apart, so that only the damaged ones are named, or left out."""
        rows = self.dataset.rows
        groups = [g for g in range(piece.first, piece.last) if rows[g]]
        parts = [self.columns(Piece(0, g, g + 1, 0, int(rows[g]), 0), names) for g in groups]
        kinds = {name: self.dataset.schema.field(name).type for name in names}
        return {
            name: pa.chunked_array([chunk.cast(kind) for part in parts for chunk in _chunks(part[name])], type=kind)
            for name, kind in kinds.items()
        }

    def moments(self, names: tuple[str, ...]) -> dict[str, Moments]:
        """Return the moments of numeric columns over the sample."""
        found = {name: Moments() for name in names}
        with ThreadPoolExecutor(self._threads(names)) as pool:
            for part in pool.map(partial(self._piece_moments, names), self.sample(names)):
                for name, moments in part.items():
                    found[name].join(moments)
        # What Arrow's allocator keeps of a sample of wide rows would count against the budget for the whole run.
        pa.default_memory_pool().release_unused()
        return found

    def _threads(self, names: tuple[str, ...]) -> int:
        """Return how many threads may read these columns at once within half of what the budget leaves to reading."""
        spare = (parse_limit(self.settings.memory) - INTERPRETER) // 2
        return max(1, min(self.settings.threads or CPU_COUNT, spare // reading_bytes(self.dataset, names)))

    def _piece_moments(self, names: tuple[str, ...], piece: Piece) -> dict[str, Moments]:
        found = {name: Moments() for name in names}
        for name, column in self.columns(piece, names).items():
            if name in found:
                found[name].add(np.asarray(as_float(column)))
        return found

    def scan(self, name: str) -> Iterator[Any]:
        """Yield one column over all row groups, filtered: the only reading that is as long as the data."""
        for piece in self._pieces(SCAN_ROWS // 2):  # a run is at most twice as long
            for start in range(0, piece.rows, SCAN_ROWS):
                part = replace(piece, start=start, stop=min(piece.rows, start + SCAN_ROWS))
                yield self.columns(part, (name,))[name]

    def target_values(self, name: str, most: int = 100_000) -> np.ndarray:
        """Return finite target values of the sample as float64, at most that many of each row group."""
        parts = []
        for piece in self.sample((name,)):
            values = as_double(self.columns(piece, (name,))[name])
            parts.append(values[np.isfinite(values)][:most])
        return np.concatenate(parts) if parts else np.zeros(0)


def _chunks(column: Any) -> list[Any]:
    return column.chunks if isinstance(column, pa.ChunkedArray) else [column]


def choose_encoding(look: Look, roles: Roles) -> Encoding:
    """Decide shift, scale and fill of every feature.

    Raises
    ------
    DataError
        A feature has no value at all, or has missing values where the settings forbid them.

    """
    moments = look.moments(roles.features)
    settings, columns = look.settings, []
    for name in roles.features:
        found = moments[name]
        if not found.n:
            found = _search(look, name, found)
        if found.missing and settings.missing == "error":
            raise DataError(
                f"feature {name!r} has {found.missing:,} missing values in the first look; impute it with --missing mean "
                f"or zero, or leave it out with --exclude '{name}'"
            )
        check_moments(found, f"feature {name!r}")
        scaled = settings.scale == "standard"
        shift, scale = (found.mean, standard_scale(found)) if scaled else (0.0, 1.0)
        fill = ((found.mean if settings.missing == "mean" else 0.0) - shift) * scale
        indicator = settings.indicators and found.missing > 0
        kind = str(look.dataset.schema.field(name).type)
        columns.append(NumberColumn(name, kind, shift, scale, fill, indicator))
    return Encoding(tuple(columns))


def _search(look: Look, name: str, seen: Moments) -> Moments:
    for column in look.scan(name):
        seen.add(np.asarray(as_float(column)))
        if seen.n:
            return seen
    raise DataError(f"feature {name!r} has no value in any row; leave it out with --exclude '{name}'")


TASK_LOSS = {"regression": "squared", "binary": "logistic", "multiclass": "softmax", "poisson": "poisson"}


def choose_target(look: Look, name: str, task: str) -> Target:
    """Decide what kind of target this is, its classes, and its scale.

    Raises
    ------
    DataError
        The target is constant, has no usable value, or does not fit the task.

    """
    kind = look.dataset.schema.field(name).type
    if look.settings.classes:
        return _classes(name, task, _given_classes(look, name, kind))
    if not is_number(kind):
        _check_text(name, kind, task)
    if _is_text(kind) or task == "multiclass" or (pa.types.is_boolean(kind) and task in ("auto", "binary")):
        return _classes(name, task, discover(look, name))
    return _choose_by_value(look, name, task)


def _choose_by_value(look: Look, name: str, task: str) -> Target:
    """Decide what a column of numbers is: two classes, counts, or a number to predict."""
    kind, values = look.dataset.schema.field(name).type, look.target_values(name)
    unique = set(np.unique(values[:10_000]).tolist())
    if task == "binary" or (task == "auto" and unique <= {0.0, 1.0}) or (task == "auto" and unique <= {-1.0, 1.0}):
        unique = set(np.unique(values).tolist())
        both = unique in ({0.0, 1.0}, {-1.0, 1.0})
        return _classes(name, "binary", _in_type(unique, kind) if both else discover(look, name))
    _check_varies(look, name, values)
    if task == "poisson":
        return Target(name, "poisson")
    moments = Moments()
    moments.add(values)
    check_moments(moments, f"target {name!r}")
    if look.settings.scale == "none":
        return Target(name, "regression")
    return Target(name, "regression", (), moments.mean, 1.0 / moments.deviation)


def _given_classes(look: Look, name: str, kind: Any) -> tuple[Any, ...]:
    given = {_as_type(text, kind, name) for text in look.settings.classes}
    if len(given) < 2:
        raise SettingsError(f"--classes {look.settings.classes[0]}: one class leaves nothing to learn; give two or more")
    return tuple(sorted(given))


def _check_text(name: str, kind: Any, task: str) -> None:
    if not _is_text(kind):
        raise DataError(f"target {name!r} is of type {kind}; it must be a number, a boolean or a string")
    if task in ("regression", "poisson"):
        raise DataError(f"target {name!r} is of type {kind} but the task is {task}, which needs numbers")


def discover(look: Look, name: str) -> tuple[Any, ...]:
    """Return the sorted distinct values of the target, reading its column alone."""
    found: set[Any] = set()
    for column in look.scan(name):
        found.update(value for value in pc.unique(_plain(column)).to_pylist() if not _is_missing(value))
        if len(found) > MOST_CLASSES:
            raise DataError(
                f"target {name!r} has more than {MOST_CLASSES:,} distinct values; if it is a number to predict, "
                "pass --task regression"
            )
    return tuple(sorted(found))


def _classes(name: str, task: str, classes: tuple[Any, ...]) -> Target:
    odd = [value for value in classes if not isinstance(value, str | int | float)]
    if odd:
        raise DataError(
            f"target {name!r} holds values such as {odd[0]}, which cannot be classes; write them as strings or integers, "
            "or pass --task regression"
        )
    if not isinstance(classes[0] if classes else "", str) and len({*map(float, classes)}) < len(classes):
        raise DataError(
            f"target {name!r} has classes above 2^53 that differ by less than a float64 tells; write them as strings"
        )
    if not classes:
        raise DataError(f"target {name!r} has no usable value: every row is null or NaN")
    if len(classes) == 1:
        raise DataError(f"target {name!r} is constant: every row is {classes[0]!r}, so there is nothing to learn")
    if task == "binary" and len(classes) > 2:
        shown = ", ".join(map(repr, classes[:5]))
        raise DataError(
            f"target {name!r} has {len(classes)} values ({shown} ...) but the task is binary; "
            "pass --task multiclass, or --filter the rows"
        )
    kind = "binary" if len(classes) == 2 and task != "multiclass" else "multiclass"
    return Target(name, kind, classes)  # type: ignore[arg-type]


def _check_varies(look: Look, name: str, values: np.ndarray) -> None:
    if len(values) and values.min() < values.max():
        return
    low, high = math.inf, -math.inf
    for column in look.scan(name):
        numbers = as_double(column)
        finite = numbers[np.isfinite(numbers)]
        if len(finite):
            low, high = min(low, finite.min()), max(high, finite.max())
            if low < high:
                return
    if low > high:
        raise DataError(f"target {name!r} has no usable value: every row is null, NaN or infinite")
    raise DataError(f"target {name!r} is constant: every row is {low:g}, so there is nothing to learn")


def _in_type(values: set[float], kind: Any) -> tuple[Any, ...]:
    """Return the sorted values, whole where the column holds whole numbers."""
    return tuple(int(value) if pa.types.is_integer(kind) else value for value in sorted(values))


def _is_text(kind: Any) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _plain(column: Any) -> Any:
    column = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    return column.cast(pa.float64()) if pa.types.is_decimal(column.type) else column


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _as_type(text: str, kind: Any, name: str) -> Any:
    if _is_text(kind):
        return text
    try:
        return (
            pa.scalar(text).cast(kind).as_py() if not (pa.types.is_floating(kind) or pa.types.is_decimal(kind)) else float(text)
        )
    except (ValueError, pa.ArrowException):
        raise SettingsError(f"--classes {text!r} is not a value of target {name!r}, whose type is {kind}") from None
