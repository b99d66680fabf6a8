"""A phase of one pass that learns nothing: it adds up, chunk by chunk in the order of the data, at weights that stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np

from streamsgd.planning.tree import FAN
from streamsgd.training.job import IN_ORDER
from streamsgd.training.learner import model_of
from streamsgd.training.phases.base import Outcome, PhaseEvent, Saved, kept
from streamsgd.training.tasks.base import Round

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, Self

    from streamsgd.model.model import Model
    from streamsgd.training.job import Job
    from streamsgd.training.tasks.base import ChunkReport


class _Sums(Protocol):
    def merge(self, other: Any) -> Self: ...


S = TypeVar("S", bound=_Sums)


class OnePass(Generic[S]):
    """What such phases share; `task`, `outcome`, `save` and what `restore` takes of sums are their own."""

    counts = False
    validated = False

    def __init__(self, job: Job, _reached: Callable[[float], None] | None = None) -> None:
        self.job = job
        self._before: Outcome | None = None
        self._chunk = 0
        self._weights = np.zeros(0)
        self._sums: S | None = None
        """Of the pass so far."""

    @property
    def _known(self) -> Outcome:
        assert self._before is not None, "begin comes first"  # noqa: S101  for the type checker
        return self._before

    @property
    def done(self) -> bool:
        """Whether the pass has seen every chunk."""
        return self._chunk == self.job.plan_in_order.n_chunks(0)

    @property
    def cursor(self) -> tuple[int, int]:
        """Pass and number of the next chunk."""
        return self._known.passes, self._chunk

    @property
    def tally(self) -> np.ndarray:
        """What came before: nothing is learned here."""
        return self._known.tally

    def begin(self, before: Outcome) -> None:
        """Start at the weights that were learned."""
        self.start_at(before.weights, before)

    def start_at(self, weights: np.ndarray, before: Outcome) -> None:
        """Add up at these weights, as the precision of the run has them."""
        self._before = before
        self._weights = weights.astype(self.job.settings.precision).astype(np.float64).ravel()

    def task(self) -> Any:
        """Return what adds up a chunk at `_weights`."""
        raise NotImplementedError

    def next(self) -> Round:
        """Return some chunks in the order of the data."""
        width = min(max(self.job.lanes.number, FAN), self.job.plan_in_order.n_chunks(0) - self._chunk)
        return Round(self.task(), IN_ORDER, self._chunk, width)

    def take(self, share: S, reports: Sequence[ChunkReport]) -> Iterator[PhaseEvent]:
        """Add to the pass."""
        self._sums = share if self._sums is None else self._sums.merge(share)
        self._chunk += len(reports)
        plan = self.job.plan_in_order
        done = 1.0 if self.done else plan.rows_before(0, self._chunk) / plan.n_rows
        yield PhaseEvent("chunk", self._known.passes + done)

    def model(self) -> Model:
        """Return the model of the weights that were learned."""
        return model_of(self.job, self._known.weights)

    def stop(self, why: str) -> None:
        """Do nothing: there is one pass, and part of it says nothing of the rest."""

    def restore(self, saved: Saved, before: Outcome) -> None:
        """Take back what a checkpoint kept, but for the sums."""
        self._before, self._chunk = before, saved.header["chunk"]
        self._weights = kept(saved.arrays, "weights", np.zeros(self.job.n_parameters))
