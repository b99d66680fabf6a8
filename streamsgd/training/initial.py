"""The state that learning begins with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.features.sample import Sample
from streamsgd.kernels.learn.factors import FACTORS
from streamsgd.kernels.models.machines import is_linear
from streamsgd.kernels.parts.traits import holds_factors, is_race, is_sequential, judges, reduces
from streamsgd.kernels.structs.state import State, make_state
from streamsgd.settings.policies import policy_of
from streamsgd.training.classes.logit_adjustment import adjustment
from streamsgd.training.race import start_race

if TYPE_CHECKING:
    from streamsgd.features.target import Target
    from streamsgd.training.job import Job


RARE = 0.05
"""Share of the rarer of two classes below which values are given room ..."""

HALF = 0.5
"""... by a start at this share of the log odds: at all of them slopes of negatives are so small that the weights of values
that no positive has hardly move in one pass."""


def start_at_best_constant(job: Job, weights: np.ndarray) -> None:
    """Set the intercepts to the score of the best constant prediction of the first look.

    Where one class is rare and a race learns rows of a few of many weights, it is half of it (docs/defaults.md).
    """
    if policy_of("scale", job.settings.scale) == "none":
        return
    look = Sample(job.dataset, job.settings, job.recipe.filter, job.recipe.filter_columns)
    shares = target_shares(look, job.target)
    if job.class_weights:
        shares = shares * np.array(job.class_weights)
        shares /= shares.sum()
    if job.target.task == "multiclass":
        weights[-1] = np.log(np.maximum(shares, 1e-9))
    elif job.parts.loss.task == "binary":
        rare = shares.min() < RARE and job.encoding.is_wide and is_race(job.parts.optimizer)
        weights[-1, 0] = np.log(shares[1] / shares[0]) * (HALF if rare else 1.0) - adjustment(job.parts.loss)
    elif job.target.task == "poisson":
        weights[-1, 0] = np.log(max(shares[0], 1e-9))


def target_shares(look: Sample, target: Target) -> np.ndarray:
    """Return the share of each class in the first look, each at least one row's, or the mean of a number."""
    from streamsgd.features.target import encode_target  # noqa: PLC0415

    counts = np.ones(max(1, len(target.classes)))
    total, n = 0.0, 0
    for piece in look.sample((target.name,)):
        y, usable = encode_target(target, look.columns(piece, (target.name,))[target.name])
        if target.classes:
            counts += np.bincount(y[usable].astype(np.int64), minlength=len(counts))
        total, n = total + float(y[usable].sum()), n + int(usable.sum())
    return counts / counts.sum() if target.classes else np.array([total / max(n, 1)])


WIDE_BATCH = 4096
"""Batches above so many rows add their gradients in float64, whatever the precision of the weights."""


def empty_state(job: Job) -> State:
    """Return the state of a learner that is yet to be restored."""
    weights = np.zeros(job.n_weights, job.settings.precision)
    return start_race(weights) if is_race(job.parts.optimizer) else alone(job, weights)


def new_state(job: Job) -> State:
    """Return zero weights, or intercepts at the best constant, with room for the optimizer and one gradient."""
    kind = np.dtype(job.settings.precision)
    if not is_linear(job.parts.model):
        return alone(job, start_of_model(job, kind))
    weights = np.zeros((job.encoding.n_coordinates, job.n_outputs), kind)
    start_at_best_constant(job, weights)
    if is_race(job.parts.optimizer):
        return start_race(weights.ravel())
    return alone(job, weights.ravel())


def unlearned(job: Job) -> np.ndarray:
    """Return the parameters of a job that has seen no row, float64 of its shape: zeros, or what a model begins with around 0.

    Of zeros alone the gradients of a network say nothing: no hidden unit adds to a score.
    """
    weights = np.zeros(job.shape)
    if not is_linear(job.parts.model):
        job.parts.model.begin(weights, job.encoding.n_coordinates, job.settings.seed)
    return weights


def start_of_model(job: Job, kind: np.dtype[Any]) -> np.ndarray:
    """Return what a model that is not linear begins with, flat: factors that are memories are born later."""
    n, apart = job.encoding.n_coordinates, holds_factors(job.parts.optimizer)
    weights = np.zeros((job.n_weights, 1) if apart else job.shape, kind)
    start_at_best_constant(job, weights[:n, :1])
    if apart:
        weights[:n] *= job.parts.model.linear
        weights[n:] = 1.0  # of pairs of columns, where there are any
    else:
        job.parts.model.begin(weights, n, job.settings.seed)
    return weights.ravel()


def parameters(job: Job, state: State, weights: np.ndarray) -> np.ndarray:
    """Return all parameters of the model, flat, given its settled weights: factors may be memories of the optimizer."""
    if not holds_factors(job.parts.optimizer):
        return weights
    n = job.encoding.n_coordinates
    whole = np.zeros(job.shape, weights.dtype)
    whole[:n, 0], whole[:n, 1:] = weights[:n], state.slots[FACTORS : FACTORS + job.width - 1, :n].T
    whole[n:].reshape(-1)[: len(weights) - n] = weights[n:]
    return whole.ravel()


def alone(job: Job, weights: np.ndarray) -> State:
    """Return the state of one learner that starts from weights (n,)."""
    kind, lag, optimizer = weights.dtype, job.settings.average != "none", job.parts.optimizer
    lazy = (bool(job.parts.penalty._fields) and not judges(optimizer)) or reduces(optimizer)
    batches = not is_sequential(optimizer)
    eager = lag and lazy  # the mean is of what weights are after every step, penalty paid
    large = job.settings.batch_size == "full" or job.grows or job.batch_size > WIDE_BATCH
    return make_state(
        weights,
        optimizer.n_slots,
        np.float64 if large else kind,
        few=job.recipe.layout.mixed or holds_factors(optimizer),  # the factors of a value in a run
        lazy=lazy and not eager,
        batches=batches and not eager,
        lag=lag,
    )
