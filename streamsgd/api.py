"""What a program calls. The command line is a thin skin over these functions."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from streamsgd.budget import parse_limit
from streamsgd.clusters import client_of
from streamsgd.delayed import lazily
from streamsgd.errors import DataError, SettingsError
from streamsgd.evaluation import Evaluator, check_recipe
from streamsgd.executors import EXECUTORS, Inline, seceded, task_memory, usual_threads
from streamsgd.inspection import Inspection, inspect_data
from streamsgd.job import Job, prepare
from streamsgd.model import Model, load
from streamsgd.planning import make_plan
from streamsgd.registry import make
from streamsgd.scoring import Scored, score_data, score_rows
from streamsgd.settings import make_settings
from streamsgd.svrg import reduces
from streamsgd.tables import table_dataset
from streamsgd.trainer import Run
from streamsgd.training import train_model

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np

    from streamsgd.account import Account
    from streamsgd.executors import Executor
    from streamsgd.reports import Progress

SCORING_BLOCK_SHARE = 1 / 16
"""Share of the memory limit that each of the two blocks of a scoring run takes, up to `SCORING_BLOCK_BYTES`."""

SCORING_BLOCK_BYTES = 64 << 20


def train(
    source: Any,
    target: str,
    *,
    out: str | os.PathLike[str] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    client: Any = None,
    **settings: Any,
) -> Model:
    """Train a model on Parquet of any size, within a memory budget, resuming where a killed run stopped.

    Parameters
    ----------
    source
        Path, folder, glob, URL, or a list of them; or a table (anything with `__arrow_c_stream__`); or a Dask DataFrame, a list
        of delayed tables, or of futures of tables.
    target
        Column to predict.
    out
        Where to save the model. Checkpoints go beside it, so that the same call resumes after a kill.
    on_progress
        Called with a `Progress` at 1024, 2048, 4096, ... rows, at every evaluation, and after every chunk (see its `kind`).
    client
        A `dask.distributed.Client`, whose workers learn; nothing of it is changed, and it is left open.
    settings
        Fields of `settings.Settings`. Within a task of a Dask worker, memory is by default half of the worker's limit, and
        threads are the worker's.

    Raises
    ------
    StreamSGDError
        The data, the settings or the storage is at fault; see `errors`.

    Examples
    --------
    >>> model = train("flights/*.parquet", "late", exclude=["origin"], memory="1GB")  # doctest: +SKIP

    """
    made = make_settings({"memory": task_memory(), "target": target, **settings})
    with nullcontext() if client is None else seceded():  # the first look may wait for tasks already
        return train_model(source, made, out=out, emit=on_progress, client=client)[0]


def plan(source: Any, target: str, **settings: Any) -> Job:
    """Return everything that `train` would decide before its first update, without training.

    Raises
    ------
    StreamSGDError
        As `train`.

    """
    return prepare(source, make_settings({"target": target, **settings}))


def evaluate(
    model: Model | str | os.PathLike[str],
    source: Any,
    *,
    loss: str | None = None,
    filter: str | None = None,  # noqa: A002  the name of the setting
    memory: str | None = None,
    threads: int | None = None,
    executor: str = "dask",
    workers: int | None = None,
    scheduler: str | None = None,
    client: Any = None,
    account: Account | None = None,
) -> dict[str, float]:
    """Return the metrics of a model on labelled data; their names are those of `metrics`.

    Parameters
    ----------
    model
        A model or the path of one.
    source
        As in training.
    loss
        Where the loss of a model file is, if it is not streamsgd's: package.module:Class.
    filter, memory, threads, executor, workers, scheduler
        As the settings of these names; bad rows and unreadable row groups are skipped if they were in training.
    client
        A `dask.distributed.Client`, whose workers measure; the result has the same bits.
    account
        Filled meanwhile.

    Raises
    ------
    StreamSGDError
        The data lacks a column or holds what the model cannot use.

    """
    model = model if isinstance(model, Model) else load(model, loss=loss)
    with client_of(client, scheduler, workers) as found, _reading("inline" if found else executor, threads) as reader:
        block_bytes = _block_bytes(memory)
        data = Evaluator.for_model(model, lazily(source, found), reader, block_bytes=block_bytes, filter_text=filter)
        data.account, data.client, data.memory = account or data.account, found, memory
        return data.evaluate(model)


def predict(
    model: Model | str | os.PathLike[str],
    source: Any,
    out: str | os.PathLike[str],
    *,
    id: Sequence[str] | None = None,  # noqa: A002  the name of the setting
    loss: str | None = None,
    filter: str | None = None,  # noqa: A002  the name of the setting
    memory: str | None = None,
    threads: int | None = None,
    executor: str = "dask",
    workers: int | None = None,
    scheduler: str | None = None,
    client: Any = None,
    account: Account | None = None,
) -> Scored:
    """Write a model's predictions for Parquet of any size: one output per input file, safe to kill and call again.

    Parameters
    ----------
    model
        A model or the path of one.
    source
        Paths or URLs.
    out
        Folder for the outputs, or one file's name for one input file.
    id
        Columns to copy beside the predictions, names or globs; by default those named in training.
    loss
        Where the loss of a model file is, if it is not streamsgd's: package.module:Class.
    filter, memory, threads, executor, workers, scheduler
        As the settings of these names.
    client
        A `dask.distributed.Client`, whose workers score, a file each: they must reach the data and `out`.
    account
        Filled meanwhile.

    Raises
    ------
    StreamSGDError
        The data or the storage is at fault; finished files stay.

    """
    model = model if isinstance(model, Model) else load(model, loss=loss)
    ids = None if id is None else tuple(id)
    with client_of(client, scheduler, workers) as found, _reading("inline" if found else executor, threads) as reader:
        return score_data(
            model,
            source,
            str(out),
            executor=reader,
            block_bytes=_block_bytes(memory),
            ids=ids,
            filter_text=filter,
            account=account,
            client=found,
            memory=memory,
        )


def score(model: Model, source: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield scores and means, in block units, of the rows of Parquet, in its order; see `Model.predict`."""
    with _reading("dask", None) as reader:
        yield from score_rows(model, source, executor=reader, block_bytes=_block_bytes(None))


def inspect(source: Any, target: str | None = None, **settings: Any) -> Inspection:
    """Say what the data is: files, row groups, columns, and whether the order of its rows is a risk.

    Parameters
    ----------
    source
        As in training.
    target
        Column to look at more closely.
    settings
        Fields of `settings.Settings` that matter: features, exclude, filter, task, memory, batch_size, chunk_rows, seed.

    Raises
    ------
    StreamSGDError
        The footers cannot be read, or a column that was named is not there.

    """
    return inspect_data(source, make_settings({"target": target or "", **settings}))


@contextmanager
def _reading(executor: str, threads: int | None) -> Iterator[Executor]:
    reader = EXECUTORS[executor](usual_threads(threads))
    try:
        yield reader
    finally:
        reader.close()


def _block_bytes(memory: str | None) -> int:
    return int(min(SCORING_BLOCK_BYTES, parse_limit(memory) * SCORING_BLOCK_SHARE))


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

    def __init__(self, target: str, **settings: Any) -> None:
        # A table is a pass of its own: nothing in it was seen before.
        self.settings = make_settings({"epochs": 1, **settings, "target": target})
        for name in ("polish", "standard_errors"):
            if getattr(self.settings, name):
                flag = f"--{name.replace('_', '-')}"
                raise SettingsError(f"{flag} needs all the data at once, and here it comes table by table: use streamsgd.train")
        spec = self.settings.optimizer
        if spec != "auto" and reduces(make("optimizer", spec)):
            what = f"--optimizer {spec} needs all the data at once"
            raise SettingsError(f"{what}, and here it comes table by table: use streamsgd.train")
        self._run: Run | None = None
        self._calls = 0

    def partial_fit(self, table: Any) -> Trainer:
        """Learn from a table (anything with `__arrow_c_stream__`); return self.

        Raises
        ------
        StreamSGDError
            The table lacks a column, or holds values that the settings do not allow; nothing of it was learned.

        """
        if self._run is None:
            self._run = Run(_open_ended(prepare(table, self.settings)), Inline())
        else:
            self._run.job = _with_table(self._run.job, table)
        self._run.pass_over(self._calls)
        self._calls += 1
        return self

    @property
    def model(self) -> Model:
        """The model as it is now.

        Raises
        ------
        DataError
            No table has come yet.

        """
        if self._run is None:
            raise DataError("there is no model yet: call partial_fit first")
        return self._run.finish()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the model as it is now."""
        self.model.save(path)


def _open_ended(job: Job) -> Job:
    """Return the job with a rate that falls for ever, where nobody chose one and the optimizer does not see to that itself."""
    if job.settings.schedule != "auto" or type(job.parts.schedule).__name__ == "Constant":
        return job
    return replace(job, parts=job.parts._replace(schedule=make("schedule", "inverse-scaling:power=0.5")))


def _with_table(job: Job, table: Any) -> Job:
    dataset = table_dataset(table)
    recipe = check_recipe(replace(job.recipe, dataset=dataset))
    again = make_plan(
        dataset.rows,
        dataset.file,
        row_bytes=recipe.row_bytes,
        chunk_rows=job.plan.chunk_rows,
        tile_rows=job.plan.tile_rows,
        sampler=job.plan.sampler,
        seed=job.plan.seed,
    )
    return replace(job, dataset=dataset, recipe=recipe, plan=again)
