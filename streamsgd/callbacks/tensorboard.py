"""What a run tells, to TensorBoard: losses by rows learned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from streamsgd.callbacks.libraries import library
from streamsgd.training.events import flat_metrics

if TYPE_CHECKING:
    import os

    from streamsgd.model.model import Model
    from streamsgd.training.events import Event, Report
    from streamsgd.training.job import Job


class TensorBoard:
    """Writes scalars to a folder that TensorBoard reads.

    Parameters
    ----------
    folder
        Of the run; a resumed one goes on in it.

    Raises
    ------
    SettingsError
        TensorBoard is not installed.

    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._writer = library("tensorboard.summary", "TensorBoard").Writer(str(folder))

    def on_begin(self, job: Job) -> None:
        """Do nothing."""

    def on_event(self, event: Event) -> None:
        """Write what is printed, by rows learned."""
        if event.kind == "chunk":
            return
        for name, value in flat_metrics(event).items():
            self._writer.add_scalar(name.replace(".", "/"), value, step=event.rows)
        self._writer.flush()

    def on_end(self, report: Report, model: Model) -> None:  # noqa: ARG002
        """Write how it ended."""
        for name, value in report.losses.items():
            if value is not None:
                self._writer.add_scalar(name, value, step=report.rows)
        self._writer.close()
