"""The command that tries many configurations in one decode."""

from __future__ import annotations

import time
from typing import Any

import click

from streamsgd.cli.common import one_or_list, open_reporter, print_json, saved_so_far, watch_checkpoints
from streamsgd.cli.flags import DATA, TUNABLE, output_flags, settings_flags
from streamsgd.cli.pages import Sectioned
from streamsgd.errors import Stopped
from streamsgd.messages import counted
from streamsgd.settings.gather import gather


@click.command(
    cls=Sectioned,
    section="Learn",
    first=("target", "grid", "random", "halving", "restarts", "out", "table", "validation", "exclude", "filter", "memory"),
    examples=(
        "flights/ --target late --grid learning_rate=0.01,0.1 --grid 'penalty=none,l2:l2=1e-4' -o best.sgd",
        "clicks/ --target clicked --grid learning_rate=0.003,0.01,0.03,0.1 --halving 3 -o best.sgd --table tried.parquet",
        "houses/ --target price --model mlp --restarts 5 -o best.sgd",
    ),
)
@DATA
@click.option(
    "--grid",
    multiple=True,
    metavar="SETTING=VALUE,...",
    help="Values to try of a setting, all combinations of several; a value with commas stands in double quotes.",
)
@click.option("--random", "draw", type=click.IntRange(min=1), metavar="N", help="Draw so many combinations, by --seed.")
@click.option("--halving", type=float, metavar="N", help="Let one in N go on after each comparison, e.g. 3.")
@click.option("--restarts", type=int, metavar="K", help="Train K starts of each fm, fwfm or mlp, and keep the best.")
@click.option("-o", "--out", required=True, metavar="FILE", help="Where to save the best model.")
@click.option("--table", metavar="FILE", help="Write a line for each configuration there, as .parquet or .csv.")
@click.option(
    "--report", "report_to", metavar="FILE", help="Write a report there, one HTML file: losses by setting, the best model."
)
@output_flags
@settings_flags(TUNABLE)
def tune(
    data: tuple[str, ...],
    *,
    grid: tuple[str, ...],
    draw: int | None,
    halving: float | None,
    restarts: int | None,
    out: str,
    table: str | None,
    report_to: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    config: str | None,
    **flags: Any,
) -> None:
    """Train many configurations on one decode of DATA, and save the best model.

    The same command goes on where a killed or stopped one was. They are compared by --validation, 0.1 if nothing is said.
    """
    with open_reporter(as_json, quiet, verbose) as reporter:
        values, origins = gather(flags, config=config)
        given = {name: value for name, value in values.items() if name in flags}
        watch_checkpoints(given.get("checkpoint") or f"{out}.ckpt")
        from streamsgd.data.stores.output import check_apart  # noqa: PLC0415
        from streamsgd.show.tune import progress_line, tuned_text  # noqa: PLC0415
        from streamsgd.training.together.tuning import run_tune  # noqa: PLC0415

        check_apart({"--out": out, "--table": table, "--report": report_to})
        page = None
        if report_to is not None:
            from streamsgd.show.tune_report import TuneReport  # noqa: PLC0415

            page = TuneReport(report_to)

        began, each = time.monotonic(), list[dict[str, Any]]()

        def chosen(some: list[dict[str, Any]], _jobs: Any) -> None:
            each.extend(some)
            reporter.line(counted(len(some), "configuration"))

        try:
            tuned = run_tune(
                one_or_list(data),
                given,
                grid,
                draw=draw,
                halving=halving,
                restarts=restarts,
                places=(out, table),
                origins=origins,
                told=lambda progress: reporter.line(progress_line(progress, each)),
                footers=reporter.footers,
                chosen=chosen,
            )
        except Stopped as stop:
            saved = saved_so_far(given.get("checkpoint") or f"{out}.ckpt")
            print_json({"command": "tune", "status": "stopped", **saved, "message": str(stop)})
            raise
        for line in tuned_text(tuned):
            reporter.line(line)
        if page:
            page.write(tuned)
        reporter.line(f"saved {out}")
        result = {
            "command": "tune",
            "status": "done",
            "model": out,
            "table": table,
            "best": tuned.table[tuned.best],
            "configurations": len(tuned.table),
            "halved": sum(line["status"] == "halved" for line in tuned.table),
            "diverged": sum(line["status"] == "diverged" for line in tuned.table),
            "metrics": tuned.model.metrics,
            "seconds": time.monotonic() - began,
            "peak_memory_bytes": reporter.memory.bytes,
        }
    print_json(result)
