"""Checks of a phase: it can be stopped at every round, says what it takes, and gives the same bits on any backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from streamsgd.compute.executors import Inline
from streamsgd.testing.backends import contents
from streamsgd.testing.laws import true
from streamsgd.training.backends.inline import InlineBackend
from streamsgd.training.engine import Engine
from streamsgd.training.phases import wanted
from streamsgd.training.phases.base import Saved

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamsgd.training.backends.base import Backend
    from streamsgd.training.job import Job
    from streamsgd.training.phases.base import Phase, PhaseKind


OUTCOME = ("weights", "tally", "covariance", "draws", "conformal", "score_map", "metrics", "steps", "passes")
"""Of an outcome, what must have the same bits."""


def check_phase(job: Job, name: str, *backends: Backend) -> None:
    """Check a phase of a job: stopped and restored between any two rounds it ends with the same bits, on any backend.

    Parameters
    ----------
    job
        Whose settings ask for the phase, of several chunks.
    name
        Of the phase.
    backends
        Of this job, beside `InlineBackend`; they are left open.

    Raises
    ------
    AssertionError
        It ends with other bits; it saves what is no JSON or no array; its state takes more than it declared; it tells nothing
        or does not end.

    """
    kinds = wanted(job.settings, job.parts)
    true(name in [kind.name for kind in kinds], f"the job has no phase {name!r}, but {[kind.name for kind in kinds]}")
    plain = _run(job, kinds, name, InlineBackend(job), restored=False)
    true(plain == _run(job, kinds, name, InlineBackend(job), restored=True), f"{name}: restored, it ends with other bits")
    for backend in backends:
        there = _run(job, kinds, name, backend, restored=False)
        true(plain == there, f"{name}: on {type(backend).__name__} it ends with other bits")


def _run(job: Job, kinds: Sequence[PhaseKind], name: str, backend: Backend, *, restored: bool) -> Any:
    """Run all phases up to the one of this name, restoring it from what it saved after every round if asked."""
    engine = Engine(job, kinds, backend, Inline())
    outcome = engine._nothing()  # noqa: SLF001  the engine's own beginning
    for kind, made in zip(kinds, engine.phases, strict=True):
        phase: Phase = made
        phase.begin(outcome)
        engine._begun.append(phase)  # noqa: SLF001
        rounds = 0
        while not phase.done:
            work = phase.next()
            share, reports = backend.run(work if outcome.view is None else outcome.view[1].refine(work))
            told = list(phase.take(share, reports))
            rounds += 1
            true(rounds < 10_000, f"{kind.name} does not end")
            if restored and kind.name == name and told and not phase.done:
                saved = _checked(kind, job, phase.save())
                phase = kind.make(job, lambda _epoch: None)
                phase.restore(saved, outcome)
        outcome = phase.outcome()
        if kind.name == name:
            break
    return contents([getattr(outcome, name) for name in OUTCOME])


def _checked(kind: PhaseKind, job: Job, saved: Saved) -> Saved:
    """Return what a phase saved, by way of JSON and copies of its arrays."""
    arrays = saved.arrays
    true(all(isinstance(array, np.ndarray) for array in arrays.values()), f"{kind.name} saves what is no array")
    own = sum(array.nbytes for array in arrays.values()) if not kind.learns(job) else 0  # a learner's are the model's
    declared = kind.memory(job.outline) if kind.passes(job.outline) else 0
    true(own <= declared, f"{kind.name} saves {own:,} bytes of arrays and declared {declared:,} of memory")
    header = msgspec.json.decode(msgspec.json.encode(saved.header))
    return Saved(header, {key: array.copy() for key, array in arrays.items()})
