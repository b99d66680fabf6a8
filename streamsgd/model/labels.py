"""Labels of classes as arrays of NumPy and Arrow, each equal to the value of the data that it stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamsgd.model.predictor import Predictor

INT64 = np.iinfo(np.int64)

LONGEST = 256
"""Characters of labels up to which each has the room of the longest, four bytes a character."""


def label_array(classes: Sequence[Any]) -> np.ndarray:
    """Return classes as an array of their own type.

    Strings are objects where an array of fixed width would not give them back (it drops NULs at their end) or be much larger.
    """
    if classes and isinstance(classes[0], str):
        fixed = not any(text.endswith("\0") for text in classes) and max(map(len, classes)) <= LONGEST
        return np.array(classes, np.str_ if fixed else np.object_)
    return np.array(classes, np.uint64 if _is_unsigned(classes) else None)


def label_type(classes: Sequence[Any]) -> Any:
    """Return the Arrow type of labels."""
    if classes and isinstance(classes[0], str):
        return pa.string()
    return pa.from_numpy_dtype(label_array(classes).dtype)


def decided(model: Predictor, means: np.ndarray) -> Any:
    """Return what a model predicts of means in units of the target, as an Arrow array."""
    return pa.array(model.decide(means), label_type(model.classes) if model.classes else None)


def _is_unsigned(classes: Sequence[Any]) -> bool:
    """Whether classes are integers of which one is beyond int64: NumPy would make doubles of such."""
    whole = all(type(value) is int for value in classes)
    return whole and max(classes, default=0) > INT64.max and min(classes) >= 0
