"""The target: what kind it is, its classes and its scale, decided by the first look."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamsgd.data.types import is_number
from streamsgd.errors import DataError, SettingsError
from streamsgd.features.arrow import as_double
from streamsgd.features.moments import Moments, check_moments
from streamsgd.features.target import Target, encode_target, exact_decimal
from streamsgd.settings.policies import policy_of

if TYPE_CHECKING:
    from streamsgd.features.sample import Sample


MOST_CLASSES = 10_000

MOST_UNREPEATED = 50
"""Classes of an average below two rows each that are still taken for classes, where the task is not set."""

TASK_LOSS = {"regression": "squared", "binary": "logistic", "multiclass": "softmax", "poisson": "poisson"}


def choose_target(look: Sample, name: str, task: str, *, constant: bool = False) -> Target:
    """Decide what kind of target this is, its classes, and its scale; `constant` is whether it need not vary.

    Raises
    ------
    DataError
        The target is constant, has no usable value, or does not fit the task.

    """
    kind, is_category = _values_of(look.dataset.schema.field(name).type)
    if look.settings.classes:
        return _classes(name, task, _given_classes(look, name, kind))
    if not is_number(kind):
        _check_text(name, kind, task)
    if (
        _is_text(kind)
        or task == "multiclass"
        or (is_category and task == "auto")
        or (pa.types.is_boolean(kind) and task in ("auto", "binary"))
    ):
        return _classes(name, task, discover(look, name), constant=constant)
    return _choose_by_value(look, name, task, constant=constant)


def _choose_by_value(look: Sample, name: str, task: str, *, constant: bool) -> Target:
    """Decide what a column of numbers is: two classes, counts, or a number to predict."""
    (kind, _), values = _values_of(look.dataset.schema.field(name).type), look.target_values(name)
    if task == "binary" or (task == "auto" and _is_two_valued(look, name, values)):
        both = _pair(values) in PAIRS and not pa.types.is_temporal(kind)
        return _classes(name, "binary", _in_type(_pair(values), kind) if both else discover(look, name), constant=constant)
    if not (constant and len(values)):
        _check_varies(look, name, values)
    if task == "poisson":
        return Target(name, "poisson")
    moments = Moments()
    moments.add(values)
    check_moments(moments, f"target {name!r}")
    if policy_of("scale", look.settings.scale) == "none":
        return Target(name, "regression")
    return Target(name, "regression", (), moments.mean, 1.0 / moments.deviation)


PAIRS = ({0.0, 1.0}, {-1.0, 1.0})
"""Numbers that are taken for two classes, if the target has no others."""


def _is_two_valued(look: Sample, name: str, values: np.ndarray) -> bool:
    """Whether all values of the target are 0 and 1, or -1 and 1: where the sample says so, the rest is asked."""
    unique = _pair(values)
    if not any(unique <= pair for pair in PAIRS):
        return False
    if look.sees_all((name,)):
        return True
    for column in look.scan(name):  # sorted by the target, a sample may miss all but the first values
        numbers = as_double(column)
        unique |= _pair(numbers[np.isfinite(numbers)])
        if not any(unique <= pair for pair in PAIRS):
            return False
    return True


def _pair(values: np.ndarray) -> set[float]:
    """Return the distinct values if they are one or two, without sorting them; NaN, which is no class, beside two of more."""
    if not len(values):
        return set()
    low, high = values.min(), values.max()
    others = () if ((values == low) | (values == high)).all() else (math.nan,)
    return {float(low) + 0.0, float(high) + 0.0, *others}  # -0 is 0


def _given_classes(look: Sample, name: str, kind: Any) -> tuple[Any, ...]:
    given = {_as_type(text, kind, name) for text in look.settings.classes}
    if len(given) < 2:
        raise SettingsError(f"--classes {look.settings.classes[0]}: one class leaves nothing to learn; give two or more")
    return tuple(sorted(given))


def _check_text(name: str, kind: Any, task: str) -> None:
    if not _is_text(kind):
        raise DataError(f"target {name!r} is of type {kind}; it must be a number, a boolean or a string")
    if task in ("regression", "poisson"):
        raise DataError(f"target {name!r} is of type {kind} but the task is {task}, which needs numbers")


NO_CLASSES = "cannot be classes; write them as strings or integers, or pass --task regression"
"""What is said of values that are neither."""


def discover(look: Sample, name: str) -> tuple[Any, ...]:
    """Return the sorted distinct values of the target, reading its column alone."""
    found: set[Any] = set()
    rows = 0
    for column in look.scan(name):
        rows += len(column)
        if pa.types.is_temporal(column.type) and column.null_count < len(column):  # Python has no value for nanoseconds
            raise DataError(f"target {name!r} holds values such as {_told(column.drop_null()[0])}, which {NO_CLASSES}")
        try:
            found.update(_plain(value, name) for value in pc.unique(_flat(column)).to_pylist() if not _is_missing(value))
        except UnicodeDecodeError as error:
            raise DataError(f"target {name!r} holds bytes that are not UTF-8 ({error}): write its classes as text") from error
        if len(found) > MOST_CLASSES:
            raise DataError(f"target {name!r} has more than {MOST_CLASSES:,} distinct values; {_or_a_number(found)}")
    if not found:
        look.check_rows(name)
    if look.settings.task == "auto" and len(found) > max(MOST_UNREPEATED, rows / 2):
        raise DataError(
            f"target {name!r} has {len(found):,} distinct values in {rows:,} rows, and classes come back; "
            f"{_or_a_number(found)}, or pass --task multiclass if it is a class all the same"
        )
    return tuple(sorted(found))


def _told(moment: Any) -> str:
    """Return a moment, or how long something took, in Arrow's words."""
    try:
        return str(moment.cast(pa.string()))
    except pa.ArrowException:
        return f"{moment.cast(pa.int64())} of type {moment.type}"


def _or_a_number(classes: set[Any]) -> str:
    written = any(isinstance(value, str) for value in classes)
    return "if it is a number to predict, " + ("write it as a number, not as text" if written else "pass --task regression")


def class_counts(look: Sample, target: Target) -> np.ndarray:
    """Return the rows of each class, float64 (n_classes,), held-out ones too, reading the target column alone."""
    counts = np.zeros(len(target.classes))
    for column in look.scan(target.name):
        y, usable = encode_target(target, column)
        if len(counts) == 2:  # without a copy of the column, and another one
            second = np.count_nonzero(y > 0.5)
            counts += (np.count_nonzero(usable) - second, second)
        else:
            counts += np.bincount(y[usable].astype(np.int64), minlength=len(counts))
    return counts


def _classes(name: str, task: str, classes: tuple[Any, ...], *, constant: bool = False) -> Target:
    odd = [value for value in classes if not isinstance(value, str | int | float)]
    if odd:
        raise DataError(f"target {name!r} holds values such as {odd[0]}, which {NO_CLASSES}")
    if not classes:
        raise DataError(f"target {name!r} has no usable value: every row is null or NaN")
    if len(classes) == 1 and constant and not isinstance(classes[0], str):
        classes = _with_other(classes[0])
    if len(classes) == 1 and not constant:
        raise DataError(f"target {name!r} is constant: every row is {classes[0]!r}, so there is nothing to learn")
    if task == "binary" and len(classes) > 2:
        shown = ", ".join(map(repr, classes[:5]))
        raise DataError(
            f"target {name!r} has {len(classes)} values ({shown} ...) but the task is binary; "
            "pass --task multiclass, or --filter the rows"
        )
    kind = "binary" if len(classes) <= 2 and task != "multiclass" else "multiclass"
    return Target(name, kind, classes)  # type: ignore[arg-type]


def _check_varies(look: Sample, name: str, values: np.ndarray) -> None:
    if len(values) and values.min() < values.max():
        return
    low, high = math.inf, -math.inf
    for column in look.scan(name):
        numbers = as_double(column)
        finite = numbers[np.isfinite(numbers)]
        if len(finite):
            low, high = min(low, finite.min()), max(high, finite.max())
            if low < high:
                return
    if low > high:
        look.check_rows(name)
        raise DataError(f"target {name!r} has no usable value: every row is null, NaN or infinite")
    beyond = ", as far as a float64 tells whole numbers beyond 2^53: subtract the least of them" if abs(low) > 1 << 53 else ""
    raise DataError(f"target {name!r} is constant: every row is {low:g}{beyond}, so there is nothing to learn")


def _with_other(value: Any) -> tuple[Any, ...]:
    """Return the pair of which a target that does not vary has one; itself if it is of none."""
    if isinstance(value, bool):
        return (False, True)
    pair = next((pair for pair in PAIRS if value in pair), {value})
    return tuple(sorted(type(value)(member) for member in pair))


def _in_type(values: set[float], kind: Any) -> tuple[Any, ...]:
    """Return the sorted values, whole where the column holds whole numbers."""
    return tuple(int(value) if pa.types.is_integer(kind) else value for value in sorted(values))


def _values_of(kind: Any) -> tuple[Any, bool]:
    """Return the type of a column's values, and whether its writer calls it a category."""
    return (kind.value_type, True) if pa.types.is_dictionary(kind) else (kind, False)


def _is_text(kind: Any) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _flat(column: Any) -> Any:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _plain(value: Any, name: str) -> Any:
    """Return a value of the target as one of a class: decimals are floats.

    Raises
    ------
    DataError
        A decimal has more digits than a float.

    """
    if not isinstance(value, Decimal):
        return value
    if exact_decimal(float(value)) != value:
        raise DataError(
            f"target {name!r} holds decimals such as {value}, of more digits than a float64 tells; write the classes as "
            "strings or integers"
        )
    return float(value)


def _is_missing(value: Any) -> bool:
    """Whether a value is no class: null, NaN, or infinite."""
    return value is None or (isinstance(value, float) and not math.isfinite(value))


TRUTHS = {"True": True, "False": False}
"""As Python writes them."""


def _as_type(text: str, kind: Any, name: str) -> Any:
    """Return a class that was given as text as a value of the target's type, where it has an equal one."""
    if _is_text(kind):
        _check_unicode(text)
        return text
    number = TRUTHS.get(text, text)
    try:
        if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
            return _whole(number, kind)
        if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            value = _plain(Decimal(number), name) if pa.types.is_decimal(kind) else float(number)
            exact = math.isfinite(value) and not (pa.types.is_float32(kind) and float(np.float32(value)) != value)
            return value if exact else _none()
        return pa.scalar(text).cast(kind).as_py()
    except (ValueError, ArithmeticError, DataError, pa.ArrowException):
        raise SettingsError(f"--classes {text!r} is not a value of target {name!r}, whose type is {kind}") from None


def _whole(number: Any, kind: Any) -> Any:
    """Return a class of integers or booleans, be it written as one of these or as a whole float."""
    if pa.types.is_boolean(kind) and str(number).lower() in ("true", "false"):
        return str(number).lower() == "true"
    exact = Decimal(number)
    if exact != exact.to_integral_value():
        _none()
    if pa.types.is_boolean(kind):
        return bool(int(exact)) if exact in (0, 1) else _none()
    return pa.scalar(int(exact), kind).as_py()


def _none() -> NoReturn:
    raise ValueError


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise SettingsError(f"--classes: {text!a} is text that is no Unicode, which no column holds") from None
