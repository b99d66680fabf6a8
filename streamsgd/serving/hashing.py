"""MurmurHash3 x86 32 bit in plain Python: of one string, and of many at once in the lanes of one large integer.

An operation on an integer of 26 lanes of 64 bits takes about as long as one on a small integer, so that 26 short strings cost
about as much as three would one by one.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

C1, C2, N = 0xCC9E2D51, 0x1B873593, 0xE6546B64

MIX1, MIX2 = 0x85EBCA6B, 0xC2B2AE35

ALL = 0xFFFFFFFF

NULL = b"\0null"
"""What stands for null, as in `features.hashing`."""

WIDTHS = (8, 16, 32)
"""Bytes of a lane, whichever holds the longest string; longer strings are hashed one by one."""


def murmur(data: bytes, seed: int) -> int:
    """Return the hash of bytes."""
    whole = len(data) & ~3
    h = absorb_all((int.from_bytes(data[k : k + 4], "little") for k in range(0, whole, 4)), seed)
    k = int.from_bytes(data[whole:], "little")
    if k:
        k = k * C1 & ALL
        h ^= ((k << 15 | k >> 17) & ALL) * C2 & ALL
    return finish(h, len(data))


def absorb_all(words: Iterable[int], h: int) -> int:
    """Mix words of four bytes into a hash."""
    for word in words:
        k = word * C1 & ALL
        h ^= ((k << 15 | k >> 17) & ALL) * C2 & ALL
        h = ((h << 13 | h >> 19) & ALL) * 5 + N & ALL
    return h


def finish(h: int, length: int) -> int:
    """Return the hash of so many bytes."""
    h ^= length
    h = (h ^ h >> 16) * MIX1 & ALL
    h = (h ^ h >> 13) * MIX2 & ALL
    return h ^ h >> 16


class Lanes:
    """Hashes as many strings as there are seeds.

    Parameters
    ----------
    seeds
        One for each string.
    mask
        What of a hash is used.

    """

    def __init__(self, seeds: Sequence[int], mask: int) -> None:
        self._seeds, self._mask = list(seeds), mask
        self._of = {width: _Width(width, self._seeds, mask) for width in WIDTHS}

    def hash(self, strings: list[bytes]) -> Sequence[int]:
        """Return what is used of the hash of every string."""
        lengths = list(map(len, strings))
        longest = max(lengths)
        for width in WIDTHS:
            if longest <= width:
                return self._of[width].hash(strings, lengths)
        short = [string if len(string) <= WIDTHS[-1] else b"" for string in strings]
        found = list(self._of[WIDTHS[-1]].hash(short, list(map(len, short))))
        for k, length in enumerate(lengths):
            if length > WIDTHS[-1]:
                found[k] = murmur(strings[k], self._seeds[k]) & self._mask
        return found


class _Width:
    """Lanes of one width."""

    def __init__(self, width: int, seeds: list[int], mask: int) -> None:
        self.width, self.n = width, len(seeds)
        one = sum(1 << 8 * width * k for k in range(self.n))
        self.one, self.low, self.add, self.kept = one, one * ALL, one * N, one * mask
        self.seeds = sum(seed << 8 * width * k for k, seed in enumerate(seeds))
        self.text, self.sizes = Struct(f"{width}s" * self.n), Struct(f"B{width - 1}x" * self.n)
        # Added to a length these carry into bit 8 of its lane where it has the word.
        self.carry = [one * (256 - 4 * (word + 1)) for word in range(width // 4)]

    def hash(self, strings: list[bytes], lengths: list[int]) -> Sequence[int]:
        low, add, one = self.low, self.add, self.one
        text = int.from_bytes(self.text.pack(*strings), "little")
        sizes = int.from_bytes(self.sizes.pack(*lengths), "little")
        h, shortest = self.seeds, min(lengths)
        for word in range(max(lengths) + 3 >> 2):
            k = ((text >> 32 * word) & low) * C1 & low
            h ^= ((k << 15 | k >> 17) & low) * C2 & low
            mixed = (((h << 13 | h >> 19) & low) * 5 + add) & low
            if shortest >= 4 * word + 4:
                h = mixed
            else:  # behind the end of a string k is 0, and after a part of a word nothing more is done
                h ^= (h ^ mixed) & (sizes + self.carry[word] >> 8 & one) * ALL
        h ^= sizes
        h = (h ^ (h >> 16 & low)) * MIX1 & low
        h = (h ^ (h >> 13 & low)) * MIX2 & low
        h = (h ^ (h >> 16 & low)) & self.kept
        return memoryview(h.to_bytes(self.width * self.n, "little")).cast("Q")[:: self.width // 8]
