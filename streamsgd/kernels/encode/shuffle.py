"""Shuffling a chunk without random access to memory.

A uniform permutation of a chunk that is larger than the caches costs 180-240 ns per row of cache misses when the rows
are visited in that order, against 41 in sequence. Here it is made of two steps that stay in cache, and costs 48-59
(28 float32 columns):

1. `place` permutes the rows of every *tile* (a run of rows that fits the L2 cache) as they are written to the block.
2. `merge` draws a uniformly random interleaving of the tiles; training reads each tile in sequence, a few hundred
   sequential streams side by side.

Uniform permutations of the parts, interleaved uniformly, are a uniform permutation of the whole: every interleaving
and every order within the parts is equally likely, and each permutation of the rows corresponds to exactly one such
pair (Bacher, Bodini, Hollender, Lumbroso 2015, arXiv 1508.03167).

Random numbers are addressed by (key, counter) with SplitMix64 (Steele, Lea and Flood 2014), so any tile of any chunk of any
epoch can be made alone.
"""

import numpy as np

from streamsgd.kernels.compile.jit import lean, lean_kernel

_GAMMA = np.uint64(0x9E3779B97F4A7C15)

_MIX1 = np.uint64(0xBF58476D1CE4E5B9)

_MIX2 = np.uint64(0x94D049BB133111EB)

N_BUCKETS = 256
"""Buckets of a merge: a byte of random bits decides."""


@lean
def mix(key, counter):
    """64 random bits for this address."""
    z = key + (np.uint64(counter) + np.uint64(1)) * _GAMMA
    z = (z ^ (z >> np.uint64(30))) * _MIX1
    z = (z ^ (z >> np.uint64(27))) * _MIX2
    return z ^ (z >> np.uint64(31))


@lean
def below(bits, n):
    """Return a number in 0 .. n-1 from 64 random bits; the bias is below n / 2^32."""
    return np.int64(((bits >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))


@lean_kernel
def hold_out(key, start, threshold, held):
    """Mark the rows of one row group that a stable hash of (file, row group, row) puts in the hold-out set.

    `key` is the hash of file and row group, `start` the number of the first row, `threshold` the share times 2^64.
    """
    for r in range(held.shape[0]):
        held[r] = mix(key, start + r) < threshold


@lean_kernel
def place(keep, held, tile_rows, base, key, shuffled, dest, starts, counts, helds, members):
    """Give each row its place in the block.

    Each run of `tile_rows` rows becomes a tile: the rows to learn first, permuted if `shuffled`, then the held-out ones.

    Parameters
    ----------
    keep, held
        bool (n,): rows that survive, rows that belong to the hold-out set.
    base
        The block's row where this piece begins.
    dest
        int32 (n,), filled: the row of the block, -1 for a dropped one.
    starts, counts, helds
        int64 (n_tiles,), filled: first row, rows to learn and rows held out of each tile.
    members
        int32 (tile_rows,): room. An array that a kernel makes takes a tenth of a second to compile.

    """
    n, none = keep.shape[0], np.int64(0)
    at = base
    for tile in range(starts.shape[0]):
        learned, out = none, none  # not a bare 0, which is a type of its own, and `_permute` would be compiled for it too
        for r in range(tile * tile_rows, min(n, (tile + 1) * tile_rows)):
            dest[r] = -1
            if keep[r] and not held[r]:
                members[learned] = r
                learned += 1
        if shuffled:
            _permute(members, learned, mix(key, tile))
        for k in range(learned):
            dest[members[k]] = at + k
        for r in range(tile * tile_rows, min(n, (tile + 1) * tile_rows)):
            if keep[r] and held[r]:
                dest[r] = at + learned + out
                out += 1
        starts[tile], counts[tile], helds[tile] = at, learned, out
        at += learned + out


@lean
def _permute(items, n, key):
    """Fisher and Yates over the first n items."""
    for r in range(n - 1, 0, -1):
        q = below(mix(key, r), r + 1)
        items[r], items[q] = items[q], items[r]


@lean_kernel
def merge(counts, key, shuffled, order, heads, ends):
    """Fill `order` with each tile's number as often as it has rows: interleaved uniformly, or tile after tile.

    `heads` and `ends` are room, int64 (N_BUCKETS + 1,).

    The interleaving scatters the numbers into 256 buckets at random and permutes each bucket in cache, which is a uniform
    permutation again (Rao 1961, Sandelius 1962).
    """
    if not shuffled:
        at = 0
        for tile in range(counts.shape[0]):
            for _ in range(counts[tile]):
                order[at] = tile
                at += 1
        return
    # One random word decides the buckets of eight rows.
    n = order.shape[0]
    for k in range(N_BUCKETS + 1):
        heads[k] = 0
    for first in range(0, n, 8):
        bits = mix(key, first)
        for r in range(first, min(first + 8, n)):
            heads[((bits >> np.uint64(8 * (r - first))) & np.uint64(255)) + np.uint64(1)] += 1
    for k in range(N_BUCKETS):
        heads[k + 1] += heads[k]
    for k in range(N_BUCKETS + 1):
        ends[k] = heads[k]
    r = 0
    bits = np.uint64(0)
    for tile in range(counts.shape[0]):
        for _ in range(counts[tile]):
            if r % 8 == 0:
                bits = mix(key, r)
            k = (bits >> np.uint64(8 * (r % 8))) & np.uint64(255)
            order[ends[k]] = tile
            ends[k] += 1
            r += 1
    for k in range(N_BUCKETS):
        first = heads[k]
        for q in range(ends[k] - 1, first, -1):
            p = first + below(mix(key, n + q), q - first + 1)
            order[q], order[p] = order[p], order[q]


@lean_kernel
def follow(order, heads, rows):
    """Fill `rows`, int64, with the rows that tiles give in this order, and advance their heads."""
    for t in range(order.shape[0]):
        tile = order[t]
        rows[t] = heads[tile]
        heads[tile] += 1
