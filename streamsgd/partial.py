"""A model that learns from tables as they come: `Trainer.partial_fit`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from streamsgd.compute.executors import Inline
from streamsgd.data.tables import table_dataset
from streamsgd.errors import DataError, SettingsError
from streamsgd.kernels.parts.traits import reduces
from streamsgd.model.model import load
from streamsgd.planning.chunks import make_plan
from streamsgd.settings.make import make_settings
from streamsgd.settings.registry import make
from streamsgd.settings.words import speaks_python
from streamsgd.stream.loader import check_loader
from streamsgd.stream.stream import read_chunk
from streamsgd.training.backends.inline import InlineBackend
from streamsgd.training.engine import Engine
from streamsgd.training.phases.epochs import EPOCHS, Epochs
from streamsgd.training.prepare import check_draws, prepare
from streamsgd.training.result import model_from
from streamsgd.training.start import check_keeps, read_start

if TYPE_CHECKING:
    import os

    from streamsgd.model.model import Model
    from streamsgd.training.job import Job
    from streamsgd.training.phases.base import Outcome
    from streamsgd.training.start import Start

TABLES = EPOCHS._replace(make=partial(Epochs, all_new=True))
"""Learning whose every epoch is a table of its own."""


class Trainer:
    """Learns from tables as they come: for ETL jobs that hold the data already.

    The first table decides the encoding (and the classes, unless `classes` is given); the rows of each later one are learned
    once more, shuffled. The learning rate of batches falls as 1/sqrt(t) unless a schedule is set, because nobody knows how many
    tables will come; learning row by row sees to that itself.

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
        # A table is a pass of its own: nothing in it was seen before.
        self.settings = make_settings({"epochs": 1, **settings, "target": target, "cache": "none"})
        for name in ("polish", "standard_errors", "noise", "method", "conformal"):
            if getattr(self.settings, name):
                flag = f"--{name.replace('_', '-')}"
                raise SettingsError(f"{flag} needs all the data at once, and here it comes table by table: use streamsgd.train")
        if self.settings.rare not in ("none", "auto"):
            raise SettingsError("--rare needs all the data at once, and here it comes table by table: use streamsgd.train")
        known = 0.0 if self.settings.validation == "auto" else self.settings.validation  # every table is new
        self.settings = msgspec.structs.replace(self.settings, rare="none", validation=known)
        if self.settings.shuffle == "auto":
            self.settings = msgspec.structs.replace(self.settings, shuffle="corgi")
        if getattr(make("shuffle", self.settings.shuffle), "rewrites", False):
            what = f"--shuffle {self.settings.shuffle} needs all the data at once"
            raise SettingsError(f"{what}, and here it comes table by table: use streamsgd.train")
        spec = self.settings.optimizer
        if spec != "auto" and reduces(make("optimizer", spec)):
            what = f"--optimizer {spec} needs all the data at once"
            raise SettingsError(f"{what}, and here it comes table by table: use streamsgd.train")
        self._start: Start | None = None
        if self.settings.start is not None:
            self.settings, self._start = read_start(self.settings.start, self.settings)
        check_keeps(self.settings)
        self._engine: Engine | None = None
        self._outcome: Outcome | None = None

    @speaks_python
    def partial_fit(self, table: Any) -> Trainer:
        """Learn from a table (anything with `__arrow_c_stream__`); return self.

        Raises
        ------
        StreamSGDError
            The table lacks a column, or holds values that the settings do not allow; nothing of it was learned.

        """
        if self._engine is None:
            start = self._start
            job = _open_ended(prepare(table, self.settings, frozen=start.frozen(self.settings) if start else None))
            _check_rows(job)
            engine = Engine(job, [TABLES], InlineBackend(job), Inline(), all_new=True)
            if start:
                engine.go_on_from(start.memory, start.race)
        else:
            engine, job = self._engine, _with_table(learning_of(self._engine).job, table)
            _check_rows(job)
            engine.backend = InlineBackend(job)
        learning_of(engine).go_on(job)
        self._outcome = engine.run()
        self._engine = engine
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


def _with_table(job: Job, table: Any) -> Job:
    dataset = table_dataset(table)
    recipe = check_loader(replace(job.recipe, dataset=dataset))
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
