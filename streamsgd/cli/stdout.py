"""What a command writes to stdout, and that it says so where it cannot."""

from __future__ import annotations

import sys
from typing import Any

import click

from streamsgd.redact import redact
from streamsgd.version import __version__


class StdoutError(Exception):
    """Stdout is full or failed; the cause is an OSError."""


def echo(text: str) -> None:
    """Write a line, without secrets, at once.

    Raises
    ------
    BrokenPipeError
        Nobody reads any more.
    StdoutError
        It cannot be written.

    """
    try:
        click.echo(redact(text))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StdoutError(error.strerror) from error


class SafeHelp(click.Command):
    """A command whose --help is written as results are: click's own way ends in a traceback where stdout is full."""

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """Return the option, with our way of writing."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.callback = _show_help
        return option


def _show_help(context: click.Context, _option: click.Parameter, wanted: Any) -> None:
    if wanted and not context.resilient_parsing:
        echo(context.get_help())
        context.exit()


def show_version(context: click.Context, _option: click.Parameter, wanted: Any) -> None:
    """Write the version, and end."""
    if wanted and not context.resilient_parsing:
        echo(f"streamsgd, version {__version__}")
        context.exit()
