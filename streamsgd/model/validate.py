"""Whether a file's header and arrays are what the code behind them takes for granted: types, ranges, shapes, dtypes.

A checksum says that a file is as it was written, not who wrote it. Kernels trust shapes and coordinates, and a page of `show`
trusts types; so everything that is read from a model or a checkpoint passes here first, and is refused by file and field.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, NoReturn, TypeVar

import msgspec
import numpy as np

from streamsgd.errors import ModelError, SettingsError
from streamsgd.features.encoding import Encoding
from streamsgd.features.faults import encoding_faults, target_faults
from streamsgd.features.target import Target
from streamsgd.model.probability.score_map import ScoreMap
from streamsgd.settings.fields import Settings
from streamsgd.settings.registry import PARTS, make

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

T = TypeVar("T")

DEEPEST = 64
"""Lists and objects within each other in a header."""

INT64, UINT64 = np.iinfo(np.int64), np.iinfo(np.uint64)

CLASS = re.compile(r"\.classes\[\d+\]$")
"""Where a whole number may be unsigned: a class of the target."""

FLOATS = ("float32", "float64")
"""Types of weights."""


class ArraySpec(NamedTuple):
    """What an array must be."""

    dtypes: tuple[str, ...]
    shape: tuple[int | None, ...]
    """None for any length."""


class PartHeader(msgspec.Struct):
    """The loss of a model file, or what makes a score of a row."""

    name: str
    fields: dict[str, bool | int | float | str]


class RaceHeader(msgspec.Struct):
    """What a race came to, as `show` prints it."""

    rates: list[float]
    losses: list[float]
    rows: int
    mixture: float


class Ancestor(msgspec.Struct):
    """A run that a model went on from, as `show --lineage` prints it."""

    fingerprint: str
    files: int | None = None
    rows: int | None = None
    rows_learned: int | None = None
    epochs: int | None = None
    data: str = ""
    version: str = ""
    filter: str | None = None


class Piloted(msgspec.Struct):
    """What size of batches a pilot was asked for, and found."""

    asked: str = ""
    chosen: Annotated[int, msgspec.Meta(ge=1)] = 1


class Origin(msgspec.Struct):
    """What a model was trained on, as `show` prints it and as a run goes on from it; what else there is may be anything."""

    files: int
    rows: int
    chunk_rows: int
    epochs: int
    steps: int
    parts: dict[str, str]
    counts: dict[str, int]
    race: dict[str, Any] | None = None
    rows_learned: int | None = None
    fingerprint: str = ""
    data: str = ""
    version: str = ""
    order: dict[str, Any] | None = None
    pilot: Piloted | None = None
    left_out: list[str] = []
    lineage: list[Ancestor] = []
    class_weights: list[float] = []
    log_odds: float = 0.0


class Judged(msgspec.Struct):
    """What rows judged that were not learned, as it is said of a model in a line."""

    loss: float | None = None
    log_loss: float | None = None
    rmse: float | None = None


class MetricsHeader(msgspec.Struct):
    """What a model came to, as cards and reports have it; what else there is may be anything."""

    progressive_loss: float | None = None
    training_loss: float | None = None
    best_constant_loss: float | None = None
    valid: Judged | None = None
    held_out: Judged | None = None
    noise: dict[str, Any] | None = None
    noisy: dict[str, Any] | None = None


class ModelHeader(msgspec.Struct):
    """Everything of a model file but its arrays."""

    loss: PartHeader
    encoding: Encoding
    target: Target
    settings: dict[str, Any]
    metrics: dict[str, Any]
    provenance: dict[str, Any]
    common: dict[str, list[tuple[str, int]]] = {}
    model: PartHeader | None = None
    """What makes a score of a row; None where it is a sum of weights."""
    score_map: ScoreMap | None = None
    """What makes log-odds of scores; None where they are."""


def refuse(name: str, field: str, what: str) -> NoReturn:
    """Raise the error of a field that no file of ours has."""
    raise ModelError(
        f"{name}: {field} {what}; the file is not as streamsgd writes it: restore it from a copy, or train the model again"
    )


def converted(value: Any, kind: type[T], name: str, field: str) -> T:
    """Return a JSON value as a type of ours.

    Raises
    ------
    ModelError
        It is of another; the message names the file and the field.

    """
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, OverflowError, RecursionError) as error:
        text, _, place = str(error).partition(" - at `$")
        inner = place.rstrip("`")
        refuse(name, f"{field}{inner}".lstrip("."), f"is wrong: {text[:1].lower()}{text[1:]}")


def check_values(header: Any, name: str) -> None:
    """Refuse text that is no Unicode, whole numbers beyond 64 bits, and what is nested too deep.

    Raises
    ------
    ModelError
        There is some.

    """
    waiting: list[tuple[Any, str, int]] = [(header, "", 0)]
    while waiting:
        value, field, depth = waiting.pop()
        if depth > DEEPEST:
            refuse(name, field.lstrip("."), f"is nested deeper than {DEEPEST} levels")
        if isinstance(value, dict):
            for key, member in value.items():
                _check_text(key, name, field)
                waiting.append((member, f"{field}.{key}", depth + 1))
        elif isinstance(value, list):
            waiting += [(member, f"{field}[{k}]", depth + 1) for k, member in enumerate(value)]
        elif isinstance(value, str):
            _check_text(value, name, field)
        elif type(value) is int and not INT64.min <= value <= (UINT64.max if CLASS.search(field) else INT64.max):
            refuse(name, field.lstrip("."), "is a whole number of more than 64 bits")


def _check_text(text: str, name: str, field: str) -> None:
    if re.search(r"[\ud800-\udfff]", text):
        refuse(name, field.lstrip("."), f"is text that is no Unicode: {text[:40]!a}")


def check_arrays(arrays: Mapping[str, np.ndarray], wanted: Mapping[str, ArraySpec], name: str) -> None:
    """Refuse arrays that are missing, of another type or shape than wanted, or that nobody wants.

    Raises
    ------
    ModelError
        There is one; the message names the file and the array.

    """
    for key in arrays:
        if key not in wanted:
            refuse(name, f"array {key!r}", "is none that belongs there")
    for key, spec in wanted.items():
        if key not in arrays:
            refuse(name, f"array {key!r}", "is missing")
        found = arrays[key]
        if str(found.dtype) not in spec.dtypes:
            refuse(name, f"array {key!r}", f"is of type {found.dtype}, not {' or '.join(spec.dtypes)}")
        fits = len(found.shape) == len(spec.shape) and all(
            want is None or have == want for have, want in zip(found.shape, spec.shape, strict=True)
        )
        if not fits:
            shape = ", ".join("any" if n is None else str(n) for n in spec.shape)
            refuse(name, f"array {key!r}", f"is of shape {found.shape}, not ({shape}) as its header says")


def spec_like(array: np.ndarray) -> ArraySpec:
    """Return what an array must be to take the place of another."""
    return ArraySpec((str(array.dtype),), array.shape)


def read_encoding(value: Any, name: str, kinds: Sequence[Any] = ()) -> Encoding:
    """Return a header's encoding, with the kinds of one's own that it names.

    Raises
    ------
    ModelError
        It is none that training makes, or a kind was not given.

    """
    return _sound_encoding(converted(value, Encoding, name, "encoding").with_kinds(kinds), name)


def _sound_encoding(encoding: Encoding, name: str) -> Encoding:
    for field, what in encoding_faults(encoding):
        refuse(name, f"encoding.{field}", what)
    return encoding


def read_target(value: Any, name: str) -> Target:
    """Return a header's target.

    Raises
    ------
    ModelError
        It is none that training makes.

    """
    return _sound_target(converted(value, Target, name, "target"), name)


def _sound_target(target: Target, name: str) -> Target:
    for field, what in target_faults(target):
        refuse(name, f"target.{field}", what)
    return target


def read_model_header(header: dict[str, Any], name: str, kinds: Sequence[Any] = ()) -> ModelHeader:
    """Return a model's header with its parts checked; `kinds` are the given kinds of columns that are not streamsgd's.

    Raises
    ------
    ModelError
        A field is missing, of another type, or out of range, or a kind of column was not given.

    """
    check_values(header, name)
    found = converted(header, ModelHeader, name, "")
    found.encoding = _sound_encoding(found.encoding.with_kinds(kinds), name)
    _sound_target(found.target, name)
    _check_settings(found.settings, name)
    converted(found.metrics, MetricsHeader, name, "metrics")
    if found.provenance:
        origin = converted(found.provenance, Origin, name, "provenance")
        if "batch_size" not in found.settings:
            refuse(name, "settings.batch_size", "is missing")
        race = converted(origin.race, RaceHeader, name, "provenance.race") if origin.race else None
        if race and len(race.rates) != len(race.losses):
            refuse(name, "provenance.race.losses", f"are {len(race.losses)} of {len(race.rates)} rates")
    return found


def _check_settings(settings: dict[str, Any], name: str) -> None:
    """Refuse values that no setting takes; a setting of another version is left alone."""
    known = {key: value for key, value in settings.items() if key in Settings.__struct_fields__}
    converted({"target": "", **known}, Settings, name, "settings")


def read_loss(found: ModelHeader, given: Any, name: str) -> Any:
    """Return the loss of a model, which must be one of streamsgd's or given.

    Raises
    ------
    ModelError
        It is not, or its fields or its task do not fit the model.
    SettingsError
        The given one cannot be imported.

    """
    wanted, fields = found.loss.name, found.loss.fields
    if given in (None, "auto"):
        if wanted not in PARTS["loss"]:
            raise ModelError(
                f"the model was trained with the loss {wanted}, which is not streamsgd's, and no file makes us import code: "
                f"say where it is with --loss {wanted}, or load(path, loss=...)"
            )
        loss = _made(wanted, fields, name)
    elif not isinstance(given, str):
        loss = given
    elif loss_name(make("loss", given)) != wanted:
        raise ModelError(f"the model was trained with the loss {wanted}, not with {given}: pass --loss {wanted}")
    else:
        loss = _made(given, fields, name)
    _check_task(loss, found.target, name)
    return loss


def _made(spec: str, fields: dict[str, Any], name: str) -> Any:
    try:
        loss = make("loss", spec, **fields)
    except (SettingsError, OverflowError) as error:
        refuse(name, "loss.fields", f"are wrong: {error}")
    if not all(math.isfinite(value) for value in loss if isinstance(value, int | float)):
        refuse(name, "loss.fields", "are not all finite")
    return loss


def _check_task(loss: Any, target: Target, name: str) -> None:
    """Refuse a loss of another kind of target, whose kernel would leave scores unwritten or write beyond them."""
    task = {"margin": "binary"}.get(loss.task, loss.task)
    if task != target.task:
        refuse(name, "loss", f"is for a {loss.task} target, but the target is {target.task}")
    classes = len(target.classes) if task == "multiclass" else 1
    if getattr(loss, "classes", 1) != classes:
        refuse(name, "loss.fields.classes", f"is {getattr(loss, 'classes', 1)}, but the target has {classes} classes")


def loss_name(loss: Any) -> str:
    """Return how a file names a loss: as the registry does, or by module and class."""
    names = {cls: name for name, cls in PARTS["loss"].items()}
    return names.get(type(loss), f"{type(loss).__module__}:{type(loss).__qualname__}")


def check_weights(arrays: Mapping[str, np.ndarray], shape: tuple[int, int], name: str) -> None:
    """Refuse arrays that are not weights of this shape, whole or those that are not zero, with or without covariance.

    Raises
    ------
    ModelError
        They are not; the message names the file and the array.

    """
    n, n_outputs = shape
    wanted = {"weights": ArraySpec(FLOATS, shape)}
    if "used" in arrays:
        used = {"used": ArraySpec(("int64",), (None,)), "shape": ArraySpec(("int64",), (2,))}
        wanted = {**used, "used_weights": ArraySpec(FLOATS, (len(arrays["used"]) if arrays["used"].ndim else None, n_outputs))}
    if "covariance" in arrays:
        size = n * n_outputs
        wanted["covariance"] = ArraySpec(("float64",), (size * (size + 1) // 2,))
    check_arrays(arrays, wanted, name)
    if "used" in arrays:
        _check_used(arrays["used"], arrays["shape"], (n, n_outputs), name)
    for key in ("weights", "used_weights"):
        if key in arrays and not np.isfinite(arrays[key]).all():
            refuse(name, f"array {key!r}", "holds what is no finite number")


def _check_used(used: np.ndarray, shape: np.ndarray, wanted: tuple[int, int], name: str) -> None:
    if tuple(shape.tolist()) != wanted:
        refuse(name, "array 'shape'", f"is {tuple(shape.tolist())}, not {wanted} as its header says")
    if len(used) and not (used[0] >= 0 and used[-1] < wanted[0] and (np.diff(used) > 0).all()):
        refuse(name, "array 'used'", f"is not ascending within 0 and {wanted[0]:,}")
