"""How the learning rate follows the size of a batch.

A rate is for batches of `USUAL_BATCH` rows; of kappa times as many it is

linear  kappa times as large, for rules that move by the gradient itself: kappa steps of one batch after another (Goyal et al.
        2017, arXiv 1706.02677), as long as the rate times the largest curvature is well below 1
sqrt    sqrt(kappa) times as large, for those that divide by a fading root mean square, which is by sqrt(kappa) smaller itself
        (Malladi et al. 2022, NeurIPS; the betas stay what they are)
none    the same, for those that divide by the root of a sum: it grows kappa times more slowly

Each optimizer says which is its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from streamsgd.errors import SettingsError
from streamsgd.kernels.parts.by_rows import USUAL_BATCH
from streamsgd.kernels.parts.traits import is_sequential
from streamsgd.settings.batches import adaptive

if TYPE_CHECKING:
    from streamsgd.settings.fields import Settings


def scale_rate(optimizer: Any, settings: Settings, lanes: int | None = None) -> Any:
    """Return the optimizer with the rate for the size of the batches, or scaled once more for so many lanes that make one.

    Raises
    ------
    SettingsError
        There is no size to go by: rows are learned one by one, or all of an epoch at once.

    """
    rule = settings.rate_scaling
    if rule == "auto":
        rule = getattr(optimizer, "rate_scaling", "none")
    elif rule != "none" and is_sequential(optimizer):
        name = type(optimizer).__name__.lower()
        raise SettingsError(f"--optimizer {name} learns row by row, so its rate follows no batch: leave --rate-scaling out")
    if rule == "none" or settings.batch_size == "auto" or adaptive(settings):  # of an adaptive batch every step has its own
        return optimizer
    if settings.batch_size == "full":
        raise SettingsError(
            f"--rate-scaling {settings.rate_scaling} has no number to go by with --batch-size full: leave it out, and set "
            "--learning-rate"
        )
    ratio = int(settings.batch_size) / USUAL_BATCH if lanes is None else float(lanes)
    return optimizer._replace(learning_rate=optimizer.learning_rate * (ratio if rule == "linear" else math.sqrt(ratio)))


SVRG_BATCH = 8
"""Rows per update if nobody says."""
