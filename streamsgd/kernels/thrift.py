"""Where the row groups stand in a Parquet footer, without parsing it: the compact protocol of Thrift, skipped over.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md; FileMetaData of parquet.thrift has its
row groups in field 4.
"""

import numpy as np

from streamsgd.kernels.compile.jit import inline, kernel

STOP, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, STRUCT = 0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12
"""Kinds of values; those up to FALSE are booleans, from I16 to I64 varints."""

ROW_GROUPS = 4

DEEPEST = 32
"""Levels of nesting; a footer has six."""

UNKNOWN = -1
"""What is returned for bytes that are no such footer, or hold something that no footer has."""


@inline
def _varint(data, at):
    """Return the number at a place and the place after it; past the end of the data that place lies past the end, too."""
    value, shift = np.int64(0), np.int64(0)
    while at < data.shape[0] and shift < 63:
        byte = np.int64(data[at])
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    return value, np.int64(data.shape[0] + 1)


@inline
def _list(data, at):
    """Return kind and number of a list's elements, and where the first begins."""
    header = np.int64(data[at])
    size = header >> 4
    at += 1
    if size == 15:
        size, at = _varint(data, at)
    return header & 15, size, at


@inline
def _skip(data, at, kind):
    """Return the place after a value, or UNKNOWN."""
    n = data.shape[0]
    kinds, left = np.empty(DEEPEST, np.int64), np.empty(DEEPEST, np.int64)
    kinds[0], left[0] = kind, 1
    depth = 1
    while depth > 0:
        top = depth - 1
        if at >= n:
            return UNKNOWN
        if left[top] < 0:  # the fields of a struct
            header = np.int64(data[at])
            at += 1
            this = header & 15
            if this == STOP:
                depth -= 1
                continue
            if not header >> 4:
                _, at = _varint(data, at)
            if this <= FALSE:
                continue
        else:
            if left[top] == 0:
                depth -= 1
                continue
            left[top] -= 1
            this = kinds[top]
        if this <= BYTE:
            at += 1
        elif I16 <= this <= I64:
            _, at = _varint(data, at)
        elif this == DOUBLE:
            at += 8
        elif this == BINARY:
            size, at = _varint(data, at)
            at += size
        elif this in (LIST, SET) and depth < DEEPEST:
            kinds[depth], left[depth], at = _list(data, at)
            depth += 1
        elif this == STRUCT and depth < DEEPEST:
            left[depth] = -1
            depth += 1
        else:
            return UNKNOWN
        if at > n or at < 0:
            return UNKNOWN
    return at


@kernel
def find_row_groups(data):
    """Return where the list of row groups begins, where its first element does, and how many there are; or UNKNOWN, 0, 0."""
    at, field = np.int64(0), np.int64(0)
    while 0 <= at < data.shape[0]:
        header = np.int64(data[at])
        at += 1
        kind = header & 15
        if kind == STOP:
            break
        if header >> 4:
            field += header >> 4
        else:
            number, at = _varint(data, at)
            field = (number >> 1) ^ -(number & 1)
        if at >= data.shape[0]:
            break
        if field == ROW_GROUPS and kind == LIST:
            element, size, first = _list(data, at)
            if element == STRUCT:
                return at, first, size
            break
        if kind > FALSE:
            at = _skip(data, at, kind)
    return np.int64(UNKNOWN), np.int64(0), np.int64(0)


@kernel
def row_group_bounds(data, first, bounds):
    """Fill int64 (n + 1,) with where each of n row groups begins, and where the last ends; return whether that was possible."""
    at = first
    for k in range(bounds.shape[0]):
        bounds[k] = at
        if k + 1 < bounds.shape[0]:
            at = _skip(data, at, STRUCT)
            if at < 0:
                return False
    return True


COLUMNS, METADATA, TYPE, STATISTICS, PATH = 1, 3, 1, 12, 3
"""Fields of RowGroup, ColumnChunk, and ColumnMetaData."""

EXTREMES = 6
"""Fields 1, 2, 5 and 6 of Statistics are smallest and largest values."""


@inline
def _field(data, at, field):
    """Return kind and number of a struct's next field, and where its value begins; STOP after the last or past the end."""
    if at < 0 or at >= data.shape[0]:
        return np.int64(STOP), np.int64(0), np.int64(UNKNOWN)
    header = np.int64(data[at])
    at += 1
    kind = header & 15
    if kind == STOP:
        return kind, field, at
    if header >> 4:
        return kind, field + (header >> 4), at
    number, at = _varint(data, at)
    return kind, (number >> 1) ^ -(number & 1), at


@inline
def _past(data, at, kind):
    """Return the place after a field's value, or UNKNOWN."""
    return at if kind <= FALSE else _skip(data, at, kind)


@inline
def _statistics_fit(data, at, width):
    """Return the place after statistics whose extremes have as many bytes as their type, or none; UNKNOWN if they have not."""
    field = np.int64(0)
    while True:
        kind, field, at = _field(data, at, field)
        if at < 0 or kind == STOP:
            return at
        if kind == BINARY and field <= EXTREMES and field != 3 and field != 4:
            size, start = _varint(data, at)
            if width > 0 and size > 0 and size != width:
                return UNKNOWN
            at = start + size
        else:
            at = _past(data, at, kind)


@inline
def _metadata_fits(data, at, physical, width):
    """Return the place after the metadata of a column chunk of this physical type; UNKNOWN if it is of another."""
    field, typed, named = np.int64(0), False, False
    while True:
        kind, field, at = _field(data, at, field)
        if at < 0:
            return UNKNOWN
        if kind == STOP:
            return at if typed and named else UNKNOWN
        if field == TYPE:
            number, at = _varint(data, at)
            typed = kind == I32 and number == 2 * physical
            if not typed:
                return UNKNOWN
        elif field == STATISTICS and kind == STRUCT:
            at = _statistics_fit(data, at, width)
        else:
            named = named or (field == PATH and kind == LIST)
            at = _past(data, at, kind)


@inline
def _chunk_fits(data, at, physical, width):
    """Return the place after a column chunk that has metadata as it should be, or UNKNOWN."""
    field, found = np.int64(0), False
    while True:
        kind, field, at = _field(data, at, field)
        if at < 0:
            return UNKNOWN
        if kind == STOP:
            return at if found else UNKNOWN
        if field == METADATA and kind == STRUCT:
            at = _metadata_fits(data, at, physical, width)
            found = True
        elif field > METADATA and kind == STRUCT:
            return UNKNOWN  # encrypted
        else:
            at = _past(data, at, kind)


@kernel
def chunks_fit(data, bounds, physical, widths):
    """Whether every row group has a chunk of each column's physical type, with extremes of that type's width.

    Parameters
    ----------
    data
        uint8: the footer.
    bounds
        int64 (n_row_groups + 1,): where each row group begins.
    physical, widths
        int64 (n_leaves,): number of the type in parquet.thrift, and its bytes or 0.

    """
    for k in range(bounds.shape[0] - 1):
        at, field, found = bounds[k], np.int64(0), False
        while True:
            kind, field, at = _field(data, at, field)
            if at < 0:
                return False
            if kind == STOP:
                break
            if field == COLUMNS and kind == LIST:
                element, size, at = _list(data, at)
                if element != STRUCT or size != physical.shape[0]:
                    return False
                for j in range(size):
                    at = _chunk_fits(data, at, physical[j], widths[j])
                    if at < 0:
                        return False
                found = True
            else:
                at = _past(data, at, kind)
        if not found:
            return False
    return True


COMPRESSED = 3
"""Field of PageHeader."""


@kernel
def walk_pages(data, at, most):
    """Go from page header to page header of a column chunk, as far as the data reach.

    Parameters
    ----------
    data
        uint8 (n,): bytes of the chunk.
    at
        Where in them a page header begins.
    most
        Bytes that a page and its header may have.

    Returns
    -------
    at, size
        Where the next page header begins, beyond the data or not all within them; and 0. Or where a header is whose page has
        more bytes, with it, and how many.

    """
    while 0 <= at < data.shape[0]:
        field, claimed, place = np.int64(0), np.int64(0), np.int64(at)
        while True:
            kind, field, place = _field(data, place, field)
            if place < 0:
                return at, np.int64(0)
            if kind == STOP:
                break
            if field == COMPRESSED and kind == I32:
                number, place = _varint(data, place)
                claimed = (number >> 1) ^ -(number & 1)
            else:
                place = _past(data, place, kind)
        if claimed < 0:
            return at, np.int64(0)
        if place - at + claimed > most:
            return at, place - at + claimed
        at = place + claimed
    return at, np.int64(0)
