"""Noise of an optimizer's own, beside that of the data: added to all weights before a step, addressed by key, step and weight.

Of `heated` optimizers (Langevin) every number is normal of variance 2 eta T, T being the temperature of the step. Of those that
`kick` (perturbed gradient descent) all numbers together are uniform on a sphere, where the mean gradient of the batch is short.
"""

import math

import numpy as np

from streamsgd.kernels.compile.jit import dispatch, lean
from streamsgd.kernels.encode.shuffle import mix
from streamsgd.kernels.structs.state import STEPS

TWO_PI = 2.0 * math.pi


def stir(parts, state, n_rows, eta):
    """Add the noise that the optimizer brings to a step of this rate, whose gradient is summed over rows."""
    _stirrer(type(parts.optimizer))(parts, state, n_rows, eta)


def _stirrer(optimizer):
    return {"heat": _heat, "kick": _kick}.get(getattr(optimizer, "stirs", ""), _stay_calm)


def _stay_calm(parts, state, n_rows, eta):
    pass


@dispatch(stir)
def _(parts, state, n_rows, eta):
    return _stirrer(parts.types[parts.fields.index("optimizer")].instance_class)


@lean
def normal_at(key, step, j):
    """Return a standard normal number (Box and Muller 1958)."""
    bits = mix(mix(np.uint64(key), np.uint64(step)), np.uint64(j))
    first = (np.float64(bits >> np.uint64(32)) + 1.0) * 2.0**-32
    second = np.float64(bits & np.uint64(0xFFFFFFFF)) * 2.0**-32
    return math.sqrt(-2.0 * math.log(first)) * math.cos(TWO_PI * second)


def _heat(parts, state, n_rows, eta):
    optimizer, weights, step = parts.optimizer, state.weights, state.clock[STEPS]
    cooling = 0.5 ** (step / optimizer.half_life) if optimizer.half_life > 0.0 else 1.0
    deviation = math.sqrt(2.0 * eta * optimizer.temperature * cooling)
    for j in range(weights.shape[0]):
        weights[j] += deviation * normal_at(optimizer.key, step, j)


def _kick(parts, state, n_rows, eta):
    optimizer, weights, grad, step = parts.optimizer, state.weights, state.grad, state.clock[STEPS]
    if step % optimizer.every == 0:
        slope, length = 0.0, 0.0
        for j in range(weights.shape[0]):
            part = 1.0 * grad[j] / n_rows
            slope += part * part
        if math.sqrt(slope) <= optimizer.threshold:
            for j in range(weights.shape[0]):
                part = normal_at(optimizer.key, step, j)
                length += part * part
            scale = optimizer.radius / math.sqrt(length)
            for j in range(weights.shape[0]):
                weights[j] += scale * normal_at(optimizer.key, step, j)
