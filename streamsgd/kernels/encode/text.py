"""Text to hashed tokens: runs of letters, digits, underscores and anything beyond ASCII, and sequences of them."""

import numpy as np

from streamsgd.kernels.compile.jit import kernel, lean, lean_kernel
from streamsgd.kernels.compile.memory import load_byte, load_int32, load_int64
from streamsgd.kernels.encode.hashing import WORD, absorb, finish, murmur

_LETTER, _LAST_LETTER = 97, 122

_CAPITAL, _LAST_CAPITAL = 65, 90

_DIGIT, _LAST_DIGIT = 48, 57

_UNDERSCORE, _BEYOND = 95, 128


@lean
def _is_word(byte):
    return (
        (_LETTER <= byte <= _LAST_LETTER)
        or (_CAPITAL <= byte <= _LAST_CAPITAL)
        or (_DIGIT <= byte <= _LAST_DIGIT)
        or byte == _UNDERSCORE
        or byte >= _BEYOND
    )


@lean
def _bounds(offsets, wide, r):
    if wide:
        return load_int64(offsets, r), load_int64(offsets, r + 1)
    return np.int64(load_int32(offsets, r)), np.int64(load_int32(offsets, r + 1))


@lean_kernel
def count_tokens(offsets, wide, data, n, longest, counts):
    """Fill `counts`, int64 (n,), with how many entries each text gives: tokens, pairs, ... up to `longest` in a row."""
    for r in range(n):
        at, end = _bounds(offsets, wide, r)
        tokens, within = 0, False
        for p in range(at, end):
            word = _is_word(load_byte(data, p))
            tokens += word and not within
            within = word
        total = 0
        for size in range(1, longest + 1):
            total += max(0, tokens - size + 1)
        counts[r] = total


@kernel
def hash_tokens(offsets, wide, data, n, longest, seed, first, mask, starts, index, x):
    """Write the entries of n texts.

    Parameters
    ----------
    offsets, wide, data
        As of `hashing.hash_strings`.
    longest
        Tokens of the longest sequences. A sequence is hashed as the hashes of its tokens, four bytes each.
    seed, first, mask
        As of `hashing.hash_strings`.
    starts
        int64 (n,): the first entry of each text.
    index, x
        int32 and float32 (n_entries,) with a stride: coordinates, and 1.

    """
    recent = np.empty(longest, np.uint32)
    for r in range(n):
        at, end = _bounds(offsets, wide, r)
        e, known, p = starts[r], 0, at
        while p < end:
            if not _is_word(load_byte(data, p)):
                p += 1
                continue
            begin = p
            while p < end and _is_word(load_byte(data, p)):
                p += 1
            for k in range(longest - 1, 0, -1):
                recent[k] = recent[k - 1]
            recent[0] = murmur(data + begin, p - begin, seed)
            known = min(known + 1, longest)
            for size in range(1, known + 1):
                h = recent[0]
                if size > 1:
                    h = np.uint32(seed)
                    for k in range(size - 1, -1, -1):
                        h = absorb(h, recent[k])
                    h = finish(h, size * WORD)
                index[e] = first + (np.int64(h) & mask)
                x[e] = 1.0
                e += 1
