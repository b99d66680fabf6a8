"""Many models from one decode: runs in groups that memory holds, halved on the way if asked for, saved and resumed together.

Each model is that of its solo run, to the byte (with `--polish none`, where that one would be polished). What is dropped
when follows from what the runs had learned at one place of the stream, which a checkpoint has, so that a run that was killed
drops the same.
"""

from __future__ import annotations

import gc
import logging
import math
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from streamsgd.compute.context import task_memory
from streamsgd.data.stores.filesystems import set_io_timeout
from streamsgd.data.stores.output import reserved
from streamsgd.errors import DivergedError, SettingsError, Stopped
from streamsgd.kernels.structs.state import LOSS, ROWS, WEIGHT
from streamsgd.messages import said_once
from streamsgd.model.evaluation import named
from streamsgd.planning.halving import Rung, rungs
from streamsgd.settings.grid import LEARNED, check_varied, made_many
from streamsgd.settings.words import speaks_python
from streamsgd.training.checkpoint import Checkpoints
from streamsgd.training.choices import say_choices
from streamsgd.training.learner import next_mark
from streamsgd.training.prepare import prepare_many
from streamsgd.training.run import check_same_data, saved_in
from streamsgd.training.stopping import stopping
from streamsgd.training.together.learn import (
    check_alone,
    check_room,
    check_together,
    groups_of,
    learn_together,
    sharing,
    unpolished,
)
from streamsgd.training.together.saved import Cursor, Ended, SavedRuns, frozen_runs, read_runs, restore_run, save_runs
from streamsgd.training.useful import check_learned

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streamsgd.model.model import Model
    from streamsgd.settings.fields import Settings
    from streamsgd.training.engine import Engine
    from streamsgd.training.job import Job

log = logging.getLogger("streamsgd")


class Halved(Exception):  # noqa: N818  no error: others learned better
    """Raised in a run that is dropped."""


class Progress(NamedTuple):
    """How far the runs of a group are."""

    rows: int
    passes: float
    going: int
    dropped: int
    best: int
    """Number of the run with the least loss so far."""
    loss: float


@speaks_python
def train_many(
    source: Any,
    target: str,
    settings: Sequence[Mapping[str, Any]],
    *,
    on_progress: Callable[[Progress], None] | None = None,
    **common: Any,
) -> list[Model | DivergedError]:
    """Train several models in one decode of the data, each the same bytes as `train` makes of its settings alone.

    None is polished without being told (`--polish`), which takes passes of its own.

    Parameters
    ----------
    source, target
        As in training.
    settings
        Of each model: fields of `settings.Settings` that differ between them, such as `learning_rate`, `penalty`, `optimizer`,
        `batch_size`, `schedule`, `loss` or `epochs`. What says which rows there are and how they are encoded is for all.
    on_progress
        Called with a `Progress` on the way.
    common
        Settings of all of them. With `checkpoint`, the same call goes on where a killed one was.

    Returns
    -------
    list
        The models, in the order of their settings; in the place of one that left the finite numbers the error that says so.

    Raises
    ------
    StreamSGDError
        The data, the settings or the storage is at fault; see `errors`.

    """
    each = [dict(own) for own in settings]
    if not each:
        raise SettingsError("settings=[]: there is nothing to learn; pass a dict of settings for each model")
    for name in dict.fromkeys(name for own in each for name in own):
        check_varied(name, LEARNED, "settings: ")
    made = made_many({"memory": task_memory(), "target": target, **common}, each, {})
    with reserved(None, made[0].checkpoint):
        runs = ManyRuns(source, made, told=on_progress)
        ended = runs.run()
        runs.clear()
    return [DivergedError(one.why) if one.model is None else one.model for one in ended]


class ManyRuns:
    """Runs that learn from one decode.

    Parameters
    ----------
    data
        As in training.
    settings
        Of each, checked; they differ in `settings.grid.LEARNED` only.
    halving
        One in how many goes on after each comparison; None for all to their end.
    best_only
        Whether only the best model is wanted of those of groups that have ended.
    told
        Called with how far they are.
    footers
        Called with footers read.
    refit
        Changes each job as it was prepared: how it shares the stream, and no bit of its model.

    """

    def __init__(
        self,
        data: Any,
        settings: Sequence[Settings],
        *,
        halving: float | None = None,
        best_only: bool = False,
        told: Callable[[Progress], None] | None = None,
        footers: Callable[[int, int], None] | None = None,
        refit: Callable[[Job], Job] | None = None,
    ) -> None:
        first = settings[0]
        self._ends = time.monotonic() + (math.inf if first.time_limit is None else first.time_limit)
        for own in settings:
            check_alone(own)
        set_io_timeout(first.io_timeout)
        self.halving, self.best_only, self._told = halving, best_only, told or (lambda _progress: None)
        self.checkpoints = Checkpoints(first.checkpoint, first.checkpoint_keep) if first.checkpoint else None
        found = saved_in(self.checkpoints, first)
        self._saved: SavedRuns | None = None if found is None else read_runs(found, len(settings), str(first.checkpoint))
        self.jobs = self._prepared(data, settings, footers)
        if refit is not None:
            self.jobs = [refit(job) for job in self.jobs]
        self.jobs = [unpolished(job) for job in self.jobs]
        for job in self.jobs:
            check_together(job)
        if self._saved is not None:
            check_same_data(self._saved.header, self.jobs[0])
        self._plan_groups()
        self._resume()
        self.stop = threading.Event()

    def _prepared(self, data: Any, settings: Sequence[Settings], footers: Callable[[int, int], None] | None) -> list[Job]:
        """Return the jobs of all runs, as a checkpoint decided them if there is one."""
        frozen = None if self._saved is None else frozen_runs(self._saved, settings)
        return prepare_many(data, settings, frozen=frozen, progress=footers)

    def _plan_groups(self) -> None:
        saved = self._saved
        self.groups = saved.cursor.groups if saved else groups_of(self.jobs, best_only=self.best_only)
        if saved:
            for group in self.groups:
                check_room([self.jobs[k] for k in group])
        say_choices(self.jobs)
        if len(self.groups) > 1:
            halved = " and halved each by itself, so that --memory has a part in what is dropped" if self.halving else ""
            log.warning(
                "%d runs learn in %d groups, each with a decode of its own%s: more do not fit into --memory, or learn other "
                "chunks or forms of rows",
                *(len(self.jobs), len(self.groups), halved),
            )

    def _resume(self) -> None:
        saved = self._saved
        _, self.group, self.rung, self.rounds = saved.cursor if saved else Cursor(self.groups, 0, 0, 0)
        self.ended: dict[int, Ended] = saved.ended(self.jobs) if saved else {}

    def run(self) -> list[Ended]:
        """Run all groups; return what came of each run.

        Raises
        ------
        Stopped
            A signal or the time limit came; a checkpoint was saved, if there is a place for it.

        """
        with stopping(self.stop), said_once():
            while self.group < len(self.groups):
                self._run_group()
                self.group, self.rung = self.group + 1, 0
                gc.collect()  # engines and their stream know each other, and the next group has the memory planned for itself
        return [self.ended[number] for number in range(len(self.jobs))]

    def clear(self) -> None:
        """Delete the checkpoints: what came of them is saved."""
        if self.checkpoints:
            self.checkpoints.clear()

    # --- a group

    def _run_group(self) -> None:
        group = self.groups[self.group]
        self._members = [number for number in group if number not in self.ended]
        self._span = max(self.jobs[number].span for number in group)
        self._rungs: tuple[Rung, ...] = rungs(len(group), self.halving) if self.halving else ()
        self._mark, self._saved_at, self._since_save = next_mark(0), time.monotonic(), -1
        self._check_rungs()
        kept = sum(self.jobs[number].n_weights * 8 for number, one in self.ended.items() if one.model is not None)
        jobs = sharing([self.jobs[number] for number in self._members], kept)
        found = learn_together(jobs, begin=self._begin, between=self._between)
        for number, one in zip(self._members, found, strict=True):
            if number not in self.ended:
                self.ended[number] = _ended(self.jobs[number], one)
        self._keep_the_best()

    def _check_rungs(self) -> None:
        """Say where runs cannot be compared before their end."""
        job = self.jobs[self._members[0]]
        if self._rungs and self._span <= job.plan.chunk_rows / job.plan.n_rows:
            log.warning(
                "--halving drops nothing: runs are compared at the ends of chunks, and there is but one, of %s rows; pass "
                "--chunk-rows %d for more",
                *(f"{job.plan.n_rows:,}", max(1, job.plan.n_rows // 32)),
            )

    def _keep_the_best(self) -> None:
        done = [number for number, one in self.ended.items() if one.model is not None]
        best = min(done, key=lambda number: (self.ended[number].loss, number), default=None)
        if self.best_only:
            self.ended |= {number: self.ended[number]._replace(model=None) for number in done if number != best}

    def _begin(self, engines: Sequence[Engine]) -> None:
        """Go to where a checkpoint was saved."""
        if self._saved is not None:
            for number, engine in zip(self._members, engines, strict=True):
                restore_run(self._saved, number, engine)
            self._saved = None

    def _between(self, engines: Sequence[Engine], going: list[int]) -> dict[int, BaseException]:
        """Drop who learns worst if it is time to, tell, save; return what is to be raised in which run."""
        if dropped := self._drop(engines, going):
            return dropped
        self._tell(engines, going)
        self.rounds += 1
        self._save_if_due(engines, going)
        return {}

    def _standing(self, engines: Sequence[Engine], going: list[int]) -> list[int]:
        """Return the places of those that were neither dropped nor diverged, the best first."""
        there = [
            k for k, engine in enumerate(engines) if self._members[k] not in self.ended and (k in going or engine.phase.done)
        ]
        return sorted(there, key=lambda k: (loss_so_far(engines[k]), k))

    def _drop(self, engines: Sequence[Engine], going: list[int]) -> dict[int, BaseException]:
        passes, keeps = _passes(engines[going[0]]), len(self._members)
        before = self.rung
        while self.rung < len(self._rungs) and passes >= self._rungs[self.rung].share * self._span * (1.0 - 1e-9):
            keeps, self.rung = self._rungs[self.rung].keeps, self.rung + 1
        if self.rung == before:
            return {}
        dropped = [k for k in self._standing(engines, going)[keeps:] if k in going]
        for k in dropped:
            tally, steps = engines[k].phase.tally, int(engines[k].phase.outcome().steps)
            self.ended[self._members[k]] = Ended("halved", loss_so_far(engines[k]), int(tally[ROWS]), steps, self.rung)
        self._tell(engines, [k for k in going if k not in dropped], now=True)
        return {k: Halved() for k in dropped}

    def _tell(self, engines: Sequence[Engine], going: list[int], *, now: bool = False) -> None:
        rows = max((int(engines[k].phase.tally[ROWS]) for k in going), default=0)
        if not going or not (now or rows >= self._mark):
            return
        self._mark = next_mark(rows)
        best = self._standing(engines, going)[0]
        dropped = sum(one.status == "halved" for one in self.ended.values())
        passes = _passes(engines[going[0]])
        self._told(Progress(rows, passes, len(going), dropped, self._members[best], loss_so_far(engines[best])))

    # --- checkpoints

    def _save_if_due(self, engines: Sequence[Engine], going: list[int]) -> None:
        settings, now = self.jobs[0].settings, time.monotonic()
        self._since_save += 1
        if not self._since_save:  # nothing was learned yet, and many short starts must come to an end
            return
        stops = self.stop.is_set() or now >= self._ends
        due = now - self._saved_at >= settings.checkpoint_every
        due |= settings.checkpoint_chunks is not None and self._since_save >= settings.checkpoint_chunks
        if self.checkpoints and (due or stops):
            self._save(self.checkpoints, engines, going)
            self._saved_at, self._since_save = time.monotonic(), 0
        if stops:
            why = "a signal" if self.stop.is_set() else "the time limit"
            saved = (
                f"a checkpoint is in {self.checkpoints.folder}; start again to go on" if self.checkpoints else "nothing saved"
            )
            raise Stopped(f"stopped by {why} after {_passes(engines[going[0]]):.3g} passes of group {self.group}: {saved}")

    def _save(self, checkpoints: Checkpoints, engines: Sequence[Engine], going: list[int]) -> None:
        ended, states = dict(self.ended), dict[int, Any]()
        for k, (number, engine) in enumerate(zip(self._members, engines, strict=True)):
            if number in ended:
                continue
            if k in going or engine.phase.done:
                states[number] = engine.state()
            else:
                ended[number] = Ended("diverged", math.inf, why="it left the finite numbers, in a process that is gone")
        save_runs(checkpoints, self.jobs, Cursor(self.groups, self.group, self.rung, self.rounds), ended, states)


def _ended(job: Job, found: Any) -> Ended:
    """Return what came of a run that was not dropped.

    Raises
    ------
    StreamSGDError
        It failed, other than by divergence.

    """
    if isinstance(found, DivergedError):
        return Ended("diverged", math.inf, why=str(found))
    if isinstance(found, BaseException):
        raise found
    model, report = found
    check_learned(model.provenance)
    return Ended("done", final_loss(job, model), report.rows, report.steps, model=model)


def final_loss(job: Job, model: Model) -> float:
    """Return the loss by which a run is compared at its end: of held-out rows, else of rows when they were new."""
    found = model.metrics["held_out"].get("loss") if job.recipe.held else model.metrics["progressive_loss"]
    return math.inf if found is None or not math.isfinite(found) else float(found)


def loss_so_far(engine: Engine) -> float:
    """Return the loss by which a run is compared on its way; infinite where there is none."""
    if engine.job.recipe.held:
        held = named(engine.validator.epoch_metrics, engine.job.parts.loss)
        found = held.get("loss", engine.validator.last.get("loss", math.inf))
    else:
        tally = engine.phase.tally
        found = float(tally[LOSS] / tally[WEIGHT]) if tally[WEIGHT] else math.inf
    return found if math.isfinite(found) else math.inf


def _passes(engine: Engine) -> float:
    """Return the passes that a run has done."""
    epoch, chunk = engine.phase.cursor
    plan = engine.job.plan
    return float(epoch + plan.rows_before(epoch, chunk) / plan.n_rows)
