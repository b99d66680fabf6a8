"""Inspection: what the data is, and whether the order of its rows is a risk.

Everything is bounded: footers, a sample of row groups for the columns, and one column, the target, of a
sample of the units of reading. A column that cannot be read is reported, never an error.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamsgd.data.dataset import Dataset, require
from streamsgd.data.normalise import undictionaried
from streamsgd.data.open import is_by_file, open_data, open_whole
from streamsgd.data.schemas import require_filled
from streamsgd.data.stores.filesystems import first_line, set_io_timeout
from streamsgd.data.timings import Timings
from streamsgd.data.types import is_number, kind_of
from streamsgd.errors import DataError, StreamSGDError, UnreadableError
from streamsgd.features.arrow import as_float
from streamsgd.features.choose import choose_encoding
from streamsgd.features.choose_target import choose_target
from streamsgd.features.look.advice import Advice
from streamsgd.features.names import expand
from streamsgd.features.sample import Sample
from streamsgd.features.shapes import choose_roles
from streamsgd.inspection.order import OrderRisk, TargetMix, measure_order
from streamsgd.inspection.risk import RISKY, look_at_order
from streamsgd.planning.chunks import Piece

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streamsgd.data.dataset import Dataset
    from streamsgd.data.source import Reader
    from streamsgd.planning.chunks import Plan
    from streamsgd.settings.fields import Settings


SAMPLE_GROUPS = 16

SAMPLE_ROWS = 1 << 16
"""Row groups, and rows of each, that are looked at."""

MOST_BYTES = 256 << 20
"""Encoded bytes of a row group above which columns without a fixed width are not looked at."""


LONG_BYTES = 64
"""Bytes of a string above which its digest stands for it."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The least, the middle and the greatest of some numbers."""

    min: int
    median: int
    max: int


@dataclass(slots=True)
class ColumnSummary:
    """One column; counts and values are of the sample."""

    name: str
    type: str
    usable: bool
    """Whether it can be a feature."""
    encoded_bytes: int | None = None
    """Compressed bytes in all files, estimated from the footers of some."""
    rows: int = 0
    """Rows looked at."""
    nulls: int = 0
    nans: int = 0
    infinite: int = 0
    min: float | str | None = None
    max: float | str | None = None
    mean: float | None = None
    std: float | None = None
    distinct: int | None = None
    """Of strings."""
    taken_as: list[str] = field(default_factory=list)
    """What it would become in training; only where a target was named."""
    why: str = ""
    problem: str = ""
    """Why it could not be looked at, or what is wrong with it."""


@dataclass(slots=True)
class Inspection:
    """What `inspect` found."""

    files: int
    row_groups: int
    rows: int
    file_bytes: int
    rows_per_group: Spread | None
    bytes_per_group: Spread | None
    """Encoded, not compressed, as the footers say."""
    empty_files: int
    partition_columns: tuple[str, ...]
    sample_rows: int
    columns: list[ColumnSummary] = field(default_factory=list)
    target: TargetMix | None = None
    order: OrderRisk | None = None
    problems: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def inspect_data(
    data: Any,
    settings: Settings,
    plan_for: Callable[..., Plan],
    progress: Callable[[int, int], None] | None = None,
) -> Inspection:
    """Look at data, and at a target if the settings name one; `plan_for` says how training would cut it into chunks.

    Raises
    ------
    StreamSGDError
        A footer cannot be read, or a column that was named is not there.

    """
    set_io_timeout(settings.io_timeout)
    if settings.filter or not is_by_file(data):
        dataset, _, _ = open_data(data, settings.filter, progress)
    else:
        dataset = open_whole(data, progress)
    pieces = sample_pieces(dataset, settings.seed)
    filled = np.unique(dataset.file[dataset.rows > 0])
    found = Inspection(
        files=dataset.n_files,
        row_groups=dataset.n_row_groups,
        rows=dataset.n_rows,
        file_bytes=sum(ref.size for ref in dataset.source.files),
        rows_per_group=_spread(dataset.rows),
        bytes_per_group=_spread(dataset.bytes),
        empty_files=dataset.n_files - len(filled),
        partition_columns=dataset.partition_names,
        sample_rows=sum(piece.rows for piece in pieces),
    )
    found.columns = summarise_columns(dataset, pieces, skips=settings.unreadable == "skip")
    if settings.target:
        expand((settings.target, *settings.features, *settings.exclude), list(dataset.schema.names))
        try:
            require_filled(dataset, [settings.target])
            found.target, found.order = measure_order(dataset, settings, plan_for)
            if found.order is not None:
                found.order.on_disk = _goes_by_disk(dataset, settings, plan_for)
            _add_choices(dataset, settings, found.columns)
        except StreamSGDError as error:
            found.problems.append(str(error))
    return found


def _goes_by_disk(dataset: Dataset, settings: Settings, plan_for: Callable[..., Plan]) -> bool:
    """Whether training would shuffle all rows on disk first, as `training.ordering` decides it where nothing is set."""
    if settings.batch_size == "full" or settings.unreadable != "error":
        return False
    target = choose_target(Sample(dataset, settings), settings.target, settings.task)
    reference = plan_for(dataset, settings, target, useful=True)
    look = look_at_order(dataset, target, reference)
    return look is not None and look.drift(reference.chunk_rows) > RISKY


def _add_choices(dataset: Dataset, settings: Settings, columns: list[ColumnSummary]) -> None:
    """Note what training would make of every column, and why."""
    dataset, roles = choose_roles(Sample(dataset, settings))
    require(dataset, roles.read)
    look = Sample(dataset, settings)
    encoding, reasons = choose_encoding(look, roles, Advice(look, choose_target(look, roles.target, settings.task)))
    taken = encoding.taken_as()
    for column in columns:
        column.usable |= column.name in taken
        column.taken_as, column.why = taken.get(column.name, []), reasons.get(column.name, "")


def sample_pieces(dataset: Dataset, seed: int, most: int = SAMPLE_GROUPS, rows: int = SAMPLE_ROWS) -> list[Piece]:
    """Return a seeded choice of row groups with rows, the first rows of each."""
    some = np.flatnonzero(dataset.rows > 0)
    if len(some) > most:
        seeds = np.random.SeedSequence([seed, 0x105])
        some = np.sort(np.random.Generator(np.random.PCG64(seeds)).permutation(some)[:most])
    return [Piece(0, g, g + 1, 0, min(int(dataset.rows[g]), rows), 0) for g in some.tolist()]


def summarise_columns(dataset: Dataset, pieces: list[Piece], *, skips: bool = False) -> list[ColumnSummary]:
    """Return a summary of every column over some pieces, or those of them that are not damaged."""
    sizes = dataset.source.encoded_bytes()
    summaries, reader = [], dataset.reader(keeps_open=False)
    for name in dict.fromkeys(dataset.schema.names):
        kind = dataset.schema.field(dataset.schema.names.index(name)).type
        summary = ColumnSummary(name, str(kind), kind_of(kind) is not None, sizes.get(name))
        summaries.append(summary)
        summary.problem = _problem(dataset, name)
        if not summary.problem:
            _look(dataset, reader, pieces, summary, skips=skips)
    return summaries


def read_column(dataset: Dataset, reader: Reader, piece: Piece, name: str) -> Iterator[Any]:
    """Yield one column of a piece, some rows after others.

    Raises
    ------
    DataError
        It cannot be read.

    """
    try:
        for part in reader.read(piece, (name,), Timings()):
            yield part[0]
    except (pa.ArrowException, KeyError, ValueError, OSError, NotImplementedError) as error:
        raise DataError(f"{dataset.source.where(piece)}: {first_line(error)}") from error


def _problem(dataset: Dataset, name: str) -> str:
    if dataset.n_rows:
        try:
            require(dataset, [name])
        except DataError as error:
            return str(error)
    return ""


def _look(dataset: Dataset, reader: Reader, pieces: list[Piece], summary: ColumnSummary, *, skips: bool) -> None:
    name = summary.name
    kind = dataset.schema.field(dataset.schema.names.index(name)).type
    fixed = pa.types.is_primitive(kind) or pa.types.is_decimal(kind)
    largest = max((int(dataset.bytes[piece.first]) for piece in pieces), default=0)
    if not fixed and largest > MOST_BYTES:
        summary.problem = f"not looked at: its type has no fixed width and row groups have up to {largest:,} bytes"
        return
    values, strings = [], _Distinct()
    for piece in pieces:
        try:
            for column in read_column(dataset, reader, piece, name):
                summary.rows += len(column)
                summary.nulls += column.null_count
                if is_number(kind):
                    values.append(np.asarray(as_float(column), dtype=np.float64))
                elif _is_text(column.type):
                    strings.add(column)
        except DataError as error:
            if skips and isinstance(error, UnreadableError):
                continue
            summary.problem = str(error)
            return
    if is_number(kind):
        _numbers(np.concatenate(values) if values else np.zeros(0), kind, summary)
    elif _is_text(kind):
        summary.distinct = len(strings)


class _Distinct:
    """Tells how many different strings there were; of long ones digests are kept."""

    def __init__(self) -> None:
        self.short = pa.array([], pa.large_string())
        self.long: set[bytes] = set()

    def add(self, column: Any) -> None:
        """Take in strings."""
        for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
            if pa.types.is_dictionary(chunk.type):
                chunk = chunk.dictionary.take(pc.unique(chunk.indices))  # noqa: PLW2901
            values = pc.unique(undictionaried(chunk).cast(pa.large_string())).drop_null()
            is_long = pc.greater(pc.binary_length(values), LONG_BYTES)
            self.short = pc.unique(pa.chunked_array([values.filter(pc.invert(is_long)), self.short]))
            self.long.update(blake2b(value.as_buffer(), digest_size=16).digest() for value in values.filter(is_long))

    def __len__(self) -> int:
        return len(self.short) + len(self.long)


def _numbers(values: np.ndarray, kind: Any, summary: ColumnSummary) -> None:
    finite = values[np.isfinite(values)]
    summary.nans = int(np.isnan(values).sum()) - summary.nulls
    summary.infinite = int(np.isinf(values).sum())
    if not len(finite):
        return
    low, high = float(finite.min()), float(finite.max())
    summary.min, summary.max = (_moment(low, kind), _moment(high, kind)) if pa.types.is_temporal(kind) else (low, high)
    if not pa.types.is_temporal(kind):
        with np.errstate(over="ignore", invalid="ignore"):
            summary.mean, summary.std = float(finite.mean()), float(finite.std())


def _moment(value: float, kind: Any) -> float | str:
    """Return days or seconds as a date or time of day."""
    try:
        if pa.types.is_date(kind):
            return str(np.datetime64(int(value), "D"))
        if pa.types.is_timestamp(kind):
            return str(np.datetime64(int(value), "s"))
    except (ValueError, OverflowError):
        return value
    return value


def _is_text(kind: Any) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _spread(values: np.ndarray) -> Spread | None:
    if not len(values):
        return None
    return Spread(int(values.min()), int(np.median(values)), int(values.max()))
