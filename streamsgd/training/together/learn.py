"""Several runs that learn from one decode, each to the byte as it learns alone: what pilots and `train_many` stand on.

Each is an engine of its own in a thread of its own (`backends.shared`). What goes wrong in one of them alone, such as
divergence, ends it alone.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from streamsgd.compute.executors import EXECUTORS
from streamsgd.errors import BudgetError, SettingsError
from streamsgd.kernels.parts.traits import reduces
from streamsgd.messages import format_bytes
from streamsgd.model.evaluation import new_metrics
from streamsgd.stream.folds import ROW_BYTES, FoldViews, folds_loader
from streamsgd.stream.held import HeldFold
from streamsgd.training.backends.choose import choose_backend
from streamsgd.training.backends.shared import SharedStream
from streamsgd.training.caching import with_cache
from streamsgd.training.callbacks import Callbacks
from streamsgd.training.classes.strata import wants_strata
from streamsgd.training.engine import Engine
from streamsgd.training.history import History
from streamsgd.training.memory import phases_bytes
from streamsgd.training.phases import wanted
from streamsgd.training.phases.finish import is_small
from streamsgd.training.phases.held_judge import is_free
from streamsgd.training.phases.shrinking import is_small as is_shrunk
from streamsgd.training.result import model_from
from streamsgd.training.run import reader_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamsgd.model.model import Model
    from streamsgd.settings.fields import Settings
    from streamsgd.training.events import Report
    from streamsgd.training.job import Job

METRICS = 4
"""Metrics that a run keeps of held-out rows: of the epoch, since the last judgement, of the chunk under way and the last ..."""

SAVED = 5
"""... and copies of the first two while a checkpoint is written. Measured of 16 runs: 6.3 MB each, 14.1 with checkpoints."""

RUN_BYTES = 1 << 18
"""Of an engine with its thread, beside model and metrics."""

ALONE: dict[str, Any] = {
    **dict.fromkeys(("workers", "scheduler", "valid", "start", "method")),
    **dict.fromkeys(("standard_errors", "conformal", "noise"), False),
    "polish": 0,
    "rare": "none",
    "recalibrate": "none",
    "phases": (),
}
"""Settings that runs of one decode cannot have, and what they are then."""


def unpolished(job: Job) -> Job:
    """Return a job that nobody polishes without being told: what one run alone passes over, others do not read."""
    if not (is_free(job.settings) and (is_small(job.outline) or is_shrunk(job.outline))):
        return job
    plain = replace(job, settings=msgspec.structs.replace(job.settings, polish=0))
    spared = phases_bytes(job.outline) - phases_bytes(plain.outline)
    return replace(plain, budget=replace(job.budget, model=job.budget.model - spared))


def check_alone(settings: Settings, further: Sequence[str] = ()) -> None:
    """Refuse what runs of one decode cannot do, and settings that are `further` to be left out.

    Raises
    ------
    SettingsError
        Something of it was asked for.

    """
    for name, plain in {**ALONE, **dict.fromkeys(further)}.items():
        if (getattr(settings, name) or plain) != plain:
            flag = "--from" if name == "start" else f"--{name.replace('_', '-')}"
            raise SettingsError(f"runs that share a decode learn in this process, in epochs alone: leave {flag} out")
    if wants_strata(settings):
        raise SettingsError(f"--shuffle {settings.shuffle} is for one run, whose batches have strata: leave it out")


def check_together(job: Job) -> None:
    """Refuse a job that cannot learn from a stream that it shares.

    Raises
    ------
    SettingsError
        It has several lanes, measures gradients in passes of its own, or wants rows that are shuffled on disk.

    """
    if job.lanes.number > 1:
        raise SettingsError(
            f"runs that share a decode take one chunk at a time, and this one has {job.lanes.number} lanes: pass --lanes 1"
        )
    if reduces(job.parts.optimizer):
        raise SettingsError("--optimizer svrg makes passes that no other run makes: train it alone, or take another one")
    if job.external is not None:
        raise SettingsError(
            "the order of the rows asks for a shuffle on disk: take what 'streamsgd shuffle' wrote, or pass --shuffle corgi"
        )


def group_key(job: Job) -> tuple[Any, ...]:
    """Return what must be the same of jobs that share a stream, beside the data."""
    encoded = msgspec.json.encode((job.encoding, job.target))
    return encoded, job.plan.chunk_rows, job.plan.sampler, job.recipe.by_entries, job.recipe.held.stream


def run_bytes(job: Job) -> int:
    """Return the bytes that a run takes beside the rows: its model, its metrics of held-out rows, and itself.

    The plan of a run alone has its metrics in what the interpreter takes; of two classes they are 1.6 MB, a hundred times.
    """
    metrics = new_metrics(job.parts.loss, job.target).arrays()
    copies = METRICS if job.recipe.held else 0
    copies += SAVED if job.settings.checkpoint else 0
    return job.budget.model + RUN_BYTES + copies * sum(array.nbytes for array in metrics.values())


def together_bytes(jobs: Sequence[Job]) -> int:
    """Return the bytes that jobs of one stream take without a cache: the rows once, and each its model and its metrics."""
    apart = block_bytes(jobs[0]) if leave_folds(jobs) else 0
    return jobs[0].budget.needed + sum(map(run_bytes, jobs[1:])) + apart


def leave_folds(jobs: Sequence[Job]) -> bool:
    """Whether jobs of one stream leave out other folds each."""
    return len(jobs) > 1 and isinstance(jobs[0].recipe.held, HeldFold)


def block_bytes(job: Job) -> int:
    """Return the bytes of a block in which one run has its rows, and of what is noted of the rows that are read."""
    rows, budget = min(job.plan.chunk_rows, job.plan.n_rows), job.budget
    return budget.blocks // budget.n_blocks + rows * ROW_BYTES * budget.n_blocks


def blocks_apart(jobs: Sequence[Job]) -> int:
    """Return how many runs may have their rows at a time: one for each thread, if memory holds them."""
    first = jobs[0]
    left = first.budget.limit - together_bytes(jobs)
    return 1 + min(min(first.budget.threads, len(jobs)) - 1, max(0, left) // max(1, block_bytes(first)))


def groups_of(jobs: Sequence[Job], *, best_only: bool = False) -> list[list[int]]:
    """Return the numbers of jobs that learn together: of one stream, and as many as memory holds.

    Raises
    ------
    BudgetError
        What is kept of others leaves no room for one.

    """
    each = sorted((job.n_weights * 8 for job in jobs), reverse=True)
    kept = sum(each[: 1 if best_only else None]) if len(jobs) > 1 else 0
    groups: list[list[int]] = []
    last: dict[Any, list[int]] = {}
    for number, job in enumerate(jobs):
        group = last.get(key := group_key(job))
        if group is not None and together_bytes([*(jobs[k] for k in group), job]) + kept <= job.budget.limit:
            group.append(number)
        else:
            last[key] = group = [number]
            groups.append(group)
    if len(groups) > 1:
        for group in groups:
            check_room([jobs[k] for k in group], kept)
    return groups


def check_room(jobs: Sequence[Job], kept: int = 0) -> None:
    """Refuse jobs of one stream that memory does not hold beside so many bytes of models.

    Raises
    ------
    BudgetError
        It does not.

    """
    needed, limit = together_bytes(jobs) + kept, jobs[0].budget.limit
    if needed > limit:
        raise BudgetError(
            f"{len(jobs)} runs that learn at once, and {format_bytes(kept)} of models that are kept, take "
            f"{format_bytes(needed)}: give --memory {-(-needed // 10**6)}MB"
        )


def sharing(jobs: Sequence[Job], kept: int = 0) -> list[Job]:
    """Return jobs with one recipe, and one cache in what all of them, and bytes that are kept, leave of the memory."""
    if leave_folds(jobs):
        return [replace(job, recipe=replace(job.recipe, cache=None)) for job in jobs]
    longest = max(jobs, key=lambda job: job.epochs)
    budget = replace(longest.budget, model=kept + longest.budget.model + sum(map(run_bytes, jobs)) - run_bytes(longest))
    leader = with_cache(replace(longest, budget=budget))
    return [replace(job, recipe=leader.recipe, plan=leader.plan, budget=leader.budget) for job in jobs]


def nothing(_engines: Sequence[Engine], _going: list[int]) -> dict[int, BaseException]:
    """Let all go on."""
    return {}


def learn_together(
    jobs: Sequence[Job],
    *,
    begin: Callable[[Sequence[Engine]], None] = lambda _engines: None,
    between: Callable[[Sequence[Engine], list[int]], dict[int, BaseException]] = nothing,
) -> list[Any]:
    """Run jobs of one stream to their ends.

    Parameters
    ----------
    jobs
        Of one data set, plan and recipe.
    begin
        Called with the engines before they run.
    between
        Called with them, and the numbers of those that go on, whenever these stand between two rounds; it returns what is to
        be raised in which.

    Returns
    -------
    list
        Of each job the model and the report, or what it raised.

    """
    first, views = jobs[0], None
    if leave_folds(jobs):
        first = replace(first, recipe=folds_loader(first.recipe))
        numbers = [job.recipe.held.number for job in jobs if isinstance(job.recipe.held, HeldFold)]
        views = FoldViews(first.recipe, first.plan, numbers, blocks_apart(jobs))
    executor = EXECUTORS[reader_for(first.settings, first)](first.budget.threads)
    try:
        with choose_backend(first, executor) as backend:
            shared = SharedStream(backend, jobs, min(first.budget.threads, len(jobs)), views)
            engines = [
                Engine(job, wanted(job.settings, job.parts), shared.seat(number), executor, callbacks=Callbacks([History()]))
                for number, job in enumerate(jobs)
            ]
            begin(engines)
            return shared.run_all([partial(_run, engine) for engine in engines], partial(between, engines))
    finally:
        executor.close()
        if first.recipe.cache is not None:
            first.recipe.cache.close()


def _run(engine: Engine) -> tuple[Model, Report]:
    """Run as `train` runs."""
    outcome = engine.run()
    engine.finish(outcome)
    model = model_from(outcome, engine.totals, engine.validator.metrics())
    engine.callbacks.on_end(engine.report, model)
    return model, engine.report
