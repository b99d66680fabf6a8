"""Folders of tables whose log alone says which of their files count: how they are known, and what to name instead."""

from __future__ import annotations

import re
from posixpath import basename, dirname
from typing import TYPE_CHECKING, Any

from streamsgd.errors import DataError
from streamsgd.messages import extra

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TABLES = {"_delta_log": "Delta", ".hoodie": "Hudi"}
"""Folders in the root of a table, and its kind."""

METADATA = re.compile(r"(.*/)?metadata/[^/]*\.metadata\.json$")
"""Paths of metadata of Iceberg."""

_NUMBER = re.compile(r"v?(\d+)")

_LIVE_FILES = {
    "Delta": "deltalake.DeltaTable(path).file_uris()",
    "Iceberg": "[task.file.file_path for task in table.scan().plan_files()] of pyiceberg",
    "Hudi": "hudi.HudiTable(path).get_file_slices()",
}

_EXTRAS = {
    "Delta": f"; or {extra('delta')}, and name the folder of the table itself",
    "Iceberg": f"; or {extra('iceberg')}, and name the newest of its metadata, {{place}}",
}


class TableFolderError(DataError):
    """A folder holds a table whose log alone says which of its files count."""

    def __init__(self, item: str, kind: str, mark: str) -> None:
        scheme = item.partition("://")[0] + "://" if "://" in item else ""
        extra = _EXTRAS.get(kind, "").format(place=scheme + mark)
        super().__init__(
            f"{item}: holds {'an' if kind == 'Iceberg' else 'a'} {kind} table ({mark}), whose folder also keeps files that no "
            f"longer belong to it; pass the list of its live files instead, such as {_LIVE_FILES[kind]}{extra}"
        )
        self.kind, self.mark = kind, mark


def refuse_tables(infos: Sequence[Any], item: str) -> None:
    """Refuse what was listed, if it holds a table.

    Raises
    ------
    TableFolderError
        It does.

    """
    for info in infos:
        if info.base_name in TABLES:
            raise TableFolderError(item, TABLES[info.base_name], info.path)
        if METADATA.match(info.path):
            raise TableFolderError(item, "Iceberg", newest_metadata(infos, dirname(info.path)))


def newest_metadata(infos: Iterable[Any], folder: str) -> str:
    """Return the newest metadata of Iceberg in a folder: by the number of its name (00003-..., v3...), then by time."""
    found = [info for info in infos if METADATA.match(info.path) and dirname(info.path) == folder]
    return str(max(found, key=lambda info: (_number(info.path), info.mtime_ns or 0, info.path)).path)


def _number(path: str) -> int:
    match = _NUMBER.match(basename(path))
    return int(match[1]) if match else -1
