"""The target and the weight of rows: columns as numbers, checked."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamsgd.data.types import is_text
from streamsgd.errors import DataError
from streamsgd.features.arrow import as_double
from streamsgd.messages import few
from streamsgd.planning.sums import dot


def target_sums(n_classes: int, y: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    """Sum the targets of some rows.

    Parameters
    ----------
    n_classes
        Classes of the target, 0 for a number.
    y
        float64 (n_rows,): the number as it is learned, or the index of the class.
    weight
        float64 (n_rows,), or None for 1.

    """
    total = float(len(y)) if weight is None else float(weight.sum())
    if n_classes == 2:
        second = float(y.sum() if weight is None else dot(y, weight))
        return np.array([total - second, second])
    if n_classes:
        return np.bincount(y.astype(np.int64), weight, minlength=n_classes).astype(np.float64)
    if total <= 0.0:
        return np.zeros(3)
    mean = float(y.sum() if weight is None else dot(y, weight)) / total
    away = y - mean
    return np.array([total, mean, dot(away, away if weight is None else away * weight)])


def join_target_sums(a: np.ndarray, b: np.ndarray, n_classes: int) -> np.ndarray:
    """Return the sums of the rows of both."""
    if n_classes:
        return np.array(a + b)
    total = a[0] + b[0]
    if total <= 0.0:
        return a
    step, share = b[1] - a[1], b[0] / total
    return np.array([total, a[1] + step * share, a[2] + b[2] + step * step * a[0] * share])


class Target(msgspec.Struct, frozen=True):
    """What is predicted."""

    name: str
    task: Literal["regression", "binary", "multiclass", "poisson"]
    classes: tuple[str | int | float | bool, ...] = ()
    """Sorted; for a binary target the second is the positive one."""
    shift: float = 0.0
    scale: float = 1.0
    """A regression target is learned as (y - shift) * scale and predicted in its own units."""

    @property
    def of_text(self) -> bool:
        """Whether its classes are strings."""
        return bool(self.classes) and isinstance(self.classes[0], str)


def encode_target(target: Target, column: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the targets as float64 (n,) and which of them are usable, bool (n,)."""
    if target.classes:
        return _class_index(target, column)
    y = as_double(column)
    usable = np.isfinite(y)
    with np.errstate(invalid="ignore"):
        if target.task == "poisson":
            usable &= (y >= 0) & (np.floor(y) == y)
        return (y - target.shift) * target.scale, usable


def _class_index(target: Target, column: Any) -> tuple[np.ndarray, np.ndarray]:
    if target.of_text:
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        values = column.cast(pa.string())
        index = pc.fill_null(pc.index_in(values, value_set=pa.array(target.classes, pa.string())), -1)
        found = index.to_numpy(zero_copy_only=False)
        return found.astype(np.float64), found >= 0
    if _needs_exact(target.classes, column.type):
        return _exact_index(target, column)
    if is_text(column.type):
        raise DataError(f"target {target.name!r} is strings, but the classes are numbers: {few(target.classes)}")
    y = as_double(column)
    classes = np.array(target.classes, np.float64)
    if len(classes) == 2:
        second = y == classes[1]
        return second.astype(np.float64), second | (y == classes[0])
    found = np.searchsorted(classes, y).clip(0, len(classes) - 1)
    return found.astype(np.float64), classes[found] == y


EXACT = 1 << 53
"""Whole numbers up to here are told apart by a float64."""

EXACT_DIGITS = 15
"""Digits of decimals that come to different float64 where they differ."""


def _needs_exact(classes: tuple[Any, ...], kind: Any) -> bool:
    """Whether a value of this type could be the same float64 as a class without being it."""
    if pa.types.is_decimal(kind) and kind.precision > EXACT_DIGITS:
        return True
    return any(abs(value) >= EXACT for value in classes)


def _exact_index(target: Target, column: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of each row's class by values that are equal as they are, and which rows have one.

    Raises
    ------
    DataError
        The column holds floats that stand for several whole numbers each, and the classes are such numbers.

    """
    kind, classes = column.type, target.classes
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not (pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
        column = pa.array(as_double(column) + 0.0)  # -0 is 0
        _check_tells(target, column)
        kind = column.type
    known = [(k, value) for k, each in enumerate(classes) if (value := _as_value(each, kind)) is not None]
    values = pa.array([value for _, value in known], kind)
    place = np.array([*(k for k, _ in known), -1])
    found = place[np.asarray(pc.fill_null(pc.index_in(column, value_set=values), len(known)))]
    return found.astype(np.float64), found >= 0


def _check_tells(target: Target, numbers: Any) -> None:
    if isinstance(target.classes[0], float):
        return
    large = pc.fill_null(pc.greater_equal(pc.abs(numbers), float(EXACT)), False)
    if large.true_count:
        raise DataError(
            f"target {target.name!r} is of floats here, {pc.sum(large).as_py():,} of them from 2^53 on, where one float stands "
            f"for several whole numbers, such as {numbers.filter(large)[0].as_py():.17g}; its classes are whole numbers as "
            "large: write it as integers"
        )


def exact_decimal(value: float) -> Decimal:
    """Return the decimal that a float stands for among classes: of a whole one its value, of others the shortest."""
    return Decimal(value) if value.is_integer() else Decimal(repr(value))


def _as_value(value: Any, kind: Any) -> Any:
    """Return a number as a value of an Arrow type of numbers, None where it has no equal one."""
    try:
        exact = exact_decimal(value) if isinstance(value, float) else Decimal(int(value))
        if pa.types.is_integer(kind):
            return pa.scalar(int(exact), kind).as_py() if exact == exact.to_integral_value() else None
        if pa.types.is_decimal(kind):
            return pa.scalar(exact, kind).as_py()
    except (ArithmeticError, ValueError, pa.ArrowException):
        return None
    return float(value) + 0.0 if float(value) == value else None


def check_weight(name: str, kind: Any) -> None:
    """Refuse a column of weights that are no numbers.

    Raises
    ------
    DataError
        It is of another type.

    """
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not any(test(kind) for test in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)):
        raise DataError(f"weight column {name!r} is of type {kind}; weights must be numbers")


def is_labelled(target: Target, column: Any) -> np.ndarray:
    """Return which rows have a value of the target at all, bool (n,), be it a class or not."""
    if target.of_text:
        labelled: np.ndarray = np.asarray(column.is_valid())
        return labelled
    numbered: np.ndarray = ~np.isnan(as_double(column))
    return numbered


MOST_WEIGHT = 1e12
"""Squares of gradients, and sums of those over rows, are finite in float32 up to here."""


def encode_weight(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return row weights as float64 (n,) and which of them are from 0 to `MOST_WEIGHT`."""
    weight = as_double(column)
    with np.errstate(invalid="ignore"):
        return weight, (weight >= 0) & (weight <= MOST_WEIGHT)


def reweighed(
    y: np.ndarray | None,
    weight: np.ndarray | None,
    held: np.ndarray,
    classes: tuple[float, ...],
    held_classes: tuple[float, ...],
) -> np.ndarray | None:
    """Return row weights times those of classes, of rows to learn from and of rows held out; None where no row brings one.

    What is no class, and is left out, gets any.
    """
    if y is None or not (classes or held_classes):
        return weight
    if set(classes + held_classes) == {1.0}:
        return np.ones(len(y)) if weight is None else weight
    ones = (1.0,) * max(len(classes), len(held_classes))
    index = np.clip(y, 0, len(ones) - 1).astype(np.int64)
    factor = np.where(held, np.array(held_classes or ones)[index], np.array(classes or ones)[index])
    product: np.ndarray = factor if weight is None else weight * factor
    return product


def describe_bad_target(target: Target) -> str:
    """Return what a usable value of this target is."""
    if target.task == "poisson":
        return "counts must be whole numbers of at least 0"
    if target.classes:
        return f"the classes are {', '.join(map(repr, target.classes[:10]))}"
    return "it must be a finite number"
