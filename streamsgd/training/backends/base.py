"""What every backend is: it runs rounds of a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.training.learner import Learner
    from streamsgd.training.tasks.base import ChunkReport
    from streamsgd.training.tasks.gradient import Gradient, Step
    from streamsgd.training.tasks.merge import Delta
    from streamsgd.training.tasks.objective import ObjectiveRequest, ObjectiveSums


@dataclass
class WorkerStats:
    """What one worker did."""

    rows: int = 0
    lanes: int = 0
    seconds: float = 0.0
    """Of tasks, by the driver's clock."""
    open: float = 0.0
    decode: float = 0.0
    encode: float = 0.0
    fit: float = 0.0
    bytes_read: int = 0
    bytes_sent: int = 0
    again: int = 0
    """Lanes that it did for a worker that was late or lost."""

    def idle(self, seconds: float) -> float:
        """Return for how many of the run's seconds it had nothing to do."""
        return max(0.0, seconds - self.seconds)


class Backend(Protocol):
    """Does the work of lanes."""

    work: dict[str, WorkerStats]
    """What each worker did; empty where that is this process."""

    def begin(self, epoch: int, chunk: int) -> None:
        """Make ready to go on from a chunk."""

    def lead(self, learner: Learner, epoch: int, chunk: int) -> list[ChunkReport]:
        """Let the learner itself learn one chunk."""

    def round(self, learner: Learner, epoch: int, chunk: int, n: int) -> tuple[Delta | None, list[ChunkReport]]:
        """Let n lanes learn a chunk each from the learner's state, which stays as it is; None if all were lost."""

    def step(self, learner: Learner, at: Step) -> tuple[Gradient | None, list[ChunkReport]]:
        """Let lanes add up the gradient of a step; what they brought comes with the first of a round. None if all were lost."""

    @property
    def share(self) -> Callable[[ObjectiveRequest, int, int], tuple[ObjectiveSums, list[ChunkReport]]] | None:
        """What adds up losses, gradient and curvature of n chunks in the order of the data; None where they are read here."""

    def close(self) -> None:
        """Release everything."""
