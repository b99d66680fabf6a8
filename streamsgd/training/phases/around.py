"""A phase around the epochs: it learns by them, and adds rounds or shares of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamsgd.training.phases.epochs import Epochs

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from streamsgd.model.model import Model
    from streamsgd.training.job import Job
    from streamsgd.training.phases.base import Outcome


class AroundEpochs:
    """What such phases share; `next`, `take`, `outcome`, `save` and `restore` are their own.

    Parameters
    ----------
    job, reached
        As of `Epochs`.

    Attributes
    ----------
    learning
        The epochs; the cursor is theirs.

    """

    counts = True
    validated = True

    def __init__(self, job: Job, reached: Callable[[float], None] | None = None) -> None:
        self.learning = Epochs(job, reached)

    @property
    def job(self) -> Job:
        """What is done."""
        return self.learning.job

    @property
    def done(self) -> bool:
        """Whether all epochs are over."""
        return self.learning.done

    @property
    def cursor(self) -> tuple[int, int]:
        """Epoch and number of the next chunk."""
        return self.learning.cursor

    @property
    def tally(self) -> np.ndarray:
        """As of the learner."""
        return self.learning.tally

    def begin(self, before: Outcome) -> None:
        """Start as the epochs do."""
        self.learning.begin(before)

    def model(self) -> Model:
        """Return the model as it is."""
        return self.learning.model()

    def stop(self, why: str) -> None:
        """End with the weights as they are."""
        self.learning.stop(why)
