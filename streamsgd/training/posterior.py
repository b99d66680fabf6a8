"""Where the posterior is, and how chains walk through it: what follows from sums over rows at the mode.

With the gradient g and the curvature H of U = -log posterior at w, both of one streamed pass, W is the inverse of the Cholesky
factor of H, and P = W'W its inverse. |W g| is how many standard deviations w is from the mode; -P g is Newton's step.

With the whitened step h, b rows a batch of N, and temperature T, the variance v of a weight in units of its posterior variance
is the stationary one of   v = (1 - h)^2 v + 2 h T + h^2 [(k - 1) v + N q] / b,   k being what the corrected gradient of single
rows moves the weight (`LookAtNoise`), and q, of plain gradients alone, P F P over P on the diagonal, F = sum of g_i g_i'.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from streamsgd.errors import DataError
from streamsgd.features.encoder import Encoder
from streamsgd.kernels.algebra.whiten import gram, invert_factor, quadratic_forms
from streamsgd.kernels.learn.langevin import Center, Law

if TYPE_CHECKING:
    from streamsgd.training.job import Job
    from streamsgd.training.tasks.fisher import FisherSums

LEAST_PIVOT = 1e-11
"""As of standard errors: what is left of a column's curvature once others are accounted for."""

STEP = 0.05
"""Whitened: it widens variances by 1 / (1 - h/2), 2.6 %, and a draw is forgotten after 1/h of them."""

MOMENTUM_STEP = 0.1

STEPS = 16_000
"""Of a chain at that step: about 400 effective draws."""

MOST_STEPS = 64_000

FORGOTTEN = 20.0
"""Times 1/h: steps of the burn-in."""

LEAST_STEPS = 200

LEAST_BATCH, MOST_BATCH = 16, 1024

ENOUGH_NOISE = 0.01
"""By which the noise of batches may widen variances, if rows allow it, ..."""

TOO_MUCH_NOISE = 0.1
"""... and beyond which the step becomes smaller."""

LEAST_STEP = 1e-3

PASSES = 3.5
"""Of row gradients, that all chains take together; ..."""

FEW_ROWS = 4_000_000
"""... or so many rows, if that is more."""

CONSTANT_PASSES, CONSTANT_ROWS = 100, 100_000_000
"""Likewise of SGD of a constant rate, which learns one independent draw a pass."""


class Mode(NamedTuple):
    """What a pass says about the posterior at some weights."""

    center: Center
    variance: np.ndarray
    """float64 (n,): the diagonal of P."""
    step: np.ndarray
    """float64 (n,): Newton's."""
    off: float
    """|W g|: standard deviations from the mode."""


def mode_at(job: Job, weights: np.ndarray, sums: FisherSums, precision: float, noise: float) -> Mode:
    """Return what sums at some weights say, for a normal prior and a noise variance.

    Raises
    ------
    DataError
        The rows and the prior do not determine every weight; the first one that they do not is named.

    """
    n, dense = weights.size, len(sums.bread) == weights.size
    prior = np.where(np.arange(n) < n - job.n_outputs, precision, 0.0)
    curvature = sums.bread / noise
    diagonal = (np.diagonal(curvature) if dense else curvature[0]) + prior
    gauge = _gauge(job, diagonal, prior)
    shared = np.repeat(gauge, job.n_outputs) / job.n_outputs if len(gauge) else np.zeros(n)
    gradient = sums.gradient / noise + prior * weights + shared * _summed(weights, job.n_outputs)
    diagonal = diagonal + shared
    if not (np.isfinite(gradient).all() and np.isfinite(diagonal).all()):
        raise DataError("the posterior is not finite where training ended: pass --prior normal:sd=1, or --scale standard")
    if not (diagonal > 0.0).all():
        _refuse(job, int(np.flatnonzero(~(diagonal > 0.0))[0]))
    whiten = (1.0 / np.sqrt(diagonal))[None, :]
    if dense:
        whiten = _whitening(job, curvature + _shared_blocks(shared, job.n_outputs), diagonal)
    white = (whiten * gradient).sum(axis=1) if dense else whiten[0] * gradient
    step = -(whiten * white[:, None]).sum(axis=0) if dense else -whiten[0] * white
    variance = np.square(whiten).sum(axis=0)
    return Mode(Center(gradient, prior, gauge, whiten), variance, step, math.sqrt(math.fsum(np.square(white))))


def _whitening(job: Job, curvature: np.ndarray, diagonal: np.ndarray) -> np.ndarray:
    """Return W of a curvature of which the lower triangle counts, but for its diagonal."""
    unit = 1.0 / np.sqrt(diagonal)
    whiten = np.tril(curvature * unit[:, None] * unit)
    whiten[np.diag_indices(len(unit))] = 1.0
    if (stuck := invert_factor(whiten, LEAST_PIVOT)) >= 0:
        _refuse(job, stuck)
    found: np.ndarray = whiten * unit
    return found


def _gauge(job: Job, diagonal: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Return a pull on the mean over classes of coordinates that have no prior: it changes no prediction; else nothing."""
    if not getattr(job.parts.loss, "shiftable", False):
        return np.zeros(0)
    flat = prior.reshape(-1, job.n_outputs)[:, 0] == 0.0
    found: np.ndarray = np.where(flat, diagonal.reshape(-1, job.n_outputs).mean(axis=1), 0.0)
    return found


def _summed(weights: np.ndarray, n_outputs: int) -> np.ndarray:
    """Return the sum over the outputs of each weight's coordinate."""
    return np.repeat(weights.reshape(-1, n_outputs).sum(axis=1), n_outputs)


def _shared_blocks(shared: np.ndarray, n_outputs: int) -> np.ndarray | float:
    """Return what a pull on the means adds to the curvature."""
    if not shared.any():
        return 0.0
    of = np.arange(len(shared)) // n_outputs
    found: np.ndarray = np.where(of[:, None] == of, shared[:, None], 0.0)
    return found


def _refuse(job: Job, weight: int) -> NoReturn:
    raise DataError(
        f"these rows do not determine the weight of {name_of(job, weight)}, and without a prior it has no posterior: pass "
        "--prior normal:sd=1, or leave columns that depend on others out with --exclude"
    )


def refuse_separated(job: Job, weight: int) -> NoReturn:
    """Raise the error of weights that grow without end."""
    raise DataError(
        f"the weight of {name_of(job, weight)} grows without end, since these rows can be told apart without error (they "
        "separate), and without a prior there is no posterior: pass --prior normal:sd=1"
    )


def name_of(job: Job, weight: int) -> str:
    """Return whose weight one is, in words."""
    encoding, place = job.encoding, weight // job.n_outputs
    if place == encoding.n_coordinates - 1:
        return "the intercept"
    if place < encoding.width:
        return repr(encoding.numbers[place].name)
    for kind in Encoder(encoding).kinds:
        for name, value, at, _rows in kind.labels({}):
            if at == place:
                return f"{name!r} = {value!r}"
    return f"the hashed value {place:,}"


# --- how chains walk


class Walk(NamedTuple):
    """What is chosen of a walk."""

    law: Law
    steps: int
    """Of each chain."""


def choose_walk(
    method: Any,
    *,
    n_rows: int,
    noise: float,
    temperature: float,
    n_chains: int,
    n_draws: int,
    spread: float,
    kicks: np.ndarray,
    plain: np.ndarray | None,
) -> Walk:
    """Choose the numbers of a walk that the method leaves open.

    Parameters
    ----------
    method
        Of `kernels.parts.methods`.
    n_rows, noise, temperature
        N, s^2 and T.
    n_chains, n_draws
        Chains, and draws that are kept of each.
    spread
        The largest eigenvalue that the whitened curvature can have: 1, or more where only its diagonal is known.
    kicks, plain
        float64 (n,): k and q of the module; None where pairs of weights are too many.

    """
    h = method.step or (MOMENTUM_STEP if method.friction else STEP) / spread
    if method.noisy:
        pace = _pace(method, h, max(float(kicks.max(initial=0.0)) - 1.0, 0.0), n_rows, n_chains)
    else:
        pace = _constant_pace(method, h, n_rows * (1.0 if plain is None else float(np.median(plain))), n_chains)
    h, batch, steps = pace
    burn_in = method.burn_in or min(steps // 4, math.ceil(FORGOTTEN / h))
    thin = method.thin or max(1, min(round(0.5 / h), (steps - burn_in) // n_draws))
    every = max(1, -(-((steps - burn_in) // thin) // n_draws))
    heat = 2.0 * h * temperature * (method.friction or 1.0) if method.noisy else 0.0
    floats = float(h), float(n_rows / (batch * noise)), math.sqrt(heat), float(method.friction)
    return Walk(Law(*floats, int(batch), 2 if method.control else 1, int(burn_in), int(thin), int(every)), int(steps))


class Pace(NamedTuple):
    """Whitened step, rows of a batch, and steps of a chain."""

    step: float
    batch: int
    steps: int


def _pace(method: Any, h: float, worst: float, n_rows: int, n_chains: int) -> Pace:
    """Return a batch that makes its noise small, as far as passes allow, and else a smaller step and fewer effective draws."""
    steps = method.steps or _steps_of(h)
    rows = max(PASSES * n_rows, FEW_ROWS) / (n_chains * (2 if method.control else 1))
    affordable = int(rows / steps)
    wanted = math.ceil(h * worst / (2.0 * ENOUGH_NOISE)) if method.control else MOST_BATCH
    batch = method.batch or max(LEAST_BATCH, min(wanted, affordable, MOST_BATCH))
    if not method.control or method.step or h * worst <= 2.0 * batch * TOO_MUCH_NOISE:
        return Pace(h, batch, steps)
    slower = max(LEAST_STEP, 2.0 * batch * TOO_MUCH_NOISE / worst)
    if slower * worst >= (2.0 - slower) * batch:  # chains would run away: these walk, and twice as wide there
        slower = batch / worst
    return Pace(slower, batch, method.steps or min(_steps_of(slower), max(steps, int(rows / batch))))


def _constant_pace(method: Any, h: float, n_rows: float, n_chains: int) -> Pace:
    """Return a batch whose own noise is that of the posterior, h = 2 b / N, and steps as far as passes allow."""
    batch = method.batch or max(LEAST_BATCH, round(0.5 * h * n_rows))
    affordable = int(max(CONSTANT_PASSES * n_rows, CONSTANT_ROWS)) // (n_chains * batch)
    return Pace(h, batch, method.steps or min(_steps_of(h), max(LEAST_STEPS, affordable)))


def _steps_of(h: float) -> int:
    """Return the steps of a chain that forgets a draw in 1/h of them."""
    return min(MOST_STEPS, math.ceil(STEPS * STEP / h))


def inflation_of(law: Law, n_rows: int, kicks: np.ndarray, plain: np.ndarray | None) -> np.ndarray:
    """Return the stationary variances of the module's docstring, in units of those of the curvature.

    Those of a momentum's chain, which are about 1, are taken for 1.
    """
    h = law.step
    if law.friction:
        return np.ones_like(kicks)
    left = 2.0 * h - h * h - h * h * np.maximum(kicks - 1.0, 0.0) / law.batch
    heat = law.noise**2 + (0.0 if plain is None else h * h * n_rows * plain / law.batch)
    found: np.ndarray = np.where(left > 0.0, heat / np.where(left > 0.0, left, 1.0), np.inf)
    return found


def plain_noise(mode: Mode, sums: FisherSums, noise: float) -> np.ndarray | None:
    """Return q of the module: the noise of plain gradients in units of the curvature; None where pairs are too many."""
    whiten, n = mode.center.whiten, len(mode.variance)
    if len(whiten) < n:
        return None
    covariance, found = np.zeros((n, n)), np.zeros(n)
    gram(whiten, covariance)
    rows = max(float(sums.tally[2]), 1.0)
    filling = sums.filling - sums.gradient[:, None] * (sums.gradient / rows)
    quadratic_forms(covariance, filling / noise**2, found)
    relative: np.ndarray = found / mode.variance
    return relative


def drift_inflation(drifts: list[np.ndarray], kick: float, n_rows: int, *, whole: bool) -> float:
    """Return by how much chunks that differ from one another widen variances: the mean square of their drifts.

    A chain that stays with a chunk whose whitened curvature is 1 + E settles to the variance 1 / (1 + E), on average over
    chunks 1 + E^2. Of each chunk so many rows were drawn, whose own noise is taken off. Where only the diagonal of the
    curvature is known, not the `whole`, drifts are taken from their mean, which hides what the chunks have in common.
    """
    if len(drifts) < 2:
        return 0.0
    found = np.stack(drifts)
    if whole:
        spread = float(np.square(found).mean())
    else:
        spread = float(np.square(found - found.mean(axis=0)).sum(axis=0).mean()) / (len(found) - 1)
    return max(0.0, spread - kick / n_rows)
