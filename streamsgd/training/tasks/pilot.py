"""The pilot: rows are learned as they come until enough of them were positive; the weights of then say which rows matter."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamsgd.kernels.encode.shuffle import follow
from streamsgd.kernels.sums.thin import PILOT_POSITIVE, PILOT_WEIGHT, TARGETED
from streamsgd.training.classes.population import chances_of_negatives, probabilities, shift_of, shift_to
from streamsgd.training.classes.rare import FEWEST_POSITIVES, PILOT_POSITIVES, PILOT_SHARE
from streamsgd.training.tasks.base import report_on
from streamsgd.training.tasks.learn import Learned, end_lane, restored
from streamsgd.training.tasks.thinned import (
    SAMPLE_ROWS,
    Sample,
    Thinning,
    ThinSums,
    listed,
    thin_chunk,
    thin_taken,
    thinned_rows,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streamsgd.kernels.sums.thin import Rule
    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.training.job import Job
    from streamsgd.training.learner import Learner, LearnerState
    from streamsgd.training.tasks.base import ChunkReport

SPAN = 1 << 16
"""Rows that are looked at together."""

MEASURED_ROWS = 1 << 15
"""Rows by which mean length and predictions are measured, at most, ..."""

FEWEST_MEASURED = 4096
"""... and at least, if the chunk has twice as many."""


class Seen(NamedTuple):
    """What the pilot has seen."""

    rows: int = 0
    positives: int = 0


class Piloted(NamedTuple):
    """What a chunk brought while the pilot was learned; one learner learns one chunk after another, so it has none to merge."""

    learned: Learned
    seen: Seen
    thinning: Thinning | None
    """Once the pilot is ready."""
    found: ThinSums

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        return self.learned.nbytes + self.found.nbytes + (0 if self.thinning is None else self.thinning.pilot.nbytes)

    def merge(self, other: Piloted) -> Piloted:
        """Raise: one learner learns one chunk after another."""
        raise ValueError(f"one learner cannot have learned two chunks at once, {self.seen} and {other.seen}")


class LearnPilot:
    """Go on with the one learner there is until the pilot is ready, then thin the rest of the chunk and learn it.

    Parameters
    ----------
    learner
        Changed where it is.
    seen
        By the pilot so far.
    reached
        As of `Learn`.

    """

    name = "learn"
    exact = False

    def __init__(self, learner: Learner, seen: Seen, reached: Callable[[float], None] | None = None) -> None:
        self._learner: Learner | None = learner
        self._seen, self._reached = seen, reached
        self._state = learner.packed()

    def __getstate__(self) -> tuple[LearnerState, Seen]:
        return self._state, self._seen

    def __setstate__(self, state: tuple[LearnerState, Seen]) -> None:
        self._learner, self._reached = None, None
        self._state, self._seen = state

    @property
    def nbytes(self) -> int:
        """Bytes of the learner's state."""
        return self._state.nbytes

    def open(self, job: Job) -> Callable[[LoadedChunk], tuple[Piloted, ChunkReport]]:
        """Return what learns a chunk."""
        return self._here if self._learner is not None else partial(self._there, job)

    def _here(self, filled: LoadedChunk) -> tuple[Piloted, ChunkReport]:
        assert self._learner is not None, "open sees to that"  # noqa: S101  for the type checker
        share, report = learn_pilot(self._learner, filled, self._seen, self._reached)
        self._learner.clear_tally()
        return share, report

    def _there(self, job: Job, filled: LoadedChunk) -> tuple[Piloted, ChunkReport]:
        learner = restored(job, self._state)
        share, report = learn_pilot(learner, filled, self._seen)
        learner.clear_tally()
        return share._replace(learned=Learned(learner.packed())), report


def learn_pilot(
    learner: Learner, filled: LoadedChunk, seen: Seen, reached: Callable[[float], None] | None = None
) -> tuple[Piloted, ChunkReport]:
    """Learn a chunk, the pilot's part of it as it is and the rest thinned; then score its held-out rows."""
    began, job, n = time.perf_counter(), learner.job, len(filled.order)
    cut, seen = cut_of(job, filled, seen)
    share = cut / max(n, 1)
    learner.fit(filled.head(cut), reached, part=(0.0, share))
    thinning, found, rest = None, ThinSums(), 0
    starts: np.ndarray = np.zeros(0, np.int64)
    taken: np.ndarray = starts
    own = _weighed(filled, cut)
    if cut < n:
        starts, taken = filled.starts, np.bincount(filled.order[:cut], minlength=len(filled.starts))
        filled.drop(cut)
        thinning = piloted(job, learner.weights(), _first_rows(job, filled))
        found = thin_chunk(job, filled, thinning, samples=not filled.chunk.epoch)
        rest = len(filled.order)
        learner.fit(filled, reached, part=(share, 1.0))
    found.sums[[PILOT_WEIGHT, PILOT_POSITIVE]] = own
    end_lane(learner, filled)
    report = report_on(job, filled, began, cut + rest, learner.model)
    report.thinned = thinned_rows(found)
    learner.check_finite(filled)
    if thinning is not None and not filled.chunk.epoch:  # later passes are over rows as the first thins them
        thin_taken(job, filled, thinning, starts, taken)
    return Piloted(Learned(None), seen, thinning, found), report


def cut_of(job: Job, filled: LoadedChunk, seen: Seen) -> tuple[int, Seen]:
    """Return how many rows of the chunk's order are the pilot's, and what it has seen then.

    All of them where too few would be left to tell what it predicts of rows that it has not learned: then the next chunk does.
    """
    heads, at = filled.heads(), 0
    while at < len(filled.order):
        order = filled.order[at : at + SPAN]
        positives = seen.positives + np.cumsum(filled.block.y[next_rows(order, heads)] > 0.5)
        enough = int(np.searchsorted(positives, PILOT_POSITIVES)) + 1
        some = max(most_rows(job) - seen.rows, int(np.searchsorted(positives, FEWEST_POSITIVES)) + 1)
        cut = max(1, min(enough, some, len(order)))
        at, seen = at + cut, Seen(seen.rows + cut, int(positives[cut - 1]))
        if cut < len(order) or _is_ready(job, seen):
            break
    n = len(filled.order)
    if n - at < min(FEWEST_MEASURED, (n + 1) // 2):
        more = _positives(filled, n) - _positives(filled, at)
        at, seen = n, Seen(seen.rows + n - at, seen.positives + more)
    return at, seen


def _first(filled: LoadedChunk, n: int) -> Iterator[np.ndarray]:
    """Yield the first n rows of the order, int64, some tens of thousands at a time."""
    heads = filled.heads()
    for at in range(0, n, SPAN):
        yield next_rows(filled.order[at : min(at + SPAN, n)], heads)


def _positives(filled: LoadedChunk, n: int) -> int:
    """Return how many of the first n rows of the order are positive."""
    return sum(int((filled.block.y[rows] > 0.5).sum()) for rows in _first(filled, n))


def _weighed(filled: LoadedChunk, n: int) -> tuple[float, float]:
    """Return the weight of the first n rows of the order, and that of the positives among them."""
    total, positive = 0.0, 0.0
    for rows in _first(filled, n):
        weight = filled.block.weight[rows].astype(np.float64)
        total, positive = total + float(weight.sum()), positive + float(weight[filled.block.y[rows] > 0.5].sum())
    return total, positive


def _is_ready(job: Job, seen: Seen) -> bool:
    return seen.positives >= (FEWEST_POSITIVES if seen.rows >= most_rows(job) else PILOT_POSITIVES)


def most_rows(job: Job) -> int:
    """Return the rows after which a pilot need not have all its positives."""
    return max(1, round(PILOT_SHARE * job.plan.n_rows))


def sample_share(job: Job) -> float:
    """Return the share of the kept rows by which a sample is about as large as it may be."""
    return min(1.0, SAMPLE_ROWS / max(1, job.known_thinner.expected_rows))


def _first_rows(job: Job, filled: LoadedChunk) -> Sample:
    """Return the first rows of the chunk's order, all of them, or as many as there is room for."""
    rows = next_rows(filled.order[:MEASURED_ROWS], filled.heads())
    numbers = np.arange(len(rows)) / max(len(rows), 1)
    return listed(job, filled, rows, job.known_thinner.rule, share=1.0, numbers=numbers)


def piloted(job: Job, weights: np.ndarray, sample: Sample) -> Thinning:
    """Return how to thin by these weights, with an intercept that keeps as many rows as the rule says.

    Parameters
    ----------
    job, weights
        Whose pilot has come to these weights.
    sample
        Rows that it has not learned, all of them: of those that it has, it knows the positives too well, and little is left for
        others.

    """
    scores, lengths = sample.scores(weights)
    pilot, rule = weights.copy(), job.known_thinner.rule._replace(size=float(lengths.mean()))
    pilot[-1] += shift_of_pilot(rule, job.known_thinner.share, scores, lengths, sample.positive)
    return Thinning(rule, pilot, sample_share(job))


def shift_of_pilot(rule: Rule, share: float, scores: np.ndarray, lengths: np.ndarray, positive: np.ndarray) -> float:
    """Return by how much to move the intercept: to c negatives for a positive, else to as many predictions as positives.

    By chance some rows have more positives than their share, which a pilot that tells them apart predicts: the slope of p on y
    says how much of that. Negatives alone have no such chance.

    Parameters
    ----------
    rule
        How rows are to be thinned.
    share
        Of positives, in all rows.
    scores, lengths, positive
        float64, float64 and bool (n,), of rows that the pilot has not learned.

    """
    n = len(scores)
    if rule.kind == TARGETED:
        negatives, sizes = scores[~positive], lengths[~positive]
        if not len(negatives):
            return 0.0
        wanted = min(rule.c * share / (1.0 - share), 1.0) * len(negatives)
        return shift_of(negatives, lambda p: float(chances_of_negatives(rule, p, sizes).sum()), wanted)
    p = probabilities(scores + shift_to(scores, np.ones(n), share * n))
    apart = float(p[positive].mean() - p[~positive].mean()) if 0 < positive.sum() < n else 0.0
    return shift_to(scores, np.ones(n), share * n + max(apart, 0.0) * (float(positive.sum()) - share * n))


def next_rows(order: np.ndarray, heads: np.ndarray) -> np.ndarray:
    """Return the rows of the block that tiles give in this order, int64, and advance their heads."""
    rows = np.empty(len(order), np.int64)
    follow(order, heads, rows)
    return rows
