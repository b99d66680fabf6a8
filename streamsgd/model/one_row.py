"""One row as a dict, scored as `streamsgd.serving` does, in tens of microseconds: a table of one row takes milliseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamsgd.errors import DataError, ModelError
from streamsgd.model.labels import label_array
from streamsgd.model.served import served_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamsgd.serving.served import Served

LISTS = ("list", "map", "vector")
"""What columns mean whose one value has a length, too."""


class ServedModel(NamedTuple):
    """What serves a model, and the weights that it was made of."""

    served: Served | None
    """None where it cannot be: parts of one's own, which serving does not run."""
    of: np.ndarray
    """The array, which serving reads where it is ..."""
    taken: bytes
    """... and what of it was looked up already, so that weights that were changed since are noticed."""
    lists: frozenset[str]
    """Columns of lists, maps and vectors."""
    single: frozenset[str]
    """The other columns."""


class OneRow:
    """What a model does with a row that is a dict. Lists of rows, and dicts of columns, are tables."""

    _serves: ServedModel | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what is made anew."""
        return {name: value for name, value in vars(self).items() if name != "_serves"}

    def _served(self, method: str, row: Any) -> np.ndarray | None:
        """Return what serving says of a row, as of a table of one row; None for what is to be scored, or refused, as a table.

        Parameters
        ----------
        method
            Of `Served`: predict, predict_proba or decision_function.
        row
            Whatever is to be scored.

        """
        if type(row) is not dict:
            return None
        model: Any = self
        known = serving_of(model)
        if known.served is None or not is_row(row, known):
            return None
        try:
            found = getattr(known.served, method)(row)
        except (DataError, ModelError):
            return None
        if method == "predict" and model.classes:
            return label_array(model.classes)[[model.classes.index(found)]]
        return np.array([found], np.float64 if model.target.task == "regression" else model.weights.dtype)

    def _as_rows(self, data: Any) -> Any:
        """Return a dict that is one row in a list, and what else is given as it is."""
        return [data] if type(data) is dict and is_row(data, serving_of(self)) else data


def is_row(data: Mapping[str, Any], known: ServedModel) -> bool:
    """Whether a dict is one row of a model's columns.

    What has no length says so, in columns of single values; of lists alone a list of lists is a column.
    """
    single = [_is_listed(data[name]) for name in known.single if name in data]
    if single:
        return not any(single)
    return bool(data) and not any(_is_column(data[name]) for name in known.lists if name in data)


def serving_of(model: Any) -> ServedModel:
    """Return what serves a model, made anew where its weights are others by now."""
    known: ServedModel | None = model._serves  # noqa: SLF001  of `OneRow`, whose function this is
    taken = _taken(model)
    if known is None or known.of is not model.weights or known.taken != taken:
        lists = frozenset(column.name for column in model.encoding.types if column.means in LISTS)
        single = frozenset(column.name for column in model.encoding.types) - lists
        known = ServedModel(_served(model), model.weights, taken, lists, single)
        model._serves = known  # noqa: SLF001  the same
    return known


def _served(model: Any) -> Served | None:
    try:
        return served_of(model)
    except ModelError:
        return None


def _taken(model: Any) -> bytes:
    """Return the weights that are looked up before any row is seen: all but those of the hashed space."""
    hashed, weights = model.encoding.hashed, model.weights
    first = len(weights) if hashed is None else hashed.first
    last = model.encoding.n_coordinates - 1
    return bytes(weights[:first].data) + bytes(weights[last:].data) if weights.flags.c_contiguous else weights.tobytes()


def _is_listed(value: Any) -> bool:
    return (
        hasattr(value, "__len__")
        and not isinstance(value, str | bytes | bytearray | memoryview | dict)
        and getattr(value, "ndim", 1) != 0
    )


def _is_column(value: Any) -> bool:
    """Whether a value of a column of lists is a list of those."""
    return _is_listed(value) and any(hasattr(item, "__len__") and not isinstance(item, str | bytes | tuple) for item in value)
