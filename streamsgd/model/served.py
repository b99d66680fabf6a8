"""What others need of a model to score with it: what of its header, and what scores one row after another in plain Python."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from streamsgd.errors import ModelError
from streamsgd.model import store
from streamsgd.model.structure import said
from streamsgd.serving.served import Served
from streamsgd.settings.registry import PARTS

KEPT = ("loss", "model", "encoding", "target")
"""Entries of a model's header that scoring needs, beside some of its settings; a linear one has no `model`."""

SETTINGS = ("missing", "infinite", "missing_columns")


def served_of(model: Any) -> Served:
    """Return what scores rows of a model one by one in plain Python, over the weights of the model where they are.

    Raises
    ------
    ModelError
        A loss, the model or a kind of column is not streamsgd's.

    """
    check_ours(model)
    weights = np.ascontiguousarray(model.weights)
    return Served(json.loads(json.dumps(kept(model))), weights.ravel().data, weights.shape[1])


def check_ours(model: Any) -> None:
    """Refuse a model of parts that nobody else knows.

    Raises
    ------
    ModelError
        It is one.

    """
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


def kept(model: Any) -> dict[str, Any]:
    """Return what scoring needs of a model beside the weights, as JSON values."""
    header = model.header()
    kept = {"format": store.format_of(header), **{key: header[key] for key in KEPT if key in header}}
    kept |= {"score_map": header["score_map"]} if "score_map" in header else {}
    kept["settings"] = {key: model.settings[key] for key in SETTINGS if key in model.settings}
    return kept
