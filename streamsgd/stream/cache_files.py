"""Encoded rows on a disk of this machine: a file per piece, whole or absent, every part of it with a checksum.

A file has the rows as a block has them, in strips that stay in the processor's cache, then how they are checked and the account
of the piece. It is read strip by strip into a buffer, not mapped, so that no resident memory is taken beside the plan. None of
it is forced to the disk: a file that a crash left half written is found out by its checksums, and read again from the data.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamsgd.kernels.encode.rows import LANES, checksum, place_rows, take_rows
from streamsgd.stream.encoded import Facts, arrays_of, row_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from streamsgd.kernels.structs.block import Block
    from streamsgd.stream.encoded import Encoded

MAGIC = b"SGDROWS1"

ENDING = struct.Struct("<q8s8s")
"""Length of what the file says of itself, the beginning of its SHA-256, MAGIC."""

STRIP_BYTES = 512 << 10
"""Bytes of rows that are read, checked and scattered at a time."""

WORD = 8
"""Bytes of which every part is filled up to a multiple."""

POOL_SHIFT = 44
"""Bits of a place in a pool; those above are the number of the pool, from 1."""


class DamagedError(Exception):
    """A file of the cache is not what was written."""


class _Part(NamedTuple):
    """A run of bytes in a file."""

    name: str
    nbytes: int
    """Without what fills its last word."""
    sum: str


class RowsOnDisk:
    """The rows of a piece in a file.

    Raises
    ------
    OSError, DamagedError
        It cannot be read, or is not what was written.

    """

    def __init__(self, path: Path, n_rows: int, block: Block) -> None:
        self.path = path
        self._widths = [row_bytes(array) for array in arrays_of(block)]
        with path.open("rb", buffering=0) as file:
            said = _said(file)
            if said["rows"] != n_rows or said["widths"] != self._widths:
                raise DamagedError("it is of other rows")
            self._parts = [_Part(*part) for part in said["parts"]]
            self.facts, self.seconds = _facts(said), float(said["seconds"])
            self.nbytes = sum(part.nbytes for part in self._parts)
            self.keep: np.ndarray | None = None
            self.held: np.ndarray | None = None
            masks = [part.name for part in self._parts if part.name in ("keep", "held")]  # which come first
            for name, (_, part) in zip(masks, self._read(file), strict=False):
                setattr(self, name, np.unpackbits(part, count=n_rows).view(np.bool_))

    def place(self, dest: np.ndarray, first: int, block: Block) -> list[np.ndarray]:
        """Write the rows to their places in a block, the first of which is `first`; return the memory that they point to.

        Raises
        ------
        OSError, DamagedError
            As above, when some rows are written already.

        """
        pools: list[np.ndarray] = []
        targets, at, done = arrays_of(block), [0, 0], [0, 0]
        with self.path.open("rb", buffering=0) as file:
            for name, part in self._read(file):
                if name == "pool":
                    pools.append(part)
                elif name in ("values", "tails"):
                    k = int(name == "tails")
                    if k:
                        _point(part.view(np.int64), pools)
                    n = len(part) // self._widths[k]
                    at[k] = place_rows(
                        part.ctypes.data, self._widths[k], n, dest, at[k], targets[k].ctypes.data, first + done[k]
                    )
                    done[k] += n
        return pools

    def _read(self, file: IO[bytes]) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the parts as bytes, each until the next is asked for, once it is what was written; pools for good."""
        buffer = np.empty(max([0, *(_padded(part.nbytes) for part in self._parts if part.name != "pool")]), np.uint8)
        for part in self._parts:
            n = _padded(part.nbytes)
            some = np.empty(n, np.uint8) if part.name == "pool" else buffer[:n]
            if file.readinto(some) != n or _sum_of(some) != part.sum:  # type: ignore[attr-defined]
                raise DamagedError(f"{part.name} is not what was written")
            yield part.name, some[: part.nbytes]


def _said(file: IO[bytes]) -> dict[str, Any]:
    """Return what a file says of itself at its end; go back to its beginning."""
    size = file.seek(0, os.SEEK_END)
    if size < ENDING.size:
        raise DamagedError("it is short")
    file.seek(size - ENDING.size)
    length, digest, magic = ENDING.unpack(file.read(ENDING.size))
    if magic != MAGIC or not 0 < length <= size - ENDING.size:
        raise DamagedError("it does not end as it should")
    file.seek(size - ENDING.size - length)
    text = file.read(length)
    if hashlib.sha256(text).digest()[:8] != digest:
        raise DamagedError("its account is not what was written")
    file.seek(0)
    said: dict[str, Any] = json.loads(text)
    return said


def _facts(said: dict[str, Any]) -> Facts:
    targets = said["targets"]
    common = {name: [(value, count) for value, count in pairs] for name, pairs in said["common"].items()}
    sums = None if targets is None else np.array(targets, np.float64)
    return Facts(said["filtered"], said["skipped"], said["unseen"], said["missing"], sums, common)


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // WORD) * WORD


def _sum_of(part: np.ndarray) -> str:
    """Return the checksum of some words."""
    sums = np.zeros(LANES, np.uint64)
    checksum(part.ctypes.data, len(part) // WORD, sums)
    return sums.tobytes().hex()


def _point(tails: np.ndarray, pools: list[np.ndarray]) -> None:
    """Let rows point into pools that were read; in the file they say the pool and the byte in it."""
    bases = np.array([0, *(pool.ctypes.data for pool in pools)], np.int64)
    pairs = tails.reshape(-1, 2)
    pairs[:, 0] = bases[pairs[:, 0] >> POOL_SHIFT] + (pairs[:, 0] & ((1 << POOL_SHIFT) - 1))


def _unpoint(tails: np.ndarray, pools: list[np.ndarray]) -> None:
    """Let rows say the pool, counted from 1, and the byte in it; those without entries there say 0."""
    pairs = tails.reshape(-1, 2)
    order = np.argsort([pool.ctypes.data for pool in pools])
    starts = np.array([pools[k].ctypes.data for k in order], np.int64)
    place = np.searchsorted(starts, pairs[:, 0], side="right") - 1
    inside = (pairs[:, 0] - starts[place]) | ((order[place] + 1) << POOL_SHIFT)
    pairs[:, 0] = np.where(pairs[:, 1] > 0, inside, 0)


def write_rows(sink: IO[bytes], encoded: Encoded) -> None:
    """Write a piece as a file that `RowsOnDisk` reads."""
    parts: list[_Part] = []

    def add(name: str, part: np.ndarray) -> None:
        whole = part if len(part) % WORD == 0 else np.concatenate([part, np.zeros(-len(part) % WORD, np.uint8)])
        parts.append(_Part(name, len(part), _sum_of(whole)))
        sink.write(whole.data)

    keep, loaded, arrays = encoded.keep, encoded.loaded, arrays_of(encoded.block)
    n_kept = int(np.count_nonzero(keep))
    if n_kept < len(keep):
        add("keep", np.packbits(keep))
    if encoded.held.any():
        add("held", np.packbits(encoded.held))
    for pool in loaded.pools:
        add("pool", np.frombuffer(pool, np.uint8) if pool.nbytes else np.zeros(0, np.uint8))
    for name, array in zip(("values", "tails"), arrays, strict=False):
        for strip in _strips(array, encoded.dest, n_kept):
            if name == "tails":
                _unpoint(strip.view(np.int64), loaded.pools)
            add(name, strip)
    said = {
        **encoded.facts._asdict(),
        "targets": None if loaded.targets is None else loaded.targets.tolist(),
        "rows": len(keep),
        "widths": [row_bytes(array) for array in arrays],
        "seconds": loaded.spent.decode + loaded.spent.encode,
        "parts": parts,
    }
    text = json.dumps(said).encode()
    sink.write(text + ENDING.pack(len(text), hashlib.sha256(text).digest()[:8], MAGIC))


def _strips(array: np.ndarray, dest: np.ndarray, n_rows: int) -> Iterator[np.ndarray]:
    """Yield the kept rows of a block in the order of the data, as bytes, each strip until the next is asked for."""
    width = row_bytes(array)
    if not width:
        return
    most, at = max(WORD, STRIP_BYTES // width // WORD * WORD), 0
    buffer = np.empty(min(most, n_rows) * width, np.uint8)
    for first in range(0, n_rows, most):
        n = min(most, n_rows - first)
        at = take_rows(array.ctypes.data, width, n, dest, at, buffer.ctypes.data)
        yield buffer[: n * width]
