"""Reading a model file, all of which is checked before any of it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamsgd.errors import ModelError
from streamsgd.kernels.models.machines import compiled, rows_of, width_of
from streamsgd.model import store
from streamsgd.model.format import unfolded, unpacked
from streamsgd.model.further import read_further, split_further
from streamsgd.model.model import Model
from streamsgd.model.structure import read_structure
from streamsgd.model.validate import check_weights, read_loss, read_model_header, refuse
from streamsgd.settings.words import speaks_python

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import numpy as np

    from streamsgd.model.probability.score_map import ScoreMap


@speaks_python
def load(path: str | os.PathLike[str], *, loss: Any = None, column_kind: Any = (), model: Any = None) -> Model:
    """Read a model file. No code in it is run.

    Parameters
    ----------
    path
        Of the file.
    loss
        A loss that is not streamsgd's: itself, or where it is, package.module:Class, its fields being those of the model.
    column_kind
        Kinds of columns that are not streamsgd's: classes, or where they are, their fields being those of the model.
    model
        What makes a score of a row, if it is not streamsgd's: itself, or where it is.

    Raises
    ------
    ModelError
        There is no such file, it is damaged, or from a newer version; its loss or a kind of column is not streamsgd's and was
        not given, or is another one.
    SettingsError
        The loss or the kind cannot be imported.

    """
    header, arrays = store.unpack("model", store.read(path), str(path))
    return from_file(
        header, arrays, loss, str(path), (column_kind,) if isinstance(column_kind, str) else column_kind, structure=model
    )


def from_file(
    header: dict[str, Any],
    arrays: dict[str, np.ndarray],
    loss: Any = None,
    name: str = "the model",
    kinds: Sequence[Any] = (),
    *,
    structure: Any = None,
) -> Model:
    """Build a model from what a file held, all of which is checked before any of it is used.

    Raises
    ------
    ModelError
        The header or an array is none that `Model.save` writes, or too large for this machine; the loss is not one of
        streamsgd's and was not given, or is another one: loading a file imports no code by name.

    """
    found = read_model_header(header, name, kinds)
    part = read_loss(found, loss, name)
    n_outputs = int(getattr(part, "classes", 1))
    arrays, others = split_further(arrays)
    structure = read_structure(found, structure, name)
    n = found.encoding.n_coordinates
    try:
        form = compiled(structure, columns=found.encoding.n_places)
    except ValueError as error:
        refuse(name, "model", str(error))
    check_weights(arrays, (rows_of(form, n), width_of(form, n_outputs)), name)
    try:
        weights, covariance = unpacked(arrays), unfolded(arrays)
        further = read_further(others, n, n_outputs, len(found.target.classes), name)
    except MemoryError as error:
        raise ModelError(f"{name}: its {n:,} weights per output do not fit this machine") from error
    told = found.settings, found.metrics, found.provenance, {column: list(pairs) for column, pairs in found.common.items()}
    further |= {"structure": structure, "score_map": _score_map(found.score_map, part, name)}
    return Model(part, found.encoding, found.target, weights, *told, covariance, **further)


def _score_map(found: ScoreMap | None, loss: Any, name: str) -> ScoreMap | None:
    """Return what maps scores, which must rise, and be of a model of two classes."""
    if found is None:
        return None
    if fault := found.fault() or ("" if loss.task == "binary" else f"is of probabilities, and the loss is {loss.task}"):
        refuse(name, "score_map", fault)
    return found
