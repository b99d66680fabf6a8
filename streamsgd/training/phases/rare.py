"""Learning with `--rare`: a pilot learns the first rows, later ones are thinned by it, and the intercept is set at the end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.kernels.sums.thin import (
    EXPECTED,
    FORESEEN,
    KEPT,
    LOCAL,
    N_SUMS,
    PILOT_POSITIVE,
    PILOT_WEIGHT,
    POSITIVE,
    ROWS,
    WEIGHT,
    Rule,
)
from streamsgd.training.classes.population import LEAST, Known, chances_of_negatives, missed, probabilities, shift_to
from streamsgd.training.classes.rare import thins
from streamsgd.training.job import IN_ORDER
from streamsgd.training.phases.around import AroundEpochs
from streamsgd.training.phases.base import Outcome, PhaseKind, Saved, kept, prefixed, under
from streamsgd.training.tasks.base import Round
from streamsgd.training.tasks.pilot import LearnPilot, Piloted, Seen
from streamsgd.training.tasks.thinned import SAMPLE_BYTES, Sample, Thinned, Thinning, ThinSums, WithThinSums, no_sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from streamsgd.training.job import Job
    from streamsgd.training.phases.base import PhaseEvent
    from streamsgd.training.tasks.base import ChunkReport

COPIES = 6
"""Of a sample at the same time: of the run, of a round, while two are joined, and in a checkpoint."""

FEWEST_ROWS = 100
"""Of a sample by which the intercept is set."""


class RareEpochs(AroundEpochs):
    """Epochs that begin with a pilot, and go on with what is thinned by it.

    Parameters
    ----------
    job, reached
        As of `Epochs`.

    """

    name = "rare"

    def __init__(self, job: Job, reached: Callable[[float], None] | None = None) -> None:
        super().__init__(job, reached)
        self._reached = reached
        self._seen = Seen()
        self._thinning: Thinning | None = None
        self._found = ThinSums()
        """Of the first pass."""

    def next(self) -> Round:
        """Return one chunk for the pilot, else the next round of the epochs, whose chunks are thinned first."""
        if self._thinning is None:
            task, (epoch, chunk) = LearnPilot(self.learning.learner, self._seen, self._reached), self.cursor
            return Round(task, epoch, chunk, 1)
        # What would be left out of the sample that there is, is not even listed.
        sampled = min(self._thinning.sampled, self._found.sample.share)
        return as_thinned(self.learning.next(), self._thinning._replace(sampled=sampled), tells=True)

    def take(self, share: Any, reports: Sequence[ChunkReport]) -> Iterator[PhaseEvent]:
        """Take what thinning found and what was learned."""
        first, n = not self.cursor[0], None
        if self._thinning is None:
            n = 1
        if isinstance(share, Piloted):
            self._seen, self._thinning = share.seen, share.thinning
        if isinstance(share, Piloted | WithThinSums):
            self._found = self._found.plus(share.found) if first else self._found
            share = share.learned
        yield from self.learning.take_width(share, reports, n)

    # --- what comes out

    def outcome(self) -> Outcome:
        """Return what was learned, how later phases are to see the rows, and what is to be done at the end."""
        outcome, thinner = self.learning.outcome(), self.job.known_thinner
        seen = {"pilot_rows": self._seen.rows, "pilot_positives": self._seen.positives}
        sums = self._found.sums
        outcome.metrics[self.name] = {
            "rule": thinner.spec,
            **seen,
            "rows": round(sums[ROWS]),
            "kept": round(sums[KEPT]),
            "expected": float(sums[EXPECTED]),
        }
        if self._thinning is None:
            return outcome
        return replace(outcome, view=(self.name, RareView(self._thinning, sums, self._found.sample)))

    def save(self) -> Saved:
        """Return the epochs, the pilot, and what was found so far."""
        learning, sample, pilot = self.learning.save(), self._found.sample, self._thinning
        header = {"learning": learning.header, "seen": list(self._seen), "share": sample.share, "thins": None}
        arrays = prefixed("sample", {key: value for key, value in sample._asdict().items() if key != "share"})
        arrays["sums"] = self._found.sums
        if pilot is not None:
            header["thins"] = {"rule": list(pilot.rule), "sampled": pilot.sampled}
            arrays["pilot"] = pilot.pilot
        return Saved(header, prefixed("learning", learning.arrays) | arrays)

    def restore(self, saved: Saved, before: Outcome) -> None:
        """Go to where a checkpoint was saved."""
        header, arrays = saved.header, saved.arrays
        self.learning.restore(Saved(header["learning"], under("learning", arrays)), before)
        self._seen = Seen(*map(int, header["seen"]))
        sample = Sample(float(header["share"]), **under("sample", arrays))
        _check_sample(sample, self.job.n_weights)
        self._found = ThinSums(kept(arrays, "sums", np.zeros(N_SUMS)), sample)
        if (thins := header["thins"]) is not None:
            kind, c, size, weighs, mean = thins["rule"]
            pilot = kept(arrays, "pilot", np.zeros(self.job.n_weights, self.job.settings.precision))
            rule = Rule(int(kind), float(c), float(size), bool(weighs), float(mean))
            self._thinning = Thinning(rule, pilot, float(thins["sampled"]))


def as_thinned(work: Round, thinning: Thinning, *, tells: bool = False) -> Round:
    """Return a round over thinned chunks: those of the first epoch, whose rows later ones take in another order.

    Nothing is read ahead of the next pass, which may need no reading.
    """
    task = Thinned(work.task, thinning, tells, max(work.epoch, 0))
    return work._replace(task=task, epoch=IN_ORDER if work.epoch else 0, passes=1)


def _check_sample(sample: Sample, n_weights: int) -> None:
    """Refuse a sample whose coordinates are none, or whose rows do not have the entries that they say.

    Raises
    ------
    ValueError
        It is one.

    """
    for name, like in no_sample()._asdict().items():
        array = getattr(sample, name)
        if name != "share" and (array.dtype != like.dtype or array.ndim != 1):
            raise ValueError(f"sample.{name} is {array.dtype} {array.shape}")
    n, entries = len(sample.order), len(sample.coordinates)
    sizes = (len(sample.weights), len(sample.lengths), len(sample.x), int(sample.lengths.sum()))
    if sizes != (n, n, entries, entries) or (sample.lengths < 1).any() or (sample.coordinates >= n_weights).any():
        raise ValueError("sample is not what its rows say")


@dataclass
class RareView:
    """How phases after the epochs see the rows, and how a run ends."""

    thinning: Thinning
    sums: np.ndarray
    """As of `kernels.sums.thin`, of the first pass."""
    sample: Sample

    def refine(self, work: Round) -> Round:
        """Return the round over what thinning left of the first pass."""
        return as_thinned(work, self.thinning)

    def settle(self, weights: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the weights with an intercept by which predictions are as many as positives, and what there is to say.

        Sums over rows that were kept stand for sums over all; of targets, and of what the pilot predicts, they are known. What
        is within their error moves nothing.
        """
        sample, sums = self.sample, self.sums
        scores, lengths = sample.scores(weights.ravel())
        if len(scores) < FEWEST_ROWS or not 0.0 < sums[POSITIVE] < sums[WEIGHT]:
            return weights, {}
        p, each, foreseen = probabilities(scores), sample.each, probabilities(sample.scores(self.thinning.pilot)[0])
        total = float((each * p).sum())
        wanted = wanted_of(sums, float((each * p * p).sum() / max(total, LEAST)))
        above, error = missed(p, each, Known(sample.positive, foreseen, float(sums[POSITIVE]), float(sums[FORESEEN])))
        off = beyond(total - above - wanted, error)
        shift = shift_to(scores, each, total - off) if off else 0.0
        settled = weights.copy()
        settled[-1] += shift
        ratio = variance_ratio(self.thinning.rule, scores + shift, lengths, each, foreseen)
        return settled, {"intercept_moved": shift, "variance_ratio": ratio, "sampled": len(scores)}


def beyond(found: float, error: float) -> float:
    """Return the part of a difference that is more than chance, of which this is the standard error.

    Found (1 - error^2 / found^2), and nothing of what is within its error (the positive part of James and Stein 1961). Where
    classes are nearly apart, predictions are off by a handful of rows, and so is the sum over those that were drawn.
    """
    return found * max(0.0, 1.0 - (error / found) ** 2) if found else 0.0


def wanted_of(sums: np.ndarray, apart: float) -> float:
    """Return how many positives to predict of the rows behind the pilot's, for all rows to have as many as there are.

    Of the pilot's rows only their positives are known. Of classes that are nearly apart a model predicts nearly those, of
    others their share of all rows: a pilot that met more by chance has more predictions by the slope of p on y.

    Parameters
    ----------
    sums
        As of `kernels.sums.thin`.
    apart
        That slope: the mean of p over positives less that over negatives (Tjur 2009, American Statistician 63).

    """
    positive, weight = sums[POSITIVE] + sums[PILOT_POSITIVE], sums[WEIGHT] + sums[PILOT_WEIGHT]
    usual = positive / weight
    return float(usual * sums[WEIGHT] - apart * (sums[PILOT_POSITIVE] - usual * sums[PILOT_WEIGHT]))


def variance_ratio(rule: Rule, scores: np.ndarray, lengths: np.ndarray, weights: np.ndarray, foreseen: np.ndarray) -> float:
    """Return about how much larger the variances of weights are than of a fit to all rows, if the model is right.

    The information of a row is p (1 - p), and what is left of it once it was kept with r_1 or r_0, by its class,
    r_1 r_0 / (r_1 p + r_0 (1 - p)) of that; rows count by the square of their length. With weights instead of offsets
    variances, not information, add up: p (1 - p) ((1 - p) / r_1 + p / r_0). Of local case-control both classes are as likely
    among the rows that were kept, and those with a chance c |y - p| above 1 weigh so much.

    Parameters
    ----------
    rule
        By which rows were thinned.
    scores, lengths, weights
        float64 (n,), of some rows: log-odds of the model, lengths of entries, and how many rows each stands for.
    foreseen
        float64 (n,): the pilot's probabilities, by which all positives and some negatives were kept; of local case-control
        it is taken to be right.

    """
    p = probabilities(scores)
    by = weights * lengths**2
    information = by * p * (1.0 - p)
    if rule.kind == LOCAL:
        one, zero = rule.c * (1.0 - p), rule.c * p
        noise = by * (p * one * np.maximum(1.0, one) + (1.0 - p) * zero * np.maximum(1.0, zero)) / 4.0
        left = float(information.sum()) * rule.c / 2.0
        return float(information.sum() * noise.sum() / max(left * left, LEAST))
    zero = chances_of_negatives(rule, foreseen, lengths)
    if rule.weighs:
        return float((information * ((1.0 - p) + p / np.maximum(zero, LEAST))).sum() / max(float(information.sum()), LEAST))
    return float(information.sum() / max(float((information * zero / (p + zero * (1.0 - p))).sum()), LEAST))


def describe(metrics: dict[str, Any]) -> list[str]:
    """Return what was found, for people."""
    rows, left, n = metrics["rows"], metrics["kept"], metrics["pilot_rows"]
    if not rows:
        return [f"rare: all rows were learned: {n:,} had {metrics['pilot_positives']:,} positives, too few for a pilot"]
    lines = [
        f"rare: after a pilot of {n:,} rows {left:,} of {rows:,} were learned ({left / rows:.1%}), by {metrics['rule']}",
    ]
    if "variance_ratio" in metrics:
        lines.append(
            f"rare: variances of weights are about {metrics['variance_ratio']:.3g} times those of all rows; the intercept was "
            f"moved by {metrics['intercept_moved']:+.2g}, so that predictions are as many as positives"
        )
    return lines


RARE = PhaseKind(
    "rare",
    wanted=lambda _settings, parts: thins(parts),
    check=lambda _settings, _parts, _encoding: None,
    memory=lambda outline: COPIES * SAMPLE_BYTES + 3 * 8 * outline.n_parameters,
    passes=lambda outline: outline.epochs,
    make=RareEpochs,
    learns=lambda job: job.epochs,
    describe=describe,
)
