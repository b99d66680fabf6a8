"""streamsgd: train on Parquet larger than memory.

>>> import streamsgd
>>> model = streamsgd.train("flights/", target="late")       # doctest: +SKIP
>>> model.predict(table), model.metrics, model.save("m.sgd")  # doctest: +SKIP

The names below load what they need when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamsgd.api import Trainer, evaluate, inspect, plan, predict, train
    from streamsgd.errors import StreamSGDError
    from streamsgd.model import Model, load

__version__ = "0.1.0"

_HOMES = {
    "train": "api",
    "plan": "api",
    "inspect": "api",
    "evaluate": "api",
    "predict": "api",
    "Trainer": "api",
    "Model": "model",
    "load": "model",
    "StreamSGDError": "errors",
}

__all__ = ["Model", "StreamSGDError", "Trainer", "evaluate", "inspect", "load", "plan", "predict", "train"]

logging.getLogger("streamsgd").addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'streamsgd' has no attribute {name!r}")
    return getattr(import_module(f"streamsgd.{_HOMES[name]}"), name)
