"""A cache of encoded rows: what reading and encoding a piece came to, for the passes after the first.

Rows are kept in the order of the data, before they are shuffled, with the account of the piece: a later pass scatters them by
its own key, so that every bit is what it would be without a cache. They are kept in memory as far as the plan leaves room, then
on a disk of this machine. First come, first kept: passes go round and round, and what was used longest ago is wanted next.
Whatever is not there, or is damaged, is read and encoded again.
"""

from __future__ import annotations

import hashlib
import logging
import time
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np

from streamsgd.compute.context import versions
from streamsgd.kernels.compile.jit import package_digest
from streamsgd.stream.cache_files import RowsOnDisk
from streamsgd.stream.cache_folder import UNREADABLE, CacheFolder, Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamsgd.kernels.structs.block import Block
    from streamsgd.planning.chunks import Piece
    from streamsgd.stream.encoded import Encoded, RowsInMemory

log = logging.getLogger("streamsgd")

Key = tuple[str, int, int, int, int]
"""What reads and encodes (`Loader.digest`); the row groups of a piece, and its rows of them."""

VERSION = 1
"""Of what pieces come to, and of the files that have it: to be raised where either changes."""


def digest_of(words: Sequence[str], arrays: Sequence[np.ndarray]) -> str:
    """Return what changes with any of these, with the code that encodes, and with the libraries that decode."""
    digest = hashlib.sha256("\0".join([str(VERSION), repr(versions()), package_digest(), *words]).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:24]


class CacheSpec(NamedTuple):
    """Where encoded rows are kept; plain values, the same in every process of a run."""

    run: str
    """Processes that load the job of a run several times keep its rows once."""
    memory: int = 0
    """Bytes in this process ..."""
    wanted: int = 0
    """... and in one that has room for all rows; a worker is told its own share by `RowCache.bound`."""
    on_disk: bool = False
    folder: str | None = None
    """Where on disk; None for a temporary folder."""
    disk: int | None = None
    """Most bytes there; None for a half of what is free."""
    keep: bool = False
    """Whether the next run is to find them."""
    patient: bool = True
    """Whether memory or a disk is borne with that takes longer than reading and encoding the data."""
    passes: int = 2
    """Later passes, at most, that a row is kept for."""

    @property
    def worth(self) -> float:
        """Times what reading and encoding rows took that keeping them may take: half of what it can spare."""
        return self.passes / 2


class RowCache:
    """Encoded rows of one run in one process; many threads may use it. A copy in another process begins empty."""

    def __init__(self, spec: CacheSpec) -> None:
        self.spec, self._memory, self._closed = spec, spec.memory, False
        self._rows: dict[Key, RowsInMemory] = {}
        self._coming: set[Key] = set()
        self._lock = Lock()
        self.nbytes = 0
        """Of memory that is in use."""
        self._folder: CacheFolder | None = None
        if spec.on_disk:
            how: Any = {"keep": spec.keep, "patient": spec.patient, "worth": spec.worth}
            self._folder = CacheFolder(spec.folder, spec.disk, **how)
        self._keeping = Pace(spec.worth)

    def __reduce__(self) -> tuple[Callable[[CacheSpec], RowCache], tuple[CacheSpec]]:
        return shared_cache, (self.spec,)

    def bound(self, memory: int) -> None:
        """Keep no more than so many bytes in memory from now on; what is there stays."""
        self._memory = 0 if self._closed else memory

    def find(self, digest: str, piece: Piece, block: Block) -> RowsInMemory | RowsOnDisk | None:
        """Return the rows of a piece, if they are here."""
        key = _key(digest, piece)
        if (rows := self._rows.get(key)) is not None or self._folder is None:
            return rows
        return self._folder.find(key, piece.rows, block)

    def place(self, rows: RowsInMemory | RowsOnDisk, dest: np.ndarray, first: int, block: Block) -> list[np.ndarray] | None:
        """Write rows that were found to a block; return the memory that they point to, or None if they are damaged.

        Parameters
        ----------
        rows
            As `find` gave them.
        dest
            int32 (n_rows,): the row of the block for each row of the piece, -1 for those that are not kept.
        first
            The first of these.
        block
            Where they go; all of these rows are to be written anew if they are damaged.

        """
        if not isinstance(rows, RowsOnDisk):
            return rows.place(dest, first, block)
        assert self._folder is not None, "it has found them"  # noqa: S101  for the type checker
        began = time.perf_counter()
        try:
            pools = rows.place(dest, first, block)
        except UNREADABLE as error:
            self._folder.drop(rows.path, error)
            return None
        self._folder.note_read(rows.nbytes, time.perf_counter() - began, rows.seconds)
        return pools

    def offer(self, digest: str, piece: Piece, encoded: Encoded) -> None:
        """Keep the rows of a piece, if there is room."""
        key = _key(digest, piece)
        with self._lock:
            if key in self._rows or key in self._coming:  # as when a lane is done twice
                return
            self._coming.add(key)
        try:
            kept = self._in_memory(key, encoded)
            if self._folder is not None and (self.spec.keep or not kept):
                self._folder.write(key, encoded)
        finally:
            self._coming.discard(key)

    def _in_memory(self, key: Key, encoded: Encoded) -> bool:
        size, began, spent = encoded.nbytes, time.perf_counter(), encoded.loaded.spent
        with self._lock:
            if self.nbytes + size > self._memory or (self._keeping.is_slow and not self.spec.patient):
                return False
            self.nbytes += size
        self._rows[key] = encoded.in_memory()
        self._keeping.add(size, time.perf_counter() - began, spent.decode + spent.encode)
        if self._keeping.is_slow and not self.spec.patient:  # pages that a virtual machine has to ask its host for
            log.info("cache of encoded rows: memory takes longer than reading the data; no more is kept there")
        return True

    def close(self) -> None:
        """Let go of everything, and keep nothing from now on."""
        self._memory, self._closed = 0, True
        self._rows.clear()
        if self._folder is not None:
            self._folder.close()


def _key(digest: str, piece: Piece) -> Key:
    return digest, piece.first, piece.last, piece.start, piece.stop


_SHARED: WeakValueDictionary[str, RowCache] = WeakValueDictionary()

_LOCK = Lock()


def shared_cache(spec: CacheSpec) -> RowCache:
    """Return this process's cache of a run, as long as anybody uses it: a job that is sent again finds it."""
    with _LOCK:
        found = _SHARED.get(spec.run)
        if found is None:
            found = _SHARED[spec.run] = RowCache(spec)
    return found
