"""What an optimizer remembers, kept in a model file so that a later run can go on from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamsgd.model.format import packed, unpacked
from streamsgd.model.validate import FLOATS, ArraySpec, check_arrays, refuse

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "memory."
"""Of the arrays in a file."""


class Memory(NamedTuple):
    """The state of a learner between two runs: no batch is under way."""

    cells: np.ndarray
    """float32 or float64 (n_weights, 1 + n_memories): weights as they are learned, and what is kept of each."""
    sums: np.ndarray
    """float64, as of `kernels.structs.state.State`."""
    steps: np.ndarray
    """int64 (1,): updates done."""
    paid: np.ndarray
    """float64 (n_weights,), or empty."""


def memory_arrays(memory: Memory | None) -> dict[str, np.ndarray]:
    """Return the arrays of a model file."""
    if memory is None:
        return {}
    found = {**packed(memory.cells), "sums": memory.sums, "steps": memory.steps, "paid": memory.paid}
    return {f"{PREFIX}{key}": np.ascontiguousarray(array) for key, array in found.items()}


def split_memory(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the arrays of a model file without those of the memory, and those."""
    rest = {key: array for key, array in arrays.items() if not key.startswith(PREFIX)}
    return rest, {key.removeprefix(PREFIX): array for key, array in arrays.items() if key.startswith(PREFIX)}


def read_memory(arrays: dict[str, np.ndarray], n_weights: int, name: str) -> Memory | None:
    """Return the memory of so many weights from the arrays of a file, all of which are checked.

    Raises
    ------
    ModelError
        They are no memory of ours; the message names the file and the array.

    """
    if not arrays:
        return None
    n_used = len(arrays["used"]) if "used" in arrays and arrays["used"].ndim else None
    whole = {"weights": ArraySpec(FLOATS, (n_weights, None))}
    some = {
        "used": ArraySpec(("int64",), (None,)),
        "shape": ArraySpec(("int64",), (2,)),
        "used_weights": ArraySpec(FLOATS, (n_used, None)),
    }
    paid = n_weights if "paid" in arrays and arrays["paid"].size else 0
    others = {
        "sums": ArraySpec(("float64",), (5,)),
        "steps": ArraySpec(("int64",), (1,)),
        "paid": ArraySpec(("float64",), (paid,)),
    }
    check_arrays(arrays, {**(some if "used" in arrays else whole), **others}, name)
    if "used" in arrays:
        used, shape = arrays["used"], arrays["shape"]
        ascending = bool((np.diff(used) > 0).all()) and (not len(used) or (used[0] >= 0 and used[-1] < n_weights))
        if not ascending or shape.tolist() != [n_weights, arrays["used_weights"].shape[1]]:
            refuse(name, f"array {PREFIX}used", "does not fit the weights")
    return Memory(unpacked(arrays), arrays["sums"], arrays["steps"], arrays["paid"])
