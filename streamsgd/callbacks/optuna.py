"""A study of Optuna that ends runs which lead nowhere."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from streamsgd.callbacks.libraries import library
from streamsgd.errors import SettingsError
from streamsgd.messages import nearest
from streamsgd.training.callbacks import Stop
from streamsgd.training.events import flat_metrics

if TYPE_CHECKING:
    from streamsgd.model.model import Model
    from streamsgd.training.events import Event, Report
    from streamsgd.training.job import Job


class OptunaPruning:
    """Reports a metric to a trial after every evaluation, and stops a run that the study prunes.

    After `train` call `check`, which raises what Optuna expects of a pruned trial::

        pruning = OptunaPruning(trial)
        model = streamsgd.train(data, "y", validation=0.1, callbacks=[pruning], ...)
        pruning.check()
        return pruning.value

    Parameters
    ----------
    trial
        Of a study.
    metric
        What to report: `valid.loss`, `valid.log_loss` ... of evaluations; `loss` or `recent_loss` of every line of progress.

    Raises
    ------
    SettingsError
        Optuna is not installed.

    """

    def __init__(self, trial: Any, metric: str = "valid.loss") -> None:
        self._optuna = library("optuna", "Optuna")
        self.trial, self.metric = trial, metric
        self.value = math.nan
        """Of the metric, the last one."""
        self.pruned = False
        self._seen: set[str] = set()

    def on_begin(self, job: Job) -> None:
        """Do nothing."""

    def on_event(self, event: Event) -> None:
        """Report a value, if there is one.

        Raises
        ------
        Stop
            The study prunes the trial.

        """
        found = flat_metrics(event)
        self._seen |= set(found)
        if event.kind == "chunk" or self.metric not in found:
            return
        self.value = found[self.metric]
        self.trial.report(self.value, step=event.rows)
        if self.trial.should_prune():
            self.pruned = True
            raise Stop("pruned by Optuna")

    def on_end(self, report: Report, model: Model) -> None:
        """Do nothing."""

    def check(self) -> None:
        """Tell Optuna that the trial was pruned, if it was.

        Raises
        ------
        optuna.TrialPruned
            It was.
        SettingsError
            The run never told of the metric.

        """
        if self.pruned:
            raise self._optuna.TrialPruned
        if math.isnan(self.value):
            hint = nearest(self.metric, self._seen)
            raise SettingsError(f"metric={self.metric!r} was never told of{hint}; valid.* needs validation= or valid=")
