"""The command that compares batch sizes."""

from __future__ import annotations

import time
from typing import Any

import click

from streamsgd.cli.common import given_settings, numbers, one_or_list, open_reporter, print_json
from streamsgd.cli.flags import DATA, PILOTED, output_flags, settings_flags
from streamsgd.cli.pages import Sectioned


@click.command(
    cls=Sectioned,
    section="Learn",
    first=("target", "batch_size", "learning_rate", "seeds", "steps", "exclude", "filter", "memory", "loss", "optimizer"),
    examples=("flights/ --target late --batch-size 16,64,256,1024",),
)
@DATA
@click.option("--batch-size", metavar="B,B,...", default="16,64,256,1024", help="Sizes to try.  [default: 16,64,256,1024]")
@click.option("--learning-rate", metavar="R,R,...", default="", help="Rates to try at each size; the optimizer's own if none.")
@click.option(
    "--seeds", type=click.IntRange(min=1), default=3, metavar="N", help="Seeds of each, from --seed on.  [default: 3]"
)
@click.option(
    "--report", "report_to", metavar="FILE", help="Write a report there, one HTML file: the line, and time by batch size."
)
@output_flags
@settings_flags(PILOTED)
def pilot(
    data: tuple[str, ...],
    *,
    batch_size: str,
    learning_rate: str,
    seeds: int,
    report_to: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    config: str | None,
    **flags: Any,
) -> None:
    """Learn DATA at several batch sizes in one decode, and say which size is enough.

    All sizes are compared after the same number of steps (--steps) and after the same number of rows.
    """
    with open_reporter(as_json, quiet, verbose) as reporter:
        given = given_settings(flags, config)
        from streamsgd.show.pilot import pilot_text  # noqa: PLC0415
        from streamsgd.training.together.pilot import run_pilot  # noqa: PLC0415

        page = None
        if report_to is not None:
            from streamsgd.show.pilot_report import PilotReport  # noqa: PLC0415

            page = PilotReport(report_to)
        began = time.monotonic()
        sizes, rates = numbers("--batch-size", batch_size, int), numbers("--learning-rate", learning_rate, float)
        found, _made = run_pilot(one_or_list(data), given, sizes, rates=rates, seeds=seeds, footers=reporter.footers)
        for line in pilot_text(found):
            reporter.line(line)
        if page:
            page.write(found, given["target"])
            reporter.line(f"wrote {report_to}")
        result = {
            "command": "pilot",
            **found,
            "seconds": time.monotonic() - began,
            "peak_memory_bytes": reporter.memory.bytes,
        }
    print_json(result)
