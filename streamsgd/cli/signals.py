"""What the command line does about SIGTERM and Ctrl-C.

A first one ends what is done as soon as it can be left, at latest after `GRACE` seconds, a second one after `IMPATIENT`; stdout
gets one JSON line that says what is there to go on from, and no traceback is shown.

A signal becomes an exception in the main thread. That does not always arrive: an import that it would break off leaves half a
module to whoever asks next, so it waits for the end of the import; and code that drops exceptions, as much of C does, drops
this one too, so it is raised again until somebody has taken it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


GRACE = 8.0
"""Seconds from a first signal to the end, whatever is being done: containers are killed after 10 at the earliest."""

IMPATIENT = 1.0
"""Seconds from a second signal to the end."""

AGAIN = 0.02
"""Seconds until what was not taken is raised again."""

RAISE = signal.SIGALRM
"""What the main thread is woken with then: nobody's second SIGTERM."""

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
        self._waits = False
        """Whether one came that went to nobody yet."""
        self._taken = False
        """Whether the process is ending anyway."""
        self._flying: Callable[[], Interrupted | None] = lambda: None
        """The exception of the last one, as long as anybody has it."""
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
        signal.signal(RAISE, self._raise_again)
        sys.unraisablehook = _quiet(sys.unraisablehook)
        threading.Thread(target=self._watch, args=(read,), name="streamsgd-signals", daemon=True).start()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.number, self._waits = number, True
        if self._taken or _is_importing(frame):
            return
        error = Interrupted(number)
        self._flying = weakref.ref(error)
        try:
            raise error
        finally:
            del error  # or its own traceback would keep it when somebody has dropped it

    def _raise_again(self, _number: int, frame: FrameType | None) -> None:
        """Do now what a signal asked for that was put off or dropped: who listens by now may know better than to raise."""
        if not self._is_lost():
            return
        listens = signal.getsignal(self.number)
        if listens == self._interrupt:
            self._interrupt(self.number, frame)
        elif callable(listens):
            self._waits = False
            listens(self.number, frame)

    def _is_lost(self) -> bool:
        """Whether a signal waits for somebody to take it, and its exception is not on its way to one."""
        return self._waits and not self._taken and self._flying() is None

    def _watch(self, read: int) -> None:
        """End the process some time after a signal, whatever the main thread is doing: code without Python gets no signals."""
        from select import select  # noqa: PLC0415

        ends: float | None = None
        while ends is None or time.monotonic() < ends:
            if select([read], [], [], None if ends is None else AGAIN)[0]:
                for number in (int(n) for n in os.read(read, 64) if n in CODES):
                    ends = time.monotonic() + (GRACE if ends is None else IMPATIENT)
                    self.number = number
            elif self._is_lost():
                signal.pthread_kill(threading.main_thread().ident or 0, RAISE)
        self.say(f"stopped by {signal.Signals(self.number).name} in the middle of something")
        os._exit(CODES[signal.Signals(self.number)])

    def rest(self) -> None:
        """Raise nothing more: all is done, or somebody says what was not."""
        self._taken = True

    def end(self) -> int:
        """Say that a signal ended the process, where; return its exit code."""
        self.rest()
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


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib."):
            return True
        frame = frame.f_back
    return False


def _quiet(usual: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Return a hook for exceptions that Python drops: an interruption that hit a destructor is raised again, elsewhere."""

    def hook(dropped: Any) -> None:
        if not isinstance(dropped.exc_value, KeyboardInterrupt):
            usual(dropped)

    return hook


def _write(descriptor: int, text: str) -> None:
    try:
        os.write(descriptor, text.encode(errors="backslashreplace"))
    except OSError:  # closed or full; the exit code has to do
        return
