"""The first look: a bounded, seeded sample of row groups that decides how columns become numbers.

Everything decided here is frozen in the model. Small data is looked at as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamsgd.compute.context import usual_threads
from streamsgd.compute.memory import give_back, parse_limit
from streamsgd.data.sizes import group_widths, has_fixed_width, is_wild
from streamsgd.data.timings import Timings
from streamsgd.data.types import is_text
from streamsgd.errors import DataError, UnreadableError
from streamsgd.features.arrow import as_double, entry_counts
from streamsgd.features.look.sentinels import nulled
from streamsgd.messages import counted
from streamsgd.planning.budget import INTERPRETER
from streamsgd.planning.chunks import Piece, merge_neighbours
from streamsgd.planning.sums import dot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from streamsgd.data.dataset import Dataset
    from streamsgd.settings.fields import Settings


SAMPLE_BYTES = 64 << 20
"""Decoded bytes of a sample of features; data of no more is looked at as a whole."""

TEXT_BYTES = 128 << 20
"""Bytes of values of no fixed width in all of its pieces together: the distinct ones are kept."""

SAMPLE_ROWS = 1 << 19
"""Rows of a sample ..."""

SAMPLE_GROUPS = 8
"""... which come from at least so many row groups, if there are as many ..."""

MOST_GROUPS = 1 << 14
"""... and of no more than about so many, at 30 microseconds each ..."""

SAMPLE_RUNS = 64
"""... or, if they are small, from about so many runs of neighbours: a read of each row group would take 0.3 ms."""

PIECE_COPIES = 3
"""Times that the values of a piece are in memory while they are counted."""

CHOICE_COPIES = 3
"""Times that a column's values are in memory, beside being kept, while they are sorted and cut into words."""

ENTRY_BYTES = 8
"""Reckoned for each entry of a list or a map."""

SCAN_ROWS = 1 << 20
"""Rows of a column that are read at a time when all of it is needed."""


@dataclass
class Sample:
    """Reads samples and single columns of a data set, through the filter."""

    dataset: Dataset
    settings: Settings
    filter: Any = None
    filter_columns: tuple[str, ...] = ()

    sentinels: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Numbers that are null, by column: as soon as they are found."""
    piece_bytes: int = 0
    """Bytes of values of no fixed width in the piece that has the most."""
    longest_row: int = 0
    """Bytes of such values in the row that has the most."""
    kept_bytes: int = 0
    """Bytes of distinct values that were kept, of all columns and ..."""
    longest_bytes: int = 0
    """... of the column that has the most."""
    unread: dict[str, dict[int, str]] = field(default_factory=dict)
    """Why row groups were left out, by column and group: the settings allow that of those that cannot be read."""
    cut: bool = False
    """Whether rows of the sample were left out because values were so long."""

    def __post_init__(self) -> None:
        self._lock = Lock()
        self.reader = self.dataset.reader(keeps_open=False)

    def sample(self, names: tuple[str, ...]) -> list[Piece]:
        """Return the pieces to look at for these columns: all of small data, else the head of row groups chosen by seed."""
        pieces = self._sample(names)
        self._expect(pieces)
        return pieces

    def _expect(self, pieces: list[Piece]) -> None:
        self.dataset.source.prefetch([group for piece in pieces for group in range(piece.first, piece.last)])

    @staticmethod
    def most_bytes(piece: Piece, pieces: list[Piece]) -> int:
        """Return the bytes of values of no fixed width that are read of one of these pieces: its share by rows."""
        return min(SAMPLE_BYTES, TEXT_BYTES * piece.rows // max(1, sum(each.rows for each in pieces)))

    def _sample(self, names: tuple[str, ...]) -> list[Piece]:
        widths, rows = group_widths(self.dataset, names), self.dataset.rows
        width = dot(widths, rows) / max(1, self.dataset.n_rows)
        most = max(1, min(SAMPLE_ROWS, round(SAMPLE_BYTES / max(1.0, width))))
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

    def columns(
        self, piece: Piece, names: tuple[str, ...], texts: frozenset[str] = frozenset(), most: int | None = None
    ) -> dict[str, Any]:
        """Return columns of a piece as Arrow arrays, filtered; no row of one that the settings allow to skip.

        Strings of `texts` may come as dictionaries. Of values of no fixed width come about `most` bytes, the first rows.
        """
        wanted = tuple(dict.fromkeys([*names, *self.filter_columns]))
        try:
            # A filter is made for the types of the data set.
            parts = self._parts(piece, wanted, texts if self.filter is None else frozenset(), most)
        except UnreadableError as error:
            if piece.last - piece.first > 1:
                return self._one_by_one(piece, names, most)
            if self.settings.unreadable != "skip":
                raise
            with self._lock:
                for name in wanted:
                    self.unread.setdefault(name, {})[piece.first] = error.problem
            return {name: pa.nulls(0, self.dataset.schema.field(name).type) for name in names}
        flat = {
            name: pa.chunked_array([chunk for part in parts for chunk in _chunks(part[k])], type=parts[0][k].type)
            for k, name in enumerate(wanted)
        }
        if self.filter is not None:
            keep = pa.array(self.filter.keep(flat, self.dataset.source.where(piece)))
            flat = {name: flat[name].filter(keep) for name in names}
        return nulled(flat, self.sentinels) if self.sentinels else flat

    def _parts(self, piece: Piece, names: tuple[str, ...], texts: frozenset[str], most: int | None) -> list[list[Any]]:
        """Return the rows of a piece until their values, measured, take more than `most` bytes, however they come."""
        parts, left, taken = [], most, 0
        for part in self.reader.read(piece, names, Timings(), texts):
            if left is None:
                parts.append(part)
                continue
            sizes = row_sizes(part)
            n_rows = max(0 if parts else 1, int(np.searchsorted(np.cumsum(sizes), left, side="right")))
            parts.append(part if n_rows == len(sizes) else [column.slice(0, n_rows) for column in part])
            taken += int(sizes[:n_rows].sum())
            with self._lock:
                self.piece_bytes = max(self.piece_bytes, taken)
                self.longest_row = max(self.longest_row, int(sizes.max(initial=0)))
                self.cut |= n_rows < len(sizes)
            if n_rows < len(sizes):
                break
            left -= int(sizes.sum())
        return parts

    def _one_by_one(self, piece: Piece, names: tuple[str, ...], most: int | None) -> dict[str, Any]:
        """Read the row groups of a run apart, so that only the damaged ones are named, or left out."""
        rows = self.dataset.rows
        groups = [g for g in range(piece.first, piece.last) if rows[g]]
        parts = [self.columns(Piece(0, g, g + 1, 0, int(rows[g]), 0), names, most=most) for g in groups]
        kinds = {name: self.dataset.schema.field(name).type for name in names}
        return {
            name: pa.chunked_array([chunk.cast(kind) for part in parts for chunk in _chunks(part[name])], type=kind)
            for name, kind in kinds.items()
        }

    @property
    def peak_bytes(self) -> int:
        """Bytes that values took: of a piece while they are counted, all that are kept, and a column's while it is chosen."""
        return max(PIECE_COPIES * self.piece_bytes + self.kept_bytes, self.kept_bytes + CHOICE_COPIES * self.longest_bytes)

    def kept(self, sizes: list[int]) -> None:
        """Take down the bytes of the distinct values that are kept of each column."""
        self.kept_bytes, self.longest_bytes = sum(sizes), max(sizes, default=0)

    def release(self) -> None:
        """Give back what allocators keep of the sample: it would count against the budget for the whole run."""
        pa.default_memory_pool().release_unused()
        give_back()

    def sees_all(self, names: tuple[str, ...]) -> bool:
        """Whether the sample for these columns is all of the data."""
        return not self.cut and sum(piece.rows for piece in self._sample(names)) >= self.dataset.n_rows

    def threads(self, names: tuple[str, ...]) -> int:
        """Return how many threads may read these columns at once within half of what the budget leaves to reading."""
        spare, source = (parse_limit(self.settings.memory) - INTERPRETER) // 2, self.dataset.source
        each = source.cost(names).per_thread
        if is_wild(self.dataset.schema, names, ()):
            decoded = sum(getattr(source, "decoded", {}).get(name, 0.0) for name in names)
            each += int(PIECE_COPIES * min(SAMPLE_BYTES, decoded))
        return max(1, min(usual_threads(self.settings.threads), spare // each))

    def scan(self, name: str) -> Iterator[Any]:
        """Yield one column over all row groups, filtered: the only reading that is as long as the data."""
        pieces = self._pieces(SCAN_ROWS // 2)  # a run is at most twice as long
        self._expect(pieces)
        for piece in pieces:
            for start in range(0, piece.rows, SCAN_ROWS):
                part = replace(piece, start=start, stop=min(piece.rows, start + SCAN_ROWS))
                yield from self._scanned(part, name)

    def _read(self, piece: Piece, names: tuple[str, ...]) -> Iterator[list[Any]]:
        try:
            yield from self.reader.read(piece, names, Timings())
        except UnreadableError:
            if piece.last - piece.first > 1:
                self._one_by_one(piece, names, None)  # names the one that is damaged
            raise

    def _scanned(self, piece: Piece, name: str) -> Iterator[Any]:
        """Yield one column of a piece: of values that may be long some rows at a time, if no row group may be left out."""
        wanted = tuple(dict.fromkeys([name, *self.filter_columns]))
        if self.settings.unreadable == "skip" or not is_wild(self.dataset.schema, wanted, ()):
            yield self.columns(piece, (name,))[name]
            return
        where = self.dataset.source.where(piece)
        for part in self._read(piece, wanted):
            columns = zip(wanted, part, strict=True)
            flat = {each: pa.chunked_array(_chunks(column), type=column.type) for each, column in columns}
            if self.filter is not None:
                flat[name] = flat[name].filter(pa.array(self.filter.keep(flat, where)))
            yield (nulled({name: flat[name]}, self.sentinels) if self.sentinels else flat)[name]

    def check_read(self, names: Iterable[str]) -> None:
        """Refuse columns of which no row could be read, which is why they have no value: every row would be left out.

        Raises
        ------
        DataError
            There is one; the message says how many rows, and the first problem.

        """
        groups = np.flatnonzero(self.dataset.rows)
        for name in names:
            problems = self.unread.get(name, {})
            if len(groups) and problems.keys() >= {*groups.tolist()}:
                raise DataError(
                    f"of {self.dataset.n_rows:,} rows none is left to learn from: {counted(len(groups), 'row group')} with all "
                    f"of them cannot be read with column {name!r}, and --unreadable skip leaves them out; the first problem: "
                    f"{problems[min(problems)]}; write the data again, or leave out the column that is damaged"
                )

    def check_rows(self, name: str) -> None:
        """Refuse data without a row, which is why a column has no value: none can be read, or the filter leaves none.

        Raises
        ------
        DataError
            It has none.

        """
        self.check_read((name,))
        if self.filter is None:
            return
        name = next(iter(self.filter_columns), self.dataset.schema.names[0])
        if not any(len(column) for column in self.scan(name)):
            self.check_read((name,))
            raise DataError(f"--filter {self.settings.filter!r} leaves no row: none of {self.dataset.n_rows:,} rows fulfils it")

    def target_values(self, name: str, most: int = 100_000) -> np.ndarray:
        """Return finite target values of the sample as float64, at most that many of each row group."""
        parts = []
        for piece in self.sample((name,)):
            values = as_double(self.columns(piece, (name,))[name])
            parts.append(values[np.isfinite(values)][:most])
        return np.concatenate(parts) if parts else np.zeros(0)


def row_sizes(columns: list[Any]) -> np.ndarray:
    """Return the bytes of each row's values that have no fixed width and come as they are, int64 (n_rows,)."""
    sizes = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        if not has_fixed_width(column.type):
            sizes += _value_sizes(column)
    return sizes


def _value_sizes(column: Any) -> np.ndarray | int:
    kind = column.type
    if is_text(kind) and not pa.types.is_dictionary(kind) and not pa.types.is_fixed_size_binary(kind):
        kinds = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
        lengths = pc.binary_length(column.cast(kinds[kind]) if kind in kinds else column)
        return np.asarray(pc.fill_null(lengths, 0))
    entries = entry_counts(column)
    return 0 if entries is None else entries * ENTRY_BYTES


def _chunks(column: Any) -> list[Any]:
    return column.chunks if isinstance(column, pa.ChunkedArray) else [column]
