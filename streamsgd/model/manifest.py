"""The list of what scoring wrote into a folder, which alone says what may be deleted there."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from streamsgd.data.stores.filesystems import connect, retry
from streamsgd.errors import ModelError
from streamsgd.model import store
from streamsgd.redact import hide

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NAME = "_streamsgd_outputs.json"
"""Of the list; who reads Parquet passes over files whose names begin with an underscore."""

log = logging.getLogger("streamsgd")


class Outputs(NamedTuple):
    """A folder of outputs."""

    filesystem: Any
    root: str
    """Its path there."""

    def entries(self) -> dict[str, dict[str, str]]:
        """Return its list: by output, below the folder, where its input was (`uri` and `path`).

        Raises
        ------
        ModelError
            The list is damaged.

        """
        path = f"{self.root}/{NAME}"
        (info,) = retry(lambda: self.filesystem.get_file_info([path]), path)
        if not info.is_file:
            return {}
        try:
            found = json.loads(retry(lambda: _content(self.filesystem, path), path))["outputs"]
            return {str(name): {key: str(entry[key]) for key in ("uri", "path")} for name, entry in found.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{path}: is no list of outputs ({error}); delete it, and nothing will be pruned") from error

    def write(self, entries: dict[str, Any]) -> None:
        """Replace its list.

        Raises
        ------
        ModelError
            The storage refused.

        """
        path, text = f"{self.root}/{NAME}", json.dumps({"format": 1, "outputs": entries}, indent=1, sort_keys=True).encode()
        if self.filesystem.type_name == "local":
            store.write(path, text)
        else:
            retry(lambda: _put(self.filesystem, path, text), path)


def _content(filesystem: Any, path: str) -> bytes:
    with filesystem.open_input_stream(path) as source:
        return bytes(source.read())


def _put(filesystem: Any, path: str, text: bytes) -> None:
    with filesystem.open_output_stream(path) as sink:
        sink.write(text)


def _known(uri: str) -> str:
    """Return the URI of a filesystem as the list has it: without secrets, and how patient to be with it."""
    return hide(uri.partition("#")[0])


def enlist(folder: Outputs, outputs: Mapping[str, str], uri: str) -> None:
    """Add outputs, each with the path of its input on the filesystem of this URI, to a folder's list."""
    before = folder.entries()
    now = before | {name: {"uri": _known(uri), "path": path} for name, path in outputs.items()}
    if now != before:
        folder.write(now)


def prune(folder: Outputs, outputs: Mapping[str, str], uri: str, *, is_ours: Callable[[str], bool]) -> list[str]:
    """Delete outputs whose input is gone; return their names.

    What is deleted must be in the folder's list, made of a file of the same storage that is not there any more, and be a
    file that scoring wrote.

    Parameters
    ----------
    folder
        Of outputs.
    outputs
        Those of the data that is there, each with the path of its input.
    uri
        Of the filesystem of that data.
    is_ours
        Whether scoring wrote a file, by its path below the folder.

    """
    entries = folder.entries()
    others = {name: entry["path"] for name, entry in entries.items() if name not in outputs and entry["uri"] == _known(uri)}
    if not others or not uri:
        return []
    infos = retry(lambda: connect(uri).get_file_info(list(others.values())), folder.root)
    gone = [name for name, info in zip(others, infos, strict=True) if info.type.name == "NotFound"]
    deleted = [name for name in gone if _delete(folder, name, is_ours)]
    if gone:
        folder.write({name: entry for name, entry in entries.items() if name not in gone})
    return deleted


def _delete(folder: Outputs, name: str, is_ours: Callable[[str], bool]) -> bool:
    if ".." in name.split("/") or name.startswith("/") or not is_ours(name):
        log.warning(
            "%s is in the list of outputs, but predict did not write it, or it is gone: left alone", f"{folder.root}/{name}"
        )
        return False
    folder.filesystem.delete_file(f"{folder.root}/{name}")
    return True
