"""The mode of a posterior: passes that add up gradient and curvature of the log likelihood, and Newton's steps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.errors import DataError, DivergedError
from streamsgd.kernels.learn.langevin import Center
from streamsgd.training.phases.base import kept
from streamsgd.training.posterior import mode_at, plain_noise, refuse_separated
from streamsgd.training.tasks.fisher import SUMS, AddFisher, FisherSums, new_fisher
from streamsgd.training.tasks.walk import Posterior

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamsgd.training.job import Job

NEAR = 0.1
"""Standard deviations from the mode that are near enough: control variates make up for the rest."""

STEADY = 0.2
"""By which the variance of a weight may change in a pass near the mode, if the rows do not separate."""

MOST_PASSES = 10

KEPT = ("passes", "noise", "off", "rows", "found")
"""What a checkpoint keeps of it as JSON."""

PARTS = ("pull", "precision", "gauge", "whiten")
"""Arrays of a center."""


class ModeSearch:
    """Newton's method by whole passes.

    Parameters
    ----------
    job
        As prepared.
    precision
        Of the prior.
    dense
        Whether pairs of weights are added up.
    plain
        Whether the noise of plain gradients is asked for.

    """

    def __init__(self, job: Job, precision: float, *, dense: bool, plain: bool) -> None:
        self.job, self.precision, self.dense, self._wants_plain = job, precision, dense, plain
        self.weights = np.zeros(job.n_weights)
        self.passes, self.rows, self.found = 0, 0, False
        self.noise, self.off = 0.0, math.inf
        """Variance of a squared loss, 0 while it is not known; and standard deviations from the mode."""
        self.variance = np.zeros(0)
        """Of each weight by the curvature at the last pass."""
        self.plain = np.zeros(0)
        self.center = Center(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros((1, 0)))
        self._sums: FisherSums | None = None

    @property
    def posterior(self) -> Posterior:
        """Return where chains walk."""
        return Posterior(self.weights, self.center)

    def task(self) -> AddFisher:
        """Return what adds up a chunk."""
        return AddFisher(self.weights, self.dense)

    def add(self, share: FisherSums) -> None:
        """Add to the pass."""
        self._sums = share if self._sums is None else self._sums.merge(share)

    def end_pass(self) -> None:
        """Take Newton's step, or end at the mode.

        Raises
        ------
        DataError
            The rows and the prior do not determine every weight.
        DivergedError
            The mode is not found.

        """
        assert self._sums is not None, "add comes first"  # noqa: S101  for the type checker
        sums, self._sums = self._sums, None
        self.noise, self.rows = self.noise or self._noise_of(sums), int(sums.tally[2])
        mode = mode_at(self.job, self.weights, sums, self.precision, self.noise)
        before, self.variance, self.off = self.variance, mode.variance, mode.off
        grown = np.abs(mode.variance / before - 1.0) if len(before) else np.full(len(self.weights), np.inf)
        self.passes += 1
        if mode.off < NEAR and (self._is_proper or (grown < STEADY).all()):
            self.center, self.found = mode.center, True
            noise = plain_noise(mode, sums, self.noise) if self._wants_plain else None
            self.plain = self.plain if noise is None else noise
        elif self.passes >= MOST_PASSES:
            self._give_up(grown)
        else:
            self.weights = self.weights + mode.step

    @property
    def _is_proper(self) -> bool:
        """Whether there is a posterior, whatever the rows are."""
        return self.precision > 0.0 or getattr(self.job.parts.loss, "likelihood", "") == "scaled"

    def _give_up(self, grown: np.ndarray) -> None:
        if not self._is_proper and self.off < 1.0:
            refuse_separated(self.job, int(np.argmax(grown)))
        raise DivergedError(
            f"the mode of the posterior was not found in {MOST_PASSES} passes after polishing: it is {self.off:.3g} standard "
            "deviations away; pass --polish 100, or --prior normal:sd=1"
        )

    def _noise_of(self, sums: FisherSums) -> float:
        """Return the variance of a squared loss, from the residuals; 1 for losses that are likelihoods."""
        if getattr(self.job.parts.loss, "likelihood", "") != "scaled":
            return 1.0
        weight, n = float(sums.tally[1]), len(self.weights)
        found = 2.0 * float(sums.tally[0]) / (weight - n) if weight > n else 0.0
        if not found > 0.0:
            raise DataError(
                f"the posterior of {n:,} weights needs the variance of what they leave unexplained, and of {weight:,.0f} rows "
                "nothing is left: take more rows, or leave out columns that hold the target"
            )
        return found

    # --- checkpoints

    def header(self) -> dict[str, Any]:
        """Return what a checkpoint keeps as JSON."""
        return {name: getattr(self, name) for name in KEPT} | {"off": self.off if math.isfinite(self.off) else None}

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what it keeps as arrays."""
        found = {"weights": self.weights, "variance": self.variance}
        if self._sums is not None:
            found |= {f"sum_{name}": getattr(self._sums, name) for name in SUMS}
        if self.found:
            found |= {name: getattr(self.center, name) for name in PARTS} | {"plain": self.plain}
        return found

    def restore(self, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Take back what a checkpoint kept."""
        for name in KEPT:
            setattr(self, name, header[name])
        self.off = math.inf if header["off"] is None else header["off"]
        n = self.job.n_weights
        self.weights = kept(arrays, "weights", np.zeros(n))
        self.variance = kept(arrays, "variance", np.zeros(n if self.passes else 0))
        if "sum_bread" in arrays:
            empty = new_fisher(n, dense=self.dense)
            self._sums = FisherSums(*(kept(arrays, f"sum_{name}", getattr(empty, name)) for name in SUMS))
        if self.found:
            gauge = np.zeros(self.job.encoding.n_coordinates if getattr(self.job.parts.loss, "shiftable", False) else 0)
            like = (np.zeros(n), np.zeros(n), gauge, np.zeros((n if self.dense else 1, n)))
            self.center = Center(*(kept(arrays, name, one) for name, one in zip(PARTS, like, strict=True)))
            self.plain = kept(arrays, "plain", np.zeros(n if self._wants_plain and self.dense else 0))
