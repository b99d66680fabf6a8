"""The first look: a bounded, seeded sample of row groups that decides how columns become numbers.

Everything decided here is frozen in the model. Small data is looked at as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from streamsgd.compute.context import usual_threads
from streamsgd.compute.memory import parse_limit
from streamsgd.data.sizes import group_widths
from streamsgd.data.timings import Timings
from streamsgd.errors import DataError, UnreadableError
from streamsgd.features.arrow import as_double
from streamsgd.planning.budget import INTERPRETER
from streamsgd.planning.chunks import Piece, merge_neighbours

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamsgd.data.dataset import Dataset
    from streamsgd.settings.fields import Settings


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


@dataclass
class Sample:
    """Reads samples and single columns of a data set, through the filter."""

    dataset: Dataset
    settings: Settings
    filter: Any = None
    filter_columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.reader = self.dataset.reader(keeps_open=False)

    def sample(self, names: tuple[str, ...]) -> list[Piece]:
        """Return the pieces to look at for these columns: all of small data, else the head of row groups chosen by seed."""
        pieces = self._sample(names)
        self._expect(pieces)
        return pieces

    def _expect(self, pieces: list[Piece]) -> None:
        self.dataset.source.prefetch([group for piece in pieces for group in range(piece.first, piece.last)])

    def _sample(self, names: tuple[str, ...]) -> list[Piece]:
        widths, rows = group_widths(self.dataset, names), self.dataset.rows
        width = float(widths @ rows) / max(1, self.dataset.n_rows)
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

    def columns(self, piece: Piece, names: tuple[str, ...], texts: frozenset[str] = frozenset()) -> dict[str, Any]:
        """Return columns of a piece as Arrow arrays, filtered; no row of one that the settings allow to skip.

        Strings of `texts` may come as dictionaries.
        """
        wanted = tuple(dict.fromkeys([*names, *self.filter_columns]))
        try:
            # A filter is made for the types of the data set.
            parts = list(self.reader.read(piece, wanted, Timings(), texts if self.filter is None else frozenset()))
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
        keep = pa.array(self.filter.keep(flat, self.dataset.source.where(piece)))
        return {name: flat[name].filter(keep) for name in names}

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

    def sees_all(self, names: tuple[str, ...]) -> bool:
        """Whether the sample for these columns is all of the data."""
        return sum(piece.rows for piece in self._sample(names)) >= self.dataset.n_rows

    def threads(self, names: tuple[str, ...]) -> int:
        """Return how many threads may read these columns at once within half of what the budget leaves to reading."""
        spare = (parse_limit(self.settings.memory) - INTERPRETER) // 2
        return max(1, min(usual_threads(self.settings.threads), spare // self.dataset.source.cost(names).per_thread))

    def scan(self, name: str) -> Iterator[Any]:
        """Yield one column over all row groups, filtered: the only reading that is as long as the data."""
        pieces = self._pieces(SCAN_ROWS // 2)  # a run is at most twice as long
        self._expect(pieces)
        for piece in pieces:
            for start in range(0, piece.rows, SCAN_ROWS):
                part = replace(piece, start=start, stop=min(piece.rows, start + SCAN_ROWS))
                yield self.columns(part, (name,))[name]

    def check_filter(self) -> None:
        """Refuse a filter that leaves no row, which is why something has no value.

        Raises
        ------
        DataError
            It leaves none.

        """
        if self.filter is None:
            return
        name = next(iter(self.filter_columns), self.dataset.schema.names[0])
        if not any(len(column) for column in self.scan(name)):
            raise DataError(f"--filter {self.settings.filter!r} leaves no row: none of {self.dataset.n_rows:,} rows fulfils it")

    def target_values(self, name: str, most: int = 100_000) -> np.ndarray:
        """Return finite target values of the sample as float64, at most that many of each row group."""
        parts = []
        for piece in self.sample((name,)):
            values = as_double(self.columns(piece, (name,))[name])
            parts.append(values[np.isfinite(values)][:most])
        return np.concatenate(parts) if parts else np.zeros(0)


def _chunks(column: Any) -> list[Any]:
    return column.chunks if isinstance(column, pa.ChunkedArray) else [column]
