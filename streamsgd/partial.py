"""A model that learns from tables as they come: `Trainer.partial_fit`."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from streamsgd.compute.executors import Inline
from streamsgd.data.open import open_data
from streamsgd.data.sources.tables import KnownTable
from streamsgd.errors import DataError, SettingsError
from streamsgd.kernels.parts.traits import judges, reduces
from streamsgd.model.read import load
from streamsgd.planning.chunks import make_plan
from streamsgd.settings.make import make_settings
from streamsgd.settings.registry import make
from streamsgd.settings.words import speaks_python
from streamsgd.stream.loader import check_loader
from streamsgd.stream.stream import read_chunk
from streamsgd.training.backends.inline import InlineBackend
from streamsgd.training.choices import say_choices
from streamsgd.training.classes.logit_adjustment import ADJUSTS
from streamsgd.training.classes.strata import wants_strata
from streamsgd.training.engine import Engine
from streamsgd.training.initial import empty_state
from streamsgd.training.phases.epochs import EPOCHS, Epochs
from streamsgd.training.prepare import check_draws, prepare
from streamsgd.training.result import model_from
from streamsgd.training.resuming.start import check_keeps, read_start, say_learned_before, start_from

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from streamsgd.model.model import Model
    from streamsgd.settings.fields import Settings
    from streamsgd.training.job import Job
    from streamsgd.training.phases.base import Outcome, PhaseKind
    from streamsgd.training.resuming.start import Start

TABLES = EPOCHS._replace(make=partial(Epochs, all_new=True))
"""Learning whose every epoch is a table of its own."""


class Trainer:
    """Learns from tables as they come: for ETL jobs that hold the data already.

    The first table decides the encoding (and the classes, unless `classes` is given); the rows of each later one are learned
    once more, shuffled. The learning rate of batches falls as 1/sqrt(t) unless a schedule is set, because nobody knows how many
    tables will come; learning row by row sees to that itself. A trainer pickles, without the rows of its tables, and goes on
    with the same bits.

    Parameters
    ----------
    target
        Column to predict.
    settings
        Fields of `settings.Settings`.

    Raises
    ------
    SettingsError
        A setting is unknown or out of range, or needs all the data at once.

    """

    @speaks_python
    def __init__(self, target: str, **settings: Any) -> None:
        self._begin(_settings_of_tables(target, settings), None)

    def _begin(self, settings: Settings, model: Model | None) -> None:
        self._start: Start | None = None
        if model is not None:
            settings, self._start = start_from(model, settings, "the model")
        elif settings.start is not None:
            settings, self._start = read_start(settings.start, settings)
        check_keeps(settings)
        self.settings = settings
        self._engine: Engine | None = None
        self._outcome: Outcome | None = None

    def __getstate__(self) -> dict[str, Any]:
        engine = self._engine
        kept = None if engine is None else (_without_rows(engine.job), *engine.state())
        return {"settings": self.settings, "start": self._start, "engine": kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.settings, self._start = state["settings"], state["start"]
        self._engine = self._outcome = None
        if state["engine"] is not None:
            job, header, arrays = state["engine"]
            self._engine = _engine_of(job, TABLES._replace(make=_yet_to_be_restored))
            self._engine.restore(header, arrays)
            self._outcome = self._engine.run()  # of what was learned: there is nothing to run

    @speaks_python
    def partial_fit(self, table: Any) -> Trainer:
        """Learn from a table, or whatever else `train` takes; return self. A later one without rows changes nothing.

        Raises
        ------
        StreamSGDError
            The table lacks a column, or holds values that the settings do not allow, or made learning diverge; nothing of it
            was learned, and the next one is learned as if it had not come.

        """
        if self._engine is None:
            start = self._start
            job = _open_ended(prepare(table, self.settings, frozen=start.frozen(self.settings) if start else None))
            _check_rows(job)
            if start:
                say_choices([job])
                say_learned_before(job, start)
            engine = _engine_of(job)
            if start:
                engine.go_on_from(start.memory, start.race)
        else:
            engine = self._engine
            later = _with_table(learning_of(engine).job, table)
            if later is None:
                return self
            job = later
            _check_rows(job)
            engine.backend = InlineBackend(job)
        before = None if self._engine is None else deepcopy(engine.state())
        try:
            learning_of(engine).go_on(job)
            outcome = engine.run()
        except BaseException:
            if before is not None:
                engine.go_back([_yet_to_be_restored(engine.job, lambda _: None)], *before)
                self._outcome = engine.run()  # of what was learned before: there is nothing to run
            raise
        self._engine, self._outcome = engine, outcome
        return self

    @classmethod
    @speaks_python
    def load(cls, path: str | os.PathLike[str], **settings: Any) -> Trainer:
        """Return a trainer that goes on from a model that was trained with `keep_memory=True`.

        Raises
        ------
        ModelError
            There is no such model, or it does not hold what its optimizer remembers.
        SettingsError
            The settings ask for other columns, losses or rules than the model's.

        """
        return cls(load(path).target.name, start=str(path), **settings)

    @classmethod
    @speaks_python
    def of(cls, model: Model, **settings: Any) -> Trainer:
        """Return a trainer that goes on from a model in memory that was trained with `keep_memory=True`.

        Raises
        ------
        ModelError, SettingsError
            As `load`.

        """
        trainer = cls.__new__(cls)
        trainer._begin(_settings_of_tables(model.target.name, settings), model)  # noqa: SLF001  its own
        return trainer

    @property
    @speaks_python
    def model(self) -> Model:
        """The model as it is now.

        Raises
        ------
        DataError
            No table has come yet.

        """
        if self._engine is None or self._outcome is None:
            raise DataError("there is no model yet: call partial_fit first")
        lineage = self._start.lineage if self._start else ()
        return model_from(self._outcome, self._engine.totals, self._engine.validator.metrics(), lineage)

    @speaks_python
    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the model as it is now."""
        self.model.save(path)


def _settings_of_tables(target: str, given: dict[str, Any]) -> Settings:
    """Return checked settings of learning table by table.

    Raises
    ------
    SettingsError
        One is unknown or out of range, or needs all the data at once.

    """
    # A table is a pass of its own: nothing in it was seen before.
    settings = make_settings({"epochs": 1, **given, "target": target, "cache": "none"})
    for name in ("polish", "standard_errors", "noise", "method", "conformal"):
        if getattr(settings, name):
            raise _all_at_once(f"--{name.replace('_', '-')}")
    if settings.recalibrate != "none":
        raise _all_at_once("--recalibrate")
    if settings.loss != "auto" and not getattr(make("loss", settings.loss), ADJUSTS, 1.0):
        raise SettingsError(
            f"--loss {settings.loss} counts the classes of all the data, and here it comes table by table: say log_odds, "
            "log(positives / negatives), too: logistic:adjust=1,log_odds=-4.6"
        )
    if settings.rare not in ("none", "auto"):
        raise _all_at_once("--rare")
    shuffle = "corgi" if settings.shuffle == "auto" else settings.shuffle
    if wants_strata(settings):
        raise _all_at_once(f"--shuffle {shuffle}")
    if getattr(make("shuffle", shuffle), "rewrites", False):
        raise _all_at_once(f"--shuffle {shuffle}")
    if settings.optimizer != "auto" and (reduces(part := make("optimizer", settings.optimizer)) or judges(part)):
        raise _all_at_once(f"--optimizer {settings.optimizer}")
    share = 0.0 if settings.validation == "auto" else settings.validation  # every table is new
    return msgspec.structs.replace(settings, rare="none", shuffle=shuffle, validation=share)


def _all_at_once(what: str) -> SettingsError:
    return SettingsError(f"{what} needs all the data at once, and here it comes table by table: use streamsgd.train")


def _yet_to_be_restored(job: Job, reached: Callable[[float], None]) -> Epochs:
    return Epochs(job, reached, all_new=True, state=empty_state(job))


def _engine_of(job: Job, kind: PhaseKind = TABLES) -> Engine:
    return Engine(job, [kind], InlineBackend(job), Inline(), all_new=True)


def _without_rows(job: Job) -> Job:
    """Return a job of which all is known but the rows of its table."""
    dataset = replace(job.dataset, source=KnownTable(job.dataset.source))
    return replace(job, dataset=dataset, recipe=replace(job.recipe, dataset=dataset))


def learning_of(engine: Engine) -> Epochs:
    """Return the one phase of an engine that learns from tables."""
    (epochs,) = engine.phases
    assert isinstance(epochs, Epochs), "TABLES makes it"  # noqa: S101  for the type checker
    return epochs


def _open_ended(job: Job) -> Job:
    """Return the job with a rate that falls for ever, where nobody chose one and the optimizer does not see to that itself."""
    if job.settings.schedule != "auto" or type(job.parts.schedule).__name__ == "Constant":
        return job
    return replace(job, parts=job.parts._replace(schedule=make("schedule", "inverse-scaling:power=0.5")))


def _check_rows(job: Job) -> None:
    """Read a table of several chunks before any is learned: one that is refused changes nothing.

    A single chunk is read as a whole before it is learned anyway.

    Raises
    ------
    DataError
        It holds values that the settings do not allow.

    """
    plan = job.plan_in_order
    if plan.n_chunks(0) == 1:
        return
    most = min(plan.chunk_rows, plan.n_rows)
    block, room = job.recipe.allocate(most), np.empty(most, np.int32)
    for k in range(plan.n_chunks(0)):
        read_chunk(job.recipe, plan, plan.chunk(0, k), block, room)


def _with_table(job: Job, table: Any) -> Job | None:
    """Return the job of a later table, whatever holds it; None if it has no row."""
    settings, recipe = job.settings, job.recipe
    nulls = settings.missing_columns == "null"
    dataset, _, _ = open_data(table, settings.filter, trained=job.encoding.types, nulls=nulls, empty=True)
    recipe = check_loader(replace(recipe, dataset=dataset))
    if not dataset.n_rows:
        return None
    again = make_plan(
        dataset.rows,
        dataset.file,
        row_bytes=recipe.row_bytes,
        chunk_rows=job.plan.chunk_rows,
        tile_rows=job.plan.tile_rows,
        sampler=job.plan.sampler,
        seed=job.plan.seed,
    )
    check_draws(again)
    return replace(job, dataset=dataset, recipe=recipe, plan=again)
