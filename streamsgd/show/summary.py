"""What a run came to, as text."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from streamsgd.messages import counted, few, format_bytes
from streamsgd.show.pilot import found_by_pilot
from streamsgd.show.tables import table

if TYPE_CHECKING:
    from streamsgd.settings.fields import Settings
    from streamsgd.training.events import Report
    from streamsgd.training.job import Job


def describe_job(job: Job) -> list[str]:
    """Return lines about the data and the plan of a job."""
    from streamsgd.training.holding import held_in_words  # noqa: PLC0415  kernels, as below
    from streamsgd.training.job import size_in_words  # noqa: PLC0415

    data, target, budget = job.data, job.target, job.budget
    classes = f" ({few(target.classes)})" if target.classes else ""
    rows = min(budget.chunk_rows, data.n_rows)
    used, limit = format_bytes(budget.projected), format_bytes(budget.limit)
    return [
        (
            f"data: {counted(data.n_files, 'file')}, {counted(data.n_row_groups, 'row group')}, "
            f"{counted(data.n_rows, 'row')}; {counted(len(job.encoding.sources), 'feature')} "
            f"as {job.encoding.sizes} for {target.name}, {target.task}{classes}"
        ),
        (
            f"plan: {counted(job.epochs, 'epoch')} in chunks of up to {rows:,} rows, "
            f"batch size {size_in_words(job)}, {job.parts.optimizer}; "
            f"memory {used} of {limit}, {counted(budget.threads, 'reading thread')}"
        ),
        *([] if job.lanes.number == 1 else [f"lanes: {job.lanes.number}, combined by {job.lanes.combine}: {job.lanes.why}"]),
        *([job.thinner.line + distilled_in_words(job)] if job.thinner else []),
        *([] if job.rival is None else [BESIDE]),
        *filter(None, [*job.chosen.splitlines(), held_in_words(job)]),
        *job.decided_by_memory,
    ]


def distilled_in_words(job: Job) -> str:
    """Return how later passes get at the rows that thinning leaves, if they stay in memory; to be appended."""
    return f"; they stay in memory for later passes, in up to {format_bytes(job.distilled)}" if job.distilled else ""


BESIDE = "beside: the linear model learns the same rows, and the better one is kept; against=none in --model learns one alone"
"""Of a machine at its defaults."""


def describe_report(report: Report, settings: Settings, memory: int) -> list[str]:
    """Return lines about what a run did and where its time went."""
    from streamsgd.training.phases import known  # noqa: PLC0415  kernels, which whoever only shows a plan need not load

    seconds = where_time_went(report)
    speed = report.rows_now / max(report.seconds, 1e-9)
    best = report.best_constant_loss
    names = {"progressive_loss": "progressive loss of the first pass", "training_loss": "training loss of the last one"}
    told = ", ".join(f"{names[key]} {value:.6f}" for key, value in report.losses.items() if value is not None)
    return [
        *([told] if told else []),
        *([] if report.pilot is None else [found_by_pilot(report.pilot)]),
        *([] if best is None else [f"best constant loss: {best:.6f}"]),
        *(line for kind in known(settings) if kind.name in report.phases for line in kind.describe(report.phases[kind.name])),
        (f"{report.rows_now:,} rows in {report.seconds:.1f} s, {speed:,.0f} rows/s; peak memory {format_bytes(memory)}"),
        (
            f"time: waiting for data {seconds['wait']:.1f} s, fit {seconds['fit']:.1f} s, "
            f"other {seconds['other']:.1f} s; "
            f"reading threads: decode {seconds['decode']:.1f} s, encode {seconds['encode']:.1f} s"
            + (f", cache {seconds['cache']:.1f} s" if seconds["cache"] else "")
            + (f"; compiling took {seconds['compile']:.1f} s of these" if seconds["compile"] else "")
        ),
        *(
            [f"cache: {report.spent.cached_rows:,} rows came from it, and were neither read nor encoded again"]
            if report.spent.cached_rows
            else []
        ),
        *_worked(report),
    ]


MOST_WORKERS = 16
"""Workers that a report names; all are in the JSON."""


def _worked(report: Report) -> list[str]:
    """Return what each worker did, the busiest first."""
    header = ("worker", "rows", "lanes", "open", "decode", "encode", "fit", "idle", "sent", "again")
    most = sorted(report.workers.items(), key=lambda item: (-item[1].rows, item[0]))
    rows = [
        (
            *(name, f"{work.rows:,}", work.lanes),
            *(f"{value:.1f} s" for value in (work.open, work.decode, work.encode, work.fit, work.idle(report.seconds))),
            *(format_bytes(work.bytes_sent), work.again),
        )
        for name, work in most[:MOST_WORKERS]
    ]
    more = len(most) - len(rows)
    return [*table(header, rows), *([f"and {counted(more, 'worker')} more"] if more else [])] if rows else []


def workers_of(report: Report) -> dict[str, dict[str, Any]]:
    """Return what each worker did, as plain values."""
    return {name: {**asdict(work), "idle": work.idle(report.seconds)} for name, work in sorted(report.workers.items())}


def where_time_went(report: Report) -> dict[str, float]:
    """Return seconds by activity.

    Wait, fit and other add up to the run; decode and encode are summed over threads. Compiling is part of them all; it is
    zero when every kernel was found in the disk cache.
    """
    other = max(0.0, report.seconds - report.fit_seconds - report.wait_seconds)
    return {
        "wait": report.wait_seconds,
        "fit": report.fit_seconds,
        "other": other,
        "decode": report.spent.decode,
        "encode": report.spent.encode,
        "cache": report.spent.cache,
        "compile": report.compile_seconds,
    }
