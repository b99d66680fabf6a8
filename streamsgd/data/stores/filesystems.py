"""How files are reached: URLs become pyarrow filesystems, and requests that fail transiently are tried again.

Local paths, `s3://`, `gs://` and `hdfs://` go through `pyarrow.fs`; every other scheme goes through fsspec.
"""

import errno
import logging
import os
import re
import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import pyarrow as pa
from pyarrow import fs as pafs

from streamsgd.data.stores.watched import Watched
from streamsgd.errors import DataError, SettingsError
from streamsgd.redact import remember

T = TypeVar("T")

PathLike = str | os.PathLike[str]

ATTEMPTS = 4  # each with the SDK's own three inside it

PAUSE = 0.2  # seconds before the second attempt; doubles every time

IO_TIMEOUT = 60.0
"""Seconds of silence after which a storage is given up, unless `set_io_timeout` says otherwise."""

LONG = 45.0
"""Seconds from which on the SDK tries each request three times: one that stops in its middle is noticed some 7 s late."""

TRIES_IN_TIME = {3: 7, 1: 4}
"""Silent requests that fit in, by attempts of the SDK: those, and at least one more of ours, and the pauses between."""

LOCAL = "file://"

_log = logging.getLogger(__name__)

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")

_S3_SETTINGS = frozenset({"anonymous", "endpoint_override", "region", "scheme", "role_arn", "session_name"})

_DENIED = re.compile(
    r"ACCESS_DENIED|SIGNATURE|ACCESS_KEY|TOKEN|ExpiredToken|token has expired|HTTP status 40[13]|status 40[13]"
)

_ABSENT = re.compile(r"NO_SUCH_KEY|NOT_FOUND|HTTP status 404")

_PERMANENT = re.compile(f"{_DENIED.pattern}|{_ABSENT.pattern}|NO_SUCH|INVALID|HTTP status 400|status 4(0[0-7]|1\\d)")

_STORAGE = re.compile(r"AWS Error|curlCode|HTTP status|HTTP response|status \d{3}|google::cloud|HDFS|hdfs", re.IGNORECASE)

_TRANSIENT = re.compile(
    r"AWS Error|curlCode|timed? ?out|connection (was )?(reset|refused|closed|aborted)|temporar|throttl"
    r"|slow ?down|service ?unavailable|internal (server )?error|(http|status)\D{0,12}(429|50[0234])",
    re.IGNORECASE,
)

_TRANSIENT_ERRNO = frozenset(
    {errno.EINTR, errno.EIO, errno.EAGAIN, errno.ENETRESET, errno.ENETUNREACH, errno.EHOSTDOWN}
    | {errno.EHOSTUNREACH, errno.ESTALE, errno.EREMOTEIO}  # ConnectionError and TimeoutError cover the rest
)


def is_transient(error: BaseException) -> bool:
    """Whether an IO error may go away by itself (network, throttling, overloaded server)."""
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError):
        return False
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if not isinstance(error, OSError):
        return False
    text = str(error)
    return error.errno in _TRANSIENT_ERRNO or bool(_TRANSIENT.search(text) and not _PERMANENT.search(text))


def is_storage_error(error: BaseException) -> bool:
    """Whether an IO error is the storage's (denied, gone, silent), not a complaint about the bytes that it gave."""
    if not isinstance(error, OSError):
        return False
    if isinstance(error, FileNotFoundError | PermissionError):
        return True
    return error.errno is not None or is_transient(error) or bool(_STORAGE.search(str(error)))


_io_timeout: ContextVar[float] = ContextVar("io_timeout", default=IO_TIMEOUT)


def set_io_timeout(seconds: float) -> None:
    """Say how long storages that this thread names from now on may be silent; it is part of their URIs. 10 is the least."""
    _io_timeout.set(seconds)


def io_timeout_of(uri: str) -> float:
    """Return how many seconds a storage may be silent."""
    _, _, found = uri.partition(_TIMEOUT)
    return float(found) if found else IO_TIMEOUT


_TIMEOUT = "#io_timeout="


def retry(
    call: Callable[[], T], what: str, attempts: int = ATTEMPTS, pause: float | None = None, within: float | None = None
) -> T:
    """Return `call()`, tried up to `attempts` times while it fails transiently, and not beyond `within` seconds.

    `pause`, `PAUSE` if it is None, is in seconds and doubles every time; `within` is as `set_io_timeout` said. Raises
    `DataError` naming `what` when the error is permanent or stays.
    """
    within = _io_timeout.get() if within is None else within
    pause = PAUSE if pause is None else pause
    began = time.monotonic()
    for attempt in range(1, attempts + 1):
        tried = time.monotonic()
        try:
            return call()
        except UnicodeError as error:
            raise DataError(f"{what}: holds a name that is not UTF-8, which Arrow cannot open ({error}); rename it") from error
        except (OSError, pa.ArrowException) as error:
            if not is_transient(error):
                raise DataError(f"{what}: {explain(error)}") from error
            now = time.monotonic()
            if attempt < attempts and now - began + pause * 2 ** (attempt - 1) + now - tried > within:
                raise DataError(
                    f"{what}: the storage failed for {now - began:.0f} s, last with: {first_line(error)}; check the network "
                    f"and the endpoint, then start again, or be more patient than --io-timeout {within:g}"
                ) from error
            if attempt == attempts:
                raise DataError(
                    f"{what}: the storage failed {attempts} times in a row, last with: {first_line(error)}; "
                    "check the network and the endpoint, then start again"
                ) from error
            _log.warning("%s: attempt %d failed, trying again: %s", what, attempt, first_line(error))
        time.sleep(pause * 2 ** (attempt - 1))
    raise SettingsError(f"attempts={attempts} must be at least 1")


def first_line(error: BaseException) -> str:
    """Return what an error says, without its details."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def explain(error: BaseException) -> str:
    """Return what went wrong with a file in words that say how to mend it."""
    text = first_line(error)
    if isinstance(error, PermissionError) or _DENIED.search(text):
        return f"permission denied; check the rights or the credentials ({text})"
    if "NO_SUCH_BUCKET" in text:
        return f"no such bucket; check the URL and the endpoint ({text})"
    if isinstance(error, FileNotFoundError) or _ABSENT.search(text):
        return "no such file or folder; it is missing or has vanished"
    return text


class Place(NamedTuple):
    """The URI that rebuilds a filesystem, and a path (perhaps a glob) inside it."""

    uri: str
    path: str


def locate(data: str) -> Place:
    """Return where a path or URL points. Raises `SettingsError` for a URL that names nothing."""
    place, seconds = _locate(data), _io_timeout.get()
    return place if place.uri == LOCAL or seconds == IO_TIMEOUT else place._replace(uri=f"{place.uri}{_TIMEOUT}{seconds:g}")


def _locate(data: str) -> Place:
    remember(data)
    try:
        data.encode()
    except UnicodeEncodeError:
        raise SettingsError(f"{os.fsencode(data)!r}: is not UTF-8, and Arrow cannot open it; rename it") from None
    match = _SCHEME.match(data)
    if match is None:
        return Place(LOCAL, os.path.abspath(os.path.expanduser(data)))  # noqa: PTH100, PTH111 - drops ".."
    scheme, rest = match[1].lower(), data[match.end() :]
    if scheme == "file":
        return Place(LOCAL, os.path.abspath("/" + unquote(rest.partition("/")[2])))  # noqa: PTH100 - drops ".."
    if scheme in ("s3", "s3a", "s3n"):
        return _locate_s3(rest)
    if scheme in ("gs", "gcs"):
        return Place("gs://", rest.strip("/"))
    host = f"{scheme}://{urlsplit(data).netloc}"
    if scheme in ("hdfs", "viewfs"):
        return Place(host, "/" + rest.partition("/")[2].strip("/"))
    return Place(host, _fsspec(data)[1])


def _locate_s3(rest: str) -> Place:
    path, _, query = rest.partition("?")
    options = {key: values[-1] for key, values in parse_qs(query).items()}
    if not options or not options.keys() <= _S3_SETTINGS:
        path, options = rest, {}  # the question mark belongs to a glob
    path = path.strip("/")
    bucket = path.partition("/")[0]
    if "@" in bucket or ("@" in path and ":" in bucket):
        raise SettingsError(
            "s3://KEY:SECRET@bucket: keys do not belong into a URL, which is shown and stored: write s3://bucket/folder, "
            "and put them into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
        )
    if not bucket or re.search(r"[*?\[@:]", bucket):
        raise SettingsError(f"s3://{path}: {bucket!r} is not the name of a bucket: write s3://bucket/folder")
    return Place(f"s3://?{urlencode(_s3_options(bucket, options))}", path)


def _s3_options(bucket: str, options: dict[str, str]) -> dict[str, str]:
    """Add what the environment says: pyarrow ignores AWS_ENDPOINT_URL (apache/arrow#49643)."""
    env = os.environ.get
    endpoint = options.get("endpoint_override") or env("AWS_ENDPOINT_URL_S3") or env("AWS_ENDPOINT_URL")
    if endpoint:
        scheme, _, host = endpoint.rpartition("://")
        plain = _is_true(env("AWS_ALLOW_HTTP", ""))
        options = {"scheme": scheme or ("http" if plain else "https")} | options
        options["endpoint_override"] = host.rstrip("/")
    region = options.get("region") or env("AWS_REGION") or env("AWS_DEFAULT_REGION")
    if not region:
        region = "us-east-1" if endpoint else _bucket_region(bucket)
    return dict(sorted((options | {"region": region}).items()))


def _is_true(text: str) -> bool:
    return text.lower() in ("1", "true", "yes")


@lru_cache
def _bucket_region(bucket: str) -> str:
    try:
        return str(pafs.resolve_s3_region(bucket))
    except OSError:  # no such bucket, or no way to ask: the first real request tells
        return "us-east-1"


def connect(uri: str) -> Any:
    """Return the pyarrow filesystem of `uri`. Raises `DataError` if there is none or it cannot be reached."""
    scheme, within = uri.partition(":")[0], io_timeout_of(uri)
    uri = uri.partition(_TIMEOUT)[0]
    if scheme == "file":
        return pafs.LocalFileSystem()
    if scheme == "s3":
        return _connect_s3({key: values[-1] for key, values in parse_qs(urlsplit(uri).query).items()}, within)
    if scheme == "gs":
        uri = f"{uri}?retry_limit_seconds={within:g}"
    if scheme in ("gs", "hdfs", "viewfs"):
        return retry(lambda: pafs.FileSystem.from_uri(uri)[0], uri)
    return pafs.PyFileSystem(Watched(_fsspec(uri)[0], within / 2))


def _connect_s3(options: dict[str, str], within: float) -> Any:
    anonymous = _is_true(options.pop("anonymous", ""))
    attempts = 3 if within >= LONG else 1
    seconds = max(1, int(within / TRIES_IN_TIME[attempts]))
    return pafs.S3FileSystem(
        anonymous=anonymous,
        connect_timeout=min(5, seconds),
        request_timeout=seconds,  # on Linux: whole seconds without a byte
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=attempts),
        **options,
    )


def _fsspec(url: str) -> tuple[Any, str]:
    import fsspec  # noqa: PLC0415 - only for schemes that pyarrow does not know

    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError, OSError) as error:
        raise DataError(f"{url}: cannot open this kind of URL: {first_line(error)}") from error
    return filesystem, str(path)


def local_or_remote_output(uri: PathLike) -> tuple[Any, str]:
    """Return (pyarrow filesystem, path inside it) of a place to write to; nothing is created."""
    place = locate(os.fspath(uri))
    return connect(place.uri), place.path
