"""`streamsgd pilot`: short runs at several batch sizes, on the same rows of one decode, and what they say of the size to take.

Of one seed all branches start alike and meet the same rows in the same order. Each is a run as `train --batch-size B --steps N`
makes it alone, byte for byte. Two comparisons are made: after the same number of steps, and after the same number of rows.
"""

from __future__ import annotations

import math
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from streamsgd.compute.context import task_memory
from streamsgd.compute.executors import EXECUTORS
from streamsgd.data.stores.filesystems import set_io_timeout
from streamsgd.errors import BudgetError, DivergedError, SettingsError
from streamsgd.messages import format_bytes
from streamsgd.settings.batches import HELD
from streamsgd.settings.make import make_settings
from streamsgd.settings.words import speaks_python
from streamsgd.training.backends.choose import choose_backend
from streamsgd.training.job import IN_ORDER
from streamsgd.training.learner import Learner
from streamsgd.training.prepare import prepare, prepare_many
from streamsgd.training.run import reader_for
from streamsgd.training.tasks.base import Round
from streamsgd.training.tasks.losses import MeasureLosses
from streamsgd.training.together import pilot_time
from streamsgd.training.together.learn import check_alone, check_together, group_key, learn_together, sharing, together_bytes
from streamsgd.training.together.pilot_fit import as_dict, fit_losses, recommended

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streamsgd.model.model import Model
    from streamsgd.settings.fields import Settings
    from streamsgd.training.events import Report
    from streamsgd.training.job import Job

MOST_ROWS = 1 << 20
"""That the largest batch learns if nobody says for how many steps; fewer where the data has fewer."""

LEAST_STEPS = 16
"""That are made if nobody says, in several epochs where the data is small: after a few steps most of a run is still to come."""

GAINED = 0.05
"""Of the gain so far: with less in all further steps a run is at rest."""


class Branch(NamedTuple):
    """One run of a pilot."""

    batch_size: int
    learning_rate: float | None
    """As set; None for the optimizer's own."""
    steps: int
    seed: int


class Made(NamedTuple):
    """What came of a branch."""

    branch: Branch
    model: Model | None
    """None where it diverged."""
    report: Report | None


@speaks_python
def pilot(
    source: Any,
    target: str,
    *,
    batch_size: Sequence[int] = (16, 64, 256, 1024),
    learning_rate: Sequence[float] = (),
    seeds: int = 3,
    **settings: Any,
) -> dict[str, Any]:
    """Learn at several batch sizes in one decode, and say which size is enough: docs/noise.md says how.

    Parameters
    ----------
    source, target
        As in training.
    batch_size
        Rows per update to try, two or more.
    learning_rate
        Rates to try at each size; the optimizer's own without any.
    seeds
        How many runs of each, from `seed` on.
    settings
        Fields of `settings.Settings`; `steps` is after how many updates all sizes are compared.

    Returns
    -------
    dict
        `recommended` size, `fit` of a + c/B, `critical_size`, `least_time` and `branches`, in units of the loss, of rows, and
        of seconds.

    Raises
    ------
    StreamSGDError
        The data, the settings or the storage is at fault; see `errors`.

    """
    given = {"memory": task_memory(), "target": target, **settings}
    return run_pilot(source, given, list(batch_size), rates=list(learning_rate), seeds=seeds)[0]


def run_pilot(
    data: Any,
    given: Mapping[str, Any],
    sizes: Sequence[int],
    *,
    rates: Sequence[float] = (),
    seeds: int = 3,
    footers: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Any], list[Made]]:
    """Run all branches; return what they say, as JSON values, and the branches themselves.

    Parameters
    ----------
    data
        As in training.
    given
        Settings that were given; `steps` is for how many steps all sizes are compared.
    sizes
        Rows per update, two or more.
    rates
        Learning rates to try at each size; the optimizer's own without any.
    seeds
        How many, from `seed` on.
    footers
        Called with footers read.

    Raises
    ------
    StreamSGDError
        See `errors`.

    """
    sizes, tried = sorted(set(sizes)), list[float | None](dict.fromkeys(rates)) or [None]
    check_sizes(sizes, seeds)
    settings = make_settings({"validation": HELD, **given, "batch_size": sizes[-1], "steps": given.get("steps") or 1})
    check_alone(settings, further=("patience",))  # every branch runs to its end
    set_io_timeout(settings.io_timeout)
    first = prepare(data, settings, progress=footers)
    n_rows = int(first.plan.n_rows * (1.0 - first.recipe.held.share))
    if n_rows < sizes[-1]:
        raise SettingsError(
            f"--batch-size {sizes[-1]} is more than the {n_rows:,} rows to learn from: leave the largest sizes out"
        )
    steps = steps_of(settings, given.get("steps"), n_rows, sizes[-1])
    way = pilot_time.on_the_way(steps)
    if together_bytes([first] * (len(sizes) * len(tried) * (len(way) + 2))) > first.budget.limit:
        way = []  # which leaves the time to a loss unknown, and nothing else
    made, before = list[Made](), None
    for seed in range(settings.seed, settings.seed + seeds):
        branches = [
            Branch(size, rate, n, seed)
            for size in sizes
            for rate in tried
            for n in dict.fromkeys((*way, steps, max(steps, steps * sizes[-1] // size)))
        ]
        now, model = run_seed(data, settings, branches)
        made, before = made + now, before or model
    losses = losses_of(first, [*(one.model for one in made), before])
    return _result(sizes, [*way, steps], made, losses[:-1], losses[-1]), made


def steps_of(settings: Settings, given: int | None, n_rows: int, largest: int) -> int:
    """Return the steps after which all sizes are compared: as given, else as many as rows and passes allow.

    Raises
    ------
    SettingsError
        The passes that were asked for have fewer.

    """
    steps = given or max(LEAST_STEPS, min(n_rows, MOST_ROWS) // largest)
    if settings.epochs == "auto":
        return steps
    most = settings.epochs * n_rows // largest
    if given and given > most:
        raise SettingsError(
            f"steps={given} of {largest:,} rows are more than epochs={settings.epochs} of {n_rows:,} rows: leave epochs out"
        )
    return min(steps, max(1, most))


def check_sizes(sizes: Sequence[int], seeds: int) -> None:
    """Refuse pilots that compare nothing.

    Raises
    ------
    SettingsError
        There is one size, or no seed.

    """
    if len(sizes) < 2 or not all(isinstance(size, Integral) and size >= 1 for size in sizes):
        raise SettingsError("a pilot compares batch sizes of 1 row or more: pass two or more, e.g. --batch-size 16,64,256,1024")
    if seeds < 1:
        raise SettingsError(f"--seeds {seeds}: pass 1 or more; with 3 the error of what is found is known")


def run_seed(data: Any, settings: Settings, branches: Sequence[Branch]) -> tuple[list[Made], Model]:
    """Run the branches of a seed; return what came of them, and the model that they start with."""
    jobs = prepare_many(data, [settings_of(settings, branch) for branch in branches])
    _check_together(jobs)
    found = learn_together(sharing(jobs))
    made = []
    for branch, outcome in zip(branches, found, strict=True):
        if isinstance(outcome, BaseException) and not isinstance(outcome, DivergedError):
            raise outcome
        model, report = (None, None) if isinstance(outcome, DivergedError) else outcome
        made.append(Made(branch, model, report))
    return made, Learner(jobs[0]).model()


def settings_of(settings: Settings, branch: Branch) -> Settings:
    """Return those of a branch, with which `train` makes the same model."""
    rate = settings.learning_rate if branch.learning_rate is None else branch.learning_rate
    return msgspec.structs.replace(
        settings, batch_size=branch.batch_size, learning_rate=rate, steps=branch.steps, seed=branch.seed
    )


def _check_together(jobs: Sequence[Job]) -> None:
    """Make sure that branches can share one stream.

    Raises
    ------
    SettingsError
        Their rows come in other chunks, or another order.
    BudgetError
        The limit does not hold all of them.

    """
    first = jobs[0]
    if any(group_key(job) != group_key(first) for job in jobs):
        raise SettingsError("branches of these sizes would be shuffled otherwise: pass --shuffle corgi, and --chunk-rows")
    for job in jobs:
        check_together(job)
    all_ = together_bytes(jobs)
    if all_ > first.budget.limit:
        each = sum(job.budget.model for job in jobs)
        raise BudgetError(
            f"{len(jobs)} branches learn at once and take {format_bytes(each)} beside the rows: give --memory "
            f"{-(-all_ // 10**6)}MB, pass --chunk-rows {max(1, first.plan.chunk_rows // 2)}, or try fewer sizes and rates"
        )


def losses_of(job: Job, models: Sequence[Model | None], chunks: int | None = None) -> list[float]:
    """Return the mean losses of models on the rows that are held out, or on all; infinite where there is no model.

    Those of so many chunks of the first epoch, or of all data.
    """
    some = [model for model in models if model is not None]
    executor = EXECUTORS[reader_for(job.settings, job)](job.budget.threads)
    try:
        with choose_backend(job, executor) as backend:
            place = (IN_ORDER, 0, job.plan_in_order.n_chunks(0)) if chunks is None else (0, 0, chunks)
            share, _reports = backend.run(Round(MeasureLosses(some), *place))
    finally:
        executor.close()
    means = iter((share.sums[:-1] / share.sums[-1]).tolist())
    return [np.inf if model is None else next(means) for model in models]


def _result(
    sizes: Sequence[int], lengths: Sequence[int], made: Sequence[Made], losses: Sequence[float], before: float
) -> dict[str, Any]:
    """Return what branches say, of which the last length is compared."""
    steps = lengths[-1]
    rates = list(dict.fromkeys(one.branch.learning_rate for one in made))
    seeds = sorted({one.branch.seed for one in made})
    rows = steps * sizes[-1]
    seconds = pilot_time.step_seconds(
        {size: [one.report for one in made if one.report and one.branch.batch_size == size] for size in sizes}
    )
    of = {one.branch: (loss, one) for one, loss in zip(made, losses, strict=True)}
    table, at_steps, curves = list[dict[str, Any]](), list[np.ndarray](), list[list[float]]()
    for size in sizes:
        found = []
        for rate in rates:
            for n, comparison in ((steps, "steps"), (max(steps, rows // size), "rows")):
                ran = [of[Branch(size, rate, n, seed)] for seed in seeds]
                found.append(_line_of(size, rate, n, comparison, ran) | {"seconds_per_step": seconds[size]})
        table += found
        best = min((line for line in found if line["comparison"] == "steps"), key=lambda line: line["loss"])
        at_steps.append(np.array(best["losses"]))
        rate = best["learning_rate"]
        curves.append([float(np.mean([of[Branch(size, rate, n, seed)][0] for seed in seeds])) for n in lengths])
    grid, x = np.column_stack(at_steps), np.array(sizes, float)
    if not np.isfinite(grid).all():
        raise DivergedError(
            "branches left the finite numbers at every rate: pass smaller ones, e.g. --learning-rate 0.001,0.01"
        )
    fit = fit_losses(x, grid)
    size, each = recommended(fit, x), np.array([seconds[size] for size in sizes])
    alpha, beta = pilot_time.relative_line(x, each)
    same = pilot_time.same_loss(before, x, lengths, np.array(curves))
    least = None
    if same is not None:
        by_law = pilot_time.least_time(alpha, beta, same.critical)
        least = pilot_time.between_neighbours(by_law, x, same.steps * (alpha + beta * x))
    return {
        "recommended": size,
        "fit": as_dict(fit),
        "doubling_gain": fit.c / (2.0 * size),
        "loss_before": before,
        "critical_size": None if same is None else same.critical,
        "at_rest": _rests(table, sizes[0], before),
        "seconds_per_step": {"alpha": alpha, "beta": beta},
        "least_time": least,
        "same_loss": pilot_time.as_dict(same, alpha + beta * x),
        "steps": steps,
        "rows": rows,
        "seeds": seeds,
        "branches": table,
    }


def _line_of(size: int, rate: float | None, steps: int, comparison: str, ran: Sequence[tuple[float, Made]]) -> dict[str, Any]:
    losses = [loss for loss, _one in ran]
    error = float(np.std(losses, ddof=1) / np.sqrt(len(losses))) if len(losses) > 1 and np.isfinite(losses).all() else None
    return {
        "batch_size": size,
        "learning_rate": rate,
        "comparison": comparison,
        "steps": steps,
        "loss": float(np.mean(losses)),
        "se": error,
        "losses": losses,
    }


def _rests(table: Sequence[dict[str, Any]], size: int, before: float) -> bool:
    """Whether more steps of the smallest size gained nothing: then its noise decides the loss, and no steps make up for it."""
    at_steps, at_rows = (
        min(line["loss"] for line in table if line["batch_size"] == size and line["comparison"] == comparison)
        for comparison in ("steps", "rows")
    )
    if not math.isfinite(at_rows):  # longer runs went astray, of which no rest follows
        return False
    return bool(at_steps >= before or at_steps - at_rows < GAINED * (before - at_steps))
