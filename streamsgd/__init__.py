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

from streamsgd.redact import Redactor
from streamsgd.version import __version__ as __version__

if TYPE_CHECKING:
    from streamsgd.api import evaluate, export, inspect, noise, plan, predict, shuffle, train
    from streamsgd.errors import StreamSGDError
    from streamsgd.model.compare import compare, explain
    from streamsgd.model.explaining.importance import importance
    from streamsgd.model.model import Model
    from streamsgd.model.probability.calibrate import calibrate
    from streamsgd.model.read import load
    from streamsgd.partial import Trainer
    from streamsgd.show.report import report
    from streamsgd.training.sampling import sample
    from streamsgd.training.together.crossvalidation import cross_validate
    from streamsgd.training.together.many import train_many
    from streamsgd.training.together.pilot import pilot
    from streamsgd.training.together.tuning import tune
    from streamsgd.training.warmup import warmup


_HOMES = {
    "train": "api",
    "plan": "api",
    "inspect": "api",
    "calibrate": "model.probability.calibrate",
    "compare": "model.compare",
    "cross_validate": "training.together.crossvalidation",
    "evaluate": "api",
    "explain": "model.compare",
    "export": "api",
    "importance": "model.explaining.importance",
    "noise": "api",
    "pilot": "training.together.pilot",
    "predict": "api",
    "sample": "training.sampling",
    "report": "show.report",
    "shuffle": "api",
    "train_many": "training.together.many",
    "tune": "training.together.tuning",
    "warmup": "training.warmup",
    "Trainer": "partial",
    "Model": "model.model",
    "load": "model.read",
    "StreamSGDError": "errors",
}

__all__ = [
    "Model",
    "StreamSGDError",
    "Trainer",
    "calibrate",
    "compare",
    "cross_validate",
    "evaluate",
    "explain",
    "export",
    "importance",
    "inspect",
    "load",
    "noise",
    "pilot",
    "plan",
    "predict",
    "report",
    "sample",
    "shuffle",
    "train",
    "train_many",
    "tune",
    "warmup",
]

logging.getLogger("streamsgd").addHandler(Redactor())


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'streamsgd' has no attribute {name!r}")
    return getattr(import_module(f"streamsgd.{_HOMES[name]}"), name)
