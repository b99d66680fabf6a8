"""Callbacks: sinks of what a run tells. One may ask to stop; none changes anything."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

from streamsgd.errors import SettingsError, StreamSGDError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamsgd.model.model import Model
    from streamsgd.training.events import Event, Report
    from streamsgd.training.job import Job

log = logging.getLogger("streamsgd")


class Stop(Exception):  # noqa: N818  a request, not an error
    """Raised by a callback that wants the phase under way to end with the weights as they are."""


class Callback(Protocol):
    """A sink of facts. An error of its own is logged once and ends it, not the run; a `SettingsError` refuses the run."""

    def on_begin(self, job: Job) -> None:
        """Take the job that begins, or goes on."""

    def on_event(self, event: Event) -> None:
        """Take an event; raise `Stop` to end the phase."""

    def on_end(self, report: Report, model: Model) -> None:
        """Take what came out."""


class OnEvent:
    """A function as a callback; its errors are the caller's own, and are raised."""

    def __init__(self, function: Callable[[Event], None]) -> None:
        self.on_event = function

    def on_begin(self, job: Job) -> None:
        """Do nothing."""

    def on_end(self, report: Report, model: Model) -> None:
        """Do nothing."""


class Callbacks:
    """Tells several callbacks, and goes on without those that fail."""

    def __init__(self, callbacks: Sequence[Callback] = ()) -> None:
        self._callbacks = list(callbacks)

    def on_begin(self, job: Job) -> None:
        """Tell all."""
        self._tell("on_begin", job)

    def on_event(self, event: Event) -> str:
        """Tell all; return why to stop, if one asked for that."""
        return self._tell("on_event", event)

    def on_end(self, report: Report, model: Model) -> None:
        """Tell all."""
        self._tell("on_end", report, model)

    def _tell(self, name: str, *facts: Any) -> str:
        why = ""
        for callback in list(self._callbacks):
            try:
                getattr(callback, name)(*facts)
            except Stop as stop:
                why = str(stop) or "callback"
            except SettingsError:
                raise  # of who refuses a run before it begins, as its settings are
            except StreamSGDError as error:
                log.error("callback %s failed and is not called again: %s", type(callback).__name__, error)  # noqa: TRY400
                self._callbacks.remove(callback)
            except Exception:
                if isinstance(callback, OnEvent):
                    raise
                log.exception("callback %s failed and is not called again", type(callback).__name__)
                self._callbacks.remove(callback)
        return why
