"""Polishing that nobody asked for: judged by rows held out, which choose the weights that are kept.

A minimum can be no good: of separable rows it is at infinity. So after every pass rows held out say what its weights are
worth, those that the epochs ended with among them. What a pass is of, and when the best weights are found, is each kind's own
(`finish`, `shrinking`).
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import msgspec
import numpy as np

from streamsgd.features.unset import leaves_open, may_thin
from streamsgd.kernels.models.machines import is_linear
from streamsgd.training.phases.base import Outcome, PhaseEvent, Saved, kept
from streamsgd.training.phases.polish import Polishing
from streamsgd.training.phases.smooth import is_objective

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from streamsgd.kernels.structs.block import Parts
    from streamsgd.settings.fields import Settings
    from streamsgd.training.job import Job
    from streamsgd.training.outline import Outline
    from streamsgd.training.tasks.base import ChunkReport
    from streamsgd.training.tasks.objective import ObjectiveSums

log = logging.getLogger("streamsgd")


class Unasked(Polishing):
    """A descent whose passes rows held out judge; `after_pass` and `line_of_end` are each kind's own.

    Attributes
    ----------
    idle
        Whether nothing is done, because the job is not for it.
    chosen
        The weights that are kept, float64 (n_weights,); none while it is idle.
    judges
        Of the pass so far, weighted loss and weight of rows held out, and, where a kind asks for them, how many they are.

    """

    n_judges = 2
    """How many sums of rows held out a kind asks for."""
    kept_fields: ClassVar[tuple[str, ...]] = ()
    """What a checkpoint keeps of it as JSON, beside what polishing does ..."""
    kept_arrays: ClassVar[dict[str, str]] = {}
    """... and as arrays: by their names there, those of the attributes."""

    def __init__(self, job: Job, reached: Callable[[float], None] | None, *, most: int, idle: bool) -> None:
        super().__init__(job, reached)
        self.most, self.idle = most, idle
        self.chosen, self.judges = np.zeros(0), np.zeros(self.n_judges)

    def begin(self, before: Outcome) -> None:
        """Start from the weights that were learned."""
        self.know(before)
        if self.idle:
            self._pass(before)
        else:
            super().begin(before)

    def know(self, before: Outcome) -> None:
        """Take note of the weights of before, of which a kind may see that it is idle."""
        if not self.idle:
            self.chosen = before.weights.astype(np.float64).ravel()

    def _pass(self, before: Outcome) -> None:
        """Leave all as it is: a descent would take memory."""
        self._before, self.first_epoch, self.stopped = before, before.passes, "idle"

    def take(self, share: ObjectiveSums, reports: Sequence[ChunkReport]) -> Iterator[PhaseEvent]:
        """Add up; at the end of a pass let held-out rows judge, then choose what comes next."""
        for report in reports:
            if report.held is not None:
                found = report.held.result()
                sums = found.get("loss", 0.0) * found["weight"], found["weight"], found["rows"]
                self.judges += sums[: self.n_judges]
        for event in super().take(share, reports):
            if event.judge:
                keeps = self.after_pass(accepted=event.judge == "pass")
                event = event._replace(judge="pass" if keeps else "drop")  # noqa: PLW2901
                self.judges[:] = 0.0
                if self.stopped:
                    log.info(self.line_of_end())
            yield event

    def after_pass(self, *, accepted: bool) -> bool:
        """Choose what comes next; return whether the weights of this pass are those that are kept.

        `accepted` says whether the descent took them for the best so far; `stopped` is what it, or this, says.
        """
        raise NotImplementedError

    def line_of_end(self) -> str:
        """Say what the passes came to, for people."""
        raise NotImplementedError

    # --- what comes out

    @property
    def weights(self) -> np.ndarray:
        """Those that are kept, (n_coordinates, n_outputs), in the precision of the model."""
        return self._shaped(self.chosen)

    def outcome(self) -> Outcome:
        """Return what came before, with the weights that are kept."""
        return self._known if self.idle else replace(super().outcome(), passes=self.cursor[0])

    def save(self) -> Saved:
        """Return the descent, the pass so far, and what is kept."""
        if self.idle:
            return Saved({}, {})
        saved = super().save()
        header = saved.header | {"kept": {name: getattr(self, name) for name in self.kept_fields}}
        return Saved(header, saved.arrays | {key: getattr(self, name) for key, name in self.kept_arrays.items()})

    def restore(self, saved: Saved, before: Outcome) -> None:
        """Take back what a checkpoint kept."""
        self.know(before)
        if self.idle:
            self._pass(before)
            return
        super().restore(saved, before)
        for name in self.kept_fields:
            setattr(self, name, saved.header["kept"][name])
        for key, name in self.kept_arrays.items():
            setattr(self, name, kept(saved.arrays, key, getattr(self, name)))


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


def would_be_wanted(settings: Settings, parts: Parts) -> bool:
    """Whether it could be but for rows that somebody holds out."""
    return settings.validation != "auto" and is_wanted(msgspec.structs.replace(settings, validation="auto"), parts)


def is_judged(outline: Outline) -> bool:
    """Whether a job has passes of all rows that rows held out can judge."""
    return outline.held and outline.epochs > 1 and not outline.thinned
