"""`streamsgd tune`: the best of many configurations, from one decode of the data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from streamsgd.compute.context import task_memory
from streamsgd.data.stores.output import check_file, check_no_input, reserved
from streamsgd.errors import DivergedError, SettingsError
from streamsgd.model.lines import check_table, write_lines
from streamsgd.settings.arguments import shown
from streamsgd.settings.grid import AS, configurations, in_words, made_many, parse_grid, restarted
from streamsgd.settings.words import speaks_python
from streamsgd.training.together.many import ManyRuns
from streamsgd.training.useful import check_useful

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from streamsgd.model.model import Model
    from streamsgd.settings.fields import Settings
    from streamsgd.training.job import Job
    from streamsgd.training.together.many import Progress
    from streamsgd.training.together.saved import Ended

HELD = 0.1
"""Share of rows that is held out to compare by, if nobody says."""


class Tuned(NamedTuple):
    """What tuning came to."""

    model: Model
    """The best one: what `train` makes of its settings."""
    best: int
    """Number of its configuration."""
    settings: dict[str, Any]
    """In which it differs from others."""
    loss: float
    table: list[dict[str, Any]]
    """A line for each configuration: its settings, `loss`, `status`, `rung`, `rows`, `steps`, and whether it is the `best`."""


@speaks_python
def tune(
    source: Any,
    target: str,
    grid: Mapping[str, Sequence[Any]] | Sequence[str] | str = (),
    *,
    random: int | None = None,
    halving: float | None = None,
    restarts: int | None = None,
    out: str | os.PathLike[str] | None = None,
    table: str | os.PathLike[str] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    **settings: Any,
) -> Tuned:
    """Train all configurations of a grid in one decode, and return the best: docs/tuning.md says how.

    Parameters
    ----------
    source, target
        As in training.
    grid
        Values to try, by setting: all combinations; or texts as `--grid` takes them, `learning_rate=0.1,0.2`. With `restarts`
        it may be left out.
    random
        How many of them to draw, by `seed`; all without it.
    halving
        One in how many goes on after each comparison, e.g. 3; without it all run to their end.
    restarts
        Starts of every configuration of a model that is not linear, from other random numbers; rows come in the same order.
    out
        Where to save the best model. Checkpoints go beside it, so that the same call resumes after a kill.
    table
        Where to write a line for each configuration: a name that ends with .parquet or .csv.
    on_progress
        Called with a `Progress` on the way.
    settings
        Fields of `settings.Settings` for all. They are compared by `validation`, 0.1 if nobody says; with 0, and in one pass,
        by the losses of rows before they are learned.

    Raises
    ------
    StreamSGDError
        The data, the settings or the storage is at fault; or every configuration left the finite numbers.

    """
    given = {"memory": task_memory(), "target": target, **settings}
    places = (None if out is None else str(out), None if table is None else str(table))
    lines = [grid] if isinstance(grid, str) else grid
    asked = dict(lines) if isinstance(lines, Mapping) else list(lines) if isinstance(lines, Iterable) else [None]
    if not all(isinstance(name, str) for name in asked):
        raise SettingsError(f"--grid: {shown(grid)} is none: give settings, whose names are texts, with values, {AS}")
    return run_tune(source, given, asked, draw=random, halving=halving, restarts=restarts, places=places, told=on_progress)


def run_tune(
    data: Any,
    given: Mapping[str, Any],
    grid: dict[str, Sequence[Any]] | Sequence[str],
    *,
    draw: int | None = None,
    halving: float | None = None,
    restarts: int | None = None,
    places: tuple[str | None, str | None] = (None, None),
    origins: Mapping[str, str] | None = None,
    told: Callable[[Progress], None] | None = None,
    footers: Callable[[int, int], None] | None = None,
    chosen: Callable[[list[dict[str, Any]], list[Job]], None] | None = None,
) -> Tuned:
    """Run all configurations, save the best model and the table; see `tune`.

    Parameters
    ----------
    data, draw, halving, restarts, told
        As of `tune`.
    given, origins
        Settings for all, and where they came from.
    grid
        Values by setting, or texts SETTING=VALUE,VALUE.
    places
        Of the model and of the table.
    footers
        Called with footers read.
    chosen
        Called with the configurations and their jobs before they run.

    Raises
    ------
    StreamSGDError
        As of `tune`.

    """
    out, table = places
    if table is not None:
        check_table(table)
        check_file("--table", table)
    if halving is not None and not halving > 1.0:
        raise SettingsError(f"--halving {halving:g}: one in how many goes on, above 1, e.g. 3")
    values: Mapping[str, Sequence[Any]] = grid if isinstance(grid, dict) else parse_grid(grid)
    if draw is not None and not values:
        raise SettingsError(f"--random {draw} draws from the values of --grid: pass some with it")
    common = {"validation": HELD, **given}
    if out is not None and common.get("checkpoint") is None:
        common["checkpoint"] = f"{out}.ckpt"
    each = configurations(values, draw, int(common.get("seed") or 0)) if values or restarts is None else [{}]
    each = each if restarts is None else restarted(each, str(common.get("model", "linear")), restarts)
    made = made_many(common, each, origins or {})
    with reserved(out, made[0].checkpoint):
        runs = ManyRuns(data, made, halving=halving, best_only=True, told=told, footers=footers)
        for flag, place in (("--out", out), ("--table", table)):
            check_no_input(flag, place, runs.jobs[0].dataset.source)
        _check_comparable(runs.jobs)
        if chosen:
            chosen(each, runs.jobs)
        tuned = _best(each, runs.run(), runs.jobs)
        if table is not None:
            write_lines(tuned.table, table)
        if out is not None:
            tuned.model.save(out)
        runs.clear()
    return tuned


def _check_comparable(jobs: Sequence[Job]) -> None:
    """Refuse to compare by losses of rows that were learned before.

    Raises
    ------
    SettingsError
        Nothing is held out, and there are several passes.

    """
    if jobs[0].recipe.held or max(job.span for job in jobs) <= 1.0:
        return
    raise SettingsError(
        "--validation 0 compares by losses of rows before they are learned, and runs of several passes learn rows again: hold "
        "some out, as with --validation 0.1, or pass --epochs 1"
    )


def _best(each: Sequence[dict[str, Any]], ended: Sequence[Ended], jobs: Sequence[Job]) -> Tuned:
    """Return the best model and the table.

    Raises
    ------
    DivergedError
        No run came to its end; or with --strict the best one is worse than a constant prediction.
    SettingsError
        No row was held out to compare by.

    """
    done = [number for number, one in enumerate(ended) if one.status == "done"]
    if not done:
        raise DivergedError(
            "every configuration left the finite numbers: try lower rates, as with --grid learning_rate=0.001,0.01, or pass "
            "--scale standard"
        )
    best = min(done, key=lambda number: (ended[number].loss, number))
    if ended[best].loss == math.inf:
        raise SettingsError(
            f"--validation {jobs[best].settings.validation!r}: no configuration has a loss of held-out rows to be compared by; "
            "hold out more of them"
        )
    model = ended[best].model
    assert model is not None, "the best one is kept"  # noqa: S101  for the type checker
    job = jobs[best]
    check_useful(model.metrics, ended[best].rows, job.parts, strict=job.settings.strict)
    table = [_line(number, own, jobs[number].settings, ended[number], best) for number, own in enumerate(each)]
    return Tuned(model, best, dict(each[best]), ended[best].loss, table)


def _line(number: int, own: Mapping[str, Any], settings: Settings, ended: Ended, best: int) -> dict[str, Any]:
    said = msgspec.to_builtins(settings)
    return {
        "configuration": number,
        **{name: said[name] for name in own},
        "loss": ended.loss if ended.status != "diverged" else None,
        "status": ended.status,
        "rung": ended.rung,
        "rows": ended.rows,
        "steps": ended.steps,
        "best": number == best,
    }


def best_in_words(tuned: Tuned) -> str:
    """Return the settings of the best in a line."""
    return in_words(tuned.settings)
