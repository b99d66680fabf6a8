"""Where a call of the training loop stands in the run, and the learning rate there."""

import math
from typing import NamedTuple

from streamsgd.kernels.compile.jit import lean
from streamsgd.kernels.compile.verbs import factor


class StepContext(NamedTuple):
    """Where this call stands in the run, for batches and schedules."""

    batch_size: int
    """Rows per update."""
    n_penalised: int
    """Leading weights that the penalty sees: all but the intercepts."""
    epoch: float
    """Passes over the data done before this call, as a fraction."""
    epoch_per_row: float
    """What one row adds to it."""
    epochs: float
    """Passes planned."""
    clip_norm: float = math.inf
    """The longest that the gradient of a batch may be."""
    clip_value: float = math.inf
    """The largest that a coordinate of it may be."""


@lean
def rate_now(parts, pace, step, epoch):
    """Return the learning rate of a step, the first being 1, after some passes over the data."""
    return parts.optimizer.learning_rate * factor(parts.schedule, step, epoch, pace.epochs)
