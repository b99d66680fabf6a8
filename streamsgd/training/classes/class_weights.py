"""Weights of classes: worked out of the target column alone, and undone in the intercept once learning is over."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from streamsgd.errors import DataError, SettingsError
from streamsgd.features.choose_target import class_counts
from streamsgd.messages import nearest

if TYPE_CHECKING:
    from streamsgd.features.sample import Sample
    from streamsgd.features.target import Target
    from streamsgd.model.model import Model
    from streamsgd.settings.fields import Settings
    from streamsgd.training.job import Job

BALANCED = "balanced"


def class_weights(settings: Settings, look: Sample, target: Target) -> tuple[float, ...]:
    """Return the weight of each class, in their order; nothing where none is asked for.

    `balanced` is w_c = n / (C n_c) of n rows, n_c of them of class c, and C classes (King and Zeng 2001, Political Analysis 9).
    It needs a pass over the target column.

    Raises
    ------
    SettingsError
        The target has no classes, a class is none of its, or a weight is not above 0.
    DataError
        A class that is to be balanced has no row.

    """
    entries = settings.class_weight
    if not entries:
        return ()
    if not target.classes:
        raise SettingsError(
            f"--class-weight is for a target with classes, and {target.name!r} is a number: name a column of row weights with "
            "--weight, or pass --task multiclass if its numbers are classes"
        )
    if BALANCED in entries:
        if len(entries) > 1:
            raise SettingsError("--class-weight is balanced, or CLASS=WEIGHT,..., not both")
        return _balanced(look, target)
    return _given(entries, target)


def _balanced(look: Sample, target: Target) -> tuple[float, ...]:
    counts = class_counts(look, target)
    for name, count in zip(target.classes, counts.tolist(), strict=True):
        if not count:
            raise DataError(
                f"--class-weight balanced: no row of target {target.name!r} is {name!r}; leave it out of --classes, or look at "
                "--filter"
            )
    return tuple((counts.sum() / (len(counts) * counts)).tolist())


def _given(entries: tuple[str, ...], target: Target) -> tuple[float, ...]:
    names = {str(value): k for k, value in enumerate(target.classes)}
    weights = [1.0] * len(names)
    for entry in entries:
        name, equals, text = entry.rpartition("=")
        if not equals:
            raise SettingsError(f"--class-weight {entry}: write it as CLASS=WEIGHT, or balanced{nearest(entry, [BALANCED])}")
        if name not in names:
            raise SettingsError(f"--class-weight {entry}: target {target.name!r} has no class {name!r}{nearest(name, names)}")
        weights[names[name]] = _weight(entry, text)
    return tuple(weights)


def _weight(entry: str, text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not (0.0 < weight < math.inf):
        raise SettingsError(f"--class-weight {entry}: a weight is a number above 0; --filter leaves the rows of a class out")
    return weight


def shift_of(job: Job) -> np.ndarray:
    """Return what class weights w add to the intercepts, float64 (n_outputs,): log w, or of two classes log(w_1 / w_0)."""
    logs = np.log(np.array(job.class_weights))
    shift: np.ndarray = np.array([logs[1] - logs[0]]) if job.n_outputs == 1 else logs - logs.mean()
    return shift


def of_population(job: Job, model: Model) -> Model:
    """Return the model of the data as it is, from that of classes with weights; itself where nothing is to be undone."""
    if not job.undoes_weights:
        return model
    weights = model.weights.copy()
    weights[-1] -= shift_of(job)
    return replace(model, weights=weights)
