"""Checks of a backend: it runs any task, and gives the bits of the specification."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.testing.laws import true
from streamsgd.training.backends.inline import InlineBackend
from streamsgd.training.job import IN_ORDER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamsgd.training.backends.base import Backend
    from streamsgd.training.job import Job
    from streamsgd.training.tasks.base import Round


def check_backend(job: Job, backend: Backend, rounds: Callable[[], Sequence[Round]]) -> None:
    """Check a backend: that every round brings the share of `InlineBackend`, bit for bit, and one report per chunk.

    Parameters
    ----------
    job
        As prepared, of several chunks.
    backend
        Of this job; it is left open.
    rounds
        Makes the rounds anew, so that a task that works in place begins where the other began.

    Raises
    ------
    AssertionError
        A share has other bits, a chunk has no report or one of another chunk, or row counts differ.

    """
    plain = InlineBackend(job)
    for wanted, given in zip(rounds(), rounds(), strict=True):
        share, reports = plain.run(wanted)
        other, others = backend.run(given)
        what = f"round of {wanted.task.name} over chunks {wanted.first} to {wanted.first + wanted.width}"
        true(contents(share) == contents(other), f"{what}: the share has other bits than that of InlineBackend")
        places = [(report.chunk.epoch, report.chunk.number, report.rows) for report in reports]
        theirs = [(report.chunk.epoch, report.chunk.number, report.rows) for report in others]
        true(_alike(places, theirs, in_order=wanted.epoch == IN_ORDER), f"{what}: reports of {theirs}, not of {places}")


def check_task(job: Job, task: Any) -> None:
    """Check a task: that it pickles, says how large it is, and brings the same from a copy; shares merge along the tree.

    Raises
    ------
    AssertionError
        It does not.

    """
    from streamsgd.training.tasks.base import Round  # noqa: PLC0415

    copy = pickle.loads(pickle.dumps(task))  # noqa: S301  just pickled
    true(isinstance(task.nbytes, int) and task.nbytes >= 0, f"{task.name}: nbytes is {task.nbytes!r}, not a size")
    n_chunks = job.plan.n_chunks(0)
    shares = [InlineBackend(job).run(Round(one, 0, 0, n_chunks))[0] for one in (task, copy)]
    true(contents(shares[0]) == contents(shares[1]), f"{task.name}: a copy that was pickled brings other bits")
    true(shares[0].nbytes >= 0, f"{task.name}: its share does not say how large it is")


def contents(value: Any) -> Any:
    """Return everything in a share as plain values that compare by bits."""
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, np.ascontiguousarray(value).tobytes()
    if isinstance(value, dict):
        return {key: contents(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [contents(one) for one in value]
    if hasattr(value, "__slots__") or hasattr(value, "__dict__"):
        names = getattr(value, "__slots__", None) or sorted(vars(value))
        return [(name, contents(getattr(value, name))) for name in names]
    return value.hex() if isinstance(value, float) else value


def _alike(places: list[Any], theirs: list[Any], *, in_order: bool) -> bool:
    """Whether reports are of the same chunks; of passes in the order of the data the epoch says nothing."""
    return [place[in_order:] for place in places] == [place[in_order:] for place in theirs]
