"""What a run tells, to MLflow: settings as parameters, losses as metrics by rows learned, the model as an artifact."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamsgd.callbacks.libraries import library
from streamsgd.settings.make import identity
from streamsgd.training.events import flat_metrics

if TYPE_CHECKING:
    from streamsgd.model.model import Model
    from streamsgd.training.events import Event, Report
    from streamsgd.training.job import Job

MOST_LETTERS = 500
"""Of a parameter, which some servers cut off."""


class MLflow:
    """Logs to the active run of MLflow, or to one of its own.

    Parameters
    ----------
    run_id
        Of the run to log to; default: the active one, or a new one that ends with the training.
    save_model
        Whether to log the model file, as `model.sgd`.

    Raises
    ------
    SettingsError
        MLflow is not installed.

    """

    def __init__(self, run_id: str | None = None, *, save_model: bool = True) -> None:
        self._mlflow = library("mlflow", "MLflow")
        self._client = self._mlflow.MlflowClient()
        self.run_id, self.save_model = run_id, save_model
        self._own = False

    def on_begin(self, job: Job) -> None:
        """Log settings and sizes as parameters."""
        if self.run_id is None:
            active = self._mlflow.active_run()
            self._own = active is None
            self.run_id = (active or self._mlflow.start_run()).info.run_id
        given = {name: value for name, value in identity(job.settings).items() if value not in (None, (), [])}
        facts = {**given, "rows": job.data.n_rows, "files": job.data.n_files, "fingerprint": job.dataset.fingerprint}
        for name, value in facts.items():
            self._client.log_param(self.run_id, name, str(value)[:MOST_LETTERS])

    def on_event(self, event: Event) -> None:
        """Log what is printed, by rows learned."""
        if event.kind != "chunk":
            self._log(flat_metrics(event), event.rows)

    def on_end(self, report: Report, model: Model) -> None:
        """Log how it ended, and the model."""
        self._log({name: value for name, value in report.losses.items() if value is not None}, report.rows)
        if self.save_model:
            with tempfile.TemporaryDirectory() as folder:
                model.save(Path(folder) / "model.sgd")
                self._client.log_artifact(self.run_id, str(Path(folder) / "model.sgd"))
        if self._own:
            self._mlflow.end_run()

    def _log(self, metrics: dict[str, Any], rows: int) -> None:
        for name, value in metrics.items():
            self._client.log_metric(self.run_id, name, float(value), step=rows)
