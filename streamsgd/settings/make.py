"""Settings from keywords, checked."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from streamsgd.errors import SettingsError
from streamsgd.messages import nearest, parse_memory
from streamsgd.portable import PORTABLE, is_portable
from streamsgd.redact import hide, remember
from streamsgd.settings.arguments import shown
from streamsgd.settings.describe import describe
from streamsgd.settings.fields import Settings
from streamsgd.settings.needs import check_needs
from streamsgd.settings.policies import POLICIES, check_policies, sentinels_of, split_kind
from streamsgd.settings.scalars import number_in
from streamsgd.settings.scope import RUN_ONLY, SAMPLING

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.settings.describe import Setting


def make_settings(values: Mapping[str, Any], origins: Mapping[str, str] | None = None) -> Settings:
    """Check values of any origin (flags and variables are text) and fill in the defaults.

    Parameters
    ----------
    values
        By field of `Settings`; None counts as not given.
    origins
        Where each value came from, for messages, as of `gather`.

    Raises
    ------
    SettingsError
        A key is unknown (naming the nearest one) or a value is out of range.

    """
    known = Settings.__struct_fields__
    for value in values.values():
        if isinstance(value, str):
            remember(value)
    for key in values:
        if key not in known:
            raise SettingsError(f"unknown setting {key!r}{nearest(key, known)}")
    kinds = {setting.name: setting for setting in describe()}
    given = {key: _plain(value, kinds[key]) for key, value in values.items() if value is not None}
    try:
        settings = msgspec.convert(given, Settings, strict=False)
    except msgspec.ValidationError as error:
        if "missing required field" in str(error):
            raise SettingsError("no target: say which column to predict with --target") from None
        place = re.search(r"at `\$\.(\w+)", str(error))
        raise SettingsError(_refusal(place[1], values, origins or {}) if place else str(error)) from None
    for name in given:
        value = getattr(settings, name)
        if isinstance(value, float) and not math.isfinite(value):
            said = (origins or {}).get(name, kinds[name].flag)
            raise SettingsError(f"{said}: {shown(values[name])} is not a number that is finite")
    _check_words(settings, origins or {})
    if settings.cpu == "portable" and not is_portable(os.environ):
        raise SettingsError(
            "--cpu portable must be known before NumPy and Numba are loaded: start Python with "
            + " ".join(f"{key}={value!r}" for key, value in PORTABLE.items())
            + " in its environment, or use the command line, on an x86-64 machine"
        )
    _check_pairs(settings)
    return settings


WORDS: dict[str, dict[str, Any]] = {"validation": {"none": 0.0}, "polish": {"none": 0, "auto": None}}
"""Words for values of settings that are numbers."""


def _plain(value: Any, setting: Setting) -> Any:
    """Return a value as plain Python: scalars of NumPy, Arrow and pandas, paths, and numbers where text is wanted."""
    if setting.is_list:
        items = _pairs(value, setting) if isinstance(value, Mapping) else _items(value)
        return [_text(item, setting.name) for item in items]
    plain = getattr(value, "as_py", None) or (getattr(value, "item", None) if getattr(value, "ndim", None) == 0 else None)
    value = value if plain is None else plain()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if setting.name == "start" and hasattr(value, "partial_fit"):
        raise SettingsError(
            "start= is the path of a saved model; a model in memory learns on with model.partial_fit(table), or "
            "streamsgd.Trainer.of(model) table by table"
        )
    if setting.name == "valid" and not isinstance(value, str):
        raise SettingsError(
            f"valid={shown(value)} is no path of Parquet: of tables, hold rows out by validation=, a share or a condition, or "
            "call model.evaluate(table)"
        )
    if isinstance(value, str):
        return _of_text(value, setting)
    if setting.metavar == "TEXT" and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value


def _of_text(value: str, setting: Setting) -> Any:
    """Return what a text says of a setting that may be a number, or else a word or a condition."""
    words = WORDS.get(setting.name, {})
    if value in words:
        return words[value]
    number = number_in(value) if setting.is_number else None
    return value if number is None else number


def _check_pairs(settings: Settings) -> None:
    """Refuse settings that mean nothing together."""
    check_needs(settings)
    if settings.workers is not None and settings.scheduler is not None:
        raise SettingsError("--workers starts worker processes here, --scheduler has some elsewhere: pass one of them")


KEYED = ("class_weight", "missing", "scale", "transform", "sentinels", "column_kind")
"""Lists of NAME=VALUE, for which a dict says the same."""


def _pairs(value: Mapping[Any, Any], setting: Setting) -> list[str]:
    """Return a dict as a list of NAME=VALUE.

    Raises
    ------
    SettingsError
        The setting takes no such list: of the names alone it would make something else.

    """
    if setting.name not in KEYED:
        raise SettingsError(f"{setting.flag}: a dict is not {setting.takes}")
    return [f"{_text(key, setting.name)}={_text(item, '')}" for key, each in value.items() for item in _items(each)]


def _items(value: Any) -> list[Any]:
    """Return one thing, or things in whatever holds them (lists, sets, arrays, columns), as a list."""
    if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        return [value]
    plain = getattr(value, "tolist", None) or getattr(value, "to_pylist", None) or getattr(value, "to_list", None)
    items = plain() if plain is not None else list(value)
    return items if isinstance(items, list) else [items]


def _text(item: Any, name: str) -> str:
    """Return one of a list as text.

    Raises
    ------
    SettingsError
        It is a class that no row can have, such as None: as text it would be the class 'None'.

    """
    plain = getattr(item, "item", None) or getattr(item, "as_py", None)
    value = item if plain is None else plain()
    if name == "classes" and isinstance(value, bytes):
        raise SettingsError(f"--classes: {value!r} is bytes, and classes are strings, numbers or booleans: give it as text")
    if name == "classes" and _is_missing(value):
        raise SettingsError(f"--classes: {value} is no class; rows without a value have none, so leave it out")
    return str(value)


def _is_missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value)  # noqa: PLR0124  NaN and NaT
    except TypeError:  # NA of pandas, which is neither
        return True


def _check_words(settings: Settings, origins: Mapping[str, str]) -> None:
    """Refuse parts and sizes that mean nothing, before any file is touched."""
    from streamsgd.planning.stragglers import parse_straggler  # noqa: PLC0415
    from streamsgd.settings.registry import PARTS, make, make_own  # noqa: PLC0415  what --help need not pay

    checks: dict[str, Callable[[Any], Any]] = {kind: partial(make, kind) for kind in PARTS}
    checks["batch_size"] = _check_size
    checks |= {name: partial(check_policies, name) for name in POLICIES}
    checks["sentinels"] = lambda entries: sentinels_of(entries, "")
    checks["column_kind"] = lambda entries: [make_own("column kind", split_kind(entry)[1]) for entry in entries]
    for name, check in [*checks.items(), ("memory", parse_memory), ("straggler", parse_straggler)]:
        value = getattr(settings, name)
        if value in (None, "auto"):
            continue
        try:
            check(value)
        except SettingsError as error:
            raise SettingsError(f"{origins.get(name, '--' + name.replace('_', '-'))}: {error}") from None


def _check_size(size: int | str) -> None:
    """Refuse fields of a batch that grows, or is to be found."""
    from streamsgd.settings.batches import check_adaptive, check_pilot  # noqa: PLC0415
    from streamsgd.settings.registry import make  # noqa: PLC0415

    if isinstance(size, str) and size != "full":
        made = make("batch_size", size)
        (check_pilot if size.startswith("pilot") else check_adaptive)(made)


def _refusal(name: str, given: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    setting = next(setting for setting in describe() if setting.name == name)
    hint = nearest(str(given[name]), setting.choices) if setting.choices else ""
    near = hint if "did you mean" in hint else ""
    return f"{origins.get(name, setting.flag)}: {shown(given[name])} is not {setting.takes}{near}"


def identity(settings: Settings) -> dict[str, Any]:
    """Return the settings that decide the model's bits, without the secrets of URLs."""
    found = {key: value for key, value in msgspec.to_builtins(settings).items() if key not in RUN_ONLY}
    names = (
        "start",
        "keep_memory",
        "steps",
        "validation_group",
        "conformal",
        "class_weight",
        "keep_weights",
        "rare",
        "model",
        "recalibrate",
        "forget",
        "sentinels",
    )
    unset = [name for name in names if found[name] in (None, False, (), [], "none", "linear")]
    for name in [*unset, *([] if settings.method else SAMPLING)]:
        del found[name]  # models of runs without them say nothing of them
    secret = {name: hide(value) for name in ("valid", "start") if (value := getattr(settings, name)) is not None}
    return found | secret
