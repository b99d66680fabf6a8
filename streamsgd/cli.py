"""The command line: flags in, one library call, text or JSON out.

Every flag of a setting is made from `settings.Settings`. Nothing here decides anything, and nothing heavy is
imported before a command runs, so that --help answers at once.

Exit codes: 0 done; 2 the user can fix it (one line on stderr); 75 stopped by a time limit or signal, a
checkpoint is saved; 130 interrupted; 141 nobody reads stdout any more; 1 a bug (traceback).
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

import click

from streamsgd import __version__
from streamsgd.errors import Stopped, StreamSGDError
from streamsgd.settings import Setting, describe, gather, make_settings, split_list

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from streamsgd.account import Account
    from streamsgd.progress import Reporter
    from streamsgd.settings import Settings

SECTIONS = {
    "target": "Columns and rows",
    "task": "Learning",
    "seed": "Shuffle and memory",
    "validation": "Validation",
    "checkpoint": "Checkpoints and stopping",
    "lanes": "Execution",
}
"""Headings of the help pages, by the first setting under each."""

SCORED = ("filter", "memory", "threads", "executor", "workers", "scheduler")
INSPECTED = (
    *("target", "features", "exclude", "id", "filter", "task", "classes", "seed", "precision"),
    *("categorical", "text", "ngrams", "time_parts", "cross", "bits", "scale", "transform", "missing"),
    *("batch_size", "memory", "chunk_rows", "threads"),
)
"""Settings that evaluate (and predict), and inspect, take."""


# --- flags


class Flag(click.Option):
    """An option made from a setting; its section is a heading of the help page."""

    def __init__(self, setting: Setting, section: str) -> None:
        switch = setting.metavar == ""
        name = setting.flag
        super().__init__(
            [f"{name}/--no-{name[2:]}" if switch else name, setting.name],
            type=bool if switch else str,
            default=None,
            multiple=setting.is_list,
            metavar=None if switch else setting.metavar,
            help=setting.description + _default(setting),
            callback=_split if setting.is_list else None,
        )
        self.section = section


def _default(setting: Setting) -> str:
    if setting.default is None or setting.default == ():
        return ""
    return f"  [default: {str(setting.default).lower() if setting.metavar == '' else setting.default}]"


def _split(_context: click.Context, _option: click.Parameter, texts: Sequence[str]) -> tuple[str, ...] | None:
    return tuple(part for text in texts for part in split_list(text)) or None


class Sectioned(click.Command):
    """A command whose help page groups its options."""

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for option in self.get_params(context):
            if (record := option.get_help_record(context)) is not None:
                sections.setdefault(getattr(option, "section", "Options"), []).append(record)
        sections["Options"] = sections.pop("Options")
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def settings_flags(names: Sequence[str] = ()) -> Callable[[Any], Any]:
    """Add the flags of these settings, or of all, and --config."""

    def add(function: Any) -> Any:
        function = click.option("--config", metavar="FILE", help="TOML file of settings, keys as the flags with _ for -.")(
            function
        )
        section, flags = "", []
        for setting in describe():
            section = SECTIONS.get(setting.name, section)
            if not names or setting.name in names:
                flags.append((setting, section))
        for setting, heading in reversed(flags):
            function.__click_params__.append(Flag(setting, heading))
        return function

    return add


def output_flags(function: Any) -> Any:
    """Add the flags of what is shown meanwhile."""
    function = click.option("--verbose", is_flag=True, help="Show also what is logged at levels INFO and DEBUG.")(function)
    function = click.option("--quiet", is_flag=True, help="Show nothing on stderr but errors.")(function)
    return click.option("--json", "as_json", is_flag=True, help="Progress on stderr as JSON lines.")(function)


DATA = click.argument("data", nargs=-1, required=True, metavar="DATA...")
OWN_LOSS = click.option(
    "--loss", metavar="TEXT", help="Where the loss of MODEL is, if it is one of your own: package.module:Class."
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


# --- commands


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="streamsgd")
def cli() -> None:
    """Train linear models by SGD on Parquet larger than memory, and score Parquet with them.

    DATA is a path, folder, glob or URL (s3://, gs://, ...), or several. The last line of stdout of train,
    predict and evaluate is one JSON object; progress goes to stderr.

    A setting is taken from its flag, else from the environment variable STREAMSGD_<SETTING>, else from the
    TOML file of
    --config (or STREAMSGD_CONFIG), else its default holds.
    """


@cli.command(cls=Sectioned)
@DATA
@click.option("-o", "--out", required=True, metavar="FILE", help="Where to save the model.")
@output_flags
@settings_flags()
def train(
    data: tuple[str, ...],
    *,
    out: str,
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
    settings = _settings(flags, config)
    with _reporting(as_json, quiet, verbose) as reporter:
        from streamsgd.progress import describe_report, where_time_went, workers_of  # noqa: PLC0415
        from streamsgd.training import train_model  # noqa: PLC0415

        try:
            model, report = train_model(
                _one(data),
                settings,
                out=out,
                emit=reporter.event,
                footers=reporter.footers,
                on_job=reporter.job,
            )
        except Stopped as stop:
            _print_json({"command": "train", "status": "stopped", "model": None, "message": str(stop)})
            raise
        for line in describe_report(report, reporter.memory.bytes):
            reporter.line(line)
        reporter.line(f"saved {out}")
        result = {
            "command": "train",
            "status": "done",
            "model": out,
            "rows": report.rows,
            "epochs": report.epochs,
            "steps": report.steps,
            "metrics": model.metrics,
            "counts": model.provenance["counts"],
            "resumed_from": report.resumed_from,
            "seconds": report.seconds,
            "rows_per_second": report.rows_now / max(report.seconds, 1e-9),
            "bytes": report.bytes,
            "time": where_time_went(report),
            "workers": workers_of(report),
            "peak_memory_bytes": reporter.memory.bytes,
        }
    _print_json(result)


@cli.command(cls=Sectioned)
@DATA
@AS_JSON
@settings_flags()
def plan(data: tuple[str, ...], *, as_json: bool, config: str | None, **flags: Any) -> None:
    """Show what train would do with DATA: columns, chunks, memory by part, and an estimate of time."""
    settings = _settings(flags, config)
    with _reporting() as reporter:
        from streamsgd.job import prepare  # noqa: PLC0415
        from streamsgd.outlook import outlook  # noqa: PLC0415
        from streamsgd.presentation import plan_text  # noqa: PLC0415

        found = outlook(prepare(_one(data), settings, progress=reporter.footers))
        _print(found, plan_text, as_json)


@cli.command(cls=Sectioned)
@click.argument("model")
@DATA
@click.option("-o", "--out", required=True, metavar="PATH", help="Folder, or a file name.parquet for one file.")
@OWN_LOSS
@output_flags
@settings_flags(("id", *SCORED))
def predict(
    model: str,
    data: tuple[str, ...],
    *,
    out: str,
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
    given = _given(flags, config)
    with _reporting(as_json, quiet, verbose) as reporter:
        from streamsgd.account import Account  # noqa: PLC0415
        from streamsgd.api import predict as run  # noqa: PLC0415

        account = Account(on_chunk=lambda now: reporter.scored(now.rows, now.total_rows))
        scored = run(model, _one(data), out, account=account, **given)
        reporter.line(f"wrote {scored.files:,} files to {out}, {scored.already_there:,} were there already")
        result = {
            "command": "predict",
            "model": model,
            "out": out,
            "rows": scored.rows,
            "files": scored.files,
            "files_already_there": scored.already_there,
            **_account(account, reporter),
        }
    _print_json(result)


@cli.command(cls=Sectioned)
@click.argument("model")
@DATA
@OWN_LOSS
@output_flags
@settings_flags(SCORED)
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
    given = _given(flags, config)
    with _reporting(as_json, quiet, verbose) as reporter:
        from streamsgd.account import Account  # noqa: PLC0415
        from streamsgd.api import evaluate as run  # noqa: PLC0415

        account = Account(on_chunk=lambda now: reporter.scored(now.rows, now.total_rows))
        metrics = run(model, _one(data), account=account, **given)
        result = {
            "command": "evaluate",
            "model": model,
            "metrics": metrics,
            "rows": account.rows,
            "counts": {"filtered": account.filtered, "skipped": account.skipped},
            **_account(account, reporter),
        }
    _print_json(result)


@cli.command(cls=Sectioned)
@DATA
@AS_JSON
@settings_flags(INSPECTED)
def inspect(data: tuple[str, ...], *, as_json: bool, config: str | None, **flags: Any) -> None:
    """Show files, row groups and columns of DATA; with --target, whether the order of its rows is a risk."""
    given = _given(flags, config)
    with _reporting() as reporter:
        from streamsgd.inspection import inspect_data  # noqa: PLC0415
        from streamsgd.presentation import inspection_text  # noqa: PLC0415

        found = inspect_data(_one(data), make_settings({"target": "", **given}), reporter.footers)
        if as_json:
            _print_json(found.to_dict(), indent=2)
        else:
            click.echo("\n".join(inspection_text(found)))


@cli.command(cls=Sectioned)
@click.argument("model")
@click.option("--top", type=click.IntRange(min=0), metavar="N", help="Show the N heaviest columns only.")
@OWN_LOSS
@AS_JSON
def show(model: str, *, top: int | None, loss: str | None, as_json: bool) -> None:
    """Show MODEL: what it was trained on, its metrics, and its weights in the units of the columns."""
    from streamsgd.model import load  # noqa: PLC0415
    from streamsgd.showing import model_summary, model_text  # noqa: PLC0415

    _print(model_summary(load(model, loss=loss), top), model_text, as_json)


@cli.command(cls=Sectioned)
@AS_JSON
def parts(*, as_json: bool) -> None:
    """List every loss, penalty, optimizer, schedule and sampler, with fields, defaults and source.

    A part is written as name:field=value,field=value, and one of your own as
    package.module:Class,field=value.
    """
    from streamsgd.presentation import list_parts, parts_text  # noqa: PLC0415

    _print(list_parts(), parts_text, as_json)


# --- helpers


def _settings(flags: dict[str, Any], config: str | None) -> Settings:
    return make_settings(*gather(flags, config=config))


def _given(flags: dict[str, Any], config: str | None) -> dict[str, Any]:
    """Return the settings that a command takes and that were given somewhere, checked."""
    values, origins = gather(flags, config=config)
    values = {name: value for name, value in values.items() if name in flags}
    settings = make_settings({"target": "", **values}, origins)
    return {name: getattr(settings, name) for name in values}


def _account(account: Account, reporter: Reporter) -> dict[str, Any]:
    return {
        "seconds": account.seconds,
        "rows_per_second": account.rows / max(account.seconds, 1e-9),
        "time": account.where_time_went(),
        "peak_memory_bytes": reporter.memory.bytes,
    }


def _print(found: dict[str, Any], text: Callable[[Any], list[str]], as_json: bool) -> None:
    if as_json:
        _print_json(found, indent=2)
    else:
        click.echo("\n".join(text(found)))


def _one(data: tuple[str, ...]) -> Any:
    return data[0] if len(data) == 1 else list(data)


def _reporting(as_json: bool = False, quiet: bool = False, verbose: bool = False) -> AbstractContextManager[Reporter]:
    from streamsgd.progress import reporting  # noqa: PLC0415

    # Read by Dask when it is imported; its own log lines are about things that it mends itself.
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "critical")
    return reporting("quiet" if quiet else "json" if as_json else "auto", verbose=verbose)


def _print_json(result: dict[str, Any], indent: int | None = None) -> None:
    from streamsgd.progress import to_json  # noqa: PLC0415

    click.echo(to_json(result, indent))


# --- the process


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line and return the exit code."""
    if "_STREAMSGD_COMPLETE" in os.environ:  # the shell asks for completions
        cli.main(prog_name="streamsgd")
    try:
        with cli.make_context("streamsgd", list(sys.argv[1:] if args is None else args)) as context:
            cli.invoke(context)
            sys.stdout.flush()
    except click.exceptions.Exit as done:
        return done.exit_code
    except (click.ClickException, StreamSGDError) as error:
        _say(_one_line(error))
        return error.exit_code if isinstance(error, StreamSGDError) else 2
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted")
        return 130
    except BrokenPipeError:
        # Python would complain again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception:  # noqa: BLE001  the last resort
        _say(f"{traceback.format_exc()}this is a bug in streamsgd {__version__}; please report it")
        return 1
    return 0


def _one_line(error: click.ClickException | StreamSGDError) -> str:
    """Return an error as people read it; a stop is none."""
    if isinstance(error, Stopped):
        return str(error)
    if isinstance(error, StreamSGDError):
        return f"error: {error}"
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error.format_message()
    context = getattr(error, "ctx", None)
    hint = f"; see {context.command_path} --help" if context is not None else ""
    return f"error: {error.format_message().rstrip('.')}{hint}"


def _say(text: str) -> None:
    try:
        click.echo(text, err=True)
    except OSError:  # stderr is closed; the exit code has to do
        return
