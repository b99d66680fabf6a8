"""Learning with `--noise`: before a chunk is learned, a few of its rows tell how gradients scatter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.errors import SettingsError
from streamsgd.kernels.compile.verbs import prepare
from streamsgd.kernels.models.machines import is_linear
from streamsgd.kernels.parts.traits import is_race, reduces
from streamsgd.kernels.structs.state import SEEN, STEPS
from streamsgd.kernels.sums.noise import step_lengths
from streamsgd.planning.samplers import replaces
from streamsgd.planning.variance import design_effect
from streamsgd.settings.registry import make, spec_of
from streamsgd.training.noise.gradient_noise import Ratio, ratio_of
from streamsgd.training.phases.around import AroundEpochs
from streamsgd.training.phases.base import Outcome, PhaseKind, Saved, kept, prefixed, under
from streamsgd.training.phases.noise import in_words, usual_batch, worth
from streamsgd.training.tasks.noise import GROUPS, MOST_DENSE, PLACES
from streamsgd.training.tasks.with_noise import (
    BETWEEN,
    MEASURED_P,
    NORM,
    OF_UNITS,
    ROWS,
    STAGES,
    TRACE,
    TRACE_P,
    WITHIN,
    N,
    PathSums,
    WithNoise,
    WithPath,
    no_path,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from streamsgd.features.encoding import Encoding
    from streamsgd.kernels.structs.block import Parts
    from streamsgd.settings.fields import Settings
    from streamsgd.training.job import Job
    from streamsgd.training.phases.base import PhaseEvent
    from streamsgd.training.tasks.base import ChunkReport, Round

COPIES = 4
"""Of the weights in float64: those to measure at, the lengths of steps, what is made of them, and room for a row."""

SUMS = 10
"""Of gradients of a model that is not linear, as they are added up: of a unit and of all units, as these become the next sum,
and of a row."""


class NoisyEpochs(AroundEpochs):
    """Epochs, and what was measured in them.

    Parameters
    ----------
    job, reached
        As of `Epochs`.

    """

    name = "noise"

    def __init__(self, job: Job, reached: Callable[[float], None] | None = None) -> None:
        super().__init__(job, reached)
        self._path = no_path()

    def next(self) -> Round:
        """Return the next round of the epochs, whose chunks are measured when they are met first, if it is time to."""
        found = self.learning.next()
        if getattr(found.task, "number", 0) or not self._is_due(found):  # a later step of a round in step has a number
            return found
        weights = self.learning.learner.weights().astype(np.float64)
        return found._replace(task=WithNoise(found.task, weights, self._lengths()))

    def _is_due(self, work: Round) -> bool:
        """Whether to measure chunks: of millions of weights, which take long to copy, once in as many rows."""
        plan = self.job.plan
        every = max(1, self.job.n_parameters * plan.n_chunks(0) // plan.n_rows)
        first = work.epoch * plan.n_chunks(0) + work.first
        return -first % every < work.width

    def _lengths(self) -> np.ndarray:
        """Return the roots of the lengths of the optimizer's next step, or (0,) if it does not say them."""
        state, optimizer = self.learning.learner.state, self.job.parts.optimizer
        if is_race(optimizer) or not hasattr(optimizer, "stretch"):
            return np.zeros(0)
        lengths, step = np.ones(self.job.n_weights), max(1, int(state.clock[STEPS]))
        if optimizer.n_slots:
            prepared: Any = prepare
            shared = prepared(optimizer, step, usual_batch(self.job), max(1.0, float(state.sums[SEEN])))
            step_lengths(optimizer, state.slots, shared, lengths)
        return lengths if lengths.any() else np.zeros(0)

    def take(self, share: Any, reports: Sequence[ChunkReport]) -> Iterator[PhaseEvent]:
        """Take what was measured and what was learned."""
        if isinstance(share, WithPath):
            self._path = self._path.plus(share.path)
            share = share.learned
        yield from self.learning.take(share, reports)

    # --- what comes out

    def result(self) -> dict[str, Any]:
        """Return what was found, as JSON values."""
        path = self._path
        optimizer = spec_of("optimizer", self.job.parts.optimizer).partition(":")[0]
        known = path.groups[:, MEASURED_P].sum() > 0.0
        metric = {"optimizer": optimizer, **path_ratio(path.groups, TRACE_P, MEASURED_P).to_dict()} if known else None
        total = path.groups.sum(axis=0)
        return {
            **path_ratio(path.groups, TRACE, ROWS).to_dict(),
            "design_effect": self._effect(total),
            "batch_size": "full" if self.job.settings.batch_size == "full" else usual_batch(self.job),
            "metric": metric,
            "shuffle": spec_of("shuffle", self.job.plan.sampler),
            "rows_measured": int(total[N]),
            "rows": int(total[ROWS]),
            "path": [_stage(k, row) for k, row in enumerate(path.stages) if row[N]],
        }

    def _effect(self, total: np.ndarray) -> float | None:
        """Return the design effect, by the variances within units and between them; None where they are not known."""
        plan = self.job.plan
        rows, n_chunks, units = float(plan.n_rows), plan.n_chunks(0), plan.n_pieces(0)
        if replaces(plan.sampler):
            return 1.0
        if not (plan.sampler.mixes_rows and plan.sampler.side_by_side) or (n_chunks > 1 and not total[OF_UNITS]):
            return None
        within, own = total[WITHIN], max(0.0, total[BETWEEN])
        between = (own + within * units / rows) / (own + within) if own + within > 0.0 else 0.0
        return design_effect(float(between), units, units / n_chunks, rows / units, usual_batch(self.job))

    def outcome(self) -> Outcome:
        """Return what was learned, with what was measured."""
        outcome = self.learning.outcome()
        outcome.metrics[self.name] = self.result()
        return outcome

    def save(self) -> Saved:
        """Return the epochs, and the sums so far."""
        learning, path = self.learning.save(), {"groups": self._path.groups, "stages": self._path.stages}
        return Saved({"learning": learning.header}, prefixed("learning", learning.arrays) | prefixed("path", path))

    def restore(self, saved: Saved, before: Outcome) -> None:
        """Go to where a checkpoint was saved."""
        self.learning.restore(Saved(saved.header["learning"], under("learning", saved.arrays)), before)
        path, empty = under("path", saved.arrays), no_path()
        self._path = PathSums(kept(path, "groups", empty.groups), kept(path, "stages", empty.stages))


def path_ratio(groups: np.ndarray, trace: int, rows: int) -> Ratio:
    """Return the ratio of sums over chunks, of columns `trace` and the next one, in means over `rows`."""
    some = groups[groups[:, rows] > 0.0]
    total = some.sum(axis=0)
    if not len(some):
        return Ratio(0.0, 0.0, None, None, None)
    others = [total - row for row in some] if len(some) > 1 else []
    return ratio_of(
        _means(total, trace, rows),
        [_means(other, trace, rows) for other in others],
        some[:, rows].tolist(),
    )


def _means(total: np.ndarray, trace: int, rows: int) -> tuple[float, float]:
    return float(total[trace] / total[rows]), float(total[trace + 1] / total[rows])


def _stage(number: int, row: np.ndarray) -> dict[str, float]:
    """Return what was measured in one part of the run."""
    return {
        "from": number / STAGES,
        "trace_covariance": float(row[TRACE] / row[ROWS]),
        "gradient_norm_squared": float(row[NORM] / row[ROWS]),
    }


def noisy_bytes(n_weights: int, settings: Settings) -> int:
    """Return the bytes that measuring takes, checkpoints included."""
    of_rows = 0 if is_linear(make("model", settings.model)) else SUMS * min(n_weights, MOST_DENSE)
    return 8 * (COPIES * n_weights + 8 * max(PLACES, GROUPS) + of_rows)


def check_noisy(_settings: Settings, parts: Parts, _encoding: Encoding) -> None:
    """Refuse what takes no plain gradients of rows.

    Raises
    ------
    SettingsError
        Variance reduction.

    """
    if reduces(parts.optimizer):
        raise SettingsError(
            "--noise is that of steps by gradients of rows, which svrg corrects: leave --noise out, and measure the model that "
            "comes out with: streamsgd noise DATA --at MODEL"
        )


def describe(metrics: dict[str, Any]) -> list[str]:
    """Return what was found, for people."""
    lines = [f"noise while learning, by {metrics['rows_measured']:,} rows: {in_words(metrics)}"]
    if metric := metrics["metric"]:
        lines.append(f"in the metric of {metric['optimizer']}: {in_words(metric)}")
    return lines + worth(metrics)


NOISE = PhaseKind(
    "noise",
    wanted=lambda settings, _parts: settings.noise,
    check=check_noisy,
    memory=lambda outline: noisy_bytes(outline.n_parameters, outline.settings),
    passes=lambda outline: outline.epochs,
    make=NoisyEpochs,
    learns=lambda job: job.epochs,
    describe=describe,
)
