"""What every command does: settings from flags, progress on stderr, the last line of JSON."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from streamsgd.cli.stdout import echo
from streamsgd.errors import ModelError, SettingsError
from streamsgd.messages import counted
from streamsgd.settings.gather import gather, split_list
from streamsgd.settings.make import make_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from streamsgd.settings.fields import Settings
    from streamsgd.show.reporters import Reporter
    from streamsgd.stream.stats import Account


def all_settings(flags: dict[str, Any], config: str | None, defaults: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings of flags, environment and file, checked, and a command's own defaults of the others."""
    values, origins = gather(flags, config=config)
    return make_settings({**(defaults or {}), **values}, origins)


def settings_to_train(values: Mapping[str, Any], origins: Mapping[str, str], folds: int | None, report: str | None) -> Settings:
    """Return the settings of the model that is saved.

    Raises
    ------
    SettingsError
        One is out of range, or contradicts the folds.

    """
    if folds is None:
        return make_settings(values, origins)
    if report is not None:
        raise SettingsError("--report is of one run, and --folds makes several: leave one of them out")
    from streamsgd.training.together.crossvalidation import settings_of  # noqa: PLC0415

    return settings_of(values, folds, None, origins)[0]


def given_settings(flags: dict[str, Any], config: str | None) -> dict[str, Any]:
    """Return the settings that a command takes and that were given somewhere, checked."""
    values, origins = gather(flags, config=config)
    values = {name: value for name, value in values.items() if name in flags}
    settings = make_settings({"target": "", **values}, origins)
    return {name: getattr(settings, name) for name in values}


def numbers(flag: str, text: str, kind: type[int | float]) -> list[Any]:
    """Return the numbers of a list with commas.

    Raises
    ------
    SettingsError
        One is none, or not above 0.

    """
    try:
        found = [kind(part) for part in split_list(text) if part]
    except ValueError:
        found = [0]
    if not all(0 < number < float("inf") for number in found):
        raise SettingsError(f"{flag}: {text!r} is not a list of {'whole ' if kind is int else ''}numbers above 0, with commas")
    return found


def account_of(account: Account, reporter: Reporter) -> dict[str, Any]:
    """Return what a pass without training took."""
    return {
        "seconds": account.seconds,
        "rows_per_second": account.rows / max(account.seconds, 1e-9),
        "time": account.where_time_went(),
        "peak_memory_bytes": reporter.memory.bytes,
    }


def written_line(done: Any, out: str) -> str:
    """Return what was written where, as a line: what is called name.parquet is a folder where several files were scored."""
    folder = out.endswith(".parquet") and done.files + done.already_there > 1
    where = f"the folder {out}, a file for each of the data" if folder else out
    return f"wrote {counted(done.files, 'file')} to {where}, {done.already_there:,} were there already"


def show_dry_run(data: Any, settings: Settings, out: str | None, reporter: Reporter, as_json: bool) -> None:
    """Print what train would do, after all checks that need no pass over the data."""
    from streamsgd.show.plan import plan_text  # noqa: PLC0415
    from streamsgd.training.estimate import outlook  # noqa: PLC0415
    from streamsgd.training.run import dry_run  # noqa: PLC0415

    job, checkpoint = dry_run(data, settings, out, reporter.footers)
    found = {"command": "train", "status": "dry run", "model": out, "resumes_from": checkpoint, "plan": outlook(job)}
    left = "nothing was written" if out is None else f"{out} was not written"
    ends = [f"goes on   from the checkpoint in {checkpoint}"] if checkpoint else []
    print_found(found, lambda shown: [*plan_text(shown["plan"]), *ends, "", f"a dry run: {left}"], as_json)


def report_to_write(path: str | None, out: str) -> list[Any]:
    """Return the callbacks that write a report, if one is wanted beside the model.

    Raises
    ------
    SettingsError
        It cannot be written there.

    """
    if path is None:
        return []
    from streamsgd.data.stores.output import check_apart  # noqa: PLC0415
    from streamsgd.show.report import HtmlReport  # noqa: PLC0415

    check_apart({"--out": out, "--report": path})
    return [HtmlReport(path)]


def check_written(reports: list[Any]) -> None:
    """Let a command fail whose report could not be written; the model is saved, and why it failed was said.

    Raises
    ------
    ModelError
        There is one.

    """
    for report in reports:
        if not report.is_written:
            raise ModelError(f"--report {report.out}: was not written; the model is saved: make one of it by streamsgd report")


def need_out(out: str | None) -> None:
    """Make sure that somebody said where a command writes to.

    Raises
    ------
    MissingParameter
        Nobody said.

    """
    if out is None:
        context = click.get_current_context()
        raise click.MissingParameter(ctx=context, param=next(each for each in context.command.params if each.name == "out"))


def watch_checkpoints(folder: str) -> None:
    """Let whoever is told of signals know what a run has saved."""
    signals = click.get_current_context().obj
    if signals is not None:
        signals.saved = lambda: saved_so_far(folder)


def saved_so_far(folder: str) -> dict[str, Any]:
    """Return what a run that was stopped has saved: of a store that is not asked, where it would be."""
    from streamsgd.data.stores.output import local_path  # noqa: PLC0415  by now it is loaded, or nothing was saved

    path = local_path(folder)
    if path is None:
        return {"model": None, "checkpoint": folder}
    try:
        found = any(path.suffix == ".ckpt" and path.name[0] != "." for path in path.iterdir())
    except OSError:
        found = False
    return {"model": None, "checkpoint": folder if found else None}


def print_found(found: dict[str, Any], text: Callable[[Any], list[str]], as_json: bool) -> None:
    """Print what was found, as JSON or as text."""
    if as_json:
        print_json(found, indent=2)
    else:
        echo("\n".join(text(found)))


def one_or_list(data: tuple[str, ...]) -> Any:
    """Return one place of data, or the list of several."""
    return data[0] if len(data) == 1 else list(data)


def open_reporter(as_json: bool = False, quiet: bool = False, verbose: bool = False) -> AbstractContextManager[Reporter]:
    """Return what shows progress, to be entered."""
    from streamsgd.show.reporters import reporting  # noqa: PLC0415

    # Read by Dask when it is imported; its own log lines are about things that it mends itself.
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "critical")
    return reporting("quiet" if quiet else "json" if as_json else "auto", verbose=verbose)


def print_json(result: dict[str, Any], indent: int | None = None) -> None:
    """Print a result as JSON, unless a signal has taken the last line."""
    from streamsgd.show.reporters import to_json  # noqa: PLC0415

    signals = click.get_current_context().obj
    if signals is None or signals.claim():
        echo(to_json(result, indent))
