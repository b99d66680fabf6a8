"""Files of this machine: whole or absent, locked while they are worked on, and cleared when whoever made them is gone.

A file is written under a name that nobody can guess, made anew (O_EXCL, and through no link), locked as long as it is written,
and renamed when it is whole. What is there and is no regular file (a device, a folder, a pipe, a link) is never replaced.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from streamsgd.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator


PARTIAL = "partial"
"""How names of unfinished files end."""

LOCK = ".lock"
"""How names of locks end."""

HOLDER = re.compile(rb"([0-9]+\n)?")
"""What a lock says: the process that holds it."""

OWNED = ".owned"
"""The file in a folder of ours that its owner keeps locked."""

MOST_LETTERS = 180
"""Of a file's name that go into that of its unfinished one: names end at 255 bytes."""

UNFINISHED = re.compile(rf"(\..+\.)[0-9a-f]{{16}}\.{PARTIAL}", re.DOTALL)
"""Names of unfinished files: what `_beginning` makes of the file's, then letters that nobody guesses."""

NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_KINDS: dict[str, Callable[[int], bool]] = {
    "a folder": stat.S_ISDIR,
    "a link": stat.S_ISLNK,
    "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
    "a pipe": stat.S_ISFIFO,
    "a socket": stat.S_ISSOCK,
}


def check_replaceable(path: str | os.PathLike[str]) -> None:
    """Make sure that there is a regular file or nothing.

    Raises
    ------
    SettingsError
        There is something else, which is not replaced, or no file can be there: its name is too long, say.

    """
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise SettingsError(f"{os.fspath(path)}: {error.strerror}: choose another place") from None
    if not stat.S_ISREG(mode):
        kind = next((name for name, is_one in _KINDS.items() if is_one(mode)), "no regular file")
        raise SettingsError(f"{os.fspath(path)}: is {kind} and is not replaced by a file: choose another place")


@contextmanager
def whole_file(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Give a file to write, which gets its name when the block ends without an error, and leaves no trace when with one.

    What is not `durable` is not forced to the disk: after a crash of the machine it may be there in part.

    Raises
    ------
    OSError
        The storage refused.
    SettingsError
        What is there is no regular file.

    """
    check_replaceable(path)
    sink, temporary = _begin(path)
    try:
        with sink:
            yield sink
            sink.flush()
            if durable:
                os.fsync(sink.fileno())
            check_replaceable(path)
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        _sync(path.parent)


def _sync(path: Path) -> None:
    """Force the names in a folder to the disk."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _begin(path: Path) -> tuple[IO[bytes], Path]:
    """Open an unfinished file, locked."""
    while True:
        temporary = path.with_name(f"{_beginning(path.name)}{secrets.token_hex(8)}.{PARTIAL}")
        descriptor = os.open(temporary, NEW, 0o666)
        # Whoever clears what is left may have come between; then there is no such name any more.
        if _lock(descriptor) is not False and _is_at(descriptor, temporary):
            return os.fdopen(descriptor, "wb"), temporary
        os.close(descriptor)


def _beginning(name: str) -> str:
    return f".{name.encode(errors='surrogateescape')[:MOST_LETTERS].decode(errors='surrogateescape')}."


def _lock(descriptor: int) -> bool | None:
    """Lock a file; say whether that worked, or None where the storage has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    mine = os.fstat(descriptor)
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


def clear_unfinished(folder: Path, names: Collection[str]) -> None:
    """Delete what killed writers of some files left in a folder; what is being written, and what others write, stays."""
    beginnings = {_beginning(name) for name in names}
    _clear(folder, beginnings.__contains__)


def clear_partials(folder: Path) -> None:
    """Delete all that killed writers left in a folder of ours; what is being written stays."""
    _clear(folder, lambda _beginning: True)


def _clear(folder: Path, is_ours: Callable[[str], bool]) -> None:
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            found = UNFINISHED.fullmatch(entry.name)
            if found and is_ours(found[1]) and entry.is_file(follow_symlinks=False):
                _delete_if_free(Path(entry.path))


def _delete_if_free(path: Path) -> None:
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if _lock(descriptor) and _is_at(descriptor, path):
                path.unlink()
        finally:
            os.close(descriptor)


@contextmanager
def only_writer(path: Path, what: str) -> Iterator[None]:
    """Hold the lock of an output, a file beside it that is gone afterwards; `what` is said to whom it is refused.

    Where the storage has no locks nothing is held. A process that is killed holds nothing.

    Raises
    ------
    SettingsError
        Another process holds it, or nothing can be written there.

    """
    lock = path.with_name(f"{_beginning(path.name)[:-1]}{LOCK}")
    descriptor = _claim(lock, what)
    try:
        yield
    finally:
        if _is_at(descriptor, lock):
            with suppress(OSError):
                lock.unlink()
        os.close(descriptor)


def _claim(lock: Path, what: str) -> int:
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise SettingsError(f"{what}: {lock.parent} cannot be written: {error.strerror}; choose another place") from None
        held = False
        try:
            _hold(descriptor, lock, what)
            held = _is_at(descriptor, lock)
            if held:
                with suppress(OSError):  # a full disk: the lock is what counts, not what it says
                    os.truncate(descriptor, 0)
                    os.write(descriptor, f"{os.getpid()}\n".encode())
                return descriptor
        except BaseException:  # a signal that became an exception, too: nothing is left of what was held
            if held:
                with suppress(OSError):
                    lock.unlink()
            os.close(descriptor)
            raise
        os.close(descriptor)  # whoever held it has deleted it


def _hold(descriptor: int, lock: Path, what: str) -> None:
    """Lock it. What has the name of a lock and is none is refused: it would be emptied, and deleted in the end."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or not HOLDER.fullmatch(os.pread(descriptor, 64, 0)):
        raise SettingsError(f"{what}: {lock} is there and is no lock of streamsgd: remove it, or choose another place")
    if _lock(descriptor) is False:
        holder = os.read(descriptor, 64).decode(errors="replace").strip() or "unknown"
        raise SettingsError(
            f"{what}: another run is writing it (process {holder}); wait for it, stop it, or choose another place"
        )


class OwnFolder:
    """A temporary folder that only this user can read, and that a later run deletes if this process is killed.

    Parameters
    ----------
    prefix
        Of its name, by which folders that are left are known.
    parent
        Where it is; None for where temporary folders are.

    """

    def __init__(self, prefix: str, parent: Path | None = None) -> None:
        self.prefix, self.parent = prefix, parent or Path(tempfile.gettempdir())
        self._closed = False
        _clear_left(self.parent, prefix)
        self._make()

    def _make(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=self.prefix, dir=self.parent))
        self._descriptor = os.open(self.path / OWNED, NEW, 0o600)
        _lock(self._descriptor)

    def again(self) -> Path:
        """Return the folder: another one if somebody (who tidies /tmp, say) has deleted it."""
        if not _is_at(self._descriptor, self.path / OWNED):
            with suppress(OSError):
                os.close(self._descriptor)
            self._make()
        return self.path

    def close(self) -> None:
        """Delete it; a second time does nothing, as the number of the descriptor may be another file's by then."""
        if self._closed:
            return
        self._closed = True
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):
            os.close(self._descriptor)


def _clear_left(parent: Path, prefix: str) -> None:
    """Delete the folders of this user that nobody holds."""
    for folder in parent.glob(f"{prefix}*"):
        with suppress(OSError):
            found = os.lstat(folder)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                continue
            descriptor = os.open(folder / OWNED, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if _lock(descriptor):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
