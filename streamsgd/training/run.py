"""A training run from data to model file: prepare, resume if there is something to resume, run, clean up."""

from __future__ import annotations

import logging
import math
import os
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from streamsgd.compute.executors import EXECUTORS
from streamsgd.data.shuffled.stamps import written_since
from streamsgd.data.sources.dask_tables import lazily
from streamsgd.data.stores.filesystems import set_io_timeout
from streamsgd.data.stores.output import check_no_input, check_places, reserved
from streamsgd.errors import ModelError, SettingsError
from streamsgd.kernels.compile.jit import CompileClock, cpu_target
from streamsgd.settings.batches import largest_of_pilot
from streamsgd.settings.fields import Settings
from streamsgd.settings.flags import with_flag
from streamsgd.settings.make import identity
from streamsgd.settings.needs import say_no_checkpoint
from streamsgd.training.backends.choose import choose_backend
from streamsgd.training.callbacks import Callback, Callbacks, OnEvent
from streamsgd.training.checkpoint import Checkpoints
from streamsgd.training.choices import say_choices
from streamsgd.training.clipped import say_clipped
from streamsgd.training.engine import Engine
from streamsgd.training.history import History
from streamsgd.training.holding import say_unjudged
from streamsgd.training.ordering import rows_on_disk
from streamsgd.training.phases import wanted
from streamsgd.training.prepare import on_disk, prepare
from streamsgd.training.result import model_from
from streamsgd.training.resuming.partition import of_this
from streamsgd.training.resuming.saved import check_cursor, check_restored, checked, read_frozen, restoring
from streamsgd.training.resuming.start import check_keeps, read_start, say_learned_before
from streamsgd.training.rivals.rival import say_kept
from streamsgd.training.stopping import stopping
from streamsgd.training.useful import check_learned, check_useful, check_weighed
from streamsgd.training.whole_groups import with_whole_groups

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streamsgd.model.model import Model
    from streamsgd.training.events import Event, Report
    from streamsgd.training.job import Job
    from streamsgd.training.resuming.start import Start

log = logging.getLogger("streamsgd")


SMALL_BYTES = 10**9
"""Bytes of files up to which threads read: half a second to load and start Dask is much of a run then."""


def train_model(
    data: Any,
    settings: Settings,
    *,
    out: str | os.PathLike[str] | None = None,
    emit: Callable[[Event], None] | None = None,
    footers: Callable[[int, int], None] | None = None,
    shuffled: Callable[[int, int], None] | None = None,
    on_job: Callable[[Job], None] | None = None,
    client: Any = None,
    callbacks: Sequence[Callback] = (),
    begun: Begun | None = None,
) -> tuple[Model, Report]:
    """Train on Parquet: prepare, resume if there is something to resume, run, clean up.

    Parameters
    ----------
    data
        Paths or URLs, or a table.
    settings
        As checked by `make_settings`.
    out
        Where to save the model; its checkpoints are kept beside it until it is whole.
    emit, footers, shuffled, on_job
        Called with progress events, footers read, rows shuffled on disk, and the prepared job.
    client
        Of distributed, whose workers to use; it is left open.
    callbacks
        Sinks of what the run tells.
    begun
        Where the run stands before its first checkpoint, and the pilot that led there.

    Raises
    ------
    StreamSGDError
        See `errors`.

    """
    ends = time.monotonic() + (math.inf if settings.time_limit is None else settings.time_limit)
    set_io_timeout(settings.io_timeout)
    settings, start = (settings, None) if settings.start is None else read_start(settings.start, settings)
    check_keeps(settings)
    if out is not None and settings.checkpoint is None:
        settings = msgspec.structs.replace(settings, checkpoint=f"{os.fspath(out)}.ckpt")
    say_no_checkpoint(settings)
    told = Callbacks([History(), *([OnEvent(emit)] if emit else []), *callbacks])
    with reserved(out, settings.checkpoint):
        return _train(data, settings, out, _Told(told, footers, shuffled, on_job), client, start=start, ends=ends, begun=begun)


class Begun(NamedTuple):
    """Where a run stands that a pilot began."""

    saved: tuple[dict[str, Any], dict[str, Any]] | None
    """Header and arrays as of a checkpoint; None where there is one in its folder."""
    pilot: dict[str, Any]
    """What was found, as JSON values."""


class _Told(NamedTuple):
    """Who is told of events, of footers read, of rows shuffled on disk, and of the prepared job."""

    callbacks: Callbacks
    footers: Callable[[int, int], None] | None
    shuffled: Callable[[int, int], None] | None
    on_job: Callable[[Job], None] | None


def _train(
    data: Any,
    settings: Settings,
    out: str | os.PathLike[str] | None,
    told: _Told,
    client: Any,
    *,
    start: Start | None,
    ends: float,
    begun: Begun | None = None,
) -> tuple[Model, Report]:
    checkpoints = Checkpoints(settings.checkpoint, settings.checkpoint_keep) if settings.checkpoint else None
    saved = begun.saved if begun and begun.saved else saved_in(checkpoints, settings)
    data = lazily(data, client, elsewhere=settings.workers is not None or settings.scheduler is not None)
    found, (data, saved) = saved, of_this(data, saved, settings, told.footers)
    if checkpoints and saved is not found:
        checkpoints.clear()
    job = _prepared(data, settings, saved, start, told.footers)
    job = job if begun is None else replace(job, pilot=begun.pilot)
    check_no_input("--out", out, job.dataset.source)
    with ExitStack() as stack:
        if job.external is not None:
            elsewhere = client is not None or settings.scheduler is not None
            made = rows_on_disk(settings, job.dataset, job.external, elsewhere=elsewhere, progress=told.shuffled, ends=ends)
            job = on_disk(job, stack.enter_context(made), resumed=saved is not None)
        job = job if client is not None else with_whole_groups(job)
        return _run(job, out, told, client, checkpoints=checkpoints, saved=saved, start=start, ends=ends)


def _prepared(
    data: Any, settings: Settings, saved: Any, start: Start | None, footers: Callable[[int, int], None] | None
) -> Job:
    """Return the job, of which a checkpoint must be, if there is one."""
    job = prepare(data, settings, frozen=_frozen_by(saved, start, settings), progress=footers, rivals=True)
    if saved:
        check_same_data(saved[0], job)
    elif start:
        say_learned_before(job, start)
    if settings.average not in ("none", "auto") and job.average_from >= job.epochs:
        raise SettingsError(f"--average {settings.average:g} is from an epoch on that does not come: there are {job.epochs}")
    return job


def check_same_data(header: Mapping[str, Any], job: Job) -> None:
    """Refuse to go on from a checkpoint of other data; warn of files that were written since.

    Raises
    ------
    ModelError
        The data changed.

    """
    folder = job.settings.checkpoint
    if header["fingerprint"] != job.dataset.fingerprint:
        raise ModelError(
            f"the data changed since the checkpoint in {folder} was saved (files, sizes or footers differ); "
            "pass --resume never to start anew, or bring the data back"
        )
    if name := written_since(job.dataset.source.files, header.get("stamps", [])):
        log.warning(
            "%s was written since the checkpoint in %s was saved, though its size and footer are the same: if its values are "
            "others now, the model will be of both; pass --resume never to start anew",
            name,
            folder,
        )


def prepare_from(data: Any, settings: Settings, footers: Callable[[int, int], None] | None = None) -> Job:
    """Return the job of a run, which may go on from a model; nothing is written.

    Raises
    ------
    StreamSGDError
        As `train_model` before its first update.

    """
    settings = largest_of_pilot(settings)
    settings, start = (settings, None) if settings.start is None else read_start(settings.start, settings)
    return with_whole_groups(_prepared(data, settings, None, start, footers))


def dry_run(
    data: Any,
    settings: Settings,
    out: str | os.PathLike[str] | None,
    footers: Callable[[int, int], None] | None = None,
) -> tuple[Job, str | None]:
    """Return the job that a run would begin, and the folder of the checkpoint that it would go on from; nothing is written.

    Where `out` is None, nobody has said yet where the model is to be.

    Raises
    ------
    StreamSGDError
        As `train_model` before its first update.

    """
    set_io_timeout(settings.io_timeout)
    settings = largest_of_pilot(settings)
    settings, start = (settings, None) if settings.start is None else read_start(settings.start, settings)
    check_keeps(settings)
    if settings.checkpoint is None and out is not None:
        settings = msgspec.structs.replace(settings, checkpoint=f"{os.fspath(out)}.ckpt")
    check_places(out, settings.checkpoint)
    checkpoints = None if settings.checkpoint is None else Checkpoints(settings.checkpoint, settings.checkpoint_keep)
    saved = None if settings.resume == "never" else saved_in(checkpoints, settings)
    data, saved = of_this(data, saved, settings, footers)
    job = with_whole_groups(_prepared(data, settings, saved, start, footers))
    return job, str(settings.checkpoint) if saved else None


def _run(
    job: Job,
    out: str | os.PathLike[str] | None,
    told: _Told,
    client: Any,
    *,
    checkpoints: Checkpoints | None,
    saved: Any,
    start: Start | None,
    ends: float,
) -> tuple[Model, Report]:
    settings = job.settings
    if told.on_job:
        told.on_job(job)
    else:
        say_choices([job])
    executor = EXECUTORS[reader_for(settings, job) if client is None else "threads"](job.budget.threads)
    try:
        with choose_backend(job, executor, client) as backend:
            kinds = wanted(settings, job.parts)
            engine = Engine(job, kinds, backend, executor, checkpoints=checkpoints, callbacks=told.callbacks, ends=ends)
            if engine.validator.evaluator is not None:
                check_no_input("--out", out, engine.validator.evaluator.recipe.dataset.source)
            _set_out(engine, saved, start)
            with stopping(engine.stop), CompileClock() as compiling:
                outcome = engine.run()
            engine.finish(outcome)
            engine.report.compile_seconds = compiling.seconds
            model = model_from(outcome, engine.totals, engine.validator.metrics(), start.lineage if start else ())
            check_learned(model.provenance)
            if start is None:
                check_weighed(engine.totals.targets, job.target.classes, settings)
            say_unjudged(job, engine.totals.counts["held"])
            rows = model.provenance["rows_learned"]
            say_clipped(outcome, rows)
            say_kept(outcome.metrics)
            check_useful(model.metrics, rows, job.parts, strict=settings.strict)
    finally:
        executor.close()
        if job.recipe.cache is not None:
            job.recipe.cache.close()
    told.callbacks.on_end(engine.report, model)
    if out is not None:
        model.save(out)
    if checkpoints:
        checkpoints.clear()
    return model, engine.report


def _set_out(engine: Engine, saved: Any, start: Start | None) -> None:
    """Go to where a checkpoint was saved, else to where the model ended that the run goes on from."""
    if saved:
        name = str(engine.job.settings.checkpoint)
        check_cursor(saved[0], engine.job.plan, name)
        with restoring(name):
            engine.restore(*saved)
            again = engine.state()
        check_restored(saved, again, name)
    elif start:
        engine.go_on_from(start.memory, start.race)


def _frozen_by(saved: Any, start: Start | None, settings: Settings) -> dict[str, Any] | None:
    """Return what is not decided anew: by a checkpoint, else by the model that the run goes on from."""
    if saved:
        return frozen_of(saved[0], settings)
    return start.frozen(settings) if start else None


def reader_for(settings: Settings, job: Job) -> str:
    """Return who reads: as set; if nobody says Dask, but not where loading it would take as long as a good part of the run."""
    if settings.executor != "auto":
        return settings.executor
    return "dask" if job.dataset.compressed_bytes > SMALL_BYTES else "threads"


def saved_in(checkpoints: Checkpoints | None, settings: Settings) -> Any:
    """Return header and arrays of the checkpoint to go on from, None if there is none, as --resume says.

    Raises
    ------
    ModelError
        There has to be one, and is none.

    """
    if checkpoints is None:
        if settings.resume == "always":
            raise ModelError("--resume always needs --checkpoint FOLDER")
        return None
    if settings.resume == "never":
        checkpoints.clear()
        return None
    saved = checkpoints.newest()
    if saved and "runs" not in saved[0]:  # which is another kind, and refused by its name later
        checked(saved[0], checkpoints.folder)
    if saved is None and settings.resume == "always":
        raise ModelError(f"--resume always: there is no checkpoint in {checkpoints.folder}")
    return saved


def frozen_of(header: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Return what the header of a checkpoint decides, of a run of these settings.

    Raises
    ------
    ModelError
        It is of others, or says what cannot be.

    """
    if "runs" in header:
        raise ModelError(
            f"{settings.checkpoint} holds checkpoints of several runs that shared a decode: pass --resume never to start anew"
        )
    frozen = read_frozen(header, settings, str(settings.checkpoint))
    before = header.get("cpu", cpu_target())
    if before != cpu_target():
        log.warning(
            "the checkpoint in %s was made by code for %s, this machine's is for %s: the model will differ from one of either "
            "in its last bits; --cpu portable from the start on gives the same bits on both",
            *(settings.checkpoint, before, cpu_target()),
        )
    # By way of JSON, as the header went: lists, not tuples.
    now, then = msgspec.json.decode(msgspec.json.encode(identity(settings))), header["settings"]
    then = {**msgspec.json.decode(msgspec.json.encode(identity(Settings(target="")))), **then}  # of before a setting came
    differing = [key for key in now if now[key] != then.get(key)]
    if differing:
        key, more = differing[0], len(differing) - 1
        was_made, is_made = with_flag(key, then.get(key)), with_flag(key, now[key])
        raise ModelError(
            f"the checkpoint in {settings.checkpoint} was made {was_made}, this run is {is_made}"
            f"{f' (and {more} more differ)' if more else ''}; pass the same settings to go on, or --resume never to start anew"
        )
    return frozen
