"""Stratified batches: what they go with, and how many rows a batch has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamsgd.errors import SettingsError
from streamsgd.kernels.parts.traits import is_sequential, judges, reduces
from streamsgd.planning.samplers import has_strata

if TYPE_CHECKING:
    from streamsgd.kernels.structs.block import Parts
    from streamsgd.planning.lanes import Lanes
    from streamsgd.settings.fields import Settings


def wants_strata(settings: Settings) -> bool:
    """Whether stratified batches were asked for."""
    return settings.shuffle.partition(":")[0] == "stratified"


def with_batch(sampler: Any, settings: Settings, parts: Parts, lanes: Lanes, batch: int) -> Any:
    """Return a sampler that knows how many rows a batch has, if it wants to.

    Raises
    ------
    SettingsError
        There are no such batches.

    """
    if not has_strata(sampler):
        return sampler
    rows = sampler.batch or batch
    wrong = [
        *_of_settings(settings, parts, lanes),
        (sampler.share <= 0.0 or sampler.share >= 1.0, "share is that of positives in a batch, between 0 and 1, or neyman"),
        (rows < 2, "a batch has a row of either class: pass --batch-size 2 or more"),
        (rows != batch, f"batch={rows}, and --batch-size {batch}: leave batch out"),
    ]
    if said := next((said for fails, said in wrong if fails), ""):
        raise SettingsError(f"--shuffle {settings.shuffle}: {said}")
    return sampler._replace(batch=rows)


def _of_settings(settings: Settings, parts: Parts, lanes: Lanes) -> list[tuple[bool, str]]:
    """Return what does not go with strata, each with what to do about it."""
    optimizer = settings.optimizer
    return [
        (parts.loss.task not in ("binary", "margin"), f"is for two classes, which {settings.target!r} has not: leave it out"),
        (settings.rare != "none", "rows are drawn by their class already: leave --rare out"),
        (
            is_sequential(parts.optimizer),
            f"a batch has rows of both classes, and --optimizer {optimizer} learns row by row: take adam",
        ),
        (
            reduces(parts.optimizer) or judges(parts.optimizer),
            f"--optimizer {optimizer} needs every row once: take another one, such as adam",
        ),
        (
            isinstance(settings.batch_size, str) and settings.batch_size != "auto",
            f"--batch-size {settings.batch_size} says not how many rows a batch has: pass a number",
        ),
        (lanes.combine == "sync", "lanes that step together take parts of a batch: pass --combine average"),
        (settings.noise, "--noise is that of batches without strata: leave it out"),
    ]
