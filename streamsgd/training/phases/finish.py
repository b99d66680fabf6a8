"""Polishing that nobody asked for: of small dense tables, where it costs next to nothing and held-out rows judge it.

Steps at a falling rate leave ill-conditioned columns far from the minimum. Passes of the whole gradient, whose second
derivatives are few here, go there at once. Rows held out judge each of them, and the best weights are kept (`held_judge`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

from streamsgd.messages import counted, verb
from streamsgd.training.phases.base import PhaseKind
from streamsgd.training.phases.held_judge import Unasked, is_judged, is_wanted
from streamsgd.training.phases.polish import polish_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.training.job import Job
    from streamsgd.training.outline import Outline

MOST_PASSES = 20
"""Over the data, each about as long as an epoch or less."""

MOST_WEIGHTS = 256
"""More take longer to be multiplied with each other than to be learned."""

MOST_VALUES = 4_000_000
"""Rows times columns; whatever the memory, so that it decides no bit."""

PATIENCE = 3
"""Passes one after another that held-out rows do not gain by."""


class Finishing(Unasked):
    """A descent that goes on as long as rows held out are the better for it.

    Attributes
    ----------
    before, best
        Mean losses of held-out rows, of the weights that it began with and of those that are kept; None until a pass has ended.
    misses
        Passes since then.
    least
        Objective at the weights that are kept.

    """

    name = "finish"
    kept_fields = ("before", "best", "misses", "least")
    kept_arrays: ClassVar = {"chosen": "chosen", "held": "judges"}

    def __init__(self, job: Job, reached: Callable[[float], None] | None = None) -> None:
        super().__init__(job, reached, most=MOST_PASSES, idle=not is_small(job.outline))
        self.before: float | None = None
        self.best: float | None = None
        self.least: float | None = None
        self.misses = 0

    def after_pass(self, *, accepted: bool) -> bool:
        """Keep the weights if they are better, and end where they were not for some passes."""
        better = accepted and self._is_better()
        if self.misses >= PATIENCE and not self.stopped:
            self.stopped = "held out"
        return better

    def _is_better(self) -> bool:
        """Whether the weights of the pass, which come nearest to the minimum so far, lose least on held-out rows."""
        loss = self._loss
        if self.best is not None and not loss <= self.best:
            self.misses += 1
            return False
        self.before = loss if self.before is None else self.before
        self.best, self.misses, self.least = loss, 0, float(self._descent.value)
        self.chosen = self._descent.weights.copy()
        return True

    @property
    def _loss(self) -> float:
        """Mean loss of held-out rows in this pass."""
        return float(self.judges[0] / self.judges[1]) if self.judges[1] else math.inf

    def line_of_end(self) -> str:
        """Say what the passes came to, for people."""
        return in_words(self.metrics())

    def metrics(self) -> dict[str, Any]:
        """Return what polishing does, and what held-out rows lost."""
        of_kept = {"objective": self.least, "held_out_before": self.before, "held_out": self.best}
        return {**super().metrics(), **of_kept}


def is_small(outline: Outline) -> bool:
    """Whether a job is dense, of few weights, small, and judged by rows held out."""
    small = outline.n_weights <= MOST_WEIGHTS and outline.n_rows * outline.n_coordinates <= MOST_VALUES
    return small and not outline.encoding.is_wide and is_judged(outline)


def in_words(metrics: dict[str, Any]) -> str:
    """Say what the passes came to, for people."""
    passes, before, now = metrics["passes"], metrics["held_out_before"], metrics["held_out"]
    made = counted(passes, "pass")
    if before is None or not now < before:
        return f"polished for nothing: {made}, by which rows held out are no better; the weights are those of before"
    return (
        f"polished: {made} to an objective of {metrics['objective']:.10g}, by which the loss of rows held out fell "
        f"from {before:.6g} to {now:.6g}; --polish none leaves {verb(passes, 'it', 'them')} out"
    )


FINISH = PhaseKind(
    "finish",
    wanted=is_wanted,
    check=lambda _settings, _parts, _encoding: None,
    memory=lambda outline: polish_bytes(outline.n_weights) + 16 * outline.n_weights,
    passes=lambda outline: MOST_PASSES if is_small(outline) else 0,
    make=Finishing,
    describe=lambda metrics: [in_words(metrics)],
)
