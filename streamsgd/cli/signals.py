"""What the command line does about SIGTERM and Ctrl-C.

A first one ends what is done as soon as it can be left, at latest after `GRACE` seconds, a second one after `IMPATIENT`; stdout
gets one JSON line that says what is there to go on from, and no traceback is shown.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


GRACE = 8.0
"""Seconds from a first signal to the end, whatever is being done: containers are killed after 10 at the earliest."""

IMPATIENT = 1.0
"""Seconds from a second signal to the end."""

CODES = {signal.SIGTERM: 75, signal.SIGINT: 130}


class Interrupted(KeyboardInterrupt):
    """A signal came where nothing waits for one."""


class Signals:
    """What this process does about SIGTERM and SIGINT."""

    def __init__(self, command: str, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.result: dict[str, Any] = {"command": command, "status": "stopped"}
        self.result |= {"model": None, "checkpoint": None} if command == "train" else {}
        self.saved: Callable[[], dict[str, Any]] = dict
        """Says what is there to go on from."""
        self.number = 0
        self._said = False
        self._lock = threading.Lock()

    def arm(self) -> None:
        """Begin to listen; signals that whoever started us wants ignored are."""
        read, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1) if _is_main_thread() else None)
        for number in CODES:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._interrupt)
        sys.unraisablehook = _again(sys.unraisablehook)
        threading.Thread(target=self._watch, args=(read,), name="streamsgd-signals", daemon=True).start()

    def _interrupt(self, number: int, _frame: FrameType | None) -> None:
        self.number = number
        raise Interrupted(number)

    def _watch(self, read: int) -> None:
        """End the process some time after a signal, whatever the main thread is doing: code without Python gets no signals."""
        from select import select  # noqa: PLC0415

        patience: float | None = None
        while select([read], [], [], patience)[0]:
            number = next((int(n) for n in os.read(read, 64) if n in CODES), 0)
            if number:
                patience = GRACE if patience is None else IMPATIENT
                self.number = number
        self.say(f"stopped by {signal.Signals(self.number).name} in the middle of something")
        os._exit(CODES[signal.Signals(self.number)])

    def end(self) -> int:
        """Say that a signal ended the process, where; return its exit code."""
        number = signal.Signals(self.number or signal.SIGINT)
        self.say("interrupted" if number == signal.SIGINT else f"stopped by {number.name}")
        return CODES[number]

    def say(self, what: str) -> None:
        """Write a line for people, and one in JSON unless a result was written."""
        import json  # noqa: PLC0415

        from streamsgd.messages import stamped  # noqa: PLC0415

        try:
            saved = self.saved()
        except (OSError, KeyboardInterrupt):
            saved = {}
        if saved.get("checkpoint"):
            what += f": a checkpoint is in {saved['checkpoint']}; start again to go on"
        _write(2, json.dumps(stamped("message", "warning", message=what)) + "\n" if self.as_json else f"{what}\n")
        if self.claim():
            _write(1, json.dumps({**self.result, **saved, "message": what}) + "\n")

    def claim(self) -> bool:
        """Say whether the caller is the one to write the result."""
        with self._lock:
            mine, self._said = not self._said, True
        return mine


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _again(usual: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Return a hook for exceptions that Python drops: an interruption that hit a destructor comes once more, elsewhere."""

    def hook(dropped: Any) -> None:
        if isinstance(dropped.exc_value, KeyboardInterrupt):
            import _thread  # noqa: PLC0415

            threading.Timer(0.05, _thread.interrupt_main).start()
        else:
            usual(dropped)

    return hook


def _write(descriptor: int, text: str) -> None:
    try:
        os.write(descriptor, text.encode(errors="backslashreplace"))
    except OSError:  # closed or full; the exit code has to do
        return
