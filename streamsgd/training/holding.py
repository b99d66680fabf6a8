"""Rows that are held out if nobody says: of runs of several passes, whose losses of known rows judge nothing."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from streamsgd.kernels.parts.traits import is_sequential, judges, reduces
from streamsgd.settings.folds import fold_of
from streamsgd.training.defaults import MOST_EPOCHS, MOST_PASSES, choose_epochs
from streamsgd.training.phases import finish, shrinking
from streamsgd.training.phases.held_judge import would_be_wanted
from streamsgd.training.structure import most_passes

if TYPE_CHECKING:
    from streamsgd.features.encoding import Encoding
    from streamsgd.kernels.structs.block import Parts
    from streamsgd.settings.fields import Settings
    from streamsgd.training.job import Job

log = logging.getLogger("streamsgd")

SHARE = 0.05
"""Of the rows, ..."""

MOST_ROWS = 100_000
"""... or the share that makes about so many."""

LEAST_ROWS = 1_000
"""Rows of data below which nothing is held out: a twentieth of fewer would judge too little."""


def held_share(settings: Settings, parts: Parts, n_rows: int, epochs: int) -> float:
    """Return the share of the rows to hold out: as set, or by default; 0 where a condition chooses.

    By default it is a twentieth, at most about 100,000 rows, of runs of several passes. It is nothing where there is a
    validation set already, where every row counts because the minimum itself is asked for (`--polish`, `--standard-errors`,
    svrg, draws from a posterior), and of fewer than 1,000 rows.
    """
    if fold := fold_of(settings):
        return 1.0 / fold[1]
    if settings.validation != "auto":
        return 0.0 if isinstance(settings.validation, str) else settings.validation
    return 0.0 if _why_nothing(settings, parts, n_rows, epochs) else min(SHARE, MOST_ROWS / n_rows)


def choose_passes(settings: Settings, parts: Parts, encoding: Encoding, n_rows: int) -> tuple[int, float]:
    """Return the passes over so many rows of data, and the share of them that is held out."""
    most = most_passes(settings, encoding, MOST_PASSES if is_sequential(parts.optimizer) else MOST_EPOCHS)
    epochs = choose_epochs(settings, n_rows, most)
    share = held_share(settings, parts, n_rows, epochs)
    epochs = choose_epochs(settings, n_rows, most, share)
    # Before every pass of svrg that learns there is one that measures, and rows that judge a step do not make it.
    twice = settings.epochs == "auto" and (reduces(parts.optimizer) or judges(parts.optimizer))
    return epochs * (2 if twice else 1), share


def _why_nothing(settings: Settings, parts: Parts, n_rows: int, epochs: int) -> str:
    if epochs == 1 or settings.valid is not None:
        return "it is judged without"
    if settings.polish or settings.standard_errors or settings.method or reduces(parts.optimizer) or judges(parts.optimizer):
        return "a minimum is of all rows"
    return "they are fewer than 1,000" if n_rows < LEAST_ROWS else ""


def held_in_words(job: Job) -> str:
    """Return what is held out or is not, where nobody said, or what is forgone as somebody did; else nothing."""
    settings, n_rows, share = job.settings, job.data.n_rows, job.recipe.held.share
    if settings.validation != "auto":
        return _forgone(job)
    if share:
        return (
            f"held out: about {round(share * n_rows):,} of {n_rows:,} rows, which are not learned and judge every pass; "
            "--validation none learns them too"
        )
    if _why_nothing(settings, job.parts, n_rows, job.epochs).startswith("they are"):
        return f"held out: nothing, for {n_rows:,} rows are fewer than {LEAST_ROWS:,}; --validation 0.1 would judge every pass"
    return ""


def _forgone(job: Job) -> str:
    """Return what rows held out do where nobody names them, of a run in which somebody did."""
    if not job.recipe.held or not would_be_wanted(job.settings, job.parts):
        return ""
    if not (finish.is_small(job.outline) or shrinking.is_small(job.outline)):
        return ""
    return (
        "held out by --validation: these rows judge and choose nothing; without it some are held out that choose, after the "
        "last pass, how far weights are polished or shrunk, which small data is often the better for"
    )


def say_unjudged(job: Job, held: int) -> None:
    """Say where nothing was judged by the rows that were to be held out: so many were."""
    settings = job.settings
    if job.recipe.held and not held:
        log.warning("--validation %r held out no row, so that nothing was judged by it", settings.validation)
    elif not job.recipe.held and settings.valid is None:
        for name in ("patience", "validate_every"):
            if (given := getattr(settings, name)) is not None:
                flag = f"--{name.replace('_', '-')}"
                log.warning("%s %d had no held-out rows to judge by: pass --validation 0.1", flag, given)
