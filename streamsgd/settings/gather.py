"""Settings from flags, environment, file and defaults."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from streamsgd.errors import SettingsError
from streamsgd.messages import letters_apart, nearest
from streamsgd.settings.describe import describe
from streamsgd.settings.scope import PREFIX

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from streamsgd.settings.describe import Setting

log = logging.getLogger("streamsgd")

SLIPS = 2
"""Letters by which a mistyped variable differs from a setting, at most; what is further off is somebody else's."""


def gather(
    flags: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    config: str | os.PathLike[str] | None = None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Collect settings by precedence: flag over STREAMSGD_* variable over TOML file.

    Parameters
    ----------
    flags
        By field; None or an empty tuple is not given.
    environ
        Environment variables, all of them; default: those of this process.
    config
        TOML file whose keys are the fields; default: the file that STREAMSGD_CONFIG names, if any.

    Returns
    -------
    values, origins
        What to pass to `make_settings`.

    Raises
    ------
    SettingsError
        A key is unknown, a variable is nearly that of a setting, or the file is not TOML; the message says where it is. Other
        variables with our prefix are passed over with a warning: a Kubernetes service named streamsgd makes some.

    """
    import os  # noqa: PLC0415

    environ = os.environ if environ is None else environ
    config = environ.get(f"{PREFIX}CONFIG") if config is None else config
    settings = {setting.name: setting for setting in describe()}
    values, origins = _from_file(config, settings) if config is not None else ({}, {})
    variables = {setting.variable: setting for setting in settings.values()}
    for variable in sorted(key for key in environ if key.startswith(PREFIX) and key != f"{PREFIX}CONFIG"):
        if variable not in variables:
            _pass_over(variable, variables)
            continue
        setting, text = variables[variable], environ[variable]
        values[setting.name] = split_list(text) if setting.is_list else text
        origins[setting.name] = variable
    for name, value in (flags or {}).items():
        if value is not None and value != ():
            values[name], origins[name] = value, settings[name].flag if name in settings else name
    return values, origins


def _pass_over(variable: str, known: Iterable[str]) -> None:
    """Warn of a variable that is no setting; refuse it if it was meant to be one."""
    word = variable.removeprefix(PREFIX)
    for name in sorted(known):
        letters = name.removeprefix(PREFIX)
        if letters_apart(word, letters) <= min(SLIPS, len(letters) - 1):
            raise SettingsError(f"environment variable {variable} is not a setting, did you mean {name!r}?")
    log.warning("environment variable %s is not a setting and is not used", variable)


def _from_file(path: str | os.PathLike[str], settings: Mapping[str, Setting]) -> tuple[dict[str, Any], dict[str, str]]:
    import tomllib  # noqa: PLC0415

    try:
        with open(path, "rb") as file:  # noqa: PTH123
            values = tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: is not TOML: {error}") from None
    for key in values:
        if key not in settings:
            raise SettingsError(f"{path}: unknown setting {key!r}{nearest(key, settings, most=0)}")
    return values, {key: f"{path}: {key}" for key in values}


def split_list(text: str) -> tuple[str, ...]:
    """Split at commas; a part in double quotes keeps its own."""
    import csv  # noqa: PLC0415

    return tuple(part for part in next(csv.reader([text], skipinitialspace=True), []) if part)
