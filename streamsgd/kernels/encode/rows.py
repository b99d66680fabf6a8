"""Encoded rows to their places in a block, and back: what a cache of rows does instead of decoding and encoding.

Rows are runs of bytes here, whatever they hold, so that one compiled kernel serves every layout and precision.
"""

import numpy as np

from streamsgd.kernels.compile.jit import lean, lean_kernel
from streamsgd.kernels.compile.memory import LINE, copy_bytes, load_word, touch

LEAD = 256 << 10
"""Bytes of the block to ask for ahead of time: a tile, as in `kernels.encode.numbers`."""

LANES = 4
"""Sums of a checksum that do not wait for each other."""

_PRIME = np.uint64(0x9E3779B97F4A7C15)


@lean_kernel
def place_rows(source, row_bytes, n_rows, dest, first, target, ahead):
    """Copy rows that lie one after another to their places in a block.

    Parameters
    ----------
    source
        Address of the rows.
    row_bytes, n_rows
        Bytes of a row, and how many there are.
    dest
        int32: the row of the block for each row of the data, -1 for one that is not among these.
    first
        Where in `dest` to begin.
    target
        Address of the block.
    ahead
        Row of the block about where the first row goes: places in a tile are at hand in any order once it was asked for.

    Returns
    -------
    int
        Where in `dest` the next row would begin.

    """
    r, k = first, first - first
    line = target + ahead * row_bytes + LEAD
    while k < n_rows:
        i = np.int64(dest[r])
        r += 1
        if i < 0:
            continue
        last = line + row_bytes
        while line < last:
            touch(line)
            line += LINE
        line = last
        copy_bytes(target + i * row_bytes, source + k * row_bytes, row_bytes)
        k += 1
    return r


@lean_kernel
def take_rows(source, row_bytes, n_rows, dest, first, target):
    """Copy rows of a block, at `source`, one after another to `target`: what `place_rows` undoes, with its parameters."""
    r, k = first, first - first
    while k < n_rows:
        i = np.int64(dest[r])
        r += 1
        if i < 0:
            continue
        copy_bytes(target + k * row_bytes, source + i * row_bytes, row_bytes)
        k += 1
    return r


@lean_kernel
def checksum(address, n_words, sums):
    """Fill `sums`, uint64 (LANES,), from so many words of 8 bytes: any one of them that changes, changes it."""
    a, b, c, d = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    whole = n_words - n_words % LANES
    for k in range(0, whole, LANES):
        a = _absorb(a, load_word(address, k))
        b = _absorb(b, load_word(address, k + 1))
        c = _absorb(c, load_word(address, k + 2))
        d = _absorb(d, load_word(address, k + 3))
    for k in range(whole, n_words):
        a = _absorb(a, load_word(address, k))
    sums[0], sums[1], sums[2], sums[3] = a, b, c, d


@lean
def _absorb(sum_, word):
    """Both steps can be undone, so that no change is lost; the second one brings upper bits down to where products mix them."""
    mixed = (sum_ ^ np.uint64(word)) * _PRIME
    return mixed ^ (mixed >> np.uint64(32))
