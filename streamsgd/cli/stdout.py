"""What a command writes to stdout, and that it says so where it cannot."""

from __future__ import annotations

import sys

import click

from streamsgd.redact import redact


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
