"""Models as other programs read them: JSON, arrays of NumPy, both of which `streamsgd.serving` loads, or ONNX."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import numpy as np

from streamsgd.data.stores.output import reserved
from streamsgd.errors import SettingsError
from streamsgd.messages import nearest
from streamsgd.model import store
from streamsgd.model.exporting.onnx import onnx_bytes
from streamsgd.model.served import check_ours, kept

if TYPE_CHECKING:
    import os

    from streamsgd.model.model import Model


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
        onnx: a graph, of what ONNX can say; see `model.exporting.onnx`.

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
    check_ours(model)
    with reserved(out, None):
        store.write(out, FORMS[to](model))


def _json(model: Model) -> bytes:
    weights = model.weights
    used = np.flatnonzero((weights != 0.0).any(axis=1))
    given = {
        "shape": list(weights.shape),
        "code": weights.dtype.char,
        "used": used.tolist(),
        "values": weights[used].ravel().tolist(),
    }
    return json.dumps({**kept(model), "weights": given}, sort_keys=True).encode()


def _numpy(model: Model) -> bytes:
    out = io.BytesIO()
    np.savez(out, weights=model.weights, header=np.array(json.dumps(kept(model), sort_keys=True)))
    return out.getvalue()


FORMS = {"json": _json, "numpy": _numpy, "onnx": onnx_bytes}
"""What makes the bytes of each form."""
