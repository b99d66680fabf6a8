"""`train --batch-size pilot`: branches of several sizes learn the first rows, and the run goes on from the one that wins.

Of every seed there is a branch of each size that makes so many steps at a constant rate, as `streamsgd pilot` compares them.
Beside those of the run's own seed learn the runs of these sizes themselves, on the same rows of one decode: each is what
`train --batch-size B` is at that place, to the byte. Once the branches have made their steps, and these runs have learned as
many rows as the largest branch, losses say which size is enough. Its run goes on, as from a checkpoint, to whatever
its settings ask for; the others are dropped.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from streamsgd.data.stores.output import reserved
from streamsgd.errors import DivergedError, ModelError, SettingsError
from streamsgd.kernels.parts.traits import is_sequential, judges, reduces
from streamsgd.kernels.structs.state import ROWS
from streamsgd.model import store
from streamsgd.settings.batches import found_before, piloted, with_size
from streamsgd.settings.make import identity
from streamsgd.settings.registry import make, spec_of
from streamsgd.training.checkpoint import Checkpoints
from streamsgd.training.prepare import prepare_many
from streamsgd.training.resuming.partition import of_this
from streamsgd.training.run import Begun, frozen_of, saved_in, train_model
from streamsgd.training.together.learn import check_alone, check_room
from streamsgd.training.together.many import Halved, ManyRuns, loss_so_far
from streamsgd.training.together.pilot import MOST_ROWS, losses_of
from streamsgd.training.together.pilot_fit import as_dict, fit_losses, recommended, worth
from streamsgd.training.together.saved import Ended

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from streamsgd.model.model import Model
    from streamsgd.settings.fields import Settings
    from streamsgd.training.engine import Engine
    from streamsgd.training.events import Report
    from streamsgd.training.job import Job

log = logging.getLogger("streamsgd")

LATER: dict[str, Any] = {"polish": 0, "standard_errors": False, "conformal": False}
"""Settings of what comes after the epochs, and what they are while a pilot lasts."""


def train(
    data: Any, settings: Settings, *, out: str | os.PathLike[str] | None = None, client: Any = None, **told: Any
) -> tuple[Model, Report]:
    """Train as `train_model` does, by batches whose size a pilot finds where the settings say so.

    Raises
    ------
    StreamSGDError
        See `errors`.

    """
    if piloted(settings) is None:
        return train_model(data, settings, out=out, client=client, **told)
    if client is not None:
        raise SettingsError(f"--batch-size {settings.batch_size} learns in this process first: leave client out")
    if out is not None and settings.checkpoint is None:
        settings = msgspec.structs.replace(settings, checkpoint=f"{out}.ckpt")
    began = time.monotonic()
    with reserved(out, settings.checkpoint):
        data, settings, begun = begin(data, settings, told.get("footers"))
    if settings.time_limit is not None:  # of which the pilot took its part
        left = max(0.0, settings.time_limit - (time.monotonic() - began))
        settings = msgspec.structs.replace(settings, time_limit=left)
    return train_model(data, settings, out=out, begun=begun, **told)


def begin(data: Any, settings: Settings, footers: Callable[[int, int], None] | None = None) -> tuple[Any, Settings, Begun]:
    """Return the data, the settings with the size that was found, and where the run stands; go on where it was stopped.

    Raises
    ------
    StreamSGDError
        See `errors`.

    """
    checkpoints = Checkpoints(settings.checkpoint, settings.checkpoint_keep) if settings.checkpoint else None
    saved = saved_in(checkpoints, settings)
    if saved is not None and "runs" not in saved[0]:
        data, saved = of_this(data, saved, settings, footers)
        if saved is not None:
            known = found_before(settings, saved[0].get("pilot"))
            if known is None:
                raise ModelError(
                    f"the checkpoint in {settings.checkpoint} is of a run without such a pilot, and now it is --batch-size "
                    f"{settings.batch_size}: pass the same settings to go on, or --resume never to start anew"
                )
            return data, known, Begun(None, saved[0]["pilot"])
        if checkpoints:
            checkpoints.clear()
    runs = PilotRuns(data, settings, footers=footers)
    runs.run()
    found, header, arrays = runs.decide()
    packed = store.pack("checkpoint", header, arrays)
    if checkpoints:  # or a kill before the next one would begin the pilot anew; this drops those of the pilot that come later
        epoch, chunk = header["cursor"]
        checkpoints.save(epoch, chunk, header, arrays)
    begun = Begun(store.unpack("checkpoint", packed, "the pilot"), found)
    return runs.source, with_size(settings, int(found["chosen"])), begun


class PilotRuns(ManyRuns):
    """The branches of a pilot, group by group of one seed, and beside those of the last the runs of all sizes.

    Parameters
    ----------
    data, footers
        As in training.
    settings
        Of the run, whose batches a pilot is to find.

    """

    def __init__(self, data: Any, settings: Settings, *, footers: Callable[[int, int], None] | None = None) -> None:
        pilot = piloted(settings)
        assert pilot is not None, "whoever begins one sees to that"  # noqa: S101  for the type checker
        self.asked, self.pilot, self.sizes = str(settings.batch_size), pilot, pilot.numbers
        self.full = [with_size(settings, size) for size in self.sizes]
        self._check(settings)
        self._engines: Sequence[Engine] = ()
        super().__init__(data, [_alone(own) for own in self.full] * (pilot.seeds + 1), footers=footers)
        log.info(
            "pilot: batches of %s rows, %s seeds of each, %s steps; the run goes on with the size that is enough",
            *(", ".join(map(str, self.sizes)), pilot.seeds, f"{self.steps:,}"),
        )

    def _check(self, settings: Settings) -> None:
        """Refuse what has no size of batches to find.

        Raises
        ------
        SettingsError
            The optimizer learns otherwise, or the run ends after steps of a size that nobody knows.

        """
        if settings.steps is not None:
            raise SettingsError(
                f"--steps counts batches of a known size, and --batch-size {self.asked} finds one: pass --epochs"
            )
        optimizer = None if settings.optimizer == "auto" else make("optimizer", settings.optimizer)
        if optimizer is not None and (is_sequential(optimizer) or reduces(optimizer) or judges(optimizer)):
            raise SettingsError(
                f"--optimizer {settings.optimizer} has no size of batches that a pilot could find: leave --batch-size "
                f"{self.asked} out, or take an optimizer of batches, such as adam"
            )
        check_alone(_alone(settings))

    # --- what learns

    def _prepared(self, data: Any, settings: Sequence[Settings], footers: Callable[[int, int], None] | None) -> list[Job]:
        n, saved = len(self.sizes), self._saved
        first = len(settings) - n
        frozen = None if saved is None else [frozen_of(saved.of(first + k), settings[first + k]) for k in range(n)]
        runs = prepare_many(data, self.full, frozen=frozen, progress=footers)
        learned = int(runs[0].plan.n_rows * (1.0 - runs[0].recipe.held.share))
        self.steps = min(learned, self.pilot.rows or MOST_ROWS) // self.sizes[-1]
        if not self.steps:
            raise SettingsError(
                f"--batch-size {self.asked}: {self.sizes[-1]} rows are more than the {learned:,} to learn from: leave the "
                f"largest sizes out, as in pilot:sizes={max(1, learned // 64)}-{max(2, learned // 16)}"
            )
        self.source, self._first = runs[0].data.source, first
        own = self.full[0].seed
        jobs = [_branch(job, self.steps, seed) for seed in (*range(own + 1, own + self.pilot.seeds), own) for job in runs]
        jobs += [replace(job, settings=_alone(job.settings)) for job in runs]
        if saved is not None and saved.of(0)["settings"].get("steps") != self.steps:
            raise ModelError(
                f"the checkpoint in {self.full[0].checkpoint} is of another pilot than --batch-size {self.asked}: pass the "
                "same settings to go on, or --resume never to start anew"
            )
        return jobs

    def _plan_groups(self) -> None:
        n = len(self.sizes)
        starts = [*range(0, self._first - n, n), self._first - n]
        self.groups = [list(range(k, k + n)) for k in starts[:-1]] + [list(range(starts[-1], len(self.jobs)))]
        kept = self._first * self.jobs[0].n_weights * 8
        for group in self.groups:
            check_room([self.jobs[k] for k in group], kept)

    # --- when the pilot ends

    def _begin(self, engines: Sequence[Engine]) -> None:
        self._engines = engines
        super()._begin(engines)

    def _drop(self, engines: Sequence[Engine], going: list[int]) -> dict[int, BaseException]:
        """End all where the branches have made their steps and the runs have learned as many rows."""
        runs = [k for k in going if self._members[k] >= self._first]
        rows = self.steps * self.sizes[-1]
        if len(runs) < len(going) or not all(_is_there(engines[k], rows) for k in runs):
            return {}
        for k in runs:
            tally, steps = engines[k].phase.tally, int(engines[k].phase.outcome().steps)
            self.ended[self._members[k]] = Ended("halved", loss_so_far(engines[k]), int(tally[ROWS]), steps)
        return {k: Halved() for k in runs}

    def _tell(self, engines: Sequence[Engine], going: list[int], *, now: bool = False) -> None:
        """Say nothing on the way."""

    # --- what comes out

    def decide(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, np.ndarray]]:
        """Return what was found, as JSON values, and header and arrays of a checkpoint of the run that goes on.

        Raises
        ------
        DivergedError
            Branches of all sizes but one left the finite numbers.

        """
        engines = dict(zip(self._members, self._engines, strict=True))
        there = [number for number in range(self._first, len(self.jobs)) if self.ended[number].status != "diverged"]
        models = [self.ended[number].model for number in range(self._first)]
        models += [engines[number].phase.model() if number in there else None for number in range(self._first, len(self.jobs))]
        job = replace(self.jobs[-1], recipe=self.jobs[self._first].recipe)
        losses = np.array(losses_of(job, models, _chunks(engines[there[0]]) if there else 1))
        found = self._found(losses[: self._first].reshape(self.pilot.seeds, -1), losses[self._first :])
        number = self._first + self.sizes.index(found["chosen"])
        header, arrays = engines[number].state()
        header |= {"settings": identity(self.full[number - self._first]), "pilot": found}
        return found, header, arrays

    def _found(self, at_steps: np.ndarray, at_rows: np.ndarray) -> dict[str, Any]:
        """Return what the losses of branches, (n_seeds, n_sizes), and those of the runs, (n_sizes,), say."""
        sound = np.isfinite(at_steps).all(axis=0) & np.isfinite(at_rows)
        sizes = np.array(self.sizes, float)[sound]
        if len(sizes) < 2:
            raise DivergedError(
                "branches of this pilot left the finite numbers: lower --learning-rate, or leave the sizes out that do"
            )
        fit = fit_losses(sizes, at_steps[:, sound])
        size = recommended(fit, sizes)
        chosen = int(min(sizes[sizes >= size], default=sizes[-1]))
        learned = [self.ended[number].rows for number in range(len(self.jobs))]
        own = learned[self._first + self.sizes.index(chosen)]
        return {
            "asked": spec_of("batch_size", self.pilot),
            "chosen": chosen,
            "recommended": size,
            "fit": as_dict(fit),
            "doubling_gain": fit.c / (2.0 * chosen),
            "worth": worth(fit),
            "steps": self.steps,
            "seeds": self.pilot.seeds,
            "rows": own,
            "rows_of_others": sum(learned) - own,
            "branches": [
                {"batch_size": size, "losses": _finite(at_steps[:, k]), "loss_after_rows": _finite(at_rows)[k]}
                for k, size in enumerate(self.sizes)
            ],
        }


def _alone(settings: Settings) -> Settings:
    """Return settings without what comes after the epochs."""
    return msgspec.structs.replace(settings, **LATER)


def _branch(job: Job, steps: int, seed: int) -> Job:
    """Return the job of a branch: so many steps at a constant rate, on the rows in the order of a seed."""
    settings = msgspec.structs.replace(
        _alone(job.settings), steps=steps, seed=seed, average="none", patience=None, keep_memory=False
    )
    parts = job.parts._replace(schedule=make("schedule", "constant"))
    return replace(job, settings=settings, parts=parts, plan=replace(job.plan, seed=seed))


def _is_there(engine: Engine, rows: int) -> bool:
    """Whether a run has learned so many rows, or all there are."""
    return int(engine.phase.tally[ROWS]) >= rows or engine.phase.cursor[0] > 0


def _chunks(engine: Engine) -> int:
    """Return the chunks of the first epoch that a run has learned."""
    epoch, chunk = engine.phase.cursor
    return engine.job.plan.n_chunks(0) if epoch else chunk


def _finite(losses: np.ndarray) -> list[float | None]:
    return [float(loss) if math.isfinite(loss) else None for loss in losses]
