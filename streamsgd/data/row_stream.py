"""A row group that gives its rows in order, some at a time, as many as measured bytes allow.

A footer says how long values are in the file. Where they are stored by what they share with others (dictionaries that are not
kept, prefixes), they may take a thousand times more in memory: so the first batch has few rows, and the next as many as those
measured let expect.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from streamsgd.data.checks import checked_columns
from streamsgd.data.dataset import INT96_UNIT, footer_bytes
from streamsgd.data.footers import group_chunks
from streamsgd.data.sizes import BATCH_BYTES, BUFFER_BYTES, WILD_ROWS, group_widths, is_wild

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamsgd.data.dataset import Inventory

LEAST_BATCH = 64
"""Rows of the smallest batch, however long they are."""

CODED_BYTES = 2.0
"""Bytes per value in the file up to which a column is taken for a dictionary of a few values."""

GROWTH = 4
"""Times that a batch must be off the best size for the row group to be opened anew."""


def open_parquet(handle: Any, metadata: Any, texts: list[str], **how: Any) -> Any:
    """Open a file whose pages are checked against their checksums, where it has some; `texts` come as dictionaries."""
    return pq.ParquetFile(
        handle,
        metadata=metadata,
        read_dictionary=texts,
        pre_buffer=False,
        page_checksum_verification=True,
        coerce_int96_timestamp_unit=INT96_UNIT,
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


def _repetitive(sizes: dict[str, int], n_rows: int, texts: list[str]) -> list[str]:
    """Return the columns whose values repeat so much that a batch of them is best taken as a dictionary.

    Arrow gives every batch the dictionary of the whole row group, built up to it. Many different values would be held and
    hashed again and again; a few may be so long that only the dictionary bounds them.
    """
    return [name for name in texts if sizes.get(name, 0) <= CODED_BYTES * max(1, n_rows)]


class RowStream:
    """A row group that gives its rows in order, some at a time, from row `at` on."""

    def __init__(self, dataset: Inventory, group: int, names: tuple[str, ...], at: int, texts: list[str]) -> None:
        self.dataset, self.group, self.names, self.at, self.texts = dataset, group, names, at, texts
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
            self.texts, self.batches = [], None
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
        number = int(dataset.index[self.group])
        texts = self._repetitive(number) if self.texts else []
        self.wild = is_wild(dataset.schema, self.names, texts)
        if not self.batch_rows:
            width = float(group_widths(dataset, self.names, slice(self.group, self.group + 1))[0])
            self.batch_rows = LEAST_BATCH if self.wild else max(LEAST_BATCH, round(BATCH_BYTES / max(1.0, width)))
            if self.wild and self.at:  # not so many rows in small batches
                self._begin(number, texts)
                self._fit(self._batch())
        self._begin(number, texts)
        done = 0
        while done < self.at:  # decoded and dropped: what a resumed run pays once
            done += len(self._take(self.at - done)[0])

    def _begin(self, number: int, texts: list[str]) -> None:
        source = self.dataset.source
        handle = source.open(source.files[int(self.dataset.file[self.group])])
        opened = open_parquet(handle, pq.read_metadata(handle), texts, buffer_size=BUFFER_BYTES)
        self.held = None
        self.batches = opened.iter_batches(
            batch_size=self.batch_rows, row_groups=[number], columns=list(self.names), use_threads=False
        )

    def _repetitive(self, number: int) -> list[str]:
        dataset = self.dataset
        footer = footer_bytes(dataset.source, dataset.source.files[int(dataset.file[self.group])])
        ((n_rows, chunks),) = group_chunks(footer, [number])
        return _repetitive({chunk.path: chunk.uncompressed for chunk in chunks}, n_rows, self.texts)

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
        if self.batch_rows / GROWTH <= best <= self.batch_rows * GROWTH:
            return False
        self.batch_rows = best
        return True


def _bytes(column: Any) -> int:
    """Return what rows take in memory, dictionaries apart."""
    return int(column.indices.nbytes if pa.types.is_dictionary(column.type) else column.nbytes)
