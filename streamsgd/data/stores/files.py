"""Where the files are: paths, folders, globs and URLs become one sorted list of files.

`Files` holds names and sizes, never open files, so it pickles to any worker.
"""

import logging
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cached_property
from posixpath import basename, commonpath, dirname
from typing import Any, NamedTuple, NoReturn

from pyarrow import fs as pafs

from streamsgd.data.stores.filesystems import LOCAL, PathLike, connect, explain, io_timeout_of, locate, retry
from streamsgd.data.stores.table_folders import TABLES, refuse_tables
from streamsgd.errors import DataError, SettingsError
from streamsgd.messages import counted, verb

__all__ = ["FileRef", "Files", "PathLike", "open_source"]


_MAGIC = re.compile(r"[*?\[]")

_PARQUET = re.compile(r"\.(parquet|parq|pq)(\.(brotli|br|gz|gzip|lz4|snappy|sz|uncompressed|zst|zstd))?$", re.IGNORECASE)


class NoFilesError(DataError):
    """A folder holds no file, as one that a job with nothing to write leaves behind."""

    def __init__(self, place: str) -> None:
        super().__init__(f"{place}: no Parquet files in this folder; it is empty")
        self.place = place


@dataclass(frozen=True, slots=True)
class FileRef:
    """One file: where to open it, what to call it, how long it was when listed (bytes), and what tells it from a later one."""

    path: str
    name: str
    size: int
    stamp: str = ""
    """Its ETag or time of modification, where there is one ..."""
    inode: int = field(default=0, compare=False)
    """... and, within the process that listed it, its number on the disk; 0 elsewhere, where it may be another."""


@dataclass(frozen=True)
class Files:
    """The files of one job, sorted by name without duplicates, and the URI that rebuilds their filesystem.

    `name` of a file is its path below the root that was given, with `/`; folders like `year=2024` right above
    the root are part of it, so that a file has one name whether its table or its partition was asked for.
    """

    files: tuple[FileRef, ...]
    uri: str

    @cached_property
    def filesystem(self) -> Any:
        """The pyarrow filesystem, connected when first used in this process."""
        return connect(self.uri)

    @property
    def is_local(self) -> bool:
        """Whether the files are in this machine's own file tree."""
        return self.uri == LOCAL

    def open(self, path_or_ref: str | FileRef) -> Any:
        """Open one file for random reads, retrying transient errors.

        Raises `DataError` if it is missing, unreadable, or (given a `FileRef`) not as long as when listed.
        """
        within = io_timeout_of(self.uri)
        if isinstance(path_or_ref, str):
            return retry(lambda: self.filesystem.open_input_file(path_or_ref), path_or_ref, within=within)
        file = retry(lambda: self.filesystem.open_input_file(path_or_ref.path), path_or_ref.name, within=within)
        try:
            self._check_size(path_or_ref, retry(file.size, path_or_ref.name, within=within))
            self.check(path_or_ref, file)
        except BaseException:
            file.close()
            raise
        return file

    def _check_size(self, ref: FileRef, size: int) -> None:
        if size != ref.size:
            raise DataError(
                f"{ref.name}: is {size:,} bytes now but was {ref.size:,} when listed; "
                "the data must not change during a job: wait until its writer is done and start again"
            )

    def check(self, ref: FileRef, file: Any) -> None:
        """Raise `DataError` if what lies in a file's place now, opened as `file`, is not what was listed."""
        stamp, inode = self.identify(ref, file)
        changed = bool(ref.stamp and stamp and stamp != ref.stamp)
        if changed or (ref.inode and inode != ref.inode):
            if self.is_local:  # It may have grown since `file` was opened, a moment ago.
                self._check_size(ref, _stat(ref).st_size)
            tell = "modification time" if self.is_local else "ETag"
            why = f"its {tell} is another" if changed else "it is another file"
            raise DataError(
                f"{ref.name}: was replaced or written since it was listed ({why}, though its size is the same); "
                "the data must not change during a job: wait until its writer is done and start again"
            )

    def identify(self, ref: FileRef, file: Any) -> tuple[str, int]:
        """Return the stamp and the inode of what lies in a file's place now, opened as `file`."""
        if self.is_local:
            return _local_stamp(_stat(ref))
        tag = file.metadata().get("ETag", b"")
        return tag.decode("ascii", "replace") if isinstance(tag, bytes) else str(tag), 0

    def stamped(self, stamps: Sequence[str]) -> "Files":
        """Return the same files with stamps that only opening them could tell."""
        files = [replace(ref, stamp=stamp) if stamp else ref for ref, stamp in zip(self.files, stamps, strict=True)]
        return Files(tuple(files), self.uri)

    def __getstate__(self) -> dict[str, Any]:
        # Of a mounted object store another machine sees other inodes.
        files = tuple(replace(ref, inode=0) if ref.inode else ref for ref in self.files)
        return {"files": files, "uri": self.uri}


def open_source(data: PathLike | Sequence[PathLike]) -> Files:
    """List the files of a path, folder, glob (`**` for any depth), URL, or several of them on one filesystem.

    Folders are listed recursively for Parquet files; names that begin with `_` or `.` are ignored (`_x=1` is
    not). Files named outright are taken whatever their name.

    Raises `DataError` if something is missing, empty, or the folder of a Delta, Iceberg or Hudi table, and
    `SettingsError` if the places are on different filesystems.
    """
    if not (items := _paths(data)) or not all(items):
        raise SettingsError("no data was given: name a file, folder, glob or URL")
    places = [locate(item) for item in items]
    uri = places[0].uri
    for place, item in zip(places, items, strict=True):
        if place.uri != uri:
            raise SettingsError(f"{items[0]} and {item} are on different filesystems; a job reads one of them")
    filesystem = connect(uri)
    infos = retry(lambda: filesystem.get_file_info([place.path for place in places]), items[0])
    return Files(refs_of([_find(filesystem, *pair) for pair in zip(infos, items, strict=True)], uri), uri)


def _paths(data: Any) -> list[str]:
    items = [data] if isinstance(data, str | os.PathLike) or not isinstance(data, Iterable) else [*data]
    for item in items:
        if not isinstance(item, str | os.PathLike):
            one = "" if item is data else f"a {type(data).__name__} of "
            raise SettingsError(
                f"no rows can be had from {one}{type(item).__name__}: name a file, folder, glob or URL, or give a table (of "
                "pyarrow, pandas, Polars, DuckDB), tables, or a dict of columns, as {'x0': X[:, 0], ...} of an array"
            )
    return [os.fsdecode(item) for item in items]


class Found(NamedTuple):
    root: str  # names are relative to the deepest folder above all roots
    files: Sequence[Any]  # pyarrow FileInfo


def _find(filesystem: Any, info: Any, item: str) -> Found:
    if info.type == pafs.FileType.File:
        return Found(dirname(info.path), [info])
    if info.type == pafs.FileType.Directory:
        return Found(info.path, _folder(filesystem, info.path, item))
    if info.type == pafs.FileType.Unknown:
        raise DataError(f"{item}: is neither a file nor a folder; Parquet cannot be read from a pipe or device")
    if _MAGIC.search(info.path):
        return _glob(filesystem, info.path, item)
    raise DataError(f"{item}: no such file or folder{_nearest(filesystem, info.path)}")


def _nearest(filesystem: Any, path: str) -> str:
    try:
        names = [info.base_name for info in filesystem.get_file_info(pafs.FileSelector(dirname(path)))]
    except (OSError, ValueError) as error:
        return f" ({explain(error)})" if "NO_SUCH_BUCKET" in str(error) else ""
    close = get_close_matches(basename(path), names, 1)
    return f"; did you mean {dirname(path)}/{close[0]}?" if close else ""


def _list(filesystem: Any, path: str, item: str, *, recursive: bool) -> list[Any]:
    """List a folder, refusing one that is a table whose log alone says which files count."""
    selector = pafs.FileSelector(path, recursive=recursive)
    infos = retry(lambda: sorted(filesystem.get_file_info(selector), key=lambda info: info.path), item)  # decodes all names
    refuse_tables(infos, item)
    return infos


def _check_above(filesystem: Any, folder: str, item: str) -> None:
    """Refuse a folder inside a table too: its log is in the root of the table."""
    root = _climb(folder)
    marks = [f"{root}/{mark}" for mark in TABLES]
    infos = retry(lambda: filesystem.get_file_info(marks), item)
    refuse_tables([info for info in infos if info.type == pafs.FileType.Directory], item)
    if basename(root) == "data":
        beside = pafs.FileSelector(f"{dirname(root)}/metadata", allow_not_found=True)
        refuse_tables(retry(lambda: filesystem.get_file_info(beside), item), item)


def _folder(filesystem: Any, folder: str, item: str) -> list[Any]:
    _check_above(filesystem, folder, item)
    if filesystem.type_name == "local":
        _check_links(folder)
    infos = [
        info
        for info in _list(filesystem, folder, item, recursive=True)
        if info.type != pafs.FileType.Directory and not _is_hidden(info.path[len(folder) :])
    ]
    named = [info for info in infos if _PARQUET.search(info.path)]
    if named:
        return named
    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(lambda info: _ends_like_parquet(filesystem, info), infos))
    if any(ends):
        return [info for info, end in zip(infos, ends, strict=True) if end]
    others = ", ".join(info.base_name for info in infos[:3])
    if not infos:
        raise NoFilesError(item)
    holds = f"it holds {others}" + (", ..." if len(infos) > 3 else "")
    if any(info.base_name.endswith(".lance") for info in infos):
        raise DataError(f"{item}: is a dataset of Lance; pass it as lance.dataset(path) in Python, which is streamed")
    raise DataError(f"{item}: no Parquet files in this folder; {holds}")


def _check_links(folder: str) -> None:
    """Refuse links to nothing and folders that cannot be listed, which a listing leaves out without a word."""

    def refuse(error: OSError) -> NoReturn:
        raise DataError(f"{error.filename}: cannot be listed: {explain(error)}")

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        for name in (*folders, *files):
            path = f"{place}/{name}"
            if os.path.islink(path) and not os.path.exists(path) and not _is_hidden(name):  # noqa: PTH110, PTH114
                raise DataError(f"{path}: is a link to {os.readlink(path)}, which is not there; remove or mend it")  # noqa: PTH115


def _is_hidden(relative: str) -> bool:
    return any(part[:1] in "_." and "=" not in part for part in relative.split("/") if part)


def _ends_like_parquet(filesystem: Any, info: Any) -> bool:
    def tail() -> bytes:
        with filesystem.open_input_file(info.path) as file:
            return bytes(file.read_at(4, info.size - 4))

    return bool(info.size and info.size >= 12 and retry(tail, info.path) in (b"PAR1", b"PARE"))


def _glob(filesystem: Any, pattern: str, item: str) -> Found:
    parts = pattern.split("/")
    depth = next(i for i, part in enumerate(parts) if _MAGIC.search(part))
    root = "/".join(parts[:depth]) or "/"
    rest = [part for part in parts[depth:] if part]
    if rest[-1] == "**":  # everything below, which is what a folder means
        rest.pop()
    if not rest:
        return Found(root, _folder(filesystem, root, item))
    _check_above(filesystem, root, item)
    matches = list(_match(filesystem, root, rest, item))
    files = [info for info in matches if info.type != pafs.FileType.Directory]
    for info in matches:
        if info.type == pafs.FileType.Directory:
            files.extend(_folder(filesystem, info.path, item))
    if not files:
        raise DataError(f"{item}: no file matches this pattern")
    return Found(root, files)


def _match(filesystem: Any, folder: str, parts: list[str], item: str) -> Iterable[Any]:
    """Walk down a glob one segment at a time, so that only folders that can match are listed."""
    if parts[0] == "**":
        yield from _match_deep(filesystem, folder, parts, item)
        return
    for info in _list(filesystem, folder, item, recursive=False):
        if not fnmatchcase(info.base_name, parts[0]) or (_is_hidden(info.base_name) and info.base_name[0] != parts[0][0]):
            continue
        if len(parts) == 1:
            yield info
        elif info.type == pafs.FileType.Directory:
            yield from _match(filesystem, info.path, parts[1:], item)


def _match_deep(filesystem: Any, folder: str, parts: list[str], item: str) -> Iterable[Any]:
    for info in _list(filesystem, folder, item, recursive=True):
        names = info.path[len(folder) :].strip("/").split("/")
        if fits(names, parts) and not _is_hidden("/".join(names)):
            yield info


def fits(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether path segments match glob segments; `**` stands for any number of them, also none."""
    if not parts:
        return not names
    if parts[0] == "**":
        return any(fits(names[i:], parts[1:]) for i in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], parts[0]) and fits(names[1:], parts[1:])


def _climb(folder: str) -> str:
    """Return the folder above all trailing `key=value` folders."""
    while "=" in basename(folder):
        folder = dirname(folder)
    return folder


def refs_of(found: Sequence[Found], uri: str) -> tuple[FileRef, ...]:
    root = _climb(commonpath([place.root for place in found])).rstrip("/")
    skip = len(root) + 1 if root or found[0].root.startswith("/") else 0
    every = {info.path: info for place in found for info in place.files}
    if again := sum(len(place.files) for place in found) - len(every):
        told, are = counted(again, "file"), verb(again)
        logging.getLogger("streamsgd").warning("%s %s named more than once, and %s read once", told, are, are)
    refs: dict[object, FileRef] = {}
    for info in every.values():
        ref = FileRef(info.path, info.path[skip:], _size(info))
        key, ref = _identified(ref, uri)
        if (other := refs.setdefault(key, ref)) is not ref:
            raise _is_link(*sorted((other.path, ref.path), key=lambda path: (os.path.realpath(path) != path, path)))
    return tuple(sorted(refs.values(), key=lambda ref: ref.name))


def _is_link(file: str, link: str) -> DataError:
    return DataError(
        f"{link}: is the same file as {file}, by a symbolic link: its rows would count twice; remove the link, or name the "
        "files that are meant"
    )


def _size(info: Any) -> int:
    if info.type != pafs.FileType.File:
        raise DataError(f"{info.path}: is not a regular file; remove it")
    if not info.size:
        raise DataError(f"{info.path}: is 0 bytes long; was its writer interrupted? Delete it or write it again")
    return int(info.size)


def _identified(ref: FileRef, uri: str) -> tuple[object, FileRef]:
    """Return what a file is known by, and the file with its stamp."""
    if uri != LOCAL:
        return ref.path, ref
    stat = _stat(ref)
    stamp, inode = _local_stamp(stat)
    # Hard links are files of their own to whoever lists the folder: each counts.
    same = (stat.st_dev, stat.st_ino, os.path.realpath(ref.path) if stat.st_nlink > 1 else "")
    return same, replace(ref, stamp=stamp, inode=inode)


def _stat(ref: FileRef) -> os.stat_result:
    try:
        return os.stat(ref.path)  # noqa: PTH116 - called for every file of a large folder
    except OSError as error:
        raise DataError(f"{ref.name}: {explain(error)}") from error


def _local_stamp(stat: os.stat_result) -> tuple[str, int]:
    return str(stat.st_mtime_ns), stat.st_ino
