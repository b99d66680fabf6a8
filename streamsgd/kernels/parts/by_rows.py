"""Optimizers whose memory fades by rows: half of it is left after as many rows as its half-life says, in batches of any size.

A step of b rows leaves d = 2^(-b / half_life) of what was remembered, so that two steps of b rows leave what one of 2 b does,
and a batch that grows leaves the memory as long as it was. At `USUAL_BATCH` rows they are the optimizers of the same names in
`optimizers`, of which these take the place where a half-life is named: `adam:half_life1=421` and not `adam:beta1=0.9`.

prepare(optimizer, step, n_rows, rows)   as in `optimizers`, for a step of n_rows rows, `rows` of all steps up to and with it
by_rows                                  says to kernels that the rows of steps count, and are to be kept count of

Of a velocity, whose length is a sum over steps, a step adds (1 - d) / (1 - d of `USUAL_BATCH` rows) times its gradient: what a
gradient of 1 that never changes comes to is then the same for all sizes, and the rate follows the batch as without a velocity.
Sources: Smith, Kindermans, Ying and Le 2018, ICLR (Don't decay the learning rate), on what a momentum is in rows;
Marek et al. 2025, arXiv 2507.07101, on Adam's second moment: its half-life in rows is what to keep when batches change.
"""

import math
from typing import NamedTuple

from streamsgd.kernels.parts.ranges import NotNegative, Positive

USUAL_BATCH = 64
"""Rows per update if nobody says, and what rates and fading memories are for (docs/defaults.md)."""


class MomentumByRows(NamedTuple):
    """v <- d v + (1 - d) / (1 - d64) g;  w <- w - eta v."""

    learning_rate: Positive = 0.001
    half_life: Positive = 421.0

    n_slots = 1
    by_rows = True
    rate_scaling = "linear"
    source = "as of momentum; Smith, Kindermans, Ying and Le 2018, ICLR"

    def prepare(optimizer, step, n_rows, rows):
        usual = 1.0 - 2.0 ** (-USUAL_BATCH / optimizer.half_life)
        decay = 2.0 ** (-n_rows / optimizer.half_life)
        return decay, (1.0 - decay) / usual, usual

    def move(optimizer, w, g, slots, j, eta, shared):
        v = shared[0] * slots[0, j] + shared[1] * g
        slots[0, j] = v
        return w - eta * v, eta / shared[2]

    def stretch(optimizer, slots, j, shared):
        return 1.0 / shared[2]


class NesterovByRows(NamedTuple):
    """v <- d v + s g;  w <- w - eta (s g + d v), with s = (1 - d) / (1 - d64)."""

    learning_rate: Positive = 0.001
    half_life: Positive = 421.0

    n_slots = 1
    by_rows = True
    rate_scaling = "linear"
    source = "as of nesterov; Smith, Kindermans, Ying and Le 2018, ICLR"

    def prepare(optimizer, step, n_rows, rows):
        usual = 1.0 - 2.0 ** (-USUAL_BATCH / optimizer.half_life)
        decay = 2.0 ** (-n_rows / optimizer.half_life)
        return decay, (1.0 - decay) / usual, usual

    def move(optimizer, w, g, slots, j, eta, shared):
        v = shared[0] * slots[0, j] + shared[1] * g
        slots[0, j] = v
        return w - eta * (shared[1] * g + shared[0] * v), eta / shared[2]

    def stretch(optimizer, slots, j, shared):
        return 1.0 / shared[2]


class RMSpropByRows(NamedTuple):
    """V <- d V + (1 - d) g^2;  w <- w - eta g / (sqrt(V) + epsilon)."""

    learning_rate: Positive = 0.03
    half_life: Positive = 4414.0
    epsilon: NotNegative = 1e-8

    n_slots = 1
    by_rows = True
    rate_scaling = "sqrt"
    source = "as of rmsprop; Marek et al. 2025, arXiv 2507.07101"

    def prepare(optimizer, step, n_rows, rows):
        return 2.0 ** (-n_rows / optimizer.half_life), 0.0

    def move(optimizer, w, g, slots, j, eta, shared):
        second = shared[0] * slots[0, j] + (1.0 - shared[0]) * g * g
        slots[0, j] = second
        stride = eta / (math.sqrt(second) + optimizer.epsilon)
        return w - stride * g, stride

    def stretch(optimizer, slots, j, shared):
        return 1.0 / (math.sqrt(slots[0, j]) + optimizer.epsilon)


class AdamByRows(NamedTuple):
    """Adam with d1 and d2 of two half-lives in the place of beta1 and beta2, and 2^(-rows / half_life) in that of beta^t."""

    learning_rate: Positive = 0.1
    half_life1: Positive = 421.0
    half_life2: Positive = 44339.0
    epsilon: NotNegative = 1e-8

    n_slots = 2
    by_rows = True
    rate_scaling = "sqrt"
    source = "as of adam; Marek et al. 2025, arXiv 2507.07101"

    def prepare(optimizer, step, n_rows, rows):
        first, second = 2.0 ** (-n_rows / optimizer.half_life1), 2.0 ** (-n_rows / optimizer.half_life2)
        met1, met2 = 1.0 - 2.0 ** (-rows / optimizer.half_life1), 1.0 - 2.0 ** (-rows / optimizer.half_life2)
        return met1, math.sqrt(met2), first, second

    def move(optimizer, w, g, slots, j, eta, shared):
        first = shared[2] * slots[0, j] + (1.0 - shared[2]) * g
        second = shared[3] * slots[1, j] + (1.0 - shared[3]) * g * g
        slots[0, j] = first
        slots[1, j] = second
        stride = eta / (shared[0] * (math.sqrt(second) / shared[1] + optimizer.epsilon))
        return w - stride * first, stride

    def stretch(optimizer, slots, j, shared):
        return 1.0 / (shared[0] * (math.sqrt(slots[1, j]) / shared[1] + optimizer.epsilon))


class AdamWByRows(NamedTuple):
    """AdamW with half-lives as Adam's; its weights decay by step and rate, as without."""

    learning_rate: Positive = 0.1
    half_life1: Positive = 421.0
    half_life2: Positive = 44339.0
    epsilon: NotNegative = 1e-8
    weight_decay: NotNegative = 0.01

    n_slots = 2
    by_rows = True
    rate_scaling = "sqrt"
    source = "as of adamw; Marek et al. 2025, arXiv 2507.07101"

    def prepare(optimizer, step, n_rows, rows):
        first, second = 2.0 ** (-n_rows / optimizer.half_life1), 2.0 ** (-n_rows / optimizer.half_life2)
        met1, met2 = 1.0 - 2.0 ** (-rows / optimizer.half_life1), 1.0 - 2.0 ** (-rows / optimizer.half_life2)
        return met1, math.sqrt(met2), first, second

    def move(optimizer, w, g, slots, j, eta, shared):
        first = shared[2] * slots[0, j] + (1.0 - shared[2]) * g
        second = shared[3] * slots[1, j] + (1.0 - shared[3]) * g * g
        slots[0, j] = first
        slots[1, j] = second
        stride = eta / (shared[0] * (math.sqrt(second) / shared[1] + optimizer.epsilon))
        return w * (1.0 - eta * optimizer.weight_decay) - stride * first, stride

    def stretch(optimizer, slots, j, shared):
        return 1.0 / (shared[0] * (math.sqrt(slots[1, j]) / shared[1] + optimizer.epsilon))
