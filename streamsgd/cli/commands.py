"""The command line: flags in, one library call, text or JSON out.

Every flag of a setting is made from `settings.Settings`. Nothing here decides anything, and nothing heavy is
imported before a command runs, so that --help answers at once.

Exit codes: 0 done; 2 the user can fix it (one line on stderr); 75 stopped by a time limit or signal, a
checkpoint is saved; 130 interrupted; 141 nobody reads stdout any more; 1 a bug (traceback).
"""

from __future__ import annotations

import time
from typing import Any

import click

from streamsgd.cli.common import (
    account_of,
    all_settings,
    given_settings,
    one_or_list,
    open_reporter,
    print_found,
    print_json,
    watch_checkpoints,
)
from streamsgd.cli.flags import (
    AS_JSON,
    CALIBRATED,
    DATA,
    EVALUATED,
    INSPECTED,
    MEASURED,
    OWN_KINDS,
    OWN_LOSS,
    SCORED,
    SHUFFLED,
    Sectioned,
    output_flags,
    settings_flags,
)
from streamsgd.cli.stdout import echo
from streamsgd.settings.fields import SAMPLED
from streamsgd.settings.make import make_settings
from streamsgd.version import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="streamsgd")
def cli() -> None:
    """Train linear models by SGD on Parquet larger than memory, and score Parquet with them.

    DATA is a path, folder, glob or URL (s3://, gs://, ...), or several. The last line of stdout of train,
    predict, evaluate and noise is one JSON object; progress goes to stderr.

    A setting is taken from its flag, else from the environment variable STREAMSGD_<SETTING>, else from the
    TOML file of
    --config (or STREAMSGD_CONFIG), else its default holds.
    """


@cli.command(cls=Sectioned)
@DATA
@click.option("-o", "--out", required=True, metavar="FILE", help="Where to save the model.")
@click.option("--skip-if-done", is_flag=True, help="Do nothing where FILE is the model of this data and these settings.")
@click.option("--skip-code", type=click.IntRange(0, 255), default=0, metavar="N", help="Exit code then, e.g. 99.  [default: 0]")
@output_flags
@settings_flags()
def train(
    data: tuple[str, ...],
    *,
    out: str,
    skip_if_done: bool,
    skip_code: int,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    config: str | None,
    **flags: Any,
) -> None:
    """Train a model on DATA and save it.

    The same command goes on where a killed or stopped one was. Example:

    streamsgd train flights/ --target late --exclude origin --memory 1GB -o late.sgd
    """
    with open_reporter(as_json, quiet, verbose) as reporter:
        settings = all_settings(flags, config)
        watch_checkpoints(settings.checkpoint or f"{out}.ckpt")
        from streamsgd.cli.training import run_training  # noqa: PLC0415
        from streamsgd.training.done import is_done  # noqa: PLC0415

        if skip_if_done and is_done(out, one_or_list(data), settings):
            reporter.line(f"{out} is the model of this data and these settings already")
            print_json({"command": "train", "status": "already done", "model": out})
            click.get_current_context().exit(skip_code)
        result = run_training("train", one_or_list(data), out, settings, reporter)
    print_json(result)


@cli.command(cls=Sectioned)
@DATA
@click.option("-o", "--out", required=True, metavar="FILE", help="Where to save the model.")
@output_flags
@settings_flags()
def sample(
    data: tuple[str, ...], *, out: str, as_json: bool, quiet: bool, verbose: bool, config: str | None, **flags: Any
) -> None:
    """Draw the weights of a model of DATA from their posterior, and save it.

    Training goes first, then the way to the mode, then the draws, by --method. The same command goes on where a
    killed or stopped one was. Example:

    streamsgd sample flights/ --target late --prior normal:sd=1 -o posterior.sgd
    """
    with open_reporter(as_json, quiet, verbose) as reporter:
        settings = all_settings(flags, config, SAMPLED)
        watch_checkpoints(settings.checkpoint or f"{out}.ckpt")
        from streamsgd.cli.training import run_training  # noqa: PLC0415

        result = run_training("sample", one_or_list(data), out, settings, reporter)
    print_json(result)


@cli.command(cls=Sectioned)
@DATA
@AS_JSON
@settings_flags()
def plan(data: tuple[str, ...], *, as_json: bool, config: str | None, **flags: Any) -> None:
    """Show what train would do with DATA: columns, chunks, memory by part, and an estimate of time."""
    with open_reporter() as reporter:
        settings = all_settings(flags, config)
        from streamsgd.show.plan import plan_text  # noqa: PLC0415
        from streamsgd.training.estimate import outlook  # noqa: PLC0415
        from streamsgd.training.prepare import prepare  # noqa: PLC0415

        found = outlook(prepare(one_or_list(data), settings, progress=reporter.footers))
        print_found(found, plan_text, as_json)


@cli.command(cls=Sectioned)
@click.argument("model")
@DATA
@click.option("-o", "--out", required=True, metavar="PATH", help="Folder, or a file name.parquet for one file.")
@click.option("--intervals", type=float, metavar="LEVEL", help="Write intervals of the mean too, e.g. of 0.9.")
@OWN_LOSS
@output_flags
@settings_flags(("id", *SCORED))
def predict(
    model: str,
    data: tuple[str, ...],
    *,
    out: str,
    intervals: float | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    config: str | None,
    **flags: Any,
) -> None:
    """Score DATA with MODEL into Parquet, one output per input file.

    The same command goes on where a killed one was. Columns of --id are copied beside the predictions;
    without --id those named in training. Example:

    streamsgd predict late.sgd flights/ -o scores/ --id flight_id
    """
    with open_reporter(as_json, quiet, verbose) as reporter:
        given = given_settings(flags, config)
        from streamsgd.api import predict as run  # noqa: PLC0415
        from streamsgd.stream.stats import Account  # noqa: PLC0415

        account = Account(on_chunk=lambda now: reporter.scored(now.rows, now.total_rows))
        scored = run(model, one_or_list(data), out, account=account, intervals=intervals, **given)
        reporter.line(f"wrote {scored.files:,} files to {out}, {scored.already_there:,} were there already")
        result = {
            "command": "predict",
            "model": model,
            "out": out,
            "rows": scored.rows,
            "files": scored.files,
            "files_already_there": scored.already_there,
            "counts": {"filtered": account.filtered, "skipped": account.skipped},
            **account_of(account, reporter),
        }
    print_json(result)


@cli.command(cls=Sectioned)
@click.argument("model")
@DATA
@OWN_LOSS
@output_flags
@settings_flags(EVALUATED)
def evaluate(
    model: str,
    data: tuple[str, ...],
    *,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    config: str | None,
    **flags: Any,
) -> None:
    """Measure MODEL on DATA, which must have its target."""
    with open_reporter(as_json, quiet, verbose) as reporter:
        given = given_settings(flags, config)
        from streamsgd.api import evaluate as run  # noqa: PLC0415
        from streamsgd.stream.stats import Account  # noqa: PLC0415

        account = Account(on_chunk=lambda now: reporter.scored(now.rows, now.total_rows))
        metrics = run(model, one_or_list(data), account=account, **given)
        result = {
            "command": "evaluate",
            "model": model,
            "metrics": metrics,
            "rows": account.rows,
            "counts": {"filtered": account.filtered, "skipped": account.skipped, "unseen": account.unseen},
            **account_of(account, reporter),
        }
    print_json(result)


@cli.command(cls=Sectioned)
@click.argument("model")
@DATA
@click.option("-o", "--out", metavar="FILE", help="Where to save the calibrated model.  [default: MODEL itself]")
@OWN_LOSS
@output_flags
@settings_flags(CALIBRATED)
def calibrate(
    model: str,
    data: tuple[str, ...],
    *,
    out: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    config: str | None,
    **flags: Any,
) -> None:
    """Keep in MODEL how far its predictions are off on DATA, rows that it has not learned from.

    predict --intervals then holds outcomes with the chance that is asked for. Example:

    streamsgd calibrate late.sgd flights-2024/
    """
    with open_reporter(as_json, quiet, verbose) as reporter:
        given = given_settings(flags, config)
        from streamsgd.model.calibrate import calibrate as run  # noqa: PLC0415
        from streamsgd.stream.stats import Account  # noqa: PLC0415

        account = Account(on_chunk=lambda now: reporter.scored(now.rows, now.total_rows))
        made = run(model, one_or_list(data), out=out or model, account=account, **given)
        found = made.metrics["calibration"]
        reporter.line(f"calibrated on {found['rows']:,} rows, rank error {found['rank_error']:.2%}; saved {out or model}")
        result = {"command": "calibrate", "model": out or model, **found, **account_of(account, reporter)}
    print_json(result)


@cli.command(cls=Sectioned)
@DATA
@AS_JSON
@settings_flags(INSPECTED)
def inspect(data: tuple[str, ...], *, as_json: bool, config: str | None, **flags: Any) -> None:
    """Show files, row groups and columns of DATA; with --target, whether the order of its rows is a risk."""
    with open_reporter() as reporter:
        given = given_settings(flags, config)
        from streamsgd.inspection.summary import inspect_data  # noqa: PLC0415
        from streamsgd.show.inspection import inspection_text  # noqa: PLC0415
        from streamsgd.training.prepare import plan_numbers  # noqa: PLC0415

        found = inspect_data(one_or_list(data), make_settings({"target": "", **given}), plan_numbers, reporter.footers)
        if as_json:
            print_json(found.to_dict(), indent=2)
        else:
            echo("\n".join(inspection_text(found)))


@cli.command(cls=Sectioned)
@DATA
@click.option("--at", metavar="MODEL", help="Model at whose weights to measure; without one all weights are zero.")
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

    Nothing is learned. What batches make of it is said too. Example:

    streamsgd noise flights/ --target late --at late.sgd
    """
    with open_reporter(as_json, quiet, verbose) as reporter:
        given = given_settings(flags, config)
        from streamsgd.show.summary import where_time_went, workers_of  # noqa: PLC0415
        from streamsgd.training.measure import measure_noise  # noqa: PLC0415
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


@cli.command(cls=Sectioned)
@DATA
@click.argument("out", metavar="OUT")
@output_flags
@settings_flags(SHUFFLED)
def shuffle(
    data: tuple[str, ...], *, out: str, as_json: bool, quiet: bool, verbose: bool, config: str | None, **flags: Any
) -> None:
    """Write the rows of DATA in random order to the new folder OUT, as Parquet that is read fast.

    For data that is sorted, by whatever. The same command goes on where a killed one was. Example:

    streamsgd shuffle flights/ flights-shuffled/ --memory 1GB
    """
    with open_reporter(as_json, quiet, verbose) as reporter:
        given = given_settings(flags, config)
        from streamsgd.api import shuffle as run  # noqa: PLC0415

        began = time.monotonic()
        done = run(one_or_list(data), out, on_progress=lambda rows, total: reporter.scored(rows, total, "shuffling"), **given)
        reporter.line(f"{'there was' if done.already_there else 'wrote'} {out}: {done.rows:,} rows in {done.files:,} files")
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


@cli.command(cls=Sectioned)
@click.argument("model")
@click.option("--lineage", is_flag=True, help="Show only the runs that led to the model, the first one first.")
@click.option("--top", type=click.IntRange(min=0), metavar="N", help="Show the N heaviest columns only.")
@OWN_LOSS
@OWN_KINDS
@AS_JSON
def show(model: str, *, top: int | None, lineage: bool, loss: str | None, column_kind: tuple[str, ...], as_json: bool) -> None:
    """Show MODEL: what it was trained on, its metrics, and its weights in the units of the columns."""
    from streamsgd.model.model import load  # noqa: PLC0415
    from streamsgd.show.model import lineage_text, model_summary, model_text  # noqa: PLC0415
    from streamsgd.training.start import lineage_of  # noqa: PLC0415

    if lineage:
        print_found({"lineage": lineage_of(load(model, loss=loss, column_kind=column_kind))}, lineage_text, as_json)
        return
    print_found(model_summary(load(model, loss=loss, column_kind=column_kind), top), model_text, as_json)


@cli.command(cls=Sectioned)
@click.argument("model")
@click.option("--to", required=True, type=click.Choice(["json", "numpy"]), help="JSON, or arrays of NumPy (.npz).")
@click.option("-o", "--out", required=True, metavar="FILE", help="Where to write it.")
def export(model: str, *, to: str, out: str) -> None:
    """Write what scoring needs of MODEL for other programs, and for streamsgd.serving."""
    from streamsgd.model.export import export_model  # noqa: PLC0415
    from streamsgd.model.model import load  # noqa: PLC0415

    export_model(load(model), out, to)
    print_json({"command": "export", "model": model, "out": out, "to": to})


@cli.command(cls=Sectioned)
@AS_JSON
def parts(*, as_json: bool) -> None:
    """List every loss, penalty, optimizer, schedule and sampler, with fields, defaults and source.

    A part is written as name:field=value,field=value, and one of your own as
    package.module:Class,field=value.
    """
    from streamsgd.show.parts import list_parts, parts_text  # noqa: PLC0415

    print_found(list_parts(), parts_text, as_json)
