"""Models as other programs read them: JSON, or arrays of NumPy. `streamsgd.serving` loads both."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.errors import ModelError, SettingsError
from streamsgd.messages import nearest
from streamsgd.model import store
from streamsgd.model.structure import need_linear
from streamsgd.settings.registry import PARTS

if TYPE_CHECKING:
    import os

    from streamsgd.model.model import Model

KEPT = ("loss", "encoding", "target")
"""Entries of a model's header that scoring needs, beside some of its settings."""

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
        (`used`) and their `values`. numpy: an .npz of `weights`, (n_coordinates, n_outputs), and `header`, the rest as JSON.

    Raises
    ------
    SettingsError
        There is no such form.
    ModelError
        The loss or a kind of column is not streamsgd's, so that no other program could know what it does; or the storage
        refused.

    """
    if to not in FORMS:
        raise SettingsError(f"--to {to}: models are exported to {' or '.join(FORMS)}{nearest(to, FORMS)}")
    need_linear(model.structure, "form for other programs", "save it, and load it with streamsgd")
    if type(model.loss) not in PARTS["loss"].values():
        raise ModelError(
            f"the model's loss {type(model.loss).__name__} is not streamsgd's, so nobody else can know what it does"
        )
    if model.encoding.custom:
        kind = model.encoding.custom[0]
        raise ModelError(f"columns of the kind {kind.name!r}, {kind.place}, are not streamsgd's: leave them out of the model")
    header = model.header()
    kept = {"format": store.FORMAT, **{key: header[key] for key in KEPT}}
    kept["settings"] = {key: model.settings[key] for key in SETTINGS if key in model.settings}
    store.write(out, FORMS[to](kept, model.weights))


def _json(header: dict[str, Any], weights: np.ndarray) -> bytes:
    used = np.flatnonzero((weights != 0.0).any(axis=1))
    given = {
        "shape": list(weights.shape),
        "code": weights.dtype.char,
        "used": used.tolist(),
        "values": weights[used].ravel().tolist(),
    }
    return json.dumps({**header, "weights": given}, sort_keys=True).encode()


def _numpy(header: dict[str, Any], weights: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez(out, weights=weights, header=np.array(json.dumps(header, sort_keys=True)))
    return out.getvalue()


FORMS = {"json": _json, "numpy": _numpy}
"""What makes the bytes of each form."""
