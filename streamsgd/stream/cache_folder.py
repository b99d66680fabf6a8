"""The folder of a cache of encoded rows: what it may take, and when it is worth nothing any more."""

from __future__ import annotations

import logging
import shutil
import time
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import finalize

from streamsgd.compute.local_files import OwnFolder, clear_partials, whole_file
from streamsgd.errors import SettingsError
from streamsgd.messages import format_bytes
from streamsgd.stream.cache_files import DamagedError, RowsOnDisk, write_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.kernels.structs.block import Block
    from streamsgd.stream.encoded import Encoded

log = logging.getLogger("streamsgd")

OWN_PREFIX = "streamsgd-encoded-"
"""Of folders that are gone when their process ends."""

KEPT_NAME = "streamsgd-encoded"
"""Of the folder that later runs find."""

ENDS = ".rows"
"""How names of files end."""

FREE_SHARE = 0.5
"""Of what was free on the disk when writing began stays free, whoever takes it, if nobody says how much may be taken."""

TRIAL_BYTES = 128 << 20
"""Bytes after which a disk, or memory, is judged."""

UNREADABLE = (OSError, ValueError, KeyError, TypeError, DamagedError)


class Pace:
    """Whether keeping rows, or taking them back, costs more than so many times what reading and encoding them took."""

    def __init__(self, most: float = 1.0) -> None:
        self.most = most
        self.nbytes, self.seconds, self.spared = 0, 0.0, 0.0

    def add(self, n_bytes: int, seconds: float, spared: float) -> None:
        """Take in a piece."""
        self.nbytes, self.seconds, self.spared = self.nbytes + n_bytes, self.seconds + seconds, self.spared + spared

    @property
    def is_slow(self) -> bool:
        """Whether it does, as far as enough was seen."""
        return self.nbytes > TRIAL_BYTES and self.seconds > self.most * self.spared


class CacheFolder:
    """Files of encoded rows: in a folder of this process alone, gone when it ends, or in one that later runs find.

    Parameters
    ----------
    parent
        Where the folder is; None for where temporary folders are.
    most
        Bytes that files may take; None for a half of what is free.
    keep
        Whether later runs are to find the files.
    patient
        Whether to go on where the disk takes longer than the data.
    worth
        Times what reading and encoding rows took that writing them may take.

    """

    def __init__(self, parent: str | None, most: int | None, *, keep: bool, patient: bool, worth: float = 1.0) -> None:
        self.parent, self.patient = None if parent is None else Path(parent), patient
        self.keep = keep and parent is not None
        self.nbytes, self._most, self._floor = 0, most, -1
        self._own: OwnFolder | None = None
        self._delete: Callable[[], Any] = lambda: None
        self._path: Path | None = None
        self._reads = self._writes = True
        self._reading, self._writing, self._lock = Pace(), Pace(worth), Lock()
        if self.keep and self._kept.is_dir():
            self._open_kept()

    @property
    def _kept(self) -> Path:
        assert self.parent is not None, "what is kept has a place"  # noqa: S101  for the type checker
        return self.parent / KEPT_NAME

    def _open_kept(self) -> None:
        clear_partials(self._kept)
        self.nbytes = sum(n_bytes for _, n_bytes, _ in _files(self._kept))
        self._path = self._kept

    # --- read

    def find(self, key: tuple[Any, ...], n_rows: int, block: Block) -> RowsOnDisk | None:
        """Return the rows of a piece, if they are here."""
        if self._path is None or not self._reads:
            return None
        path = self._path / _name(key)
        try:
            return RowsOnDisk(path, n_rows, block)
        except FileNotFoundError:
            return None
        except UNREADABLE as error:
            self.drop(path, error)
            return None

    def drop(self, path: Path, error: Exception) -> None:
        """Delete a file that is not what was written, or cannot be read."""
        log.warning("cache of encoded rows: %s: %s; its rows are read from the data again", path, error)
        with suppress(OSError):
            path.unlink()

    def note_read(self, n_bytes: int, seconds: float, spared: float) -> None:
        """Take in how long a piece took, and how long it took to make; stop where the data are faster."""
        self._reading.add(n_bytes, seconds, spared)
        if self._reads and self._reading.is_slow and not self.patient:
            self._reads = False
            self._stop("reading it takes longer than reading the data")

    # --- write

    def write(self, key: tuple[Any, ...], encoded: Encoded) -> None:
        """Write the rows of a piece, unless there is no room; where writing fails nothing more is written."""
        if not self._writes:
            return
        began, size, spent = time.perf_counter(), encoded.nbytes, encoded.loaded.spent
        try:
            path = self._folder() / _name(key)
            if not self._reserve(size, key[0]):
                self._stop(f"it has no room beyond {format_bytes(self.nbytes)}")
                return
            with whole_file(path, durable=False) as sink:
                write_rows(sink, encoded)
        except (OSError, SettingsError) as error:
            self._stop(f"it cannot be written: {getattr(error, 'strerror', None) or error}", level=logging.WARNING)
            return
        self._writing.add(size, time.perf_counter() - began, spent.decode + spent.encode)
        if self._writing.is_slow and not self.patient:
            self._stop("writing it takes longer than reading the data")

    def _stop(self, why: str, level: int = logging.INFO) -> None:
        if self._writes:
            self._writes = False
            log.log(level, "cache of encoded rows in %s: %s; the rest is read from the data", self._path or self.parent, why)

    def _folder(self) -> Path:
        """Return the folder, made when something is first written."""
        with self._lock:
            if self._own is not None:
                self._path = self._own.again()
            elif self._path is None:
                self._path = self._make()
            if self._floor < 0:
                self._floor = int(FREE_SHARE * shutil.disk_usage(self._path).free) if self._most is None else 0
            return self._path

    def _make(self) -> Path:
        if self.parent is not None:
            self.parent.mkdir(parents=True, exist_ok=True)
        if not self.keep:
            self._own = OwnFolder(OWN_PREFIX, self.parent)
            self._delete = finalize(self, self._own.close)  # once, also where a worker is told nothing
            return self._own.path
        self._kept.mkdir(exist_ok=True)
        self._open_kept()
        return self._kept

    def _reserve(self, size: int, digest: str) -> bool:
        """Take so many bytes of those that files may take, if need be from what is kept of other data."""
        with self._lock:
            if self.keep:  # other processes write there too
                self.nbytes = sum(n_bytes for _, n_bytes, _ in _files(self._kept))
                others = sorted(file for file in _files(self._kept) if not file[2].name.startswith(digest))
                while not self._has_room(size) and others:
                    _, freed, path = others.pop(0)
                    with suppress(OSError):
                        path.unlink()
                        self.nbytes -= freed
            if not self._has_room(size):
                return False
            self.nbytes += size
            return True

    def _has_room(self, size: int) -> bool:
        if self._most is not None:
            return self.nbytes + size <= self._most
        assert self._path is not None, "it was made"  # noqa: S101  for the type checker
        return shutil.disk_usage(self._path).free - size >= self._floor

    def close(self) -> None:
        """Delete the files that are not kept, and write no more."""
        self._writes = self._reads = False
        self._delete()


def _files(folder: Path) -> list[tuple[float, int, Path]]:
    """Return when files were written, their bytes, and where they are."""
    found = []
    for path in folder.glob(f"*{ENDS}"):
        with suppress(OSError):  # another run makes room
            found.append((path.stat().st_mtime, path.stat().st_size, path))
    return found


def _name(key: tuple[Any, ...]) -> str:
    return "-".join(map(str, key)) + ENDS
