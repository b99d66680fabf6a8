"""`--batch-size adaptive` from outside: what the kernel starts with, what it takes of memory, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.errors import SettingsError
from streamsgd.kernels.learn.growing import (
    CAPPED,
    CUT,
    GOAL,
    LARGEST,
    LINES,
    LOOKS,
    MOST,
    NORM_NOW,
    STEP,
    STRIDE,
    TAKEN,
    TRACE_NOW,
    VALUE,
    Growth,
)
from streamsgd.kernels.parts.by_rows import USUAL_BATCH
from streamsgd.kernels.parts.traits import is_sequential, reduces
from streamsgd.planning.batches import FOLLOWS, GROUPS, MARGIN, TESTS
from streamsgd.settings.batches import adaptive
from streamsgd.settings.registry import spec_of
from streamsgd.training.tasks.noise import n_places

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamsgd.features.encoding import Encoding
    from streamsgd.kernels.structs.block import Parts
    from streamsgd.settings.fields import Settings
    from streamsgd.training.job import Job

MOST_LINES = 256
"""Of a ledger; of longer runs every second, fourth, eighth ... step is kept."""

KEPT = ("groups", "counts", "memory", "ledger")
"""Arrays that a checkpoint holds."""


def new_growth(job: Job) -> Growth | None:
    """Return what the kernel starts with, or None where batches do not grow."""
    batch = adaptive(job.settings)
    if batch is None:
        return None
    rule = job.settings.rate_scaling if job.settings.rate_scaling != "none" else batch.rate
    rule = getattr(job.parts.optimizer, "rate_scaling", "none") if rule == "auto" else rule
    decay = 2.0 ** (-1.0 / batch.half_life) if batch.half_life else 0.0
    setup = [batch.theta, batch.nu, decay, batch.start, batch.largest(job.plan.n_rows)]
    places = n_places(job.encoding, job.n_weights)
    counts = np.zeros(7, np.int64)
    counts[[GOAL, STRIDE]] = batch.start, 1
    return Growth(
        np.zeros((GROUPS, places)),
        np.array([*setup, TESTS.index(batch.test), FOLLOWS.index(rule), USUAL_BATCH, MARGIN], np.float64),
        counts,
        np.zeros(6),
        np.zeros((MOST_LINES, 5)),
        np.zeros(6),
        np.zeros(GROUPS),
        np.zeros(0 if job.recipe.layout.mixed or places == job.n_weights else job.n_weights),
    )


def growth_bytes(settings: Settings, encoding: Encoding, n_weights: int) -> int:
    """Return the bytes that evidence takes, with copies for a checkpoint and on the way between processes."""
    return 0 if adaptive(settings) is None else 8 * (3 * (GROUPS * n_places(encoding, n_weights) + 5 * MOST_LINES) + n_weights)


def packed(growth: Growth | None) -> dict[str, np.ndarray]:
    """Return what a checkpoint keeps."""
    return {} if growth is None else {f"growth_{name}": getattr(growth, name).copy() for name in KEPT}


def unpack(growth: Growth | None, arrays: Mapping[str, np.ndarray]) -> None:
    """Take back what `packed` gave."""
    for name in KEPT if growth is not None else ():
        getattr(growth, name)[...] = arrays[f"growth_{name}"]


def check_growing(settings: Settings, parts: Parts, lanes: int, n_rows: int) -> None:
    """Refuse batches that cannot grow.

    Raises
    ------
    SettingsError
        Rows are learned one by one, or by svrg; there are several lanes; or fewer rows than a step starts with.

    """
    batch = adaptive(settings)
    if batch is None:
        return
    flag, name = f"--batch-size {settings.batch_size}", type(parts.optimizer).__name__.lower()
    if is_sequential(parts.optimizer):
        raise SettingsError(
            f"--optimizer {name} learns row by row: leave {flag} out, or take an optimizer of batches, such as adam"
        )
    if reduces(parts.optimizer):
        raise SettingsError(f"{flag} is for steps by gradients of rows, whose noise svrg takes off: leave one of them out")
    if lanes > 1:
        raise SettingsError(f"{flag} decides step by step, which lanes cannot do apart: leave --lanes out")
    if n_rows < batch.start:
        raise SettingsError(
            f"{flag}: a step starts with {batch.start} rows, and there are {n_rows}: pass adaptive:start={GROUPS}, or a number"
        )


def ledger_of(growth: Growth) -> dict[str, Any]:
    """Return the decisions, as JSON values: at most `MOST_LINES` lines, of every so many steps."""
    lines = growth.ledger[: growth.counts[LINES]]
    columns = {"step": STEP, "rows": TAKEN, "trace_covariance": TRACE_NOW, "gradient_norm_squared": NORM_NOW, "test": VALUE}
    whole = ("step", "rows")
    return {
        "every": int(growth.counts[STRIDE]),
        **{name: [int(v) if name in whole else float(v) for v in lines[:, c]] for name, c in columns.items()},
    }


def result_of(growth: Growth, settings: Settings, steps: int, rows: int) -> dict[str, Any]:
    """Return what came of it, as JSON values."""
    counts, lines = growth.counts, growth.ledger[: growth.counts[LINES]]
    batch = adaptive(settings)
    return {
        "batch_size": spec_of("batch_size", batch),
        "most": int(growth.setup[MOST]),
        "steps": steps,
        "judgements": int(counts[LOOKS]),
        "mean": rows / max(1, steps),
        "first": int(lines[0, TAKEN]) if len(lines) else None,
        "last": int(lines[-1, TAKEN]) if len(lines) else None,
        "largest": int(counts[LARGEST]),
        "next": int(counts[GOAL]),
        "at_most": int(counts[CAPPED]),
        "cut_short": int(counts[CUT]),
    }


def in_words(found: Mapping[str, Any]) -> str:
    """Return what came of it, for people."""
    capped = f", {found['at_most']:,} of them at the most of {found['most']:,} rows without passing" if found["at_most"] else ""
    return (
        f"batches: {found['steps']:,} steps of {found['mean']:,.0f} rows on average, the first of {found['first'] or 0:,}, the "
        f"last of {found['last'] or 0:,}, the largest of {found['largest']:,}{capped}"
    )
