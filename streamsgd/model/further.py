"""What a model file may hold beside weights: an optimizer's memory, draws from a posterior, a calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamsgd.model.memory import memory_arrays, read_memory, split_memory
from streamsgd.model.posterior.draws import draws_arrays, read_draws, split_draws
from streamsgd.model.probability.sketch import read_sketch, read_spread, sketch_arrays, split_sketch

if TYPE_CHECKING:
    import numpy as np

Parts = tuple[dict[str, "np.ndarray"], ...]


def further_arrays(model: Any) -> dict[str, np.ndarray]:
    """Return the arrays of a model file."""
    return {**memory_arrays(model.memory), **draws_arrays(model.draws), **sketch_arrays(model.conformal, model.spread)}


def split_further(arrays: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], Parts]:
    """Return the arrays of a model file without these, and these, by kind."""
    arrays, remembered = split_memory(arrays)
    arrays, drawn = split_draws(arrays)
    arrays, scored = split_sketch(arrays)
    return arrays, (remembered, drawn, scored)


def read_further(parts: Parts, n_coordinates: int, n_outputs: int, n_classes: int, name: str) -> dict[str, Any]:
    """Return fields of a model from what `split_further` gave, all of which is checked.

    Raises
    ------
    ModelError
        It is none of ours; the message names the file and the array.

    """
    remembered, drawn, scored = parts
    scored, spread = read_spread(scored, n_coordinates, name)
    return {
        "memory": read_memory(remembered, n_coordinates * n_outputs, name),
        "draws": read_draws(drawn, n_coordinates * n_outputs, name),
        "conformal": read_sketch(scored, n_classes, name),
        "spread": spread,
    }
