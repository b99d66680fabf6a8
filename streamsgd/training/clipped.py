"""Scores that were brought back to where the loss makes sense: counted by the kernels, said once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamsgd.training.phases.base import Outcome

log = logging.getLogger("streamsgd")

CLIPPED_SHARE = 0.001
"""Share of the rows learned whose scores are clipped from which on it is said."""

BEYOND = {
    "squared": "the least and the greatest target so far",
    "logistic": "50, where a probability is 0 or 1 in all digits",
    "poisson": "e times the greatest count so far",
}
"""What scores are confined to, by loss."""


def say_clipped(outcome: Outcome, rows: int) -> None:
    """Say of how many rows the score was beyond what the loss makes sense for, where they are not few."""
    loss = outcome.job.parts.loss
    if outcome.clipped <= CLIPPED_SHARE * rows or getattr(loss, "flat_beyond", False):
        return
    name = type(loss).__name__.lower()
    log.info(
        "of %s rows learned %s (%.1f %%) had a score beyond %s: it was brought back before the row was learned, so that no "
        "step goes by it; many are a sign of far values (--transform) or of a rate too large (--learning-rate)",
        *(
            f"{rows:,}",
            f"{outcome.clipped:,}",
            100.0 * outcome.clipped / rows,
            BEYOND.get(name, "what the loss makes sense for"),
        ),
    )
