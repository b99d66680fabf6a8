"""The hashed space: values to coordinates that many of them share."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from streamsgd.kernels.encode.hashing import hash_strings

NULL = b"\0null"
"""What stands for null in the hashed space."""


class Hashed(msgspec.Struct, frozen=True):
    """The space of weights that hashed values share: `2 ** bits` coordinates from `first` on."""

    first: int
    bits: int

    @property
    def mask(self) -> int:
        """What of a hash is used."""
        return (1 << self.bits) - 1


def name_seed(name: str) -> int:
    """Return the seed for a column's values: the hash of its name."""
    out = np.empty(1, np.int64)
    _hash(pa.array([name.encode()], pa.binary()), 0, 0, 0xFFFFFFFF, out)
    return int(out[0])


def hash_values(values: Any, seed: int, space: Hashed) -> np.ndarray:
    """Return the coordinates, int32 (n,), of an Arrow array of strings or bytes without nulls."""
    out = np.empty(len(values), np.int32)
    _hash(values, seed, space.first, space.mask, out)
    return out


def hash_whole(values: Any, seed: int) -> np.ndarray:
    """Return all 32 bits of the hashes, int64 (n,), of an Arrow array of strings or bytes without nulls."""
    out = np.empty(len(values), np.int64)
    _hash(values, seed, 0, 0xFFFFFFFF, out)
    return out


def _hash(values: Any, seed: int, first: int, mask: int, out: np.ndarray) -> None:
    wide = pa.types.is_large_string(values.type) or pa.types.is_large_binary(values.type)
    _, offsets, data = values.buffers()
    start = offsets.address + values.offset * (8 if wide else 4)
    hash_strings(start, wide, data.address if data is not None else 0, len(values), np.uint32(seed), first, mask, out)
