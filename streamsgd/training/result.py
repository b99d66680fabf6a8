"""What comes out of a run: the model, with its metrics and where it came from; and what makes a run known again."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import msgspec

from streamsgd.data.shuffled.stamps import stamps_of
from streamsgd.kernels.compile.jit import cpu_target
from streamsgd.kernels.models.machines import is_linear
from streamsgd.kernels.structs.state import LOSS, ROWS, WEIGHT
from streamsgd.model.probability.recalibrate import recalibrated
from streamsgd.redact import redact
from streamsgd.settings.make import identity
from streamsgd.settings.registry import spec_of
from streamsgd.training.classes.class_weights import of_population
from streamsgd.training.classes.logit_adjustment import ADJUSTS
from streamsgd.training.classes.rare import plain_loss
from streamsgd.training.learner import model_of
from streamsgd.training.resuming.saved import paths_of
from streamsgd.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from streamsgd.model.model import Model
    from streamsgd.training.job import Job
    from streamsgd.training.phases.base import Outcome
    from streamsgd.training.totals import Totals


def header_of(job: Job) -> dict[str, Any]:
    """Return what a checkpoint keeps of a job, to be resumed by the same data and settings only."""
    return {
        "settings": identity(job.settings),
        "fingerprint": job.dataset.fingerprint,
        "stamps": stamps_of(job.data.source.files),
        "paths": paths_of(job.data.source.files),
        "encoding": msgspec.to_builtins(job.encoding),
        "target": msgspec.to_builtins(job.target),
        "chunk_rows": job.plan.chunk_rows,
        "optimizer": spec_of("optimizer", job.parts.optimizer),
        **({} if job.rival is None else {"rival": spec_of("optimizer", job.rival.parts.optimizer)}),
        **({"rates": rates} if (rates := [*(one.parts.model.rate for one in job.others), *job.raced]) else {}),
        "order": job.order,
        "external": job.external is not None,
        **weights_of(job),
        **({} if job.pilot is None else {"pilot": job.pilot}),
    }


def settled(outcome: Outcome) -> Outcome:
    """Return what a run came to with its final weights, where a phase that chose among the rows has a last word."""
    if outcome.view is None:
        return outcome
    name, view = outcome.view
    weights, told = view.settle(outcome.weights)
    return replace(outcome, weights=weights, metrics={**outcome.metrics, name: {**outcome.metrics[name], **told}})


def weights_of(job: Job) -> dict[str, Any]:
    """Return weights, log-odds and thinning of classes as JSON, for those who have some."""
    found: dict[str, Any] = {"class_weights": list(job.class_weights)} if job.class_weights else {}
    found |= {ADJUSTS: job.parts.loss.log_odds} if hasattr(job.parts.loss, ADJUSTS) else {}
    found |= {"penalty": job.penalty} if job.penalty else {}
    return found | ({"rare": job.thinner.header()} if job.thinner else {})


def model_from(outcome: Outcome, totals: Totals, validation: dict[str, Any], lineage: Sequence[dict[str, Any]] = ()) -> Model:
    """Return the model that a run came to.

    Parameters
    ----------
    outcome
        Of its last phase.
    totals
        Of the run.
    validation
        The metrics of the last judgement.
    lineage
        What was learned before, if it went on from a model.

    """
    job = outcome.job
    model = recalibrated(of_population(job, model_of(job, outcome.weights)), outcome.score_map)
    model.covariance, model.memory = outcome.covariance, outcome.memory
    model.draws, model.conformal, model.spread = outcome.draws, outcome.conformal, outcome.spread
    model.settings, model.common = identity(job.settings), totals.frequent.best()
    model.metrics = losses_of(outcome)
    model.metrics |= {} if outcome.best_constant is None else {"best_constant_loss": outcome.best_constant}
    model.metrics |= validation | outcome.metrics
    model.provenance = _provenance(outcome, totals) | ({"lineage": list(lineage)} if lineage else {})
    return model


def losses_of(outcome: Outcome) -> dict[str, float | None]:
    """Return the mean loss of new rows, each predicted before it was learned, and that of the last pass over known ones."""
    first = outcome.first if outcome.first[ROWS] else outcome.tally
    found = {"progressive_loss": _mean(first)}
    return found | ({"training_loss": _mean(outcome.latest)} if outcome.latest[ROWS] else {})


def _mean(tally: np.ndarray) -> float | None:
    return float(tally[LOSS]) / float(tally[WEIGHT]) if tally[WEIGHT] else None


def _name_of(job: Job) -> str:
    """Return the name of the first file, for the lineage of runs that go on; nothing where values are not to be in the model.

    It is part of the fingerprint, so that the same data has the same name wherever it is.
    """
    first, settings = next(iter(job.data.source.files), None), job.settings
    return redact(first.name) if first is not None and first.path and settings.keep_memory and settings.values else ""


def _provenance(outcome: Outcome, totals: Totals) -> dict[str, Any]:
    job = outcome.job
    parts = job.parts._replace(loss=plain_loss(job.parts.loss), model=job.structure)._asdict()
    if is_linear(job.structure):
        del parts["model"]  # models of before there were others say nothing of it
    return {
        "fingerprint": job.dataset.fingerprint,
        **({"version": version_of} if (version_of := getattr(job.data.source, "version", "")) else {}),
        **({"data": name} if (name := _name_of(job)) else {}),
        "files": job.data.n_files,
        "row_groups": job.data.n_row_groups,
        "rows": job.data.n_rows,
        "shuffle": spec_of("shuffle", job.plan.sampler),
        "order": job.order,
        "rows_learned": int(outcome.tally[ROWS]),
        "steps": outcome.steps,
        "chunk_rows": job.plan.chunk_rows,
        "counts": {**totals.counts, "lost": totals.counts["lost"] + outcome.lost},
        "left_out": totals.problems[:100],
        "parts": {kind: spec_of(kind, part) for kind, part in parts.items()},
        "epochs": min(job.epochs, outcome.epochs),
        **({} if outcome.ledger is None else {"ledger": outcome.ledger}),
        **({} if job.pilot is None else {"pilot": job.pilot}),
        "lanes": job.lanes._asdict(),
        "race": outcome.race,
        **weights_of(job),
        "versions": {
            "streamsgd": __version__,
            **{name: version(name) for name in ("numpy", "numba", "pyarrow")},
            "cpu": cpu_target(),
        },
    }
