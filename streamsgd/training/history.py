"""The table that a run prints, kept: a row for each line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamsgd.training.events import flat_metrics

if TYPE_CHECKING:
    from streamsgd.model.model import Model
    from streamsgd.training.events import Event, Report
    from streamsgd.training.job import Job


class History:
    """A callback that keeps what is printed: at 1024, 2048, 4096 ... rows, at evaluations, after passes."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def on_begin(self, job: Job) -> None:
        """Do nothing."""

    def on_event(self, event: Event) -> None:
        """Keep an event that is printed."""
        if event.kind != "chunk":
            facts = {"kind": event.kind, "rows": event.rows, "seconds": event.seconds, "bytes": event.bytes}
            self._rows.append(facts | flat_metrics(event))

    def on_end(self, report: Report, model: Model) -> None:  # noqa: ARG002
        """Give what was kept to the model."""
        model.told = self._rows
