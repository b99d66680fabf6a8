"""The command line: flags in, one library call, text or JSON out.

Every flag of a setting is made from `settings.Settings`. Nothing here decides anything, and nothing heavy is
imported before a command runs, so that --help answers at once.

Exit codes: 0 done; 2 the user can fix it (one line on stderr); 75 stopped by a time limit or signal, a
checkpoint is saved; 130 interrupted; 141 nobody reads stdout any more; 1 a bug (traceback).
"""

from __future__ import annotations

from typing import Any

import click

from streamsgd.cli.common import (
    account_of,
    check_written,
    given_settings,
    need_out,
    one_or_list,
    open_reporter,
    print_json,
    report_to_write,
    settings_to_train,
    show_dry_run,
    watch_checkpoints,
    written_line,
)
from streamsgd.cli.flags import (
    ALSO,
    DATA,
    EVALUATED,
    MODEL,
    OWN_LOSS,
    SCORED,
    measured_flags,
    output_flags,
    settings_flags,
)
from streamsgd.cli.folds import run_cross_validation
from streamsgd.cli.look import LOOKING
from streamsgd.cli.machine import MACHINE
from streamsgd.cli.pages import Program, Sectioned
from streamsgd.cli.passes import PASSES
from streamsgd.cli.pilot import pilot
from streamsgd.cli.rows import ROWS, judged, pop_measures
from streamsgd.cli.stdout import show_version
from streamsgd.cli.tune import tune
from streamsgd.cli.uncertain import UNCERTAIN
from streamsgd.errors import SettingsError
from streamsgd.messages import counted
from streamsgd.settings.gather import gather

LEARN, USE, LOOK = "Learn", "Use a model", "Look"


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, help="Show the version and exit.", callback=show_version
)
def cli() -> None:
    """Train linear models, factorization machines and small networks on Parquet larger than memory, and score Parquet.

    DATA is a path, folder, glob or URL (s3://, gs://, ...), or several. Commands that work long write one JSON object to
    stdout, as its last line; progress and tables for people go to stderr. Commands that show something print text to
    stdout, and with --json one JSON object.

    A setting is taken from its flag, else from the environment variable STREAMSGD_<SETTING>, else from the
    TOML file of --config (or STREAMSGD_CONFIG), else its default holds.
    """


cli.sections = (LEARN, USE, LOOK, "This machine", "More")
cli.examples = (
    "streamsgd train data/ --target y --memory 1GB -o model.sgd",
    "streamsgd predict model.sgd new/ --id key -o scores/",
    "streamsgd evaluate model.sgd holdout/",
)


@cli.command(
    cls=Sectioned,
    section=LEARN,
    first=("target", "out", "exclude", "id", "filter", "memory", "validation", "loss", "epochs", "dry_run"),
    examples=(
        "flights/ --target late --exclude origin --memory 1GB -o late.sgd",
        "s3://bucket/clicks/ --target clicked --validation 0.05 -o clicks.sgd",
        "day=2/ --target clicked --from day1.sgd -o day2.sgd",
    ),
)
@DATA
@click.option("-o", "--out", metavar="FILE", help="Where to save the model; only a dry run needs none.")
@click.option("--dry-run", is_flag=True, help="Decide and check everything, show the plan, and write nothing.")
@click.option("--report", "report_to", metavar="FILE", help="Write a report of the run there, one HTML file.")
@click.option("--folds", type=click.IntRange(2, 100), metavar="N", help="Cross-validate too: a model without each of N folds.")
@click.option("--skip-if-done", is_flag=True, help="Do nothing where FILE is the model of this data and these settings.")
@click.option("--skip-code", type=click.IntRange(0, 255), default=0, metavar="N", help="Exit code then, e.g. 99.  [default: 0]")
@output_flags
@settings_flags()
def train(
    data: tuple[str, ...],
    *,
    out: str | None,
    dry_run: bool,
    report_to: str | None,
    folds: int | None,
    skip_if_done: bool,
    skip_code: int,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    config: str | None,
    **flags: Any,
) -> None:
    """Train a model on DATA and save it.

    The same command goes on where a killed or stopped one was. The last line of stdout is one JSON object.
    """
    if skip_if_done or not dry_run:
        need_out(out)
    with open_reporter(as_json, quiet, verbose) as reporter:
        values, origins = gather(flags, config=config)
        _check_train(dry_run=dry_run, report=report_to, folds=folds, skips=skip_if_done, code=skip_code)
        settings = settings_to_train(values, origins, folds, report_to)
        if out is None:
            show_dry_run(one_or_list(data), settings, None, reporter, as_json)
            return
        watch_checkpoints(settings.checkpoint or f"{out}.ckpt")
        from streamsgd.cli.training import run_training  # noqa: PLC0415
        from streamsgd.training.resuming.done import is_done  # noqa: PLC0415

        if skip_if_done and is_done(out, one_or_list(data), settings):
            reporter.line(f"{out} is the model of this data and these settings already")
            print_json({"command": "train", "status": "already done", "model": out})
            click.get_current_context().exit(skip_code)
        if dry_run:
            show_dry_run(one_or_list(data), settings, out, reporter, as_json)
            return
        if folds is not None:
            result = run_cross_validation(one_or_list(data), out, folds, reporter, given=values, origins=origins)
        else:
            written = report_to_write(report_to, out)
            result = run_training("train", one_or_list(data), out, settings, reporter, callbacks=written)
            check_written(written)
    print_json(result)


def _check_train(*, dry_run: bool, report: str | None, folds: int | None, skips: bool, code: int) -> None:
    """Refuse options that would have no effect."""
    if code and not skips:
        raise SettingsError(f"--skip-code {code} is the exit code of --skip-if-done: pass that with it")
    for flag, given in (("--report", report), ("--folds", folds)):
        if dry_run and given is not None:
            raise SettingsError(f"--dry-run learns nothing, so {flag} has nothing to tell of: leave one of them out")


@cli.command(
    cls=Sectioned,
    section=USE,
    first=("out", "id", "filter", "memory", "also", "prune", "workers", "infinite", "unreadable"),
    examples=("late.sgd flights/ -o scores/ --id flight_id", "late.sgd s3://bucket/day=2/ -o s3://bucket/scores/day=2/"),
)
@MODEL
@DATA
@click.option("-o", "--out", required=True, metavar="PATH", help="Folder, or a file name.parquet for one file.")
@ALSO
@click.option("--intervals", type=float, metavar="LEVEL", help="Write intervals too, e.g. of 0.9.")
@click.option("--prune", is_flag=True, help="Delete outputs whose input is gone, of those that the folder's own list names.")
@OWN_LOSS
@output_flags
@settings_flags(("id", *SCORED))
def predict(
    model: str,
    data: tuple[str, ...],
    *,
    out: str,
    also: tuple[str, ...],
    intervals: float | None,
    prune: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    config: str | None,
    **flags: Any,
) -> None:
    """Score DATA with MODEL into Parquet, one output per input file.

    The same command goes on where a killed one was. Columns of --id are copied beside the predictions;
    without --id those named in training.
    """
    with open_reporter(as_json, quiet, verbose) as reporter:
        given = given_settings(flags, config)
        from streamsgd import predict as run  # noqa: PLC0415
        from streamsgd.stream.stats import Account  # noqa: PLC0415

        account = Account(on_chunk=lambda now: reporter.scored(now.rows, now.total_rows))
        scored = run(model, one_or_list(data), out, account=account, also=also, intervals=intervals, prune=prune, **given)
        reporter.line(written_line(scored, out))
        if scored.pruned:
            reporter.line(f"deleted {counted(scored.pruned, 'file')} whose input is gone")
        result = {
            "command": "predict",
            "model": model,
            **({"also": list(also)} if also else {}),
            "out": out,
            "rows": scored.rows,
            "files": scored.files,
            "files_already_there": scored.already_there,
            "files_pruned": scored.pruned,
            "counts": {"filtered": account.filtered, "skipped": account.skipped},
            **account_of(account, reporter),
        }
    print_json(result)


@cli.command(
    cls=Sectioned,
    section=USE,
    first=("filter", "weight", "also", "threshold", "confusion", "bad_rows", "memory", "workers"),
    examples=("late.sgd holdout/", "late.sgd holdout/ --also yesterday.sgd", "late.sgd holdout/ --threshold 0.3"),
)
@MODEL
@DATA
@OWN_LOSS
@ALSO
@click.option("--by", metavar="COLUMN", help="Measure also for every value of a column.")
@measured_flags
@output_flags
@settings_flags(EVALUATED)
def evaluate(
    model: str,
    data: tuple[str, ...],
    *,
    also: tuple[str, ...],
    by: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    config: str | None,
    **flags: Any,
) -> None:
    """Measure MODEL on DATA, which must have its target."""
    with open_reporter(as_json, quiet, verbose) as reporter:
        given = {**pop_measures(flags), **given_settings(flags, config)}
        if also and by:
            raise SettingsError("--by is measured of one model: leave --also out")
        result = judged("evaluate", model, also, data, reporter=reporter, given=given if also else {**given, "by": by})
    print_json(result)


for command in (pilot, tune, *PASSES, *UNCERTAIN, *ROWS, *LOOKING, *MACHINE):
    cli.add_command(command)
