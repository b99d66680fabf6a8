"""Filesystems of fsspec, whose errors are of a hundred kinds and whose calls may never return, made to behave.

Every call ends within a stated time, and fails with an `OSError` that says what the storage said: code that reads Parquet
must tell a storage's refusal from a damaged file.
"""

from __future__ import annotations

import errno
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from pyarrow import fs as pafs

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

NAMED = {
    401: PermissionError(errno.EACCES, "status 401 Unauthorized"),
    403: PermissionError(errno.EACCES, "status 403 Forbidden"),
    404: FileNotFoundError(errno.ENOENT, "status 404 Not Found"),
    410: FileNotFoundError(errno.ENOENT, "status 410 Gone"),
}
"""Answers of HTTP that have errors of their own."""

PASSING = (408, 425, 429)
"""Answers from 400 to 499 that are worth another try."""


def call_within(call: Callable[[], T], seconds: float) -> T:
    """Return what a call returns, or raise.

    Raises
    ------
    TimeoutError
        It did not end in time; its thread is left behind.
    OSError
        It failed, in whatever way.

    """
    result: Future[T] = Future()

    def work() -> None:
        try:
            result.set_result(call())
        except BaseException as error:  # noqa: BLE001  handed on
            result.set_exception(error)

    threading.Thread(target=work, daemon=True, name="streamsgd-storage").start()
    try:
        return result.result(seconds)
    except TimeoutError:
        if result.done():  # its own
            raise
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    except FileNotFoundError as error:
        # Of HTTP fsspec calls everything that fails "not found"; why is in the cause.
        cause = error.__cause__
        if isinstance(cause, Exception) and not isinstance(cause, FileNotFoundError):
            raise as_os_error(cause) from error
        raise
    except (OSError, NotImplementedError):
        raise
    except Exception as error:
        raise as_os_error(error) from error


def as_os_error(error: Exception) -> OSError:
    """Return any error of a storage as an `OSError`, by its HTTP status if it has one."""
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    text = f"{type(error).__name__}: {error}"
    if not isinstance(status, int):
        return error if isinstance(error, OSError) else OSError(errno.EREMOTEIO, text)
    kind = NAMED.get(status)
    if kind is not None:
        return type(kind)(kind.errno, f"{kind.strerror}: {text}")
    stays = 400 <= status < 500 and status not in PASSING
    return OSError(errno.EPROTO if stays else errno.EREMOTEIO, f"status {status}: {text}")


class Watched(pafs.FSSpecHandler):  # type: ignore[misc]
    """The handler of pyarrow for fsspec, every call of it within a stated time.

    Parameters
    ----------
    fs
        Of fsspec.
    seconds
        That one call may take.

    """

    def __init__(self, fs: Any, seconds: float) -> None:
        super().__init__(fs)
        self.seconds = seconds

    def get_file_info(self, paths: list[str]) -> Any:
        """Return what there is at some paths."""
        return [self._info(path) for path in paths]

    def _info(self, path: str) -> Any:
        try:
            info = call_within(lambda: self.fs.info(path), self.seconds)
        except FileNotFoundError:
            return pafs.FileInfo(path, pafs.FileType.NotFound)
        return self._create_file_info(path, info)

    def get_file_info_selector(self, selector: Any) -> Any:
        """Return what there is in a folder."""
        return call_within(lambda: super(Watched, self).get_file_info_selector(selector), self.seconds)

    def open_input_stream(self, path: str) -> Any:
        """Open for reading from the start."""
        return self._opened(path)

    def open_input_file(self, path: str) -> Any:
        """Open for reading anywhere."""
        return self._opened(path)

    def _opened(self, path: str) -> Any:
        import pyarrow as pa  # noqa: PLC0415

        opened = call_within(lambda: self.fs.open(path, mode="rb"), self.seconds)
        return pa.PythonFile(WatchedFile(opened, self.seconds), mode="r")


class ReadOnly:
    """What Arrow asks a Python file first."""

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def writable(self) -> bool:
        """Return False."""
        return False


class WatchedFile(ReadOnly):
    """A file of fsspec, every call of it within a stated time."""

    def __init__(self, file: Any, seconds: float) -> None:
        self.file, self.seconds = file, seconds

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        return bytes(call_within(lambda: self.file.read(size), self.seconds))

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        return int(call_within(lambda: self.file.seek(offset, whence), self.seconds))

    def tell(self) -> int:
        """Return the place."""
        return int(self.file.tell())

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return bool(self.file.closed)

    def close(self) -> None:
        """Close it."""
        self.file.close()
