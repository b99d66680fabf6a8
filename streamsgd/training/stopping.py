"""SIGTERM and SIGINT end a run with a checkpoint."""

from __future__ import annotations

import logging
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger("streamsgd")


@contextmanager
def stopping(stop: threading.Event) -> Iterator[None]:
    """Set an event where SIGTERM or SIGINT comes within, and raise at a second one; only where Python allows handlers.

    Raises
    ------
    KeyboardInterrupt
        A second signal came.

    """

    def handle(number: int, _frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        log.warning("signal %d: saving a checkpoint after this chunk; send it again to stop at once", number)

    numbers = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
