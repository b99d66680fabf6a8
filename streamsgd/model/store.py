"""Files that must be whole or absent: arrays with a header, written atomically, verified when read.

A file is safetensors (https://github.com/huggingface/safetensors): numbers and a JSON header, no code. Its own checks
see a wrong length only, so a sha256 over header and arrays is kept beside them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.numpy import load as parse_arrays
from safetensors.numpy import save as pack_arrays

from streamsgd.compute.local_files import clear_unfinished, whole_file
from streamsgd.data.stores.filesystems import local_or_remote_output, retry
from streamsgd.errors import DataError, ModelError
from streamsgd.serving.forms import PARQUET, other_form

if TYPE_CHECKING:
    import os

    import numpy as np


FORMAT = 2
"""The newest header that is read; a newer one is refused."""


def pack(kind: str, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> bytes:
    """Return the bytes of a file; equal content gives equal bytes."""
    text = json.dumps({"format": format_of(header), "kind": kind, **header}, sort_keys=True)
    # One entry: safetensors writes several in no fixed order, and equal models must be equal bytes.
    return bytes(pack_arrays(arrays, {"streamsgd": f"{digest(text, arrays)} {text}"}))


def format_of(header: dict[str, Any]) -> int:
    """Return the format of a header: 2 if scores are mapped, which a reader of format 1 would leave out in silence."""
    return 2 if "score_map" in header else 1


def unpack(kind: str, data: bytes, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return header and arrays of a file's bytes.

    Raises
    ------
    ModelError
        The file is damaged, not one of ours, of another kind, or from a newer version.

    """
    try:
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
        wanted, text = metadata["streamsgd"].split(" ", 1)
        arrays = parse_arrays(data)
        whole = digest(text, arrays) == wanted
    except Exception as error:
        if kind == "model" and (form := other_form(data)):
            ends = "give a model, which comes before the data" if form == PARQUET else "give the model that it was made of"
            raise ModelError(f"{name}: {form}; {ends}") from None
        raise ModelError(f"{name}: not a streamsgd {kind}, or a damaged one ({_short(error)})") from error
    if not whole:
        raise ModelError(f"{name}: damaged, its checksum does not match its content; restore it from a copy")
    # Nothing of the header counts before the checksum: a flipped bit must not look like a newer format.
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{name}: its header is no JSON ({_short(error)}); restore the file from a copy") from error
    if not isinstance(header, dict) or type(header.get("format")) is not int or not isinstance(header.get("kind"), str):
        raise ModelError(f"{name}: its header does not say what format and kind it is; restore the file from a copy")
    if header["format"] > FORMAT:
        raise ModelError(f"{name}: format {header['format']} is newer than this version reads ({FORMAT}); upgrade streamsgd")
    if header["kind"] != kind:
        raise ModelError(f"{name}: holds a {header['kind']}, not a {kind}")
    return header, arrays


def digest(text: str, arrays: dict[str, np.ndarray]) -> str:
    """Return the checksum of a header's text and of arrays: names, types, shapes and bytes."""
    whole = hashlib.sha256(text.encode())
    for key in sorted(arrays):
        whole.update(f"{key}{arrays[key].dtype}{arrays[key].shape}".encode())
        whole.update(arrays[key].tobytes())
    return whole.hexdigest()


def write(uri: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that a reader, or a crash at any instant, sees the old file or the new one, whole.

    Raises
    ------
    ModelError
        The storage refused: disk full, no permission, no such folder.

    """
    filesystem, path = local_or_remote_output(uri)
    try:
        if filesystem.type_name == "local":
            _write_local(Path(path), data)
        else:
            retry(lambda: _write_object(filesystem, path, data), str(uri))
    except (OSError, DataError) as error:
        raise ModelError(
            f"{uri}: cannot be saved: {_short(error).removeprefix(f'{uri}: ')}; make room or choose another place, then start "
            "again to resume"
        ) from error


def _write_object(filesystem: Any, path: str, data: bytes) -> None:
    """Write an object, which shows when it is complete; said again, the same one replaces it."""
    with filesystem.open_output_stream(path) as sink:
        sink.write(data)


def _write_local(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_unfinished(path.parent, (path.name,))
    with whole_file(path) as sink:
        sink.write(data)


def read(uri: str | os.PathLike[str]) -> bytes:
    """Return a file's bytes.

    Raises
    ------
    ModelError
        There is no such file, or it cannot be read.

    """
    filesystem, path = local_or_remote_output(uri)

    def content() -> bytes:
        with filesystem.open_input_stream(path) as source:
            return bytes(source.read())

    try:
        return retry(content, str(uri))
    except DataError as error:
        if _is_folder(filesystem, path):
            raise ModelError(f"{uri}: is a folder; give the file of a model, which comes before the data") from None
        if isinstance(error.__cause__, FileNotFoundError):
            raise ModelError(f"{uri}: there is no such file") from None
        raise ModelError(f"{uri}: cannot be read: {str(error).removeprefix(f'{uri}: ')}") from error


def _is_folder(filesystem: Any, path: str) -> bool:
    from pyarrow.fs import FileType  # noqa: PLC0415

    try:
        return bool(filesystem.get_file_info(path).type == FileType.Directory)
    except OSError:
        return False


def names(folder: str | os.PathLike[str]) -> list[str]:
    """Return the names of the files in a folder, sorted; none if there is no folder."""
    from pyarrow.fs import FileSelector  # noqa: PLC0415

    filesystem, path = local_or_remote_output(folder)
    found = retry(lambda: filesystem.get_file_info(FileSelector(path, allow_not_found=True)), str(folder))
    return sorted(info.base_name for info in found if info.is_file)


def remove(uri: str | os.PathLike[str]) -> None:
    """Delete a file if it is there."""
    filesystem, path = local_or_remote_output(uri)
    with contextlib.suppress(OSError):
        filesystem.delete_file(path)


def _short(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def remove_folder(uri: str | os.PathLike[str]) -> None:
    """Delete a folder if it is there and empty."""
    filesystem, path = local_or_remote_output(uri)
    if filesystem.type_name == "local":
        with contextlib.suppress(OSError):
            Path(path).rmdir()
