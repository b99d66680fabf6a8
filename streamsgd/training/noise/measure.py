"""A pass that measures the noise of gradients and learns nothing: what `streamsgd noise` runs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from streamsgd.compute.executors import EXECUTORS
from streamsgd.data.sources.dask_tables import lazily
from streamsgd.data.stores.filesystems import set_io_timeout
from streamsgd.errors import SettingsError
from streamsgd.model.model import Model
from streamsgd.model.probability.score_map import need_sum
from streamsgd.model.read import load
from streamsgd.settings.make import make_settings
from streamsgd.settings.registry import PARTS, make, spec_of
from streamsgd.training.backends.choose import choose_backend
from streamsgd.training.callbacks import Callbacks, OnEvent
from streamsgd.training.engine import Engine
from streamsgd.training.initial import unlearned
from streamsgd.training.phases.noise import MEASURED_NOISE, measuring_at
from streamsgd.training.prepare import prepare
from streamsgd.training.run import reader_for

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from streamsgd.settings.fields import Settings
    from streamsgd.training.events import Event, Report
    from streamsgd.training.job import Job

PHASE = "streamsgd.training.phases.noise:MEASURED_NOISE"
"""Of the settings of such a run, so that its memory is planned."""

INHERITED = ("weight", "missing", "missing_columns", "infinite", "unreadable", "bad_rows", "values")
"""Settings that hold as in the training of a model, unless set otherwise."""

DECIDED = frozenset(
    [
        *("target", "features", "exclude", "task", "classes", "precision", "categorical", "text", "ngrams", "time_parts"),
        *("cross", "bits", "scale", "transform"),
    ]
)
"""Settings that a model has decided."""

OF_FILE = frozenset(["loss", "column_kind", "model"])
"""Settings that say where parts of a model file are."""


def measure_noise(
    data: Any,
    given: Mapping[str, Any],
    *,
    at: Model | str | os.PathLike[str] | None = None,
    emit: Callable[[Event], None] | None = None,
    footers: Callable[[int, int], None] | None = None,
    client: Any = None,
) -> tuple[dict[str, Any], Report]:
    """Measure how the gradients of rows scatter, in one pass; return what was found, as JSON values, and the report of the run.

    Parameters
    ----------
    data
        As in training.
    given
        Settings that were given; at a model, `loss` and `column_kind` are where those of its file are.
    at
        A model, or the path of one, at whose weights to measure; at zero weights if None, of a model that is not linear at
        those that it begins with.
    emit, footers
        Called with progress events, and footers read.
    client
        Of distributed, whose workers to use; it is left open.

    Raises
    ------
    StreamSGDError
        See `errors`.

    """
    model = None if at is None else _model(at, given)
    settings = make_settings(given if model is None else settings_at(model, given))
    settings = msgspec.structs.replace(
        settings, phases=(PHASE,), validation=0.0, validation_group=None, valid=None, patience=None
    )
    set_io_timeout(settings.io_timeout)
    data = lazily(data, client, elsewhere=settings.workers is not None or settings.scheduler is not None)
    job = _job(data, settings, model, footers)
    executor = EXECUTORS[reader_for(settings, job) if client is None else "threads"](job.budget.threads)
    try:
        with choose_backend(job, executor, client) as backend:
            kind = measuring_at(unlearned(job) if model is None else model.weights)
            engine = Engine(job, [kind], backend, executor, callbacks=Callbacks([OnEvent(emit)] if emit else []))
            outcome = engine.run()
            engine.finish(outcome)
    finally:
        executor.close()
    return {**outcome.metrics[MEASURED_NOISE.name], "counts": engine.totals.counts}, engine.report


def _model(at: Model | str | os.PathLike[str], given: Mapping[str, Any]) -> Model:
    own = {"loss": given.get("loss"), "column_kind": given.get("column_kind") or (), "model": given.get("model")}
    model = at if isinstance(at, Model) else load(at, **own)
    need_sum(model, "gradient of its weights")
    return model


def _job(data: Any, settings: Settings, model: Model | None, footers: Callable[[int, int], None] | None) -> Job:
    if settings.shuffle == "auto":  # rows are only measured, and nothing is to be shuffled on disk for it
        settings = msgspec.structs.replace(settings, shuffle="corgi")
    if model is None:
        return prepare(data, settings, progress=footers, constant=True)
    frozen = {
        "encoding": model.encoding,
        "target": model.target,
        "chunk_rows": settings.chunk_rows,
        "optimizer": settings.optimizer,
        "poisoned": (),
        "external": False,
        "order": None,
    }
    job = prepare(data, settings, frozen=frozen, progress=footers)
    return replace(job, parts=job.parts._replace(loss=model.loss))


def settings_at(model: Model, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a measurement at a model: those that were given, else those of its training that still matter.

    Raises
    ------
    SettingsError
        One was given that the model has decided otherwise.

    """
    trained = {key: value for key, value in model.settings.items() if key in INHERITED}
    decided = {**model.settings, "target": model.target.name, "precision": str(model.weights.dtype)}
    for name in sorted(DECIDED & given.keys()):
        if given[name] is not None and _plain(given[name]) != _plain(decided.get(name)):
            flag = f"--{name.replace('_', '-')}"
            raise SettingsError(
                f"{flag} {_plain(given[name])}: the model was trained with {_plain(decided.get(name))}, and is measured as "
                f"it is; leave {flag} out, or --at"
            )
    structure = "linear" if model.is_linear else spec_of("model", model.structure)
    if given.get("model") and spec_of("model", make("model", given["model"])) != structure and _is_ours(model):
        raise SettingsError(
            f"--model {given['model']}: the model was trained with {structure}, and is measured as it is; leave --model out, "
            "or --at"
        )
    kept = {name: value for name, value in given.items() if name not in DECIDED | OF_FILE and value is not None}
    return {
        **trained,
        **kept,
        "target": model.target.name,
        "model": structure,
        "features": tuple(model.encoding.sources),
        "precision": str(model.weights.dtype),
    }


def _is_ours(model: Model) -> bool:
    """Whether its file says by itself what makes scores; else it was said where that is."""
    return type(model.structure) in PARTS["model"].values()


def _plain(value: Any) -> Any:
    """Return a setting as JSON has it."""
    return msgspec.json.decode(msgspec.json.encode(value))
