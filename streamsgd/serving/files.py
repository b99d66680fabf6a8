"""Files that can be served: a model, or what `streamsgd export` makes of one. Reading them runs no code of theirs."""

from __future__ import annotations

import hashlib
import json
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamsgd.errors import ModelError
from streamsgd.serving.forms import other_form
from streamsgd.serving.served import Served

if TYPE_CHECKING:
    import os

FORMAT = 2
"""Of the header of a model file, and of exports; newer ones are refused."""

CODES = {"F32": ("f", "float32"), "F64": ("d", "float64"), "I64": ("q", "int64"), "I32": ("i", "int32")}
"""Types of safetensors: the codes of `array`, and the names in NumPy, which the checksum is over."""

WEIGHTS_EACH = 64
"""Weights that a coordinate has at the most, those of a machine: exact values stand in the header, hashed ones have 2^bits."""


def load(path: str | os.PathLike[str]) -> Served:
    """Read a model file, or an export of one, to score rows with.

    Parameters
    ----------
    path
        A local file.

    Raises
    ------
    ModelError
        There is no such file, it is damaged, from a newer version, or needs what cannot be served: a loss, a kind of column
        or a model that is not streamsgd's.

    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    read = _json if data[:1] == b"{" else _numpy if data[:2] == b"PK" else _model
    try:
        header, weights, n_outputs = read(data)
        return Served(_known(header), weights, n_outputs)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except Exception as error:
        if read is _model and (form := other_form(data)):
            raise ModelError(f"{path}: {form}; give a model, or its export as JSON or for NumPy") from None
        said = (str(error).splitlines() or [""])[0][:200]
        raise ModelError(f"{path}: not a model of streamsgd's, or a damaged one ({type(error).__name__}: {said})") from error


def _known(header: dict[str, Any]) -> dict[str, Any]:
    """Return the header of a file, if it is not newer than this code."""
    if header["format"] > FORMAT:
        raise ModelError(f"format {header['format']} is newer than this version reads ({FORMAT}); upgrade streamsgd")
    return header


def _model(data: bytes) -> tuple[dict[str, Any], Any, int]:
    length = int.from_bytes(data[:8], "little")
    tensors = json.loads(data[8 : 8 + length])
    wanted, text = tensors.pop("__metadata__")["streamsgd"].split(" ", 1)
    body = memoryview(data)[8 + length :]
    parts: dict[str, Any] = {name: body[slice(*tensor["data_offsets"])] for name, tensor in tensors.items()}
    digest = hashlib.sha256(text.encode())
    for name in sorted(parts):
        shape = tuple(tensors[name]["shape"])
        digest.update(f"{name}{CODES[tensors[name]['dtype']][1]}{shape}".encode())
        digest.update(parts[name])
    if digest.hexdigest() != wanted:
        raise ValueError("its checksum does not match its content")
    header = json.loads(text)
    if header["kind"] != "model":
        raise ValueError(f"it holds a {header['kind']}")
    arrays: dict[str, Any] = {name: part.cast(CODES[tensors[name]["dtype"]][0]) for name, part in parts.items()}
    if "weights" in arrays:
        return header, arrays["weights"], tensors["weights"]["shape"][1]
    n, n_outputs = arrays["shape"].tolist()
    hashed = header["encoding"].get("hashed") or {"bits": 0}
    if not 0 < n <= WEIGHTS_EACH * ((1 << hashed["bits"]) + len(text)):
        raise ValueError(f"it has {n:,} weights, more than its columns can have")
    code = CODES[tensors["used_weights"]["dtype"]][0]
    return header, _spread(code, n, n_outputs, arrays["used"], arrays["used_weights"]), n_outputs


def _spread(code: Any, n: int, n_outputs: int, used: Any, values: Any) -> Any:
    """Return all weights from those that are not zero."""
    weights = array(code, bytes(array(code).itemsize * n * n_outputs))
    for k, place in enumerate(used):
        weights[place * n_outputs : (place + 1) * n_outputs] = array(code, values[k * n_outputs : (k + 1) * n_outputs])
    return memoryview(weights)


def _json(data: bytes) -> tuple[dict[str, Any], Any, int]:
    header = json.loads(data)
    given = header.pop("weights")
    n, n_outputs = given["shape"]
    return header, _spread(given["code"], n, n_outputs, given["used"], given["values"]), n_outputs


def _numpy(data: bytes) -> tuple[dict[str, Any], Any, int]:
    import io  # noqa: PLC0415  NumPy is for this form alone

    import numpy as np  # noqa: PLC0415

    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        weights: Any = np.ascontiguousarray(found["weights"])
        return json.loads(str(found["header"])), memoryview(weights.ravel()), weights.shape[1]
