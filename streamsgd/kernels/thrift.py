"""Where the row groups stand in a Parquet footer, without parsing it: the compact protocol of Thrift, skipped over.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md; FileMetaData of parquet.thrift has its
row groups in field 4.
"""

import numpy as np

from streamsgd.kernels.compile.jit import inline, kernel

STOP, FALSE, BYTE, I16, I64, DOUBLE, BINARY, LIST, SET, STRUCT = 0, 2, 3, 4, 6, 7, 8, 9, 10, 12
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
