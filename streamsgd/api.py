"""What a program calls. The command line is a thin skin over these functions."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from streamsgd.compute.client import client_of
from streamsgd.compute.context import seceded, task_memory
from streamsgd.compute.executors import reading
from streamsgd.data.shuffled.shuffling import Shuffled, shuffle_data
from streamsgd.data.stores.filesystems import IO_TIMEOUT, set_io_timeout
from streamsgd.errors import SettingsError
from streamsgd.inspection.summary import Inspection, inspect_data
from streamsgd.model.compare import loaded
from streamsgd.model.evaluate import evaluate_source
from streamsgd.model.evaluation import NO_DETAILS, Details, check_details
from streamsgd.model.exporting.export import export_model
from streamsgd.model.judge import Judge, judge_source
from streamsgd.model.model import Model
from streamsgd.model.options import ScoringOptions
from streamsgd.model.outputs import named_models
from streamsgd.model.predict import Scored, score_data
from streamsgd.model.read import load
from streamsgd.model.score_stream import scoring_block_bytes
from streamsgd.settings.make import make_settings
from streamsgd.settings.words import speaks_python
from streamsgd.show.live import train_shown
from streamsgd.training.noise.measure import measure_noise
from streamsgd.training.prepare import plan_numbers
from streamsgd.training.run import prepare_from
from streamsgd.training.together import going_on

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from streamsgd.stream.stats import Account
    from streamsgd.training.callbacks import Callback
    from streamsgd.training.events import Event
    from streamsgd.training.job import Job


@speaks_python
def train(
    source: Any,
    target: str,
    *,
    out: str | os.PathLike[str] | None = None,
    on_progress: Callable[[Event], None] | None = None,
    client: Any = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = False,
    **settings: Any,
) -> Model:
    """Train a model on Parquet of any size, within a memory budget, resuming where a killed run stopped.

    Parameters
    ----------
    source
        Path, folder, glob, URL, or a list of them; or a table (anything with `__arrow_c_stream__`), a list of tables or of
        dicts, or a `pyarrow.dataset`; or a stream (a generator of tables, a `RecordBatchReader`, a LazyFrame of Polars, a
        relation of DuckDB), which is written to a temporary file first; or a table of Delta or Iceberg (`deltalake`,
        `pyiceberg`); or a Dask DataFrame, a list of delayed tables, or of futures of tables; or a source of your own
        (`data.source.BaseSource`).
    target
        Column to predict.
    out
        Where to save the model. Checkpoints go beside it, so that the same call resumes after a kill.
    on_progress
        Called with an `Event` at 1024, 2048, 4096, ... rows, at every evaluation, and after every chunk (see its `kind`).
    client
        A `dask.distributed.Client`, whose workers learn; nothing of it is changed, and it is left open.
    callbacks
        Sinks of what the run tells, as `training.callbacks.Callback` describes: one may raise `Stop`.
    progress
        Whether to show what the command line shows, on stderr or in the notebook; `Model.history` holds it in any case.
    settings
        Fields of `settings.Settings`. Within a task of a Dask worker memory is half of its limit by default.

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
        run = partial(going_on.train, source, made, out=out, emit=on_progress, client=client)
        return train_shown(run, made, callbacks) if progress else run(callbacks=callbacks)[0]


@speaks_python
def plan(source: Any, target: str, **settings: Any) -> Job:
    """Return everything that `train` would decide before its first update, without training.

    Raises
    ------
    StreamSGDError
        As `train`.

    """
    return prepare_from(source, make_settings({"target": target, **settings}))


@speaks_python
def shuffle(
    source: Any,
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    memory: str | None = None,
    io_timeout: float = IO_TIMEOUT,
    on_progress: Callable[[int, int], None] | None = None,
) -> Shuffled:
    """Write all rows in random order to a new folder of Parquet, within a memory budget, resuming where a killed run stopped.

    The same data and seed give the same bytes, in whatever memory. Rows and schema stay what they were.

    Parameters
    ----------
    source
        As in training.
    out
        Folder that is not there yet, or empty; one that this made of the same rows before is left as it is.
    seed
        Of the order.
    memory, io_timeout
        As the settings of these names.
    on_progress
        Called with rows done and rows in all.

    Raises
    ------
    StreamSGDError
        The rows cannot be read, or not be written there.

    """
    set_io_timeout(io_timeout)
    return shuffle_data(source, out, seed=seed, memory=memory, progress=on_progress)


@speaks_python
def evaluate(
    model: Model | str | os.PathLike[str],
    source: Any,
    *,
    loss: str | None = None,
    column_kind: Sequence[str] = (),
    filter: str | None = None,  # noqa: A002  the name of the setting
    memory: str | None = None,
    threads: int | None = None,
    executor: str = "auto",
    workers: int | None = None,
    scheduler: str | None = None,
    io_timeout: float = IO_TIMEOUT,
    client: Any = None,
    account: Account | None = None,
    weight: str | None = None,
    bad_rows: str | None = None,
    unreadable: str | None = None,
    infinite: str | None = None,
    threshold: float | None = None,
    confusion: bool = False,
    by: str | None = None,
    at_precision: Sequence[float] = NO_DETAILS.at_precision,
    top: Sequence[float] = NO_DETAILS.top,
) -> dict[str, Any]:
    """Return the metrics of a model on labelled data; docs/rare.md says what each is.

    Parameters
    ----------
    model
        A model or the path of one.
    source
        As in training.
    loss, column_kind
        Where the loss and kinds of columns of a model file are that are not streamsgd's: package.module:Class.
    filter, memory, threads, executor, workers, scheduler, io_timeout
        As the settings of these names.
    weight, bad_rows, unreadable, infinite
        As the settings of these names; by default what they were in training. Without the weight column of training every row
        counts alike, and that is said. Rows of a class that training did not see are left out, counted as `unseen_classes`.
    by
        Column for each of whose values all is measured apart, too: under `by`, by value.
    at_precision, top
        Precisions whose largest recall is wanted, and how many of the highest scores to look at: shares or numbers of rows.
    client
        A `dask.distributed.Client`, whose workers measure; the result has the same bits.
    account
        Filled meanwhile.
    threshold
        Of two classes: the probability from which on a row counts as of the second one; adds precision, recall and the like.
    confusion
        Whether to add which classes are taken for which.

    Raises
    ------
    StreamSGDError
        The data lacks a column or holds what the model cannot use.

    """
    set_io_timeout(io_timeout)
    model = loaded(model, loss, column_kind)
    options = ScoringOptions(
        weight=weight,
        bad_rows=bad_rows,
        unreadable=unreadable,
        infinite=infinite,
        filter=filter,
        memory=memory,
        threads=threads,
        executor=executor,
        workers=workers,
        scheduler=scheduler,
        client=client,
        account=account,
    )
    details = Details(tuple(at_precision), tuple(top), by)
    if not confusion and threshold is None:
        return evaluate_source(model, source, options, details)
    if by is not None:
        raise SettingsError("--by is measured alone: leave --threshold and --confusion out")
    judge = Judge(model, {}, threshold, confusion, check_details(details))
    return dict(judge_source(judge, source, options)["metrics"])


@speaks_python
def predict(
    model: Model | str | os.PathLike[str],
    source: Any,
    out: str | os.PathLike[str],
    *,
    id: Sequence[str] | None = None,  # noqa: A002  the name of the setting
    loss: str | None = None,
    column_kind: Sequence[str] = (),
    filter: str | None = None,  # noqa: A002  the name of the setting
    memory: str | None = None,
    threads: int | None = None,
    executor: str = "auto",
    workers: int | None = None,
    scheduler: str | None = None,
    io_timeout: float = IO_TIMEOUT,
    client: Any = None,
    account: Account | None = None,
    unreadable: str | None = None,
    infinite: str | None = None,
    intervals: float | None = None,
    also: Any = (),
    prune: bool = False,
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
    loss, column_kind
        Where the loss and kinds of columns of a model file are that are not streamsgd's: package.module:Class.
    filter, memory, threads, executor, workers, scheduler, io_timeout
        As the settings of these names.
    unreadable, infinite
        As the settings of these names: rows of an unreadable row group are left out of the output if that is `skip`; infinite
        values are by default what they were in training.
    intervals
        Level of intervals of the mean that is predicted, e.g. 0.9, beside the predictions; the model needs draws or standard
        errors.
    client
        A `dask.distributed.Client`, whose workers score, a file each: they must reach the data and `out`.
    account
        Filled meanwhile.
    also
        Other models, or their paths, that score the same rows as they are decoded: one, several, or a dict of names to them.
        Their columns have their names before them: `NAME_prediction`.
    prune
        Whether to delete outputs whose input is gone: only files in the list that `out` holds of what was written there.

    Raises
    ------
    StreamSGDError
        The data or the storage is at fault; finished files stay.

    """
    set_io_timeout(io_timeout)
    model = loaded(model, loss, column_kind)
    ids = None if id is None else tuple(id)
    with client_of(client, scheduler, workers) as found, reading("inline" if found else executor, threads) as reader:
        return score_data(
            model,
            source,
            str(out),
            executor=reader,
            block_bytes=scoring_block_bytes(memory),
            ids=ids,
            filter_text=filter,
            account=account,
            client=found,
            memory=memory,
            options=ScoringOptions(unreadable=unreadable, infinite=infinite),
            intervals=intervals,
            also={name: loaded(one, loss, column_kind) for name, one in named_models(also).items()},
            prune=prune,
        )


@speaks_python
def export(model: Model | str | os.PathLike[str], out: str | os.PathLike[str], *, to: str) -> None:
    """Write what scoring needs of a model for other programs; see `model.exporting.export.export_model`.

    Parameters
    ----------
    model
        A model or the path of one.
    out
        Path or URL of the file.
    to
        json, numpy or onnx.

    Raises
    ------
    StreamSGDError
        There is no such form, the model has parts of one's own, or the storage is at fault.

    """
    export_model(model if isinstance(model, Model) else load(model), out, to)


@speaks_python
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
    return inspect_data(source, make_settings({"target": target or "", **settings}), plan_numbers)


@speaks_python
def noise(
    source: Any,
    target: str | None = None,
    *,
    at: Model | str | os.PathLike[str] | None = None,
    on_progress: Callable[[Event], None] | None = None,
    client: Any = None,
    **settings: Any,
) -> dict[str, Any]:
    """Measure how the gradients of rows scatter, in one pass that learns nothing: docs/noise.md says what that is good for.

    Parameters
    ----------
    source
        As in training.
    target
        Column to predict; it need not vary. With `at` that of the model.
    at
        A model or the path of one, at whose weights to measure; without one at zeros, or where `model` begins if not linear.
    on_progress, client
        As in training.
    settings
        Fields of `settings.Settings`; with `at`, `loss`, `model` and `column_kind` are those that are not streamsgd's.

    Returns
    -------
    dict
        `trace_covariance`, `gradient_norm_squared`, `noise_scale` (None where it is not identified), `interval`,
        `design_effect`, `metric` and what they were measured on, all in units of the encoded rows.

    Raises
    ------
    StreamSGDError
        The data, the settings or the storage is at fault; see `errors`.

    """
    given = {"memory": task_memory(), "target": target, **settings}
    with nullcontext() if client is None else seceded():
        return measure_noise(source, given, at=at, emit=on_progress, client=client)[0]
