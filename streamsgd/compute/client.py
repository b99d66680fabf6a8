"""A Dask client: the user's, of a scheduler's address, or of worker processes started here."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from streamsgd.compute.context import check_client, seceded, was_forked
from streamsgd.compute.local_cluster import START, LocalWorkers
from streamsgd.errors import ClusterError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def client_of(client: Any, scheduler: str | None, workers: int | None) -> Iterator[Any]:
    """Give a client: the user's, or one of ours, closed after; None if none of the three is given.

    Raises
    ------
    ClusterError
        The scheduler does not answer, or no worker came.
    SettingsError
        The client is not one that can be used.

    """
    if client is None and scheduler is None and workers is None:
        yield None
        return
    if was_forked():
        raise ClusterError(
            "this process was forked from one that had Dask running, whose event loops it has not: start it by spawn or "
            "forkserver (multiprocessing.get_context), or leave client, scheduler and workers out"
        )
    from distributed import Client  # noqa: PLC0415

    if client is not None:
        check_client(client)
        if client.status != "running":
            raise SettingsError(f"client={client!r} is not connected (it is {client.status}): make a new one")
        with seceded():
            yield client
    elif scheduler is not None:
        try:
            ours = Client(scheduler, timeout=START, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ClusterError(f"--scheduler {scheduler} does not answer: {error}") from error
        with ours:
            yield ours
    else:
        with LocalWorkers(int(workers or 1)) as local:
            yield local.client
