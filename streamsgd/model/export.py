"""Models as other programs read them: JSON, arrays of NumPy, both of which `streamsgd.serving` loads, or ONNX."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.errors import ModelError, SettingsError
from streamsgd.messages import nearest
from streamsgd.model import store
from streamsgd.model.onnx import onnx_bytes
from streamsgd.model.structure import said
from streamsgd.settings.registry import PARTS

if TYPE_CHECKING:
    import os

    from streamsgd.model.model import Model

KEPT = ("loss", "model", "encoding", "target")
"""Entries of a model's header that scoring needs, beside some of its settings; a linear one has no `model`."""

SETTINGS = ("missing", "infinite", "missing_columns")


def export_model(model: Model, out: str | os.PathLike[str], to: str) -> None:
    """Write what scoring needs of a model to a file, whole or not at all.

    Parameters
    ----------
    model
        Any model of streamsgd's own parts.
    out
        Path or URL of the file.
    to
        json: one object with `loss`, `encoding`, `target`, `settings` and `weights`: the shape, the rows that are not zero
        (`used`) and their `values`; of what is not linear `model` as well, its name and fields. numpy: an .npz of `weights`,
        (n_coordinates, n_outputs), and `header`, the rest as JSON.
        onnx: a graph, of what ONNX can say; see `model.onnx`.

    Raises
    ------
    SettingsError
        There is no such form.
    ModelError
        The loss, the model or a kind of column is not streamsgd's, so that no other program could know what it does, or a
        column is none that ONNX can say; or the storage refused.

    """
    if to not in FORMS:
        raise SettingsError(f"--to {to}: models are exported to {' or '.join(FORMS)}{nearest(to, FORMS)}")
    if type(model.structure) not in PARTS["model"].values():
        raise ModelError(
            f"the model {said(model.structure)['name']} is not streamsgd's, so nobody else can know what it does: save it, and "
            "load it with streamsgd.load(path, model=...)"
        )
    if type(model.loss) not in PARTS["loss"].values():
        raise ModelError(
            f"the model's loss {type(model.loss).__name__} is not streamsgd's, so nobody else can know what it does"
        )
    if model.encoding.custom:
        kind = model.encoding.custom[0]
        raise ModelError(f"columns of the kind {kind.name!r}, {kind.place}, are not streamsgd's: leave them out of the model")
    store.write(out, FORMS[to](model))


def _kept(model: Model) -> dict[str, Any]:
    """Return what scoring needs beside the weights, as JSON values."""
    header = model.header()
    kept = {"format": store.format_of(header), **{key: header[key] for key in KEPT if key in header}}
    kept |= {"score_map": header["score_map"]} if "score_map" in header else {}
    kept["settings"] = {key: model.settings[key] for key in SETTINGS if key in model.settings}
    return kept


def _json(model: Model) -> bytes:
    weights = model.weights
    used = np.flatnonzero((weights != 0.0).any(axis=1))
    given = {
        "shape": list(weights.shape),
        "code": weights.dtype.char,
        "used": used.tolist(),
        "values": weights[used].ravel().tolist(),
    }
    return json.dumps({**_kept(model), "weights": given}, sort_keys=True).encode()


def _numpy(model: Model) -> bytes:
    out = io.BytesIO()
    np.savez(out, weights=model.weights, header=np.array(json.dumps(_kept(model), sort_keys=True)))
    return out.getvalue()


FORMS = {"json": _json, "numpy": _numpy, "onnx": onnx_bytes}
"""What makes the bytes of each form."""
