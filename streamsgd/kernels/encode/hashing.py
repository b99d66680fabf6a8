"""MurmurHash3 x86 32 bit (Appleby 2011), as scikit-learn and Vowpal Wabbit use it, over Arrow's strings.

Every value is hashed with the hash of its column's name as seed, so that equal values of two columns are apart.
"""

import numpy as np

from streamsgd.kernels.compile.jit import lean, lean_kernel
from streamsgd.kernels.compile.memory import load_byte, load_int32, load_int64

_C1, _C2 = np.uint32(0xCC9E2D51), np.uint32(0x1B873593)

_FIVE, _N = np.uint32(5), np.uint32(0xE6546B64)

_MIX1, _MIX2 = np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)

WORD = 4
"""Bytes of a block of the hash."""


@lean
def _rotate(x, bits):
    return np.uint32((x << np.uint32(bits)) | (x >> np.uint32(32 - bits)))


@lean
def absorb(h, word):
    """Mix a word of four bytes into a hash."""
    k = np.uint32(_rotate(np.uint32(np.uint32(word) * _C1), 15) * _C2)
    return np.uint32(np.uint32(_rotate(np.uint32(h ^ k), 13) * _FIVE) + _N)


@lean
def finish(h, length):
    """Return the hash of so many bytes."""
    h = np.uint32(h ^ np.uint32(length))
    h = np.uint32((h ^ (h >> np.uint32(16))) * _MIX1)
    h = np.uint32((h ^ (h >> np.uint32(13))) * _MIX2)
    return np.uint32(h ^ (h >> np.uint32(16)))


@lean
def murmur(address, length, seed):
    """Return the 32 bit hash of `length` bytes from an address on."""
    h = np.uint32(seed)
    whole = length // WORD
    for k in range(whole):
        # Words of a string begin anywhere, which x86 and ARM read as fast.
        h = absorb(h, np.uint32(load_int32(address + k * WORD, 0)))
    rest = length - whole * WORD
    if rest > 0:
        k = np.uint32(0)
        for q in range(rest - 1, -1, -1):
            k = np.uint32((k << np.uint32(8)) | np.uint32(load_byte(address + whole * WORD, q)))
        h = np.uint32(h ^ np.uint32(_rotate(np.uint32(k * _C1), 15) * _C2))
    return finish(h, length)


@lean_kernel
def hash_strings(offsets, wide, data, n, seed, first, mask, out):
    """Fill `out` with the coordinates of n strings: first + (hash & mask).

    Parameters
    ----------
    offsets, data
        Addresses of Arrow's offsets, int64 if `wide`, else int32, and bytes.
    seed
        uint32.
    first, mask
        int64: first coordinate and size, less one, of the hashed space.
    out
        int32 or int64 (n,).

    """
    for r in range(n):
        if wide:
            at, end = load_int64(offsets, r), load_int64(offsets, r + 1)
        else:
            at, end = np.int64(load_int32(offsets, r)), np.int64(load_int32(offsets, r + 1))
        out[r] = first + (np.int64(murmur(data + at, end - at, seed)) & mask)
