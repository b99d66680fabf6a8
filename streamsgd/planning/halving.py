"""Successive halving: when how many of several runs are dropped. Integers in, integers and shares out."""

from __future__ import annotations

from typing import NamedTuple


class Rung(NamedTuple):
    """A moment at which runs are compared, and the worst dropped."""

    share: float
    """Of the passes of a whole run."""
    keeps: int
    """Runs that go on."""


def rungs(n_runs: int, times: float) -> tuple[Rung, ...]:
    """Return the rungs of so many runs of which each time one in `times` goes on, until one is left.

    n runs are cut to n/t after a share t^-k of the run, to n/t^2 after t^-(k-1), ..., to 1 after 1/t: each stretch costs about
    as much as any other (Jamieson and Talwalkar, AISTATS 2016, arXiv 1502.07943; t is their eta).

    Parameters
    ----------
    n_runs
        1 or more.
    times
        Above 1.

    """
    keeps = [n_runs]
    while keeps[-1] > 1:
        keeps.append(min(keeps[-1] - 1, -int(-n_runs // times ** len(keeps))))
    n = len(keeps) - 1
    return tuple(Rung(times ** -(n - k), kept) for k, kept in enumerate(keeps[1:]))
