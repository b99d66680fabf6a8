"""Cross-validation in one decode: a model without each fold, and the one of all rows, from the same stream."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from streamsgd.compute.context import task_memory
from streamsgd.data.stores.output import check_no_input, reserved
from streamsgd.errors import DataError, DivergedError, SettingsError
from streamsgd.settings.folds import check_folds
from streamsgd.settings.make import make_settings
from streamsgd.settings.words import speaks_python
from streamsgd.stream.held import HeldFold
from streamsgd.training.together.many import ManyRuns
from streamsgd.training.useful import check_useful

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from streamsgd.model.model import Model
    from streamsgd.settings.fields import Settings
    from streamsgd.training.job import Job
    from streamsgd.training.together.many import Progress
    from streamsgd.training.together.saved import Ended

COUNTED = ("rows", "weight")
"""What is said of held-out rows that is no metric."""


class Spread(NamedTuple):
    """A metric over the folds."""

    mean: float
    standard_error: float
    """Of the mean: the standard deviation over the folds by the root of their number."""
    folds: tuple[float, ...]


class CrossValidated(NamedTuple):
    """What cross-validation came to."""

    model: Model
    """Learned on all rows."""
    folds: list[Model]
    """Each learned on all rows but those of its fold, by which it was judged: `metrics["held_out"]`."""
    metrics: dict[str, Spread]
    """By name: those that every fold has."""


@speaks_python
def cross_validate(
    source: Any,
    target: str,
    *,
    folds: int = 5,
    out: str | os.PathLike[str] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    **settings: Any,
) -> CrossValidated:
    """Learn a model without each fold of the rows, and one of all, in one decode; each is what `train` makes alone.

    Parameters
    ----------
    source, target
        As in training.
    folds
        How many; the model without fold k is that of `train(..., validation="fold:k/folds")`.
    out
        Where to save the model of all rows. Checkpoints go beside it, so that the same call resumes after a kill.
    on_progress
        Called with a `Progress` on the way.
    settings
        Fields of `settings.Settings` for all; with `validation_group` the rows of a value of that column are in one fold.

    Raises
    ------
    StreamSGDError
        The data, the settings or the storage is at fault; or a model left the finite numbers.

    """
    given = {"memory": task_memory(), "target": target, **settings}
    return run_folds(source, given, folds, out=None if out is None else str(out), told=on_progress)


def run_folds(
    data: Any,
    given: Mapping[str, Any],
    folds: int,
    *,
    out: str | None = None,
    origins: Mapping[str, str] | None = None,
    told: Callable[[Progress], None] | None = None,
    footers: Callable[[int, int], None] | None = None,
) -> CrossValidated:
    """Run all folds and the model of all rows, and save this one; see `cross_validate`.

    Parameters
    ----------
    data, folds, told
        As of `cross_validate`.
    given, origins
        Settings for all, and where they came from.
    out
        Where to save the model.
    footers
        Called with footers read.

    Raises
    ------
    StreamSGDError
        As of `cross_validate`.

    """
    whole, each = settings_of(given, folds, out, origins or {})
    refit = partial(_in_folds, cuts=HeldFold(0.0, each[0].validation_group or "", folds=folds))
    with reserved(out, whole.checkpoint):
        runs = ManyRuns(data, [*each, whole], told=told, footers=footers, refit=refit)
        check_no_input("--out", out, runs.jobs[0].dataset.source)
        *ended, last = runs.run()
        judged = [_learned(one, f"the model without fold {k}") for k, one in enumerate(ended, 1)]
        found = CrossValidated(
            _learned(last, "the model of all rows"), judged, spreads([m.metrics["held_out"] for m in judged])
        )
        check_useful(found.model.metrics, last.rows, runs.jobs[-1].parts, strict=whole.strict)
        if out is not None:
            found.model.save(out)
        runs.clear()
    return found


def settings_of(
    given: Mapping[str, Any], folds: int, out: str | None, origins: Mapping[str, str]
) -> tuple[Settings, list[Settings]]:
    """Return the checked settings of the model of all rows, and of those without a fold.

    Raises
    ------
    SettingsError
        Some contradict the folds.

    """
    check_folds(folds, f"--folds {folds}")
    if given.get("validation") not in (None, "auto"):
        raise SettingsError("--folds holds out each fold in its turn: leave --validation out")
    if given.get("patience") is not None:
        raise SettingsError(
            "--patience ends runs by rows held out, and --folds learns its last model of all rows: pass --epochs instead"
        )
    checkpoint = {"checkpoint": f"{out}.ckpt"} if out is not None and given.get("checkpoint") is None else {}
    common = {**given, **checkpoint}
    whole = make_settings({**common, "validation": "none", "validation_group": None}, origins)
    each = [make_settings({**common, "validation": f"fold:{k}/{folds}"}, origins) for k in range(1, folds + 1)]
    return whole, each


def _in_folds(job: Job, cuts: HeldFold) -> Job:
    """Return a job of the stream of the folds: that of all rows leaves none of them out."""
    held = job.recipe.held
    return job if isinstance(held, HeldFold) else replace(job, recipe=replace(job.recipe, held=cuts))


def _learned(ended: Ended, what: str) -> Model:
    """Return what was learned.

    Raises
    ------
    DivergedError
        It left the finite numbers.

    """
    if ended.model is None:
        raise DivergedError(f"{what}: {ended.why}")
    return ended.model


def spreads(folds: Sequence[Mapping[str, Any]]) -> dict[str, Spread]:
    """Return mean and standard error of every metric that all folds have.

    Raises
    ------
    DataError
        No row is in one of them.

    """
    for k, metrics in enumerate(folds, 1):
        if "loss" not in metrics:
            raise DataError(f"--folds {len(folds)}: no row is in fold {k}; pass fewer, or a --validation-group of more values")
    return {name: spread(values) for name in folds[0] if name not in COUNTED and (values := _values(folds, name))}


def _values(folds: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    found = [metrics.get(name) for metrics in folds]
    numbers = [float(value) for value in found if isinstance(value, int | float) and math.isfinite(value)]
    return numbers if len(numbers) == len(folds) else []


def spread(values: Sequence[float]) -> Spread:
    """Return mean and standard error of a metric of some folds, two or more."""
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values))), tuple(values))


def as_plain(found: CrossValidated) -> dict[str, Any]:
    """Return the metrics as JSON has them."""
    builtins: dict[str, Any] = msgspec.to_builtins({name: one._asdict() for name, one in found.metrics.items()})
    return builtins
