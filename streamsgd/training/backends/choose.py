"""Which backend runs the rounds of a job."""

from __future__ import annotations

import logging
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from streamsgd.compute.client import client_of
from streamsgd.messages import counted, verb
from streamsgd.planning.stragglers import parse_straggler
from streamsgd.training.backends.threads import ThreadsBackend

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamsgd.compute.executors import Executor
    from streamsgd.training.backends.base import Backend
    from streamsgd.training.job import Job

log = logging.getLogger("streamsgd")


PAUSED = 0.7
"""Share of its memory limit beyond which a Dask worker begins to spill; at 0.8 it pauses, at 0.95 it is killed."""


@contextmanager
def choose_backend(job: Job, executor: Executor, client: Any = None) -> Iterator[Backend]:
    """Give the backend that the settings ask for; close it after.

    Raises
    ------
    ClusterError
        The scheduler does not answer, or no worker came.
    SettingsError
        The client is not one that can be used.

    """
    settings = job.settings
    with client_of(client, settings.scheduler, settings.workers) as found, closing(_backend(job, executor, found)) as backend:
        yield backend


def _backend(job: Job, executor: Executor, client: Any) -> Backend:
    if client is None:
        return ThreadsBackend(job, executor)
    from streamsgd.training.backends.dask import DaskBackend  # noqa: PLC0415  half a second of imports

    warn_of_limits(job, client)
    return DaskBackend(job, client, parse_straggler(job.settings.straggler))


def warn_of_limits(job: Job, client: Any) -> None:
    """Warn where Dask would stop a worker that stays within its budget."""
    info = client.scheduler_info(n_workers=-1)["workers"]
    needed = job.budget.needed / PAUSED
    small = {name: worker["memory_limit"] for name, worker in info.items() if 0 < (worker["memory_limit"] or 0) < needed}
    if small:
        name, limit = min(small.items(), key=lambda item: item[1])
        log.warning(
            "%d of %s %s a Dask memory_limit below what a worker of this job may take: %s has %.2f GB, and Dask "
            "spills at 70 %% of it; pass --memory %dMB, or start workers with --memory-limit %dMB",
            *(
                len(small),
                counted(len(info), "worker"),
                verb(len(small), "has", "have"),
                name,
                limit / 1e9,
                limit * PAUSED // 10**6,
                needed // 10**6,
            ),
        )
