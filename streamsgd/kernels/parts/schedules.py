"""Schedules: the factor on the optimizer's learning rate, as plain Python.

factor(schedule, step, epoch, epochs)
    step    updates done, counting this one: 1, 2, ...
    epoch   passes over the data so far, as a fraction: 0.25 is a quarter of the first pass
    epochs  passes planned

Every schedule can rise from zero over its first `warmup` steps.
"""

import math
from typing import NamedTuple

from streamsgd.kernels.parts.ranges import NotNegative, Positive, Share, Whole


class Constant(NamedTuple):
    """1 throughout."""

    warmup: Whole = 0

    source = "standard; torch.optim.lr_scheduler.ConstantLR(factor=1)"

    def factor(schedule, step, epoch, epochs):
        return min(1.0, step / max(schedule.warmup, 1))


class InverseScaling(NamedTuple):
    """step ** -power: `power` 0.5 is the classical 1/sqrt(t), 1 is Robbins and Monro's 1/t."""

    power: NotNegative = 0.25
    warmup: Whole = 0

    source = "Robbins and Monro 1951; the default power is scikit-learn's"

    def factor(schedule, step, epoch, epochs):
        return min(1.0, step / max(schedule.warmup, 1)) * step**-schedule.power


class Cosine(NamedTuple):
    """From 1 to `floor` along half a cosine over all the planned epochs."""

    floor: Share = 0.0
    warmup: Whole = 0

    source = "Loshchilov and Hutter 2017 (SGDR), without restarts"

    def factor(schedule, step, epoch, epochs):
        done = min(1.0, epoch / epochs)
        wave = schedule.floor + (1.0 - schedule.floor) * 0.5 * (1.0 + math.cos(math.pi * done))
        return min(1.0, step / max(schedule.warmup, 1)) * wave


class Step(NamedTuple):
    """Times `gamma` after every `every` epochs (fractions of an epoch count)."""

    gamma: Positive = 0.1
    every: Positive = 1.0
    warmup: Whole = 0

    source = "standard; torch.optim.lr_scheduler.StepLR"

    def factor(schedule, step, epoch, epochs):
        fall = schedule.gamma ** math.floor(epoch / schedule.every)
        return min(1.0, step / max(schedule.warmup, 1)) * fall


class WarmUp(NamedTuple):
    """Linear from 0 to 1 over `warmup` steps, then 1."""

    warmup: Whole = 1000

    source = "Goyal et al. 2017, arXiv 1706.02677"

    def factor(schedule, step, epoch, epochs):
        return min(1.0, step / max(schedule.warmup, 1))
