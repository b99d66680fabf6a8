"""Sorting networks: which pairs to put in order, one after another, whatever the numbers are."""

from functools import cache

import numpy as np


def sorting_network(n: int) -> list[tuple[int, int]]:
    """Return pairs (a, b), a < b, of n places: n numbers are sorted once the smaller of each pair was put at a (Batcher 1968).

    Odd-even mergesort for any n, as Knuth, The Art of Computer Programming 3, 5.2.2, Algorithm M, has it: 543 pairs of 64.
    """
    top = 1 << max(n - 1, 0).bit_length()
    pairs, p = [], top // 2
    while p > 0:
        q, r, d = top // 2, 0, p
        while d > 0:
            pairs += [(i, i + d) for i in range(n - d) if i & p == r]
            d, q, r = q - p, q // 2, p
        p //= 2
    return pairs


@cache
def selection_network(n: int, places: tuple[int, ...]) -> np.ndarray:
    """Return, as int64 (n_pairs, 2), those pairs of a sorting network without which some of these places would be wrong."""
    needed, pairs = set(places), []
    for pair in reversed(sorting_network(n)):
        if needed & set(pair):
            needed |= set(pair)
            pairs.append(pair)
    return np.array(pairs[::-1], np.int64).reshape(-1, 2)
