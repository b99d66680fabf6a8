"""What every backend is: it runs rounds of a job, whatever their task, and all give the same bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.training.tasks.base import ChunkReport, Round


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


class Abandoned(Exception):  # noqa: N818  no error: somebody asked for it
    """A round was given up between two chunks, and nothing has changed."""


def never() -> bool:
    """Return that nobody asks to stop."""
    return False


class Backend(Protocol):
    """Runs rounds. `inline.InlineBackend` is the specification: all others give its bits."""

    workers: dict[str, WorkerStats]
    """What each worker did, by address; empty where that is this process."""
    poisoned: frozenset[int]
    """Row groups that killed whoever read them, and are left out since."""
    client: Any
    """Of distributed, if its workers run the tasks; else None."""

    def run(self, work: Round, stop: Callable[[], bool] = never) -> tuple[Any, list[ChunkReport]]:
        """Run a task over the chunks of a round; return the merged share, None if every chunk was lost, and the reports.

        Parameters
        ----------
        work
            The round.
        stop
            Asked between two chunks of an exact task, which leaves no trace before its round is taken.

        Raises
        ------
        Abandoned
            The round was given up, as `stop` asked for.
        DataError
            A chunk cannot be read.
        ClusterError
            The workers are lost.

        """

    def close(self) -> None:
        """Release everything."""
