"""Optimizers whose every step is judged on rows of its own before it is taken: see `training.judged`.

Their `learning_rate` is what they begin with: the radius within which a quadratic model is believed, or the stride of a step.
It grows and shrinks by itself, as do the rows of a gradient. No schedule applies.
"""

from typing import NamedTuple

from streamsgd.kernels.parts.ranges import AtLeastOne, Inside, Positive


class TrustRegion(NamedTuple):
    """Newton's steps within a radius; each must bring a share of what its model promises, on fresh rows, or it is not taken.

    The model is quadratic, by the curvature of the loss: of all pairs of weights up to 512 of them, else of each weight. The
    radius is doubled after a step that kept its promise, and halved after one that was refused. `accept` is the share that a
    step must bring, `alpha` the most that a decision may be wrong, `start` the fewest rows of a gradient and of a decision.
    """

    learning_rate: Positive = 1.0
    accept: Inside = 0.1
    alpha: Inside = 0.05
    start: AtLeastOne = 256

    n_slots = 0
    rule = "judged"
    rate_scaling = "none"
    source = "Chen, Menickelly and Scheinberg 2018, Mathematical Programming 169 (STORM); paired tests: arXiv 2405.20116"

    def prepare(optimizer, step):
        return 0.0, 0.0


class Armijo(NamedTuple):
    """Steps against the gradient; each must bring a share of what the gradient promises, on fresh rows, or it is not taken.

    The stride is doubled after a step that kept its promise, and halved after one that was refused. The fields are those of
    `TrustRegion`.
    """

    learning_rate: Positive = 1.0
    accept: Inside = 0.1
    alpha: Inside = 0.05
    start: AtLeastOne = 256

    n_slots = 0
    rule = "judged"
    rate_scaling = "none"
    source = "Armijo 1966; Paquette and Scheinberg 2020, SIAM Journal on Optimization 30"

    def prepare(optimizer, step):
        return 0.0, 0.0
