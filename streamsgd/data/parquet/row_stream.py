"""A row group that gives its rows in order, some at a time, as many as measured bytes allow.

A footer says how long values are in the file. Where they are stored by what they share with others (dictionaries that are not
kept, prefixes), they may take a thousand times more in memory: so the first batch has few rows, and the next as many as those
measured let expect.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from streamsgd.data.checks import checked_columns
from streamsgd.data.parquet.int96 import INT96_UNIT, Opener, side_by_side
from streamsgd.data.sizes import BATCH_BYTES, BUFFER_BYTES, WILD_ROWS, group_widths, is_wild

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from streamsgd.data.dataset import Inventory

LEAST_BATCH = 64
"""Rows of the first batch where nobody knows how long they are."""

CODED_BYTES = 2.0
"""Bytes per value in the file up to which a column is taken for a dictionary of a few values."""

LONG_VALUE = 1 << 10
"""Bytes of the mean value of a dictionary from which on rows are reckoned as if it were none."""

GROWTH, SHRINKAGE = 4, 1.5
"""Times that the best batch must be larger, or smaller, than it is for the row group to be opened anew."""


def open_parquet(handle: Any, metadata: Any, texts: list[str], unit: str = INT96_UNIT, **how: Any) -> Any:
    """Open a file whose pages are checked against their checksums, where it has some; `texts` come as dictionaries.

    `unit` is that of moments of 96 bits.
    """
    return pq.ParquetFile(
        handle,
        metadata=metadata,
        read_dictionary=texts,
        pre_buffer=False,
        page_checksum_verification=True,
        coerce_int96_timestamp_unit=unit,
        **how,
    )


class NotCoded(Exception):  # noqa: N818  no fault
    """Arrow makes no dictionaries of how these strings are stored."""


@contextmanager
def coded(texts: list[str]) -> Iterator[None]:
    """Raise `NotCoded` where a read fails because columns were wanted as dictionaries (delta strings)."""
    try:
        yield
    except OSError as error:
        if not texts or "DictAccumulator" not in str(error):
            raise
        raise NotCoded from error


class SizingOpener(Opener, Protocol):
    """What opens files for reading row groups of them, and knows what their footers say; see `open_footers.Footers`."""

    def chunks(self, dataset: Inventory, group: int) -> tuple[int, dict[str, int]]:
        """Return the rows of a row group, and bytes of its columns before compression by name."""

    def decoded(self, dataset: Inventory, group: int, names: Collection[str]) -> int | None:
        """Return the bytes that columns of a row group take in memory, None where its footer does not say."""


class RowStream:
    """A row group that gives its rows in order, some at a time, from row `at` on.

    `by_unit` says which columns are read with which unit of moments of 96 bits; by default all are with the usual one.
    """

    def __init__(
        self,
        dataset: Inventory,
        group: int,
        names: tuple[str, ...],
        at: int,
        texts: list[str],
        *,
        opener: SizingOpener,
        by_unit: Mapping[str, list[str]] | None = None,
    ) -> None:
        self.by_unit = by_unit or {INT96_UNIT: list(names)}
        self.dataset, self.opener, self.group, self.names, self.at, self.texts = dataset, opener, group, names, at, texts
        self.batches: Iterator[Any] | None = None
        self.held: Any = None
        self.wild = False
        self.batch_rows = 0
        self.widest = 0.0

    def next(self, most: int) -> list[Any]:
        """Return columns of the next rows, at most that many; after a failed read, from the file opened anew."""
        try:
            columns = self._next(most)
        except BaseException:
            self.batches = None  # an iterator that failed says no more than that it has ended
            raise
        self.at += len(columns[0])
        return columns

    def _next(self, most: int) -> list[Any]:
        try:
            columns = self._opened(most)
        except NotCoded:
            self.texts, self.batches, self.batch_rows = [], None, 0
            columns = self._opened(most)
        if self.wild and self.held is None and self._fit(columns):
            self.batches = None
        return columns

    def _opened(self, most: int) -> list[Any]:
        if self.batches is None:
            self._open()
        return self._take(most)

    def _open(self) -> None:
        dataset = self.dataset
        texts = self._repetitive() if self.texts else []
        self.wild = is_wild(dataset.schema, self.names, texts)
        if not self.batch_rows:
            width = float(group_widths(dataset, self.names, slice(self.group, self.group + 1))[0])
            self.batch_rows = self._first_rows() if self.wild else max(LEAST_BATCH, round(BATCH_BYTES / max(1.0, width)))
            if self.wild and self.at:  # not so many rows in small batches
                self._begin(texts)
                self._fit(self._batch())
        self._begin(texts)
        done = 0
        while done < self.at:  # decoded and dropped: what a resumed run pays once
            done += len(self._take(self.at - done)[0])

    def _first_rows(self) -> int:
        """Return the rows of the first batch: as many as have the bytes of a batch, if the footer says how long they are."""
        known = self.opener.decoded(self.dataset, self.group, self.names)
        if known is None:
            return LEAST_BATCH
        n_rows = max(1, int(self.dataset.rows[self.group]))
        return max(1, min(WILD_ROWS, int(BATCH_BYTES * n_rows / max(1, known))))

    def _begin(self, texts: list[str]) -> None:
        dataset = self.dataset
        file, number = int(dataset.file[self.group]), int(dataset.index[self.group])
        self.held = None
        streams = {}
        for unit, names in self.by_unit.items():
            coded_texts = [name for name in texts if name in names]
            opened, numbers = self.opener.open(
                dataset, file, [number], coded_texts, in_parts=names, unit=unit, buffer_size=BUFFER_BYTES
            )
            streams[unit] = opened.iter_batches(
                batch_size=self.batch_rows, row_groups=numbers, columns=names, use_threads=False
            )
        self.batches = side_by_side(streams, self.names)

    def _repetitive(self) -> list[str]:
        """Return the columns whose values repeat so much that a batch of them is best taken as a dictionary.

        Arrow gives every batch the dictionary of the whole row group, built up to it. Many different values would be held and
        hashed again and again; a few may be so long that only the dictionary bounds them.
        """
        n_rows, sizes = self.opener.chunks(self.dataset, self.group)
        return [name for name in self.texts if sizes.get(name, 0) <= CODED_BYTES * max(1, n_rows)]

    def _take(self, most: int) -> list[Any]:
        columns = self.held if self.held is not None else self._batch()
        self.held = [column.slice(most) for column in columns] if len(columns[0]) > most else None
        return [column.slice(0, most) for column in columns]

    def _batch(self) -> list[Any]:
        with coded(self.texts):
            batch = next(self.batches, None)  # type: ignore[arg-type]
        if batch is None:
            raise ValueError(f"the row group ends after {self.at:,} rows, before its footer says")
        return checked_columns(batch, self.names)

    def _fit(self, columns: list[Any]) -> bool:
        """Choose the rows of further batches by the widest rows so far; return whether that is far from what they were."""
        self.widest = max(self.widest, sum(map(_bytes, columns)) / max(1, len(columns[0])))
        best = max(1, min(WILD_ROWS, int(BATCH_BYTES / max(1.0, self.widest))))
        if self.batch_rows / SHRINKAGE <= best <= self.batch_rows * GROWTH:
            return False
        self.batch_rows = best
        return True


def _bytes(column: Any) -> int:
    """Return what rows take in memory, those of dictionaries once they are plain, if their values are long."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    mean = column.dictionary.nbytes // max(1, len(column.dictionary))
    return int(column.indices.nbytes + (mean > LONG_VALUE) * mean * len(column))
