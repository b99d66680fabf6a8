"""What runs decided by themselves: said once, before they learn."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from streamsgd.features.look.advice import warns
from streamsgd.training.holding import held_in_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamsgd.training.job import Job

log = logging.getLogger("streamsgd")


def say_choices(jobs: Sequence[Job]) -> None:
    """Say what memory decided, if nobody set it; what the look chose, as a warning where that matters; what is held out."""
    memory = [line for job in jobs if job.settings.memory is None for line in job.decided_by_memory]
    chosen = [line for job in jobs for line in (*job.chosen.splitlines(), held_in_words(job)) if line]
    for line in dict.fromkeys([*memory, *chosen]):
        log.log(logging.WARNING if line in memory or warns(line) else logging.INFO, line)
