"""Polishing that nobody asked for: of small dense tables, where it costs next to nothing and held-out rows judge it.

Steps at a falling rate leave ill-conditioned columns far from the minimum. Passes of the whole gradient, whose second
derivatives are few here, go there at once. But a minimum can be no good: of separable rows it is at infinity. So after every
pass the rows held out judge the weights, and the best ones are kept, those that the epochs ended with among them.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.features.unset import leaves_open, may_thin
from streamsgd.kernels.models.machines import is_linear
from streamsgd.messages import counted, verb
from streamsgd.training.phases.base import Outcome, PhaseEvent, PhaseKind, Saved, kept
from streamsgd.training.phases.polish import Polishing, polish_bytes
from streamsgd.training.phases.smooth import is_objective

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from streamsgd.kernels.structs.block import Parts
    from streamsgd.settings.fields import Settings
    from streamsgd.training.job import Job
    from streamsgd.training.tasks.base import ChunkReport
    from streamsgd.training.tasks.objective import ObjectiveSums

log = logging.getLogger("streamsgd")

MOST_PASSES = 20
"""Over the data, each about as long as an epoch or less."""

MOST_WEIGHTS = 256
"""More take longer to be multiplied with each other than to be learned."""

MOST_VALUES = 4_000_000
"""Rows times columns; whatever the memory, so that it decides no bit."""

PATIENCE = 3
"""Passes one after another that held-out rows do not gain by."""

KEPT = ("before", "best", "misses", "least")
"""What a checkpoint keeps of it as JSON, beside what polishing does."""


class Finishing(Polishing):
    """A descent that goes on as long as rows held out are the better for it.

    Attributes
    ----------
    before, best
        Mean losses of held-out rows, of the weights that it began with and of those that are kept; None until a pass has ended.
    misses
        Passes since then.
    least
        Objective at the weights that are kept.
    idle
        Whether nothing is done, because the job is not for it.

    """

    name = "finish"

    def __init__(self, job: Job, reached: Callable[[float], None] | None = None) -> None:
        super().__init__(job, reached)
        self.most = MOST_PASSES
        self.idle = not is_small(job)
        self.before: float | None = None
        self.best: float | None = None
        self.least: float | None = None
        self.misses = 0
        self._chosen = np.zeros(0 if self.idle else job.n_weights)
        self._held = np.zeros(2)
        """Of the pass so far, weighted loss and weight of rows held out."""

    def begin(self, before: Outcome) -> None:
        """Start from the weights that were learned."""
        if self.idle:
            return self._pass(before)
        super().begin(before)
        self._chosen = before.weights.astype(np.float64).ravel()
        return None

    def _pass(self, before: Outcome) -> None:
        """Leave all as it is: a descent would take memory."""
        self._before, self.first_epoch, self.stopped = before, before.passes, "idle"

    def take(self, share: ObjectiveSums, reports: Sequence[ChunkReport]) -> Iterator[PhaseEvent]:
        """Add up; at the end of a pass let held-out rows judge, then take the next step."""
        for report in reports:
            if report.held is not None:
                found = report.held.result()
                self._held += [found.get("loss", 0.0) * found["weight"], found["weight"]]
        for event in super().take(share, reports):
            if event.judge:
                event = event._replace(judge="pass" if event.judge == "pass" and self._is_better() else "drop")  # noqa: PLW2901
                self._held[:] = 0.0
                self._end_if_over()
            yield event

    def _is_better(self) -> bool:
        """Whether the weights of the pass, which come nearest to the minimum so far, lose least on held-out rows."""
        loss = self._loss
        if self.best is not None and not loss <= self.best:
            self.misses += 1
            return False
        self.before = loss if self.before is None else self.before
        self.best, self.misses, self.least = loss, 0, float(self._descent.value)
        self._chosen = self._descent.weights.copy()
        return True

    @property
    def _loss(self) -> float:
        """Mean loss of held-out rows in this pass."""
        return float(self._held[0] / self._held[1]) if self._held[1] else math.inf

    def _end_if_over(self) -> None:
        if self.misses >= PATIENCE and not self.stopped:
            self.stopped = "held out"
        if self.stopped:
            log.info(in_words(self.metrics()))

    @property
    def weights(self) -> np.ndarray:
        """Those that are kept, (n_coordinates, n_outputs), in the precision of the model."""
        return self._shaped(self._chosen)

    def metrics(self) -> dict[str, Any]:
        """Return what polishing does, and what held-out rows lost."""
        of_kept = {"objective": self.least, "held_out_before": self.before, "held_out": self.best}
        return {**super().metrics(), **of_kept}

    def outcome(self) -> Outcome:
        """Return what came before, with the weights that are kept."""
        return self._known if self.idle else replace(super().outcome(), passes=self.cursor[0])

    def save(self) -> Saved:
        """Return the descent, the pass so far, and what is kept."""
        if self.idle:
            return Saved({}, {})
        saved = super().save()
        header = saved.header | {"kept": {name: getattr(self, name) for name in KEPT}}
        return Saved(header, {**saved.arrays, "chosen": self._chosen, "held": self._held})

    def restore(self, saved: Saved, before: Outcome) -> None:
        """Take back what a checkpoint kept."""
        if self.idle:
            return self._pass(before)
        super().restore(saved, before)
        for name in KEPT:
            setattr(self, name, saved.header["kept"][name])
        self._chosen, self._held = (kept(saved.arrays, key, getattr(self, f"_{key}")) for key in ("chosen", "held"))
        return None


def is_free(settings: Settings) -> bool:
    """Whether a run may be polished without being told: nothing is set about how to learn, nor about rows held out.

    Rows that somebody holds out are to leave no trace in the weights, and choosing among weights would be one.
    """
    free = settings.polish is None and leaves_open(settings) and settings.epochs != 1 and not settings.keep_memory
    free = free and settings.validation == "auto" and not may_thin(settings)
    return free and settings.patience is None and not settings.conformal and settings.recalibrate == "none"


def is_wanted(settings: Settings, parts: Parts) -> bool:
    """Whether a run that may be polished can be."""
    calm = is_linear(parts.model) and not getattr(parts.loss, "steep", False)
    return is_free(settings) and calm and is_objective(parts)


def is_small(job: Job) -> bool:
    """Whether a job is dense, of few weights, small, and judged by rows held out."""
    n, width = job.data.n_rows, job.encoding.n_coordinates
    small = job.thinner is None and job.n_weights <= MOST_WEIGHTS and n * width <= MOST_VALUES
    return small and not job.encoding.is_wide and job.epochs > 1 and bool(job.recipe.held)


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
    memory=lambda weights, _coordinates, _settings: polish_bytes(weights) + 16 * weights if weights <= MOST_WEIGHTS else 0,
    passes=lambda job: MOST_PASSES if is_small(job) else 0,
    make=Finishing,
    describe=lambda metrics: [in_words(metrics)],
)
