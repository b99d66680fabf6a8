"""Where a process of the command line begins and ends: signals and streams before anything that takes time is imported."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from streamsgd.cli.signals import Signals
from streamsgd.portable import start_anew

if TYPE_CHECKING:
    from collections.abc import Sequence


def open_streams() -> None:
    """Make sure that 0, 1 and 2 are open, or the next files would get these numbers, and what libraries print."""
    for number, way in ((0, os.O_RDWR), (1, os.O_RDONLY), (2, os.O_RDWR)):  # results that go nowhere are an error
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, way), True)  # the lowest number that is free
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))


def leave(code: int) -> None:
    """End the process with a code, once what it promised is written: Python would take a third of a second to tidy up."""
    import atexit  # noqa: PLC0415
    import logging  # noqa: PLC0415

    atexit._run_exitfuncs()  # noqa: SLF001  theirs who registered some
    logging.shutdown()
    for stream, fails in ((sys.stdout, 1), (sys.stderr, 0)):  # what nobody can be told is no failure of a run
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or fails
    os._exit(code)


def entry(args: Sequence[str] | None = None) -> int:
    """Run the command line of this process; return its exit code."""
    words = sys.argv[1:] if args is None else args
    open_streams()
    signals = Signals(next((word for word in words if not word.startswith("-")), ""), as_json="--json" in words)
    try:
        start_anew(words)
        signals.arm()
        from streamsgd.cli.main import main  # noqa: PLC0415  a signal may come meanwhile

        code = main(args, signals)
        signals.rest()
    except KeyboardInterrupt:
        return signals.end()
    return code


def run() -> None:
    """Be the process of the command line."""
    leave(entry())
