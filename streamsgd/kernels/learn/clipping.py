"""Clipping the gradient of a batch: the mean of its rows' gradients, of all weights and intercepts together.

norm    g <- g min(1, most / (|g| + 1e-6)) with |g| its length, as torch.nn.utils.clip_grad_norm_
value   g_j <- min(max(g_j, -most), most), as torch.nn.utils.clip_grad_value_

in this order. What a penalty adds is not clipped, as weight_decay is not in torch: it comes after.
"""

import math

import numpy as np

from streamsgd.kernels.compile.jit import dispatch, lean
from streamsgd.kernels.structs.state import TOUCHED

TINY = 1e-6
"""What torch adds to the length."""

BITS = 16
"""Flags per integer."""


def clip(state, pace, n_rows):
    """Clip `state.grad`, the sum over `n_rows` rows; weights that the batch did not touch have none."""
    _clipper(state.touched.ndim)(state, pace, n_rows)


def _clipper(dimensions):
    return _clip_listed if dimensions == 1 else _clip_all


@dispatch(clip)
def _(state, pace, n_rows):
    return _clipper(state.types[state.fields.index("touched")].ndim)


def _clip_all(state, pace, n_rows):
    clip_all(state.grad, pace, n_rows)


def _clip_listed(state, pace, n_rows):
    clip_listed(state, pace, n_rows)


@lean
def clip_all(grad, pace, n_rows):
    """Clip all of a gradient."""
    factor, most = 1.0, pace.clip_value * n_rows
    if pace.clip_norm < math.inf:
        total = 0.0
        for j in range(grad.shape[0]):
            part = 1.0 * grad[j] / n_rows
            total += part * part
        factor = min(1.0, pace.clip_norm / (math.sqrt(total) + TINY))
    for j in range(grad.shape[0]):
        grad[j] = min(max(grad[j] * factor, -most), most)


@lean
def clip_listed(state, pace, n_rows):
    """Clip the gradient of the weights that the batch touched."""
    grad, touched, clock = state.grad, state.touched, state.clock
    if touched.shape[0] > 0 and clock[TOUCHED] >= 0:
        clock[TOUCHED] = distinct(touched, clock[TOUCHED])
    listed = touched.shape[0] > 0 and clock[TOUCHED] >= 0
    n = clock[TOUCHED] if listed else grad.shape[0]
    factor, most = 1.0, pace.clip_value * n_rows
    if pace.clip_norm < math.inf:
        total = 0.0
        for t in range(n):
            part = 1.0 * grad[np.int64(touched[t]) if listed else t] / n_rows
            total += part * part
        factor = min(1.0, pace.clip_norm / (math.sqrt(total) + TINY))
    for t in range(n):
        j = np.int64(touched[t]) if listed else t
        grad[j] = min(max(grad[j] * factor, -most), most)


@lean
def distinct(touched, n_touched):
    """Drop what is listed twice, as is a weight whose gradient was 0 on the way; return how many are left.

    Flags are kept in the list behind its last item. Where there is no room for them, -1 is returned, for all weights.
    """
    first = touched.shape[0] - touched.shape[0] // BITS - 1
    if n_touched > first:
        return -1
    for t in range(n_touched):
        touched[first + touched[t] // BITS] = 0
    kept = 0
    for t in range(n_touched):
        j = touched[t]
        place, flag = first + j // BITS, 1 << (j % BITS)
        if not touched[place] & flag:
            touched[place] |= flag
            touched[kept] = j
            kept += 1
    return kept
