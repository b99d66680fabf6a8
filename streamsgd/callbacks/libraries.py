"""Libraries that only whoever uses a callback needs."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from streamsgd.errors import SettingsError
from streamsgd.messages import extra


def library(module: str, name: str) -> Any:
    """Import a library.

    Raises
    ------
    SettingsError
        It is not installed.

    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise SettingsError(f"{name} is not installed: {extra(module.partition('.')[0])}") from error
