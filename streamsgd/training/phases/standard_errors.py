"""Standard errors: the covariance of the weights by the sandwich estimator, in one more pass over the data.

Weights w that minimise the mean over n rows of a loss, plus a penalty, have in large samples the covariance

    V = H^-1 C H^-1 / n,   H = mean of h_i d^2 loss_i + l2,   C = mean of (h_i d loss_i - m) (h_i d loss_i - m)^T

over the rows i with weights h_i, m being the mean of h_i d loss_i, which is 0 at the minimum without a penalty (Huber 1967,
Berkeley Symposium 5; White 1980, Econometrica 48, and 1982, Econometrica 50). It is right whether or not the loss is the right
likelihood. Without penalty it is HC0. Rows are taken to be independent, and a row of weight h as one row that counts h times,
not as h rows. The mean of the iterates of SGD has the same covariance (Polyak and Juditsky 1992).

Columns that depend on one another leave some weights undetermined: whatever they are, predictions are the same. Such weights
have no standard error; that of the others does not depend on it.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.errors import SettingsError
from streamsgd.kernels.algebra.factor import factorise_pivoted, solve_back, solve_forth
from streamsgd.kernels.sums.sandwich import new_sandwich
from streamsgd.training.phases.base import Outcome, PhaseKind, Saved, kept
from streamsgd.training.phases.one_pass import OnePass
from streamsgd.training.phases.smooth import check_objective
from streamsgd.training.tasks.sandwich import AddSandwich, SandwichSums

if TYPE_CHECKING:
    from streamsgd.features.encoding import Encoding
    from streamsgd.kernels.structs.block import Parts
    from streamsgd.settings.fields import Settings

log = logging.getLogger("streamsgd")


SUMS = ("gradient", "bread", "filling")
"""Arrays that are added up."""

MOST_WEIGHTS = 2048
"""Weights whose pairs are added up: two matrices of 34 MB."""

MATRICES = 12
"""Of that size at the same time at most: the two, and their copies for a checkpoint, or what the algebra takes."""

LEAST_PIVOT = 1e-11
"""What is left of a column's curvature once others are accounted for, as a share, below which it depends on them; single
precision leaves some 1e-14 of a column that is the sum of others."""

LEAST_PART = 1e-5
"""Of a direction in which nothing changes: the least part of a weight in it, in units in which every curvature is 1."""

FAR = 0.7
"""Standard errors from the minimum, beyond which a warning says so: an interval of 95 % then holds 89 %."""


class StandardErrors(OnePass[SandwichSums]):
    """The pass that adds up, and what comes of it."""

    name = "standard_errors"

    def begin(self, before: Outcome) -> None:
        """Start at the weights that were learned.

        Scores of classes may all rise together without any change; the weights are shifted to a mean of 0 over the classes, so
        that they and their errors are those of differences from the mean.
        """
        weights = before.weights
        if self._shiftable:
            weights = weights - weights.mean(axis=1, dtype=np.float64, keepdims=True)
        self.start_at(weights, before)

    @property
    def _shiftable(self) -> bool:
        return bool(getattr(self.job.parts.loss, "shiftable", False))

    def task(self) -> AddSandwich:
        """Return what adds up a chunk."""
        return AddSandwich(self._weights)

    # --- what comes out

    def result(self) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """Return the weights, (n_coordinates, n_outputs), their covariance, and what there is to say about it.

        The covariance is float64 (n_weights, n_weights), NaN for weights that are not determined.
        """
        assert self._sums is not None, "take comes first"  # noqa: S101  for the type checker
        weights, n_outputs, sums = self._weights, self.job.n_outputs, self._sums.sums
        gradient = sums.gradient.copy()
        bread, filling = _whole(sums.bread), _whole(sums.filling)
        n = max(self._sums.rows, 1)
        filling -= gradient[:, None] * (gradient / n)
        penalised = np.arange(weights.size) < weights.size - n_outputs
        l2 = n * float(getattr(self.job.parts.penalty, "l2", 0.0))
        seen = np.diagonal(bread) > 0.0  # of what no row has, a penalty alone determines nothing
        bread[np.diag_indices(weights.size)] += np.where(penalised, l2, 0.0)
        gradient += np.where(penalised, l2 * weights, 0.0)
        if self._shiftable:
            bread = _shift_back(bread, n_outputs)
        covariance, step = sandwich(bread, filling, gradient, seen)
        errors = np.sqrt(np.diagonal(covariance))
        known = np.isfinite(errors) & (errors > 0.0)
        off = float(np.max(np.abs(step[known]) / errors[known], initial=0.0))
        if not known.any():
            log.warning("standard errors: no weight is determined by these rows")
        elif off > FAR:
            log.warning(
                "the weights are up to %.2g standard errors from the minimum, beyond what the errors tell: pass --polish 20, "
                "more --epochs, or another --learning-rate",
                off,
            )
        told = {"rows": self._sums.rows, "weights": int(weights.size), "determined": int(np.isfinite(errors).sum()), "off": off}
        return weights.astype(self.job.settings.precision).reshape(-1, n_outputs), covariance, told

    def outcome(self) -> Outcome:
        """Return what came before, with the covariance."""
        weights, covariance, told = self.result()
        metrics = {**self._known.metrics, self.name: told}
        return replace(self._known, weights=weights, covariance=covariance, passes=self.cursor[0] + 1, metrics=metrics)

    # --- checkpoints

    def save(self) -> Saved:
        """Return the pass so far."""
        now = {"weights": self._weights}
        if self._sums is not None:
            now |= {name: getattr(self._sums.sums, name) for name in SUMS}
        return Saved({"chunk": self._chunk, "rows": 0 if self._sums is None else self._sums.rows}, now)

    def restore(self, saved: Saved, before: Outcome) -> None:
        """Take back what a checkpoint kept."""
        super().restore(saved, before)
        if "bread" in saved.arrays:
            empty = new_sandwich(self._weights.size, self.job.n_outputs)
            sums = empty._replace(**{name: kept(saved.arrays, name, getattr(empty, name)) for name in SUMS})
            self._sums = SandwichSums(saved.header["rows"], sums)


def sandwich(bread: np.ndarray, filling: np.ndarray, gradient: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bread^-1 filling bread^-1, and bread^-1 gradient: how far from the minimum a parabola says that we are.

    Where the bread has no inverse, rows and columns of weights that are not determined are NaN, and the others as of any
    generalised inverse, all of which agree there.

    Parameters
    ----------
    bread, filling
        float64 (n, n), symmetric.
    gradient
        float64 (n,).
    seen
        bool (n,): which weights the rows say anything about.

    """
    n = len(gradient)
    covariance, step = np.full((n, n), np.nan), np.full(n, np.nan)
    if not (np.isfinite(bread).all() and np.isfinite(filling).all()):
        return covariance, step
    curvature = np.diagonal(bread)
    seen = seen & (curvature > 0.0)
    unit = np.where(seen, 1.0 / np.sqrt(np.where(seen, curvature, 1.0)), 0.0)
    factor, order = bread * unit[:, None] * unit, np.zeros(n, np.int64)
    rank = factorise_pivoted(factor, order, LEAST_PIVOT, np.zeros(n))
    kept = order[:rank]
    # With the pivots' rows first, every direction without curvature is one of -inv(H11) H12 above a column of the identity.
    flat = np.ascontiguousarray(factor[rank:, :rank].T)
    solve_back(factor, rank, flat)
    determined = ~(np.abs(flat) > LEAST_PART).any(axis=1)
    parts = np.ascontiguousarray((gradient * unit)[kept, None])
    middle = np.ascontiguousarray((filling * unit[:, None] * unit)[np.ix_(kept, kept)])
    for columns in (parts, middle):
        solve_forth(factor, rank, columns)
        solve_back(factor, rank, columns)
    middle = np.ascontiguousarray(middle.T)
    solve_forth(factor, rank, middle)
    solve_back(factor, rank, middle)
    parts, middle = unit[kept] * parts[:, 0], middle * unit[kept][:, None] * unit[kept]
    middle[~determined], middle[:, ~determined], parts[~determined] = np.nan, np.nan, np.nan
    covariance[np.ix_(kept, kept)], step[kept] = middle, parts
    return _whole(covariance), step  # but for rounding it is symmetric already


def _whole(lower: np.ndarray) -> np.ndarray:
    """Return a symmetric matrix from its lower triangle."""
    whole: np.ndarray = np.tril(lower) + np.tril(lower, -1).T
    return whole


def _shift_back(bread: np.ndarray, n_outputs: int) -> np.ndarray:
    """Give the directions in which all outputs of a coordinate rise together, which have no curvature, that of the others."""
    of = bread.reshape(len(bread) // n_outputs, n_outputs, -1, n_outputs)
    shared = np.einsum("akbk->ab", of) / n_outputs**2
    whole: np.ndarray = (of + shared[:, None, :, None]).reshape(bread.shape)
    return whole


def errors_bytes(n_weights: int) -> int:
    """Return the bytes that adding up takes, checkpoints included."""
    return 8 * MATRICES * min(n_weights, MOST_WEIGHTS) ** 2


def check_errors(settings: Settings, parts: Parts, encoding: Encoding) -> None:
    """Refuse standard errors of what has none.

    Raises
    ------
    SettingsError
        The weights are no minimum and no average, the loss has kinks, l1 selects weights, or there are too many of them.

    """
    if not settings.polish and settings.average == "none":
        raise SettingsError(
            "--standard-errors are those of the minimum or of an average, not of the last step of SGD: pass --polish 20 too, "
            "or --average auto"
        )
    check_objective("--standard-errors", parts)
    if getattr(parts.penalty, "l1", 0.0):
        raise SettingsError("--standard-errors do not hold for weights that l1 selects: pass --penalty l2, or none")
    n_weights = encoding.n_coordinates * int(getattr(parts.loss, "classes", 1))
    if n_weights > MOST_WEIGHTS:
        raise SettingsError(
            f"--standard-errors adds up the pairs of up to {MOST_WEIGHTS:,} weights, and here are {n_weights:,} "
            f"({encoding.sizes}): leave columns out with --exclude, or set --bits lower"
        )


def describe(metrics: dict[str, Any]) -> list[str]:
    """Return what was found, for people."""
    return [
        (
            f"standard errors: {metrics['determined']:,} of {metrics['weights']:,} weights are determined by "
            f"{metrics['rows']:,} rows, and within {metrics['off']:.2g} standard errors of the minimum"
        )
    ]


STANDARD_ERRORS = PhaseKind(
    "standard_errors",
    wanted=lambda settings, _parts: settings.standard_errors,
    check=check_errors,
    memory=lambda outline: errors_bytes(outline.n_parameters),
    passes=lambda _outline: 1,
    make=StandardErrors,
    describe=describe,
)
