"""The columns of a scored file that say what a model predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from streamsgd.model.predictor import Predictor

RESERVED = ("prediction", "probability", "score")
"""Names that no column of ids may have, beside those of classes."""


def prediction_columns(model: Predictor, scores: np.ndarray, means: np.ndarray) -> dict[str, Any]:
    """Return the columns of scores and means (n, n_outputs), in units of the target."""
    columns = {"prediction": pa.array(model.decide(means))}
    if model.has_probabilities and model.n_outputs == 1:
        columns["probability"] = pa.array(means[:, 0])
    elif model.has_probabilities:
        columns |= {f"probability_{c}": pa.array(means[:, k]) for k, c in enumerate(model.classes)}
    elif model.classes:
        columns["score"] = pa.array(scores[:, 0])
    return columns


def prediction_fields(model: Predictor) -> list[Any]:
    """Return the fields of these columns."""
    empty = np.zeros((0, model.n_outputs), model.weights.dtype)
    floats = pa.from_numpy_dtype(model.in_target_units(empty).dtype)
    fields = [pa.field("prediction", pa.array(np.array(model.classes)).type if model.classes else floats)]
    if model.has_probabilities and model.n_outputs == 1:
        fields.append(pa.field("probability", floats))
    elif model.has_probabilities:
        fields += [pa.field(f"probability_{c}", floats) for c in model.classes]
    elif model.classes:
        fields.append(pa.field("score", floats))
    return fields
