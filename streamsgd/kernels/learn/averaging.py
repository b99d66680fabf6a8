"""The mean of the weights after every step from some step on (Polyak-Ruppert), kept without touching weights that rest.

Let w_i be the weights after the i-th of T steps that count and d_i = w_i - w_{i-1}. Then

    mean = w_T - lag / T,   lag = sum_i (i - 1) d_i

so that a step adds to the `lag` of those weights only that it moves. The differences are those of the weights as stored, so
that rounding to float32 is part of the steps, and the mean is that of the iterates to about 1e-16 times the root of T.

Sources: Ruppert 1988 (Cornell ORIE 781); Polyak and Juditsky 1992, SIAM Journal on Control and Optimization 30; for the lag,
Xu 2011 (arXiv 1107.2490).
"""

from streamsgd.kernels.compile.jit import lean, lean_kernel
from streamsgd.kernels.structs.state import SINCE, STEPS


@lean
def weigh(clock, step):
    """Return how many steps before this one count, 0 before the first."""
    return 1.0 * max(0, step - 1 - clock[SINCE])


@lean
def leave(lag, before, weights):
    """Take all weights out of the lag, before a step that moves any ..."""
    for j in range(lag.shape[0]):
        lag[j] -= before * weights[j]


@lean
def arrive(lag, before, weights):
    """... and put them in where they are after it."""
    for j in range(lag.shape[0]):
        lag[j] += before * weights[j]


@lean_kernel
def average(state, weights):
    """Turn the last weights into their mean, if any steps count."""
    n = state.clock[STEPS] - state.clock[SINCE]
    if n > 0:
        for j in range(state.lag.shape[0]):
            weights[j] -= state.lag[j] / n
