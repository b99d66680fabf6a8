"""Whether chains agree: split R-hat and effective sample size of ranks (Vehtari et al. 2021, Bayesian Analysis 16)."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

LEAST_DRAWS = 4
"""Of each half of a chain, below which nothing is said."""


def r_hat(draws: np.ndarray) -> np.ndarray:
    """Return the rank-normalised split R-hat of each weight: the larger one of bulk and tails.

    Parameters
    ----------
    draws
        float64 (n_chains, n_draws, n_weights).

    """
    halves = _split(draws)
    if halves.shape[1] < LEAST_DRAWS:
        return np.full(draws.shape[2], np.nan)
    folded = np.abs(halves - np.median(halves, axis=(0, 1)))
    found: np.ndarray = np.maximum(_r_hat(_normal_scores(halves)), _r_hat(_normal_scores(folded)))
    return found


def effective_size(draws: np.ndarray) -> np.ndarray:
    """Return the bulk effective sample size of each weight; `draws` as of `r_hat`."""
    halves = _split(draws)
    if halves.shape[1] < LEAST_DRAWS:
        return np.full(draws.shape[2], np.nan)
    scores = _normal_scores(halves)
    return np.array([_effective(scores[:, :, j]) for j in range(scores.shape[2])])


def _split(draws: np.ndarray) -> np.ndarray:
    """Return the first and the last half of each chain as chains; a draw in the middle is left out."""
    half = draws.shape[1] // 2
    return np.stack([part for chain in draws for part in (chain[:half], chain[len(chain) - half :])])


def _normal_scores(draws: np.ndarray) -> np.ndarray:
    """Return normal quantiles of the ranks of all draws of a weight (Blom 1958); equal draws share their mean rank."""
    n = draws.shape[0] * draws.shape[1]
    normal = NormalDist()
    # By twice the rank, which is whole.
    table = np.array([normal.inv_cdf((twice / 2.0 - 0.375) / (n + 0.25)) for twice in range(2, 2 * n + 1)])
    out = np.empty_like(draws)
    for j in range(draws.shape[2]):
        flat = draws[:, :, j].ravel()
        _, inverse, counts = np.unique(flat, return_inverse=True, return_counts=True)
        last = np.cumsum(counts)
        out[:, :, j] = table[(2 * last - counts - 1)[inverse]].reshape(draws.shape[:2])
    return out


def _r_hat(chains: np.ndarray) -> np.ndarray:
    n = chains.shape[1]
    between = n * chains.mean(axis=1).var(axis=0, ddof=1)
    within = chains.var(axis=1, ddof=1).mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: np.ndarray = np.sqrt((between / within + n - 1) / n)
    return found


def _autocovariance(chains: np.ndarray) -> np.ndarray:
    """Return the autocovariances of each chain, (n_chains, n), by the Fourier transform."""
    n = chains.shape[1]
    size = 1 << (2 * n - 1).bit_length()
    waves = np.fft.rfft(chains - chains.mean(axis=1, keepdims=True), n=size, axis=1)
    found: np.ndarray = np.fft.irfft(waves * np.conjugate(waves), n=size, axis=1)[:, :n] / n
    return found


def _effective(chains: np.ndarray) -> float:
    """Return the effective sample size by Geyer's initial monotone sequence, as Stan and ArviZ have it."""
    m, n = chains.shape
    if np.ptp(chains) < np.finfo(float).resolution:
        return float(m * n)
    covariances = _autocovariance(chains)
    within = covariances[:, 0].mean() * n / (n - 1.0)
    variance = within * (n - 1.0) / n + (chains.mean(axis=1).var(ddof=1) if m > 1 else 0.0)
    rho = 1.0 - (within - covariances.mean(axis=0)) / variance
    rho[0] = 1.0
    kept = np.zeros(n)
    kept[:2] = rho[:2]
    t, even, odd = 1, 1.0, float(rho[1])
    while t < n - 3 and even + odd > 0.0:
        even, odd = float(rho[t + 1]), float(rho[t + 2])
        if even + odd >= 0.0:
            kept[t + 1], kept[t + 2] = even, odd
        t += 2
    last = t - 2
    if even > 0.0:
        kept[last + 1] = even
    t = 1
    while t <= last - 2:
        if kept[t + 1] + kept[t + 2] > kept[t - 1] + kept[t]:
            kept[t + 1] = kept[t + 2] = (kept[t - 1] + kept[t]) / 2.0
        t += 2
    tau = max(-1.0 + 2.0 * kept[: last + 1].sum() + kept[last + 1], 1.0 / np.log10(m * n))
    return float(m * n / tau)
