"""How much is read at once: whole row groups, where memory has room for them that nothing else wants.

A row group that is read in parts takes more of the processor: its strings come as they are, and each is hashed, where a whole
one brings every value once. How much is read at once decides no bit.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from streamsgd.data.sizes import MOST_WHOLE_BYTES
from streamsgd.data.stores.filesystems import LOCAL

if TYPE_CHECKING:
    from streamsgd.training.job import Job


def with_whole_groups(job: Job) -> Job:
    """Return a job of one pass that reads as large row groups at once as its budget has room for, beside all else.

    Later passes would rather have the room for encoded rows, and on workers each has a share of its own. What is to be shuffled
    on disk first is read as it lies there. From afar columns come in small parts, each of which has its time limit.
    """
    settings, recipe = job.settings, job.recipe
    elsewhere = settings.workers is not None or settings.scheduler is not None or job.lanes.number > 1
    to_be_shuffled = job.external is not None and job.original is None
    source, columns = recipe.dataset.source, recipe.encoding.sources
    if recipe.cache is not None or job.distilled or elsewhere or settings.valid is not None or to_be_shuffled:
        return job
    if source.uri != LOCAL:
        return job
    known, at_once = source.cost(columns, recipe.at_once).per_thread, MOST_WHOLE_BYTES
    while at_once > recipe.at_once:
        more = source.cost(columns, at_once).per_thread - known
        budget = replace(job.budget, decode=job.budget.decode + job.budget.threads * more)
        if budget.needed <= budget.limit:
            return replace(job, budget=budget, recipe=replace(recipe, at_once=at_once))
        at_once //= 2
    return job
