"""Large footers in parts: a footer of any of a file's row groups, made without parsing the others.

A parsed footer takes ten times its length in memory: 256 MB for ten thousand row groups of 29 columns, and a third of a
second. The index of one takes 8 bytes per row group, and the footer of a few row groups some microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamsgd.data.parquet.fetch import check_answer
from streamsgd.data.parquet.no_footer import HEAD, MAGIC, damaged, no_footer
from streamsgd.data.parquet.thrift import read_struct
from streamsgd.errors import DataError
from streamsgd.kernels.thrift import STRUCT, chunks_fit, find_row_groups, row_group_bounds
from streamsgd.messages import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from streamsgd.data.stores.files import FileRef


CHUNKS_OF_GROUP, ROWS_OF_GROUP = 1, 3
"""Fields of RowGroup in parquet.thrift ..."""

METADATA_OF_CHUNK, TYPE, ENCODINGS, PATH, VALUES, UNCOMPRESSED, COMPRESSED, SIZES = 3, 1, 2, 3, 5, 6, 7, 16
"""... of ColumnChunk, and of its ColumnMetaData."""

PLAINLY_STORED = frozenset({0, 3, 4, 6})
"""Encodings that take no fewer bytes than their strings: plain, levels in runs and packed, lengths apart."""

OFFSET_BYTES = 8
"""Of a string or a list in memory, beside what it holds."""

MOST_BYTES = 1 << 50
"""Bytes of a column chunk, whatever a footer says."""

END = 8
"""Bytes after the footer: its length and the magic."""


TAIL = 64 * 1024  # bytes read first: holds the footer of nearly every file


def footer_in(ref: FileRef, tail: Callable[[int], bytes], head: Callable[[int], bytes]) -> bytes:
    """Return the footer of a file whose last bytes `tail` reads, and `head` its first."""
    if ref.size < 12:
        raise no_footer(ref, tail(ref.size), f"{counted(ref.size, 'byte')} are too short for it")
    end = tail(min(TAIL, ref.size))
    if end[-4:] == b"PARE":
        raise DataError(f"{ref.path}: is encrypted Parquet, which is not supported; decrypt it first")
    if end[-4:] != MAGIC:
        check_answer(end, len(end), ref.name)
        raise no_footer(ref, head(min(HEAD, ref.size)), "it does not end with PAR1")
    length = int.from_bytes(end[-8:-4], "little") + 8
    if length > ref.size - 4 or length == 8:
        raise damaged(ref, f"says its footer has {length - 8:,} bytes of {ref.size:,}; the file is damaged")
    return end[-length:] if length <= len(end) else tail(length)


@dataclass(frozen=True)
class FooterIndex:
    """Where the parts of a footer are.

    `before` and `after` are its bytes around the list of row groups, `bounds`, int64 (n_row_groups + 1,), says where each
    begins, counted from the footer's start.
    """

    before: bytes
    after: bytes
    bounds: np.ndarray
    length: int
    """Bytes of the footer with its length and magic: it begins so many before the end of the file."""

    def span(self, groups: Sequence[int]) -> tuple[int, int]:
        """Return the bytes of the footer that hold these row groups, and others between them."""
        return int(self.bounds[min(groups)]), int(self.bounds[max(groups) + 1])

    def footer(self, groups: Sequence[int], start: int, data: bytes) -> bytes:
        """Return a footer, with its length and magic, of these row groups alone; `data` is the footer from `start` on."""
        parts = [data[int(self.bounds[g]) - start : int(self.bounds[g + 1]) - start] for g in groups]
        size = bytes([len(parts) << 4 | STRUCT]) if len(parts) < 15 else bytes([0xF0 | STRUCT]) + _varint(len(parts))
        whole = b"".join([self.before, size, *parts, self.after])
        return whole + len(whole).to_bytes(4, "little") + b"PAR1"


def split_footer(footer: bytes, most: int) -> Iterator[bytes]:
    """Yield footers of at most so many row groups each, or the footer itself where it cannot be split."""
    index = index_footer(footer)
    n = len(index.bounds) - 1 if index is not None else 0
    if index is None or n <= most:
        yield footer
        return
    for first in range(0, n, most):
        yield index.footer(range(first, min(first + most, n)), 0, footer)


def index_footer(footer: bytes) -> FooterIndex | None:
    """Return the index of a footer (with its length and magic), or None where it is not as footers are."""
    data = np.frombuffer(footer, np.uint8)[:-END].copy()
    at, first, size = find_row_groups(data)
    if at < 0 or not 0 <= size <= len(data):
        return None
    bounds = np.empty(size + 1, np.int64)
    if not row_group_bounds(data, first, bounds):
        return None
    return FooterIndex(footer[:at], footer[int(bounds[-1]) : -END], bounds, len(footer))


class ChunkSizes(NamedTuple):
    """What a footer says of a column chunk: one column of one row group."""

    path: str
    """Names from the top down, dots between them."""
    compressed: int
    uncompressed: int
    """Bytes, at least 0 and clipped at 2^50, for footers lie."""
    decoded: int | None = None
    """Bytes in memory, as far as the footer tells: strings may be stored by what they share."""


def group_chunks(footer: bytes, groups: Sequence[int]) -> Iterator[tuple[int, list[ChunkSizes]]]:
    """Yield rows and column chunks of some row groups of a footer with its length and magic, in 20 microseconds a chunk.

    Arrow's own view of a column chunk ends the process where a bit of the footer is wrong.

    Raises
    ------
    ValueError
        The footer is not as footers are.

    """
    index = index_footer(footer)
    if index is None:
        raise ValueError("the footer has no list of row groups")
    for group in groups:
        if not 0 <= group < len(index.bounds) - 1:
            raise ValueError(f"the footer has no row group {group}")
        fields = read_struct(footer, int(index.bounds[group]), int(index.bounds[group + 1]))
        yield _whole(fields.get(ROWS_OF_GROUP)), [_sizes(chunk) for chunk in _items(fields.get(CHUNKS_OF_GROUP))]


SCHEMA = 2
"""Field of FileMetaData ..."""

TYPE, WIDTH, NAME, CHILDREN, CONVERTED, LOGICAL = 1, 2, 4, 5, 6, 10
"""... and of SchemaElement."""


def fixed_columns(footer: bytes) -> dict[str, int]:
    """Return the columns that hold bytes of a fixed width and do not say what they mean, at any depth, with that width."""
    try:
        elements = [_fields(each) for each in _items(read_struct(footer, 0, len(footer) - END).get(SCHEMA))]
    except ValueError:
        return {}
    found: dict[str, int] = {}
    left, column = 0, ""
    for element in elements[1:]:
        if not left:
            name = element.get(NAME, b"")
            left, column = 1, name.decode("utf-8", "replace") if isinstance(name, bytes) else ""
        left += _whole(element.get(CHILDREN)) - 1
        fixed = element.get(TYPE) == PHYSICAL.index("FIXED_LEN_BYTE_ARRAY")
        if fixed and CONVERTED not in element and LOGICAL not in element:
            found[column] = _whole(element.get(WIDTH))
    return found


PHYSICAL = ("BOOLEAN", "INT32", "INT64", "INT96", "FLOAT", "DOUBLE", "BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY")
WIDTHS = (1, 4, 8, 12, 4, 8, 0, 0)
"""Physical types as parquet.thrift numbers them, and the bytes of their values."""


def is_sound(footer: bytes) -> bool:
    """Whether the column chunks of a footer are what its schema says, and so are their statistics.

    Arrow looks at them where nobody catches its exceptions, and the process ends.
    """
    index = index_footer(footer)
    if index is None:
        return False
    schema = pq.read_metadata(pa.BufferReader(footer)).schema
    names = [schema.column(j).physical_type for j in range(len(schema))]
    if not set(names) <= set(PHYSICAL):
        return False
    numbers = np.array([PHYSICAL.index(name) for name in names], np.int64)
    data = np.frombuffer(footer, np.uint8)[:-END].copy()
    return bool(chunks_fit(data, index.bounds, numbers, np.array(WIDTHS, np.int64)[numbers]))


def _sizes(chunk: Any) -> ChunkSizes:
    about = _fields(_fields(chunk).get(METADATA_OF_CHUNK))
    if not about:
        raise ValueError("a column chunk of the footer has no metadata")
    names = [name for name in _items(about.get(PATH)) if isinstance(name, bytes)]
    path = ".".join(name.decode("utf-8", "replace") for name in names)
    compressed, uncompressed = (min(max(0, _whole(about.get(field))), MOST_BYTES) for field in (COMPRESSED, UNCOMPRESSED))
    return ChunkSizes(path, compressed, uncompressed, _decoded(about, uncompressed))


def _decoded(about: dict[int, Any], uncompressed: int) -> int | None:
    """Return the bytes that a column chunk takes in memory, None where its metadata do not say."""
    values, kind = min(max(0, _whole(about.get(VALUES))), MOST_BYTES), _whole(about.get(TYPE))
    nested = len(_items(about.get(PATH))) > 1
    if 0 <= kind < len(WIDTHS) and WIDTHS[kind]:
        return values * (WIDTHS[kind] + nested * OFFSET_BYTES)
    around = values * (1 + nested) * OFFSET_BYTES
    told = _fields(about.get(SIZES)).get(1)
    if isinstance(told, int) and told >= 0:
        return around + min(told, MOST_BYTES)
    plain = set(map(_whole, _items(about.get(ENCODINGS)))) <= PLAINLY_STORED
    return around + uncompressed if plain else None


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _fields(value: Any) -> dict[int, Any]:
    return value if isinstance(value, dict) else {}


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _varint(n: int) -> bytes:
    parts = []
    while n > 127:
        parts.append(n & 127 | 128)
        n >>= 7
    return bytes([*parts, n])
