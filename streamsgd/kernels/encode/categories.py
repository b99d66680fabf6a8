"""Categories into the rows of a block: dictionary codes to coordinates, crosses of them, and the transposition.

A category costs one hash per dictionary entry and one gather per row. As numbers are, rows are made a strip at a time,
column by column, then transposed in registers.
"""

from typing import Any, NamedTuple

import numpy as np

from streamsgd.kernels.compile.jit import lean, lean_kernel
from streamsgd.kernels.compile.memory import SIDE, load_byte, load_int32, transpose
from streamsgd.kernels.encode.hashing import WORD, absorb, finish
from streamsgd.kernels.encode.numbers import STRIP, lowest, new_strip


class Codes(NamedTuple):
    """Some columns of codes, each of n_rows."""

    address: np.ndarray
    """int64 (n,): where int32 codes begin."""
    valid: np.ndarray
    """int64 (n,): where Arrow's bitmap of values that are not null begins, 0 if none is."""
    skip: np.ndarray
    """int64 (n,): bits of it before the first row."""
    table: np.ndarray
    """int64 (n,): where the int32 coordinates of the codes begin; 0 if codes are coordinates."""
    null: np.ndarray
    """int64 (n,): coordinate of null."""


class Crosses(NamedTuple):
    """Products of categories: a value for each combination, hashed."""

    members: np.ndarray
    """int32 (n, most): the columns of codes, -1 after the last."""
    seed: np.ndarray
    """uint32 (n,): the hash of the cross's name, and of the number that it is multiplied by."""
    first: int
    """First coordinate ..."""
    mask: int
    """... and size, less one, of the hashed space."""


def scatter_slots(codes: Codes, crosses: Crosses, dest: Any, first: int, ids: Any) -> None:
    """Write each row's coordinates to its place in the block.

    Parameters
    ----------
    codes, crosses
        As their classes say; all codes come first in a row, then all crosses.
    dest
        int32 (n_rows,): the row of the block for each row, -1 for a dropped one.
    first
        Column of `ids` where they begin.
    ids
        int32 or int64 (block rows, block columns): the block.

    """
    n = len(codes.address) + len(crosses.members)
    strip = new_strip(np.arange(first, first + n), ids.dtype, STRIP)
    scatter_ids(codes, crosses, strip, dest, first, ids)


@lean_kernel
def scatter_ids(codes, crosses, strip, dest, first, ids):
    """Do what `scatter_slots` says, a strip of rows at a time."""
    n_codes, n_crosses = codes.address.shape[0], crosses.members.shape[0]
    n = n_codes + n_crosses
    source, pitch, eights, singles = strip.numbers, strip.pitch, strip.eights, strip.singles
    n_rows = dest.shape[0]
    for start in range(0, n_rows, STRIP):
        stop = min(n_rows, start + STRIP)
        for c in range(n_codes):
            _look_up(codes, c, start, stop, source, c * pitch)
        for k in range(n_crosses):
            _cross(crosses, k, stop - start, source, pitch, (n_codes + k) * pitch)
        r = start
        while r + SIDE <= stop:
            if lowest(dest, r) < 0:
                _write(source, n, pitch, start, r, r + SIDE, dest, first, ids)
            else:
                for e in range(eights.shape[0]):
                    c = eights[e]
                    transpose(source, c * pitch + r - start, pitch, ids, dest, r, first + c)
                for e in range(singles.shape[0]):
                    c = singles[e]
                    for q in range(SIDE):
                        ids[dest[r + q], first + c] = source[c * pitch + r - start + q]
            r += SIDE
        _write(source, n, pitch, start, r, stop, dest, first, ids)


@lean
def _write(source, n, pitch, start, first_row, last_row, dest, first, ids):
    for r in range(first_row, last_row):
        if dest[r] >= 0:
            for c in range(n):
                ids[dest[r], first + c] = source[c * pitch + r - start]


@lean
def _look_up(codes, c, start, stop, source, at):
    address, table, valid = codes.address[c], codes.table[c], codes.valid[c]
    if table == 0:
        for r in range(start, stop):
            source[at + r - start] = load_int32(address, r)
        return
    if valid == 0:
        for r in range(start, stop):
            source[at + r - start] = load_int32(table, np.int64(load_int32(address, r)))
        return
    for r in range(start, stop):
        bit = codes.skip[c] + r
        if load_byte(valid, bit >> 3) >> (bit & 7) & 1:
            source[at + r - start] = load_int32(table, np.int64(load_int32(address, r)))
        else:
            source[at + r - start] = codes.null[c]


@lean
def _cross(crosses, k, n, source, pitch, at):
    """Hash the coordinates of the members, four bytes each, in their order."""
    members = crosses.members[k]
    for r in range(n):
        h, count = crosses.seed[k], 0
        for q in range(members.shape[0]):
            if members[q] >= 0:
                h = absorb(h, np.uint32(source[members[q] * pitch + r]))
                count += 1
        source[at + r] = crosses.first + (np.int64(finish(h, count * WORD)) & crosses.mask)


@lean_kernel
def find_ranges(numbers, edges, first, null, out):
    """Fill `out`, int32 (n,), with first + how many edges are at or below each number; with `null` where it is NaN.

    A few edges are compared one by one, which is vector code, faster than to search.
    """
    for start in range(0, numbers.shape[0], STRIP):
        stop = min(numbers.shape[0], start + STRIP)
        for r in range(start, stop):
            out[r] = first
        for k in range(edges.shape[0]):
            edge = edges[k]
            for r in range(start, stop):
                out[r] += numbers[r] >= edge
        for r in range(start, stop):
            if np.isnan(numbers[r]):
                out[r] = null
