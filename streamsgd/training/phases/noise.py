"""Noise of gradients at given weights: one pass that adds up how the gradients of all rows scatter, and learns nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.errors import DataError
from streamsgd.kernels.parts.by_rows import USUAL_BATCH
from streamsgd.kernels.parts.traits import is_sequential, rule_of
from streamsgd.kernels.sums.noise import LOSS, WEIGHT
from streamsgd.planning.samplers import replaces
from streamsgd.settings.registry import spec_of
from streamsgd.training.learner import model_of
from streamsgd.training.noise.gradient_noise import Mixing, effect_of, ratio_at, step_metric
from streamsgd.training.phases.base import Outcome, PhaseKind, Saved
from streamsgd.training.phases.one_pass import OnePass
from streamsgd.training.tasks.noise import GROUPS, MOST_DENSE, MeasureNoise, NoiseSums, as_arrays, from_arrays, places_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.model.model import Model
    from streamsgd.training.job import Job

COPIES = 5
"""Of the sums of all groups: its own, those of a round, twice while they are merged, a checkpoint's, and room to work."""


class MeasuredNoise(OnePass[NoiseSums]):
    """The pass that adds up.

    Parameters
    ----------
    job
        As prepared.
    weights
        (n_coordinates, n_outputs), at which; those that earlier phases came to if None.
    alone
        Whether no phase comes before, so that rows are counted here.

    """

    name = "measured_noise"

    def __init__(
        self,
        job: Job,
        _reached: Callable[[float], None] | None = None,
        *,
        weights: np.ndarray | None = None,
        alone: bool = False,
    ) -> None:
        super().__init__(job)
        self._given, self.counts = weights, alone

    @property
    def tally(self) -> np.ndarray:
        """What came before, or of a run that learns nothing the rows measured so far."""
        if self._known.passes or self._sums is None or not self._sums.groups:
            return self._known.tally
        tally = self._sums.total.tally
        return np.array([tally[LOSS], tally[WEIGHT], self._sums.total.rows])

    def begin(self, before: Outcome) -> None:
        """Start at the weights that were given or learned."""
        self.start_at(before.weights if self._given is None else self._given, before)

    def task(self) -> MeasureNoise:
        """Return what measures a chunk."""
        return MeasureNoise(self._weights)

    # --- what comes out

    def result(self) -> dict[str, Any]:
        """Return what was found, as JSON values.

        Raises
        ------
        DataError
            There are fewer than two rows.

        """
        sums, job = self._sums, self.job
        rows = int(sums.total.rows) if sums is not None and sums.groups else 0
        if sums is None or rows < 2:
            raise DataError(
                f"the noise of gradients is how they differ from row to row, and there {_are(rows)}: take more rows"
            )
        total, sampler = sums.total, job.plan.sampler
        mixing = Mixing(
            usual_batch(job), job.plan.n_chunks(0), bool(sampler.side_by_side), bool(sampler.mixes_rows), replaces(sampler)
        )
        effect, between = effect_of(sums, mixing)
        return {
            **ratio_at(sums).to_dict(),
            "design_effect": effect,
            "between_units": between,
            "batch_size": "full" if job.settings.batch_size == "full" else usual_batch(job),
            "shuffle": spec_of("shuffle", sampler),
            "metric": self._in_metric(sums),
            "loss": float(total.tally[LOSS]) / float(total.tally[WEIGHT]) if total.tally[WEIGHT] else None,
            "rows": rows,
            "weights": job.n_parameters,
            "places": len(sums.reference),
            "groups": len(sums.groups),
            "units": int(sums.spread[0]),
            "rows_per_chunk": round(job.plan.n_rows / job.plan.n_chunks(0)),
        }

    def _in_metric(self, sums: NoiseSums) -> dict[str, Any] | None:
        """Return the same in the metric of the optimizer's steps; None where these have none that this pass can know."""
        optimizer = self.job.parts.optimizer
        if rule_of(optimizer) != "batch":
            return None
        plain = getattr(optimizer, "rate_scaling", "") == "linear"
        if not plain and len(sums.reference) < self.job.n_parameters:
            return None
        found = ratio_at(sums) if plain else ratio_at(sums, step_metric(sums, usual_batch(self.job)))
        return {"optimizer": spec_of("optimizer", optimizer).partition(":")[0], **found.to_dict()}

    def model(self) -> Model:
        """Return the model of the weights at which is measured."""
        return model_of(self.job, self._weights.astype(self.job.settings.precision))

    def outcome(self) -> Outcome:
        """Return what came before, with what was found."""
        metrics = {**self._known.metrics, self.name: self.result()}
        return replace(self._known, passes=self._known.passes + 1, metrics=metrics)

    # --- checkpoints

    def save(self) -> Saved:
        """Return the pass so far."""
        some = self._sums is not None and bool(self._sums.groups)
        arrays = {"weights": self._weights} | (as_arrays(self._sums) if some and self._sums is not None else {})
        return Saved({"chunk": self._chunk}, arrays)

    def restore(self, saved: Saved, before: Outcome) -> None:
        """Take back what a checkpoint kept."""
        super().restore(saved, before)
        if "numbers" in saved.arrays:
            self._sums = from_arrays(saved.arrays, places_of(self.job))


def _are(rows: int) -> str:
    return "is one row" if rows == 1 else "is none"


def noise_bytes(n_weights: int) -> int:
    """Return the bytes that adding up takes, checkpoints included."""
    return 8 * (3 * n_weights + COPIES * 2 * GROUPS * min(n_weights, MOST_DENSE))


def describe(metrics: dict[str, Any]) -> list[str]:
    """Return what was found, for people."""
    lines = [
        (
            f"noise of {metrics['rows']:,} rows at these weights: trace of the covariance {metrics['trace_covariance']:.6g}, "
            f"squared length of the gradient {metrics['gradient_norm_squared']:.6g}; {in_words(metrics)}"
        )
    ]
    if (metric := metrics.get("metric")) and metric["optimizer"]:
        lines.append(f"in the metric of {metric['optimizer']}: {in_words(metric)}")
    return lines + worth(metrics)


def worth(metrics: dict[str, Any]) -> list[str]:
    """Return what the shuffle makes of batches."""
    if metrics["design_effect"] is None:
        return []
    return [
        (
            f"batches of {metrics['batch_size']} rows as --shuffle {metrics['shuffle']} draws them: "
            f"{metrics['design_effect']:.3g} times the variance of as many independent rows"
        )
    ]


def usual_batch(job: Job) -> int:
    """Return the rows of a batch; of steps of a row 64: many of them average, and one tells nothing of the order."""
    by_itself = job.settings.batch_size == "auto" and is_sequential(job.parts.optimizer)
    return USUAL_BATCH if by_itself else job.batch_size


def in_words(found: dict[str, Any]) -> str:
    """Return a noise scale with its interval, or that there is none."""
    if found["noise_scale"] is None:
        return "the noise scale is not identified: the gradient is within two standard errors of 0"
    between = "" if found["interval"] is None else " ({:.3g} to {:.3g})".format(*found["interval"])
    return f"noise scale {found['noise_scale']:.4g} rows{between}"


MEASURED_NOISE = PhaseKind(
    "measured_noise",
    wanted=lambda _settings, _parts: True,
    check=lambda _settings, _parts, _encoding: None,
    memory=lambda outline: noise_bytes(outline.n_parameters),
    passes=lambda _outline: 1,
    make=MeasuredNoise,
    describe=describe,
)
"""Named in `--phases` it ends a run; `measure` runs it alone."""


def measuring_at(weights: np.ndarray) -> PhaseKind:
    """Return the phase that measures at these weights."""
    return MEASURED_NOISE._replace(make=partial(MeasuredNoise, weights=weights, alone=True), learns=lambda _job: 1)
