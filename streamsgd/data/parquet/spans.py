"""Where the column chunks of a row group lie in its file, read from the footer without Arrow, which damage could end."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING

from streamsgd.data.parquet.footers import FooterIndex, index_footer
from streamsgd.data.parquet.thrift import read_struct

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from streamsgd.data.stores.files import FileRef

KEPT_BYTES = 8 << 20
"""Of footers of object stores that are kept, unparsed."""

COLUMNS, META = 1, 3
"""Fields of RowGroup, and of ColumnChunk ..."""

PATH, SIZE, DATA_PAGE, DICTIONARY_PAGE = 3, 7, 9, 11
"""... and of ColumnMetaData, in parquet.thrift."""


class ChunkPlaces:
    """Where column chunks lie in files, by their footers, of which a bounded number is kept; used by many threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: OrderedDict[str, tuple[FooterIndex | None, bytes]] = OrderedDict()

    def spans(
        self, ref: FileRef, footer: Callable[[], bytes], groups: Sequence[int], names: Collection[str]
    ) -> list[tuple[int, int]]:
        """Return first byte and length of columns of some row groups; none where the footer, read if unknown, is unclear."""
        index, data = self._footer(ref, footer)
        if index is None:
            return []
        bounds, tops = index.bounds, {*names, *(name.partition(".")[0] for name in names)}
        found = [column_spans(data, int(bounds[g]), int(bounds[g + 1])) for g in groups]
        if any(chunks is None for chunks in found):
            return []
        chunks = [chunk for group in found for chunk in group or ()]
        return [(start, size) for name, start, size in chunks if name in tops and start + size <= ref.size]

    def _footer(self, ref: FileRef, footer: Callable[[], bytes]) -> tuple[FooterIndex | None, bytes]:
        with self._lock:
            known = self._known.get(ref.path)
        if known is not None:
            return known
        data = footer()
        known = index_footer(data), data
        with self._lock:
            self._known[ref.path] = known
            while sum(len(one) for _, one in self._known.values()) > KEPT_BYTES and len(self._known) > 1:
                self._known.popitem(last=False)
        return known


def column_spans(data: bytes, start: int, stop: int) -> list[tuple[str, int, int]] | None:
    """Return the top-level name, the first byte and the length of each column chunk of a row group.

    Its struct is within the bytes `start` to `stop` of the footer. None if anything is unclear.
    """
    found = []
    try:
        for column in read_struct(data, start, stop)[COLUMNS]:
            meta = column[META]
            starts = [meta[key] for key in (DATA_PAGE, DICTIONARY_PAGE) if meta.get(key, 0) > 0]
            if meta[SIZE] < 0:
                return None
            found.append((meta[PATH][0].decode(), min(starts), meta[SIZE]))
    except (LookupError, ValueError, TypeError, AttributeError):
        return None
    return found
