"""Diagnostics of chains are those of ArviZ."""

import numpy as np
import pytest

from streamsgd.model.posterior.diagnostics import effective_size, r_hat


def chains(rho: float, n_chains: int, n: int, shift: float = 0.0) -> np.ndarray:
    """Return autoregressive series, (n_chains, n, 1), the last of which is elsewhere."""
    noise = np.random.default_rng([5, n]).normal(size=(n_chains, n))
    out = np.zeros((n_chains, n))
    for t in range(1, n):
        out[:, t] = rho * out[:, t - 1] + noise[:, t]
    out[-1] += shift
    return out[:, :, None]


CASES = {
    (0.0, 4, 500, 0.0): (0.9991072367341801, 1937.8226270405032),
    (0.6, 4, 1001, 0.0): (1.0006433566600188, 982.3965717120498),
    (-0.4, 2, 300, 0.0): (1.0052315637443074, 1204.5735622354052),
    (0.95, 3, 777, 1.5): (1.1426254982887765, 19.671977797889777),
}
"""What `arviz.rhat` and `arviz.ess` of ArviZ 0.23.4 say of some chains."""


@pytest.mark.parametrize("case", CASES)
def test_they_are_those_of_arviz(case: tuple[float, int, int, float]) -> None:
    draws = chains(*case)
    assert (r_hat(draws)[0], effective_size(draws)[0]) == pytest.approx(CASES[case], rel=1e-6)


def test_equal_draws_and_few_draws_are_no_error() -> None:
    assert np.isnan(r_hat(chains(0.0, 4, 6))).all()
    assert effective_size(np.round(chains(0.5, 4, 400)))[0] > 100
