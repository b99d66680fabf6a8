"""The share of positives by which the gradient of a batch is least noisy, measured before anything is learned.

With b_c rows of class c in a batch the variance of its gradient is sum of pi_c^2 S_c^2 / b_c, least where b_c is in proportion
to pi_c S_c, and (sum of pi_c S_c)^2 / b then (Neyman 1934, JRSS 97; Cochran 1977, Sampling Techniques, section 5.5). S_c is
taken at the minimum of the loss over the first chunk of the first epoch, in the calling thread: a pure function of data and
settings, and the same where a run goes on.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from streamsgd.errors import DataError, SettingsError
from streamsgd.features.layout import most_entries
from streamsgd.kernels.models.machines import is_linear
from streamsgd.kernels.structs.block import new_scratch
from streamsgd.kernels.sums.scatter import ROWS, SQUARES, add_scatter
from streamsgd.planning.samplers import Corgi, has_strata
from streamsgd.stream.stream import read_chunk
from streamsgd.training.initial import new_state
from streamsgd.training.phases.lbfgs import LBFGS, hessian_of
from streamsgd.training.tasks.objective import ObjectiveRequest, objective_sums

if TYPE_CHECKING:
    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.training.job import Job

log = logging.getLogger("streamsgd")

EVALUATIONS = 20
"""Of loss and gradient over the chunk; scatter need not be known to more than some percent."""

MOST_WEIGHTS = 1 << 16
"""Of a model whose minimum is looked for: some tens of arrays of so many numbers are held."""

NEAR = 1e-4
"""Largest component of the gradient that is near enough."""


def with_measured_share(job: Job) -> Job:
    """Return a job whose batches have the share of positives that was measured, if that was asked for.

    Raises
    ------
    DataError
        The first chunk does not tell.
    SettingsError
        The model has no scatter that can be measured so.

    """
    sampler = job.plan.sampler
    if not (has_strata(sampler) and math.isnan(sampler.share)):
        return job
    if not is_linear(job.parts.model) or job.n_weights > MOST_WEIGHTS:
        raise SettingsError(
            f"--shuffle {job.settings.shuffle} measures gradients of linear models of up to {MOST_WEIGHTS:,} weights, and here "
            "is another, or a larger one: pass a number, stratified:share=0.5"
        )
    share = neyman_share(*class_scatter(job, _first_chunk(job)))
    log.info("shares of classes by their scatter: %.1f%% of a batch is positive", 100.0 * share)
    return replace(job, plan=replace(job.plan, sampler=sampler._replace(share=share)))


def neyman_share(rows: np.ndarray, scatter: np.ndarray) -> float:
    """Return the share of positives by which the gradient of a batch varies least.

    Parameters
    ----------
    rows
        float64 (2,): of each class.
    scatter
        float64 (2,): S_c, the square roots of the traces of the variances of their gradients.

    Raises
    ------
    DataError
        A class has fewer than two rows, or all its gradients are the same.

    """
    wanted = rows * scatter
    if rows.min() < 2.0 or not (np.isfinite(wanted).all() and wanted.min() > 0.0):
        negatives, positives = map(int, rows)
        raise DataError(
            f"--shuffle stratified:share=neyman: the first chunk has {positives:,} positive and {negatives:,} other rows, "
            "which do not tell how far gradients scatter: pass a number, stratified:share=0.5, or larger --chunk-rows"
        )
    return float(wanted[1] / wanted.sum())


def class_scatter(job: Job, filled: LoadedChunk) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of both classes in a chunk, and how far their gradients scatter at the minimum of its loss, (2,) each."""
    weights = _minimum(job, filled)
    sums, totals = np.zeros((2, 2)), np.zeros((2, weights.size))
    scratch = new_scratch(job.n_outputs, np.float64, most_entries(filled.block, filled.layout))
    add_scatter(job.parts.loss, filled.block, filled.starts, filled.counts, weights, sums, totals, scratch)
    rows = sums[:, ROWS]
    n = np.maximum(rows, 1.0)
    variances = sums[:, SQUARES] / n - np.square(totals / n[:, None]).sum(axis=1)
    return rows, np.sqrt(np.maximum(variances, 0.0))


def _first_chunk(job: Job) -> LoadedChunk:
    """Return the first chunk as it would be without strata, whose weights of rows stay what they are."""
    plan = replace(job.plan, sampler=Corgi())  # type: ignore[call-arg]
    most = min(plan.chunk_rows, plan.n_rows)
    return read_chunk(job.recipe, plan, plan.chunk(0, 0), job.recipe.allocate(most), np.empty(most, np.int32))


def _minimum(job: Job, filled: LoadedChunk) -> np.ndarray:
    """Return weights near the minimum of the loss over a chunk, float64 (n_weights,)."""
    start = new_state(job).weights.astype(np.float64).ravel()
    descent = LBFGS(start, start.size - job.n_outputs, 0.0, 0.0, NEAR)
    for _ in range(EVALUATIONS):
        found = objective_sums(job, filled, ObjectiveRequest(descent.trial, not descent.begun, False, None, 1))
        size, _weight, rows = found.sums
        n = max(float(rows), 1.0)
        descent.tell(math.fsum(found.losses) / n, size / n, found.gradient / n, hessian_of(found.curvature, n, job.n_outputs))
        if descent.stopped or not descent.begun:
            break
    return descent.weights
