"""Methods that draw weights from their posterior: their numbers, and what sets them apart.

A number of 0 is chosen from the data:

step      h, in units in which the posterior has the variance 1: without noise a step goes this share of the way to its mode
batch     rows per step, drawn from all rows of a chunk, with replacement
steps     of each chain, those of the burn-in included
burn_in   steps of each chain that are not recorded
thin      steps from one recorded draw to the next

Class attributes: `walks`, whether there are chains at all; `control`, whether the gradients of a batch are corrected by those
at the mode (control variates); `noisy`, whether noise is added; `friction`, of a momentum, 0 where there is none.
"""

from typing import NamedTuple

from streamsgd.kernels.parts.ranges import NotNegative, Whole


class ControlledLangevin(NamedTuple):
    """Langevin dynamics by stochastic gradients with control variates: nearly exact with small batches."""

    step: NotNegative = 0.0
    batch: Whole = 0
    steps: Whole = 0
    burn_in: Whole = 0
    thin: Whole = 0

    walks, control, noisy, friction = True, True, True, 0.0
    source = "Baker, Fearnhead, Fox and Nemeth 2019, Statistics and Computing 29"


class Langevin(NamedTuple):
    """Langevin dynamics by plain stochastic gradients: their noise widens the posterior, by how much is said."""

    step: NotNegative = 0.0
    batch: Whole = 0
    steps: Whole = 0
    burn_in: Whole = 0
    thin: Whole = 0

    walks, control, noisy, friction = True, False, True, 0.0
    source = "Welling and Teh 2011, ICML; Brosse, Durmus and Moulines 2018, NeurIPS"


class HamiltonianLangevin(NamedTuple):
    """Langevin dynamics with momentum and friction, by stochastic gradients with control variates."""

    step: NotNegative = 0.0
    batch: Whole = 0
    steps: Whole = 0
    burn_in: Whole = 0
    thin: Whole = 0

    walks, control, noisy, friction = True, True, True, 2.0
    source = "Chen, Fox and Guestrin 2014, ICML"


class ConstantRate(NamedTuple):
    """SGD of a constant rate, whose own noise is the only one: at one rate it comes near the posterior."""

    step: NotNegative = 0.0
    batch: Whole = 0
    steps: Whole = 0
    burn_in: Whole = 0
    thin: Whole = 0

    walks, control, noisy, friction = True, False, False, 0.0
    source = "Mandt, Hoffman and Blei 2017, JMLR 18"


class Laplace(NamedTuple):
    """Independent draws of the normal distribution whose mode and curvature are those of the posterior."""

    walks, control, noisy, friction = False, False, False, 0.0
    source = "Laplace 1774"
