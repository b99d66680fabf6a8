"""Commands that make passes over data beside training: what it would do, what the data is, its noise, its order."""

from __future__ import annotations

import time
from typing import Any

import click

from streamsgd.cli.common import all_settings, given_settings, one_or_list, open_reporter, print_found, print_json
from streamsgd.cli.flags import DATA, INSPECTED, MEASURED, SHUFFLED, output_flags, settings_flags
from streamsgd.cli.pages import Sectioned
from streamsgd.messages import counted
from streamsgd.settings.make import make_settings


@click.command(
    cls=Sectioned,
    section="Learn",
    first=("target", "features", "exclude", "filter", "memory", "epochs", "batch_size", "chunk_rows", "shuffle", "workers"),
    examples=("flights/ --target late --memory 1GB",),
)
@DATA
@output_flags
@settings_flags()
def plan(data: tuple[str, ...], *, as_json: bool, quiet: bool, verbose: bool, config: str | None, **flags: Any) -> None:
    """Show what train would do with DATA: columns, chunks, memory by part, and an estimate of time."""
    with open_reporter(as_json, quiet, verbose) as reporter:
        settings = all_settings(flags, config)
        from streamsgd.show.plan import plan_text  # noqa: PLC0415
        from streamsgd.training.estimate import outlook  # noqa: PLC0415
        from streamsgd.training.run import prepare_from  # noqa: PLC0415

        print_found(outlook(prepare_from(one_or_list(data), settings, reporter.footers)), plan_text, as_json)


@click.command(
    cls=Sectioned,
    section="Look",
    first=("target", "features", "exclude", "filter", "categorical", "text", "transform", "cross", "memory"),
    examples=("flights/ --target late",),
)
@DATA
@output_flags
@settings_flags(INSPECTED)
def inspect(data: tuple[str, ...], *, as_json: bool, quiet: bool, verbose: bool, config: str | None, **flags: Any) -> None:
    """Show files, row groups and columns of DATA; with --target, whether the order of its rows is a risk."""
    with open_reporter(as_json, quiet, verbose) as reporter:
        given = given_settings(flags, config)
        from streamsgd.inspection.summary import inspect_data  # noqa: PLC0415
        from streamsgd.show.inspection import inspection_text  # noqa: PLC0415
        from streamsgd.training.prepare import plan_numbers  # noqa: PLC0415

        found = inspect_data(one_or_list(data), make_settings({"target": "", **given}), plan_numbers, reporter.footers)
        print_found(found.to_dict(), lambda _: inspection_text(found), as_json)


@click.command(
    cls=Sectioned,
    section="Learn",
    first=("target", "at", "exclude", "filter", "memory", "loss", "weight", "batch_size", "lanes", "workers"),
    examples=("flights/ --target late --at late.sgd",),
)
@DATA
@click.option(
    "--at",
    metavar="MODEL",
    help="Model at whose weights to measure; without one all weights are zero, or those that a network or machine starts from.",
)
@output_flags
@settings_flags(MEASURED)
def noise(
    data: tuple[str, ...],
    *,
    at: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    config: str | None,
    **flags: Any,
) -> None:
    """Measure how the gradients of DATA's rows scatter.

    Nothing is learned. What batches make of it is said too.
    """
    with open_reporter(as_json, quiet, verbose) as reporter:
        given = given_settings(flags, config)
        from streamsgd.show.summary import where_time_went, workers_of  # noqa: PLC0415
        from streamsgd.training.noise.measure import measure_noise  # noqa: PLC0415
        from streamsgd.training.phases.noise import describe  # noqa: PLC0415

        found, report = measure_noise(one_or_list(data), given, at=at, emit=reporter.event, footers=reporter.footers)
        for line in describe(found):
            reporter.line(line)
        result = {
            "command": "noise",
            "at": at,
            **found,
            "seconds": report.seconds,
            "rows_per_second": found["rows"] / max(report.seconds, 1e-9),
            "bytes": report.bytes,
            "time": where_time_went(report),
            "workers": workers_of(report),
            "peak_memory_bytes": reporter.memory.bytes,
        }
    print_json(result)


@click.command(cls=Sectioned, section="Learn", examples=("flights/ flights-shuffled/ --memory 1GB",))
@DATA
@click.argument("out", metavar="OUT")
@output_flags
@settings_flags(SHUFFLED)
def shuffle(
    data: tuple[str, ...], *, out: str, as_json: bool, quiet: bool, verbose: bool, config: str | None, **flags: Any
) -> None:
    """Write the rows of DATA in random order to the new folder OUT, as Parquet that is read fast.

    For data that is sorted, by whatever. The same command goes on where a killed one was.
    """
    with open_reporter(as_json, quiet, verbose) as reporter:
        given = given_settings(flags, config)
        from streamsgd import shuffle as run  # noqa: PLC0415

        began = time.monotonic()
        done = run(one_or_list(data), out, on_progress=lambda rows, total: reporter.scored(rows, total, "shuffling"), **given)
        did = "there was" if done.already_there else "wrote"
        reporter.line(f"{did} {out}: {counted(done.rows, 'row')} in {counted(done.files, 'file')}")
        result = {
            "command": "shuffle",
            "out": out,
            "rows": done.rows,
            "files": done.files,
            "bytes": done.bytes,
            "already_there": done.already_there,
            "seconds": time.monotonic() - began,
            "peak_memory_bytes": reporter.memory.bytes,
        }
    print_json(result)


PASSES = (plan, noise, shuffle, inspect)
