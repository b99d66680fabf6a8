"""The process of the command line: exit codes, and errors as one line."""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import TYPE_CHECKING

import click

from streamsgd.cli.commands import cli
from streamsgd.cli.stdout import StdoutError
from streamsgd.errors import Stopped, StreamSGDError
from streamsgd.messages import stamped
from streamsgd.redact import redact, remember
from streamsgd.settings.told import one_run
from streamsgd.settings.words import speaking_flags
from streamsgd.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamsgd.cli.signals import Signals


def main(args: Sequence[str] | None = None, signals: Signals | None = None) -> int:
    """Run a command line and return the exit code; signals, if anybody listens for them, say why it was interrupted."""
    if "_STREAMSGD_COMPLETE" in os.environ:  # the shell asks for completions
        cli.main(prog_name="streamsgd")
    words = list(sys.argv[1:] if args is None else args)
    for word in words:
        remember(word)
    try:
        with speaking_flags(), cli.make_context("streamsgd", words, obj=signals) as context, one_run():
            cli.invoke(context)
            sys.stdout.flush()
    except click.exceptions.Exit as done:
        return done.exit_code
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  the last resort
        return _failed(error, signals, as_json="--json" in words)
    return 0


def _failed(error: BaseException, signals: Signals | None, *, as_json: bool) -> int:
    """Say what went wrong; return the exit code. What goes wrong after a signal goes wrong because of it."""
    interrupted = isinstance(error, KeyboardInterrupt | click.Abort)
    if signals is not None and (interrupted or (signals.number and not isinstance(error, Stopped))):
        return signals.end()
    if isinstance(error, click.ClickException | StreamSGDError):
        _say(_one_line(error), as_json=as_json, level="warning" if isinstance(error, Stopped) else "error")
        return error.exit_code if isinstance(error, StreamSGDError) else 2
    if interrupted:
        _say("interrupted", as_json=as_json, level="warning")
        return 130
    if isinstance(error, BrokenPipeError | StdoutError):
        # Python would complain again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 141
        _say(
            f"error: the result cannot be written to stdout: {error}; files that were finished before are there",
            as_json=as_json,
        )
        return 2
    _say(f"{traceback.format_exc()}this is a bug in streamsgd {__version__}; please report it", as_json=as_json)
    return 1


def _one_line(error: click.ClickException | StreamSGDError) -> str:
    """Return an error as people read it; a stop is none."""
    if isinstance(error, StreamSGDError):
        said = error.in_flags or str(error)
        return said if isinstance(error, Stopped) else f"error: {said}"
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error.format_message()
    context = getattr(error, "ctx", None)
    hint = f"; see {context.command_path} --help" if context is not None else ""
    return f"error: {error.format_message().rstrip('.')}{hint}"


def _say(text: str, *, as_json: bool, level: str = "error") -> None:
    """Write what ended the process to stderr, as a line for people or as JSON."""
    try:
        shown = redact(text)
        click.echo(json.dumps(stamped("message", level, message=shown.removeprefix("error: "))) if as_json else shown, err=True)
    except OSError:  # stderr is closed; the exit code has to do
        return
