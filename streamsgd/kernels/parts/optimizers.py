"""Optimizers: how one coordinate moves, as plain Python.

prepare(optimizer, step)                   scalars shared by all coordinates of a step: a tuple of two floats
move(optimizer, w, g, slots, j, eta, shared)   new weight and `stride`, the length of a proximal step here: by how
                                           much a gradient of 1 that never changes would come to move the weight
                                           in a step, or a kinked penalty would weigh more or less than it says

stretch(optimizer, slots, j, shared)       that length per unit of eta, from the memory alone: what penalties that are paid
                                           late go by

An optimizer whose memory fades by rows is told them, prepare(optimizer, step, n_rows, rows): see `by_rows`.

`slots[k, j]` is the optimizer's k-th memory of coordinate j, zero at the start; `n_slots` of them are kept.
`merges` says how each memory of several lanes becomes one, and `weighs_by` which of them says whose move of a weight counts
for how much (see `training.tasks.merge`); without them, memories and weights become their mean.
`rate_scaling` is how the rate follows the size of a batch: "linear", "sqrt" or "none" (see `training.rates`).
`eta` is the learning rate after the schedule; `step` counts from 1. Rules are those of torch.optim to the letter,
so that a run can be checked against it. Default learning rates are not torch's: they do best on standardised
columns under the default schedule and batch size (measured in docs/defaults.md).

`rule` says how rows are learned; without one, in batches. `nag`, `coin` and `race` move after every row instead, by rules that
know the row: see the modules of these names in `kernels.learn`. `svrg` has a snapshot of the weights in slot 0, filled for it,
and the gradient of all rows there in slot 1.
"""

import math
from typing import NamedTuple

from streamsgd.kernels.parts.ranges import Decay, NotNegative, Positive, Probability

LEAST_SQUARES = 1e-30
"""What a sum of squares is taken for that is 0 or underflows."""


class SGD(NamedTuple):
    """w <- w - eta g."""

    learning_rate: Positive = 0.01

    n_slots = 0
    rate_scaling = "linear"
    source = "Robbins and Monro 1951; torch.optim.SGD"

    def prepare(optimizer, step):
        return 0.0, 0.0

    def move(optimizer, w, g, slots, j, eta, shared):
        return w - eta * g, eta

    def stretch(optimizer, slots, j, shared):
        return 1.0


class Momentum(NamedTuple):
    """v <- momentum v + g;  w <- w - eta v."""

    learning_rate: Positive = 0.001
    momentum: Decay = 0.9

    n_slots = 1
    rate_scaling = "linear"
    source = "Polyak 1964; torch.optim.SGD(momentum=...)"

    def prepare(optimizer, step):
        return 0.0, 0.0

    def move(optimizer, w, g, slots, j, eta, shared):
        v = optimizer.momentum * slots[0, j] + g
        slots[0, j] = v
        return w - eta * v, eta / (1.0 - optimizer.momentum)

    def stretch(optimizer, slots, j, shared):
        return 1.0 / (1.0 - optimizer.momentum)


class Nesterov(NamedTuple):
    """v <- momentum v + g;  w <- w - eta (g + momentum v)."""

    learning_rate: Positive = 0.001
    momentum: Decay = 0.9

    n_slots = 1
    rate_scaling = "linear"
    source = "Nesterov 1983, as Sutskever et al. 2013; torch.optim.SGD(nesterov=True)"

    def prepare(optimizer, step):
        return 0.0, 0.0

    def move(optimizer, w, g, slots, j, eta, shared):
        v = optimizer.momentum * slots[0, j] + g
        slots[0, j] = v
        return w - eta * (g + optimizer.momentum * v), eta / (1.0 - optimizer.momentum)

    def stretch(optimizer, slots, j, shared):
        return 1.0 / (1.0 - optimizer.momentum)


class Adagrad(NamedTuple):
    """G <- G + g^2;  w <- w - eta g / (sqrt(G) + epsilon)."""

    learning_rate: Positive = 1.0
    epsilon: NotNegative = 1e-10

    n_slots = 1
    weighs_by = 0
    rate_scaling = "none"
    source = "Duchi, Hazan and Singer 2011, JMLR 12; torch.optim.Adagrad"

    def prepare(optimizer, step):
        return 0.0, 0.0

    def move(optimizer, w, g, slots, j, eta, shared):
        total = slots[0, j] + g * g
        slots[0, j] = total
        stride = eta / (math.sqrt(total) + optimizer.epsilon)
        return w - stride * g, stride

    def stretch(optimizer, slots, j, shared):
        return 1.0 / (math.sqrt(slots[0, j]) + optimizer.epsilon)


class RMSprop(NamedTuple):
    """V <- alpha V + (1 - alpha) g^2;  w <- w - eta g / (sqrt(V) + epsilon)."""

    learning_rate: Positive = 0.03
    alpha: Decay = 0.99
    epsilon: NotNegative = 1e-8

    n_slots = 1
    rate_scaling = "sqrt"
    source = "Tieleman and Hinton 2012; torch.optim.RMSprop"

    def prepare(optimizer, step):
        return 0.0, 0.0

    def move(optimizer, w, g, slots, j, eta, shared):
        second = optimizer.alpha * slots[0, j] + (1.0 - optimizer.alpha) * g * g
        slots[0, j] = second
        stride = eta / (math.sqrt(second) + optimizer.epsilon)
        return w - stride * g, stride

    def stretch(optimizer, slots, j, shared):
        return 1.0 / (math.sqrt(slots[0, j]) + optimizer.epsilon)


class Adam(NamedTuple):
    """Bias-corrected first over root of second moment.

    m <- beta1 m + (1 - beta1) g;  V <- beta2 V + (1 - beta2) g^2;
    w <- w - eta / (1 - beta1^t) m / (sqrt(V / (1 - beta2^t)) + epsilon).
    """

    learning_rate: Positive = 0.1
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    epsilon: NotNegative = 1e-8

    n_slots = 2
    rate_scaling = "sqrt"
    source = "Kingma and Ba 2015; torch.optim.Adam"

    def prepare(optimizer, step):
        return 1.0 - optimizer.beta1**step, math.sqrt(1.0 - optimizer.beta2**step)

    def move(optimizer, w, g, slots, j, eta, shared):
        first = optimizer.beta1 * slots[0, j] + (1.0 - optimizer.beta1) * g
        second = optimizer.beta2 * slots[1, j] + (1.0 - optimizer.beta2) * g * g
        slots[0, j] = first
        slots[1, j] = second
        stride = eta / (shared[0] * (math.sqrt(second) / shared[1] + optimizer.epsilon))
        return w - stride * first, stride

    def stretch(optimizer, slots, j, shared):
        return 1.0 / (shared[0] * (math.sqrt(slots[1, j]) / shared[1] + optimizer.epsilon))


class AdamW(NamedTuple):
    """Adam with the weight decayed apart from the gradient: w <- (1 - eta weight_decay) w before the step."""

    learning_rate: Positive = 0.1
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    epsilon: NotNegative = 1e-8
    weight_decay: NotNegative = 0.01

    n_slots = 2
    rate_scaling = "sqrt"
    source = "Loshchilov and Hutter 2019; torch.optim.AdamW"

    def prepare(optimizer, step):
        return 1.0 - optimizer.beta1**step, math.sqrt(1.0 - optimizer.beta2**step)

    def move(optimizer, w, g, slots, j, eta, shared):
        first = optimizer.beta1 * slots[0, j] + (1.0 - optimizer.beta1) * g
        second = optimizer.beta2 * slots[1, j] + (1.0 - optimizer.beta2) * g * g
        slots[0, j] = first
        slots[1, j] = second
        stride = eta / (shared[0] * (math.sqrt(second) / shared[1] + optimizer.epsilon))
        return w * (1.0 - eta * optimizer.weight_decay) - stride * first, stride

    def stretch(optimizer, slots, j, shared):
        return 1.0 / (shared[0] * (math.sqrt(slots[1, j]) / shared[1] + optimizer.epsilon))


class AMSGrad(NamedTuple):
    """Adam whose second moment never falls: U <- max(U, V) stands under the root in V's place."""

    learning_rate: Positive = 0.1
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    epsilon: NotNegative = 1e-8

    n_slots = 3
    rate_scaling = "sqrt"
    source = "Reddi, Kale and Kumar 2018, ICLR; torch.optim.Adam(amsgrad=True)"

    def prepare(optimizer, step):
        return 1.0 - optimizer.beta1**step, math.sqrt(1.0 - optimizer.beta2**step)

    def move(optimizer, w, g, slots, j, eta, shared):
        first = optimizer.beta1 * slots[0, j] + (1.0 - optimizer.beta1) * g
        second = optimizer.beta2 * slots[1, j] + (1.0 - optimizer.beta2) * g * g
        most = max(slots[2, j], second)
        slots[0, j] = first
        slots[1, j] = second
        slots[2, j] = most
        stride = eta / (shared[0] * (math.sqrt(most) / shared[1] + optimizer.epsilon))
        return w - stride * first, stride

    def stretch(optimizer, slots, j, shared):
        return 1.0 / (shared[0] * (math.sqrt(slots[2, j]) / shared[1] + optimizer.epsilon))


class FTRL(NamedTuple):
    """Follow the regularised leader, proximal: `l1` makes true zeros, which come back once the gradients agree.

    sigma = (sqrt(n + g^2) - sqrt(n)) / learning_rate;  z <- z + g - sigma w;  n <- n + g^2;
    w = 0 where |z| <= l1, else -(z - sign(z) l1) / ((beta + sqrt(n)) / learning_rate + l2).

    `l1` and `l2` weigh against the sum of all gradients so far, not their mean, and the intercept is a weight like any other to
    them. Schedules do not apply. In batches of 1 it is Vowpal Wabbit's --ftrl, to 5e-7 of the progressive loss, but for two
    things: that one confines scores to the range of the labels so far, and its slopes of squared errors are twice ours. Half
    its --ftrl_beta, --l1 and --l2 do the same here.
    """

    learning_rate: Positive = 0.1
    beta: NotNegative = 1.0
    l1: NotNegative = 0.0
    l2: NotNegative = 0.0

    n_slots = 2
    weighs_by = 1
    rate_scaling = "none"
    source = "McMahan et al. 2013, KDD (Ad click prediction), algorithm 1"

    def prepare(optimizer, step):
        return 0.0, 0.0

    def move(optimizer, w, g, slots, j, eta, shared):
        alpha, before, n = optimizer.learning_rate, slots[0, j], slots[1, j]
        # A weight that starts elsewhere than at 0 is what its z makes it.
        start = -w * (optimizer.beta / alpha + optimizer.l2) - math.copysign(optimizer.l1, w)
        fresh = (n == 0.0) & (before == 0.0) & (w != 0.0)
        root = math.sqrt(n + g * g)
        z = before + fresh * start + g - (root - math.sqrt(n)) / alpha * w
        slots[0, j] = z
        slots[1, j] = n + g * g
        stride = 1.0 / ((optimizer.beta + root) / alpha + optimizer.l2)
        return -math.copysign(max(abs(z) - optimizer.l1, 0.0), z) * stride, stride

    def stretch(optimizer, slots, j, shared):
        alpha = optimizer.learning_rate
        return 1.0 / (optimizer.beta + math.sqrt(slots[1, j]) + alpha * optimizer.l2)


class SVRG(NamedTuple):
    """w <- w - eta (g(w) - g(s) + G(s)): batches whose noise vanishes, so that a rate that stays the same leads to the minimum.

    g are mean gradients of one batch at the weights and at a snapshot s of them, G is that of all rows. One pass over the data
    measures G; then passes learn. After each of these a coin of probability `renewal` says whether the weights become the next
    snapshot, for which a pass measures again. It ends early where no component of the gradient at a snapshot is above
    `tolerance` (in float32 1e-6, or what is more). A rate of 0 is worked out of the data in the first pass: see `svrg`.
    """

    learning_rate: NotNegative = 0.0
    renewal: Probability = 1.0
    tolerance: NotNegative = 1e-8

    n_slots = 2
    rule = "svrg"
    rate_scaling = "none"
    source = (
        "Johnson and Zhang 2013, NeurIPS; in shuffled passes and with less frequent snapshots: Malinovsky, Sailanbayev and "
        "Richtarik 2023, UAI; the coin: Kovalev, Horvath and Richtarik 2020, ALT"
    )

    def prepare(optimizer, step):
        return 0.0, 0.0

    def move(optimizer, w, g, slots, j, eta, shared):
        return w - eta * (g + slots[1, j]), eta


class Race(NamedTuple):
    """Six learners of `normalized`, at rates of 1/4 to 8 times the given one; the one that predicted best goes on alone.

    They learn the first 131,072 rows, or the first epoch if that is shorter, and mix their predictions by how well they did,
    so that the loss so far is at most that of the best one plus log 6, for losses that are likelihoods: `kernels.learn.race`.
    Then dense rows are learned in batches, which is as good by then and five times as fast.
    """

    learning_rate: Positive = 0.5

    n_slots = 14
    rule = "race"
    rate_scaling = "none"
    source = "Vovk 1990, COLT; Kivinen and Warmuth 1999; de Rooij et al. 2014, JMLR 15; and of each learner as of normalized"

    def prepare(optimizer, step):
        return 0.0, 0.0


class NormalizedBatches(NamedTuple):
    """What `normalized` becomes in batches once its steps are small: Adagrad with a rate for every weight.

    G <- G + g^2;  w <- w - learning_rate r g / sqrt(G), for the mean gradient g of a batch and G in its units, with r = m / s
    of `normalized`, fixed. The sum of squares of a batch's sum stands for that of its rows, as where gradients are noise.
    """

    learning_rate: Positive = 0.5

    n_slots = 2
    merges = ("mean", "max")
    weighs_by = 0
    source = "as of normalized, and Duchi, Hazan and Singer 2011, JMLR 12"

    def prepare(optimizer, step):
        return 0.0, 0.0

    def move(optimizer, w, g, slots, j, eta, shared):
        total = slots[0, j] + g * g
        slots[0, j] = total
        stride = eta * slots[1, j] / math.sqrt(max(total, LEAST_SQUARES))
        return w - stride * g, stride


class Normalized(NamedTuple):
    """Normalised, adaptive and invariant: no step depends on the units of a column, none overshoots its row's target.

    For every row, with G the sum of squared gradients of a weight, s the largest |x| that it met (a larger one rescales the
    weight) and m = sqrt(rows / sum of (x/s)^2): the weights move along m x / (s sqrt(G)) as far as ever smaller steps of the
    same total would; see `kernels.learn.nag`.
    """

    learning_rate: Positive = 0.5

    n_slots = 2
    merges = ("mean", "max")
    weighs_by = 0
    rate_scaling = "none"
    rule = "nag"
    source = "Ross, Mineiro and Langford 2013, UAI (NAG); Karampatziakis and Langford 2011, UAI; the default of Vowpal Wabbit"

    def prepare(optimizer, step):
        return 0.0, 0.0

    def stretch(optimizer, slots, j, shared):
        return 0.0 if slots[0, j] == 0.0 else 1.0 / (slots[1, j] * math.sqrt(slots[0, j]))


class Coin(NamedTuple):
    """Bets on every weight: no learning rate, no schedule, no units; a weight goes as far as its gradients agree.

    With z and G the sums of a weight's negative gradients and of their sizes, W what it has won so far, L the largest slope
    (at least `beta`) and M the largest |x| that it met: w = (learning_rate + W) z / (L M (L M + G)), divided by the mean of
    sum (x/M)^2 over the rows; see `kernels.learn.coin`. What is called `learning_rate` is the wealth to begin with, in units of
    the loss. Slopes of squared errors are half of Vowpal Wabbit's: half its --ftrl_alpha and --ftrl_beta do the same here.
    """

    learning_rate: Positive = 4.0
    beta: NotNegative = 1.0

    n_slots = 5
    merges = ("mean", "mean", "mean", "max", "max")
    weighs_by = 1
    rate_scaling = "none"
    rule = "coin"
    source = "Orabona and Tommasi 2017, NeurIPS (COCOB); Vowpal Wabbit's --coin"

    def prepare(optimizer, step):
        return 0.0, 0.0
