"""The list of what scoring wrote into a folder, which alone says what may be deleted there."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from streamsgd.data.filesystems import connect, local_or_remote_output, retry
from streamsgd.errors import ModelError
from streamsgd.model import store
from streamsgd.redact import hide

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NAME = "_streamsgd_outputs.json"
"""Of the list; who reads Parquet passes over files whose names begin with an underscore."""

log = logging.getLogger("streamsgd")


def listed(folder: str) -> dict[str, dict[str, str]]:
    """Return what a folder's list says: by output, below the folder, where its input was (`uri` and `path`).

    Raises
    ------
    ModelError
        The list is damaged.

    """
    if NAME not in store.names(folder):
        return {}
    try:
        found = json.loads(store.read(f"{folder}/{NAME}"))["outputs"]
        return {str(name): {key: str(entry[key]) for key in ("uri", "path")} for name, entry in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{folder}/{NAME}: is no list of outputs ({error}); delete it, and nothing will be pruned") from error


def _known(uri: str) -> str:
    """Return the URI of a filesystem as the list has it: without secrets, and how patient to be with it."""
    return hide(uri.partition("#")[0])


def enlist(folder: str, outputs: Mapping[str, str], uri: str) -> None:
    """Add outputs, each with the path of its input on the filesystem of this URI, to a folder's list."""
    before = listed(folder)
    now = before | {name: {"uri": _known(uri), "path": path} for name, path in outputs.items()}
    if now != before:
        _write(folder, now)


def prune(folder: str, outputs: Mapping[str, str], uri: str, *, is_ours: Callable[[str], bool]) -> list[str]:
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
    entries = listed(folder)
    others = {name: entry["path"] for name, entry in entries.items() if name not in outputs and entry["uri"] == _known(uri)}
    if not others or not uri:
        return []
    infos = retry(lambda: connect(uri).get_file_info(list(others.values())), folder)
    gone = [name for name, info in zip(others, infos, strict=True) if info.type.name == "NotFound"]
    deleted = [name for name in gone if _delete(folder, name, is_ours)]
    if gone:
        _write(folder, {name: entry for name, entry in entries.items() if name not in gone})
    return deleted


def _delete(folder: str, name: str, is_ours: Callable[[str], bool]) -> bool:
    if ".." in name.split("/") or name.startswith("/") or not is_ours(name):
        log.warning(
            "%s/%s is in the list of outputs but was not written by predict, or is gone: it is left alone", folder, name
        )
        return False
    filesystem, path = local_or_remote_output(f"{folder}/{name}")
    filesystem.delete_file(path)
    return True


def _write(folder: str, entries: dict[str, Any]) -> None:
    store.write(f"{folder}/{NAME}", json.dumps({"format": 1, "outputs": entries}, indent=1, sort_keys=True).encode())
