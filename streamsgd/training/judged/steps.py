"""Learning by steps that are judged before they are taken, for `trust-region` and `armijo`: the machine between rows and steps.

Rows stream by, and each serves one purpose. First they are added to the gradient at the weights, until there are as many as
its goal; then a step is proposed, and the rows that follow say whether it is taken (`training.paired_test`). They bring the
gradient beyond the step along: if it is taken, they are the first rows of the next one.

The goal grows four-fold where a step brought less than half of what was promised, or went all the way to the minimum of its
model: what is left then is the noise of its rows. It grows two-fold where a step was refused, and falls where steps may be
longer and none was refused. From half of the data on, gradients are those of whole epochs. A decision that is open at the end
of an epoch begins anew with the next one, at whose end it is exact: the difference of all rows.
"""

from __future__ import annotations

import math
import sys
from dataclasses import astuple, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.kernels.algebra.lbfgs import penalise
from streamsgd.kernels.parts.judged import Armijo
from streamsgd.kernels.structs.block import new_scratch
from streamsgd.kernels.structs.state import LOSS, ROWS, STEPS, WEIGHT, State
from streamsgd.kernels.sums import paired
from streamsgd.kernels.sums.objective import LOSS as TILE_LOSS
from streamsgd.kernels.sums.objective import MOST_OUTPUTS
from streamsgd.training.judged.paired_test import Evidence, evidence, quantile
from streamsgd.training.judged.quadratic import Proposal, along_gradient, within_radius
from streamsgd.training.judged.sums import Counters, Side

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamsgd.kernels.structs.block import Block
    from streamsgd.training.job import Job

CAUTION = 0.1
"""Times which the square of a slope counts as curvature: a row far on the wrong side of a logistic loss has hardly any else."""

MOST_PAIRS = 512
"""Weights up to which the curvature of every pair of them is added up."""

ROWS_PER_WEIGHT = 4
"""Of a first gradient, where the curvature of pairs is wanted."""

KEPT_PROMISE, NOISE = 0.75, 0.5
"""Shares of what was promised: from which on steps may be longer, and below which gradients are mostly noise."""

MOST_OF_RADIUS = 0.8
"""A step of so much of it asks for a larger one."""

ENOUGH = 32
"""Rows per weight from which on the curvature of past steps is left out."""

MEMORY = 0.5
"""What the curvature and the range of past steps are worth after each."""

AT_REST = 1e-10
"""Of the mean size of losses: where a gradient of all rows promises less, nothing is left to be decided."""

MOST_LINES = 256
"""Of a ledger; of longer runs every second, fourth, eighth ... proposal is kept."""

COLUMNS = ("proposal", "rows", "judged_by", "looks", "radius", "predicted", "measured", "half_width", "threshold", "accepted")
"""Of the ledger."""

WHOLE_NUMBERS = ("proposal", "rows", "judged_by", "looks")


class Judge:
    """Proposes steps and decides on them.

    Parameters
    ----------
    job
        Whose optimizer judges.
    state
        Of the learner: its weights are moved where a step is taken.

    """

    def __init__(self, job: Job, state: State) -> None:
        self.job, self.state, self.optimizer = job, state, job.parts.optimizer
        n, n_outputs = job.n_weights, job.n_outputs
        self.searches = isinstance(self.optimizer, Armijo)
        pairs = not self.searches and n <= MOST_PAIRS and n_outputs <= MOST_OUTPUTS
        # Half a squared error has the same curvature everywhere, and a slope without bound.
        caution = 0.0 if getattr(job.parts.loss, "mixing", "") == "squares" else CAUTION
        how: Any = {"bends": not self.searches, "pairs": pairs, "caution": caution}
        self.here, self.there, self.past = (Side(n, n_outputs, **how) for _ in range(3))
        self.both = np.stack([state.weights, state.weights]).astype(np.float64)
        """The weights, and those that are proposed."""
        self.differences = paired.no_sums()
        self.ledger = np.zeros((MOST_LINES, len(COLUMNS)))
        least = max(self.optimizer.start, ROWS_PER_WEIGHT * n if pairs else 0)
        self._least = min(least, max(1, job.plan.n_rows // 4))
        self.now = Counters(self.optimizer.learning_rate, self._least)
        self._entries = -1
        self._scratch: Any = None

    # --- rows

    def learn(self, block: Block, order: np.ndarray, heads: np.ndarray, entries: int) -> None:
        """Take rows, int32 (n,) of tiles whose next rows are `heads`, which are advanced."""
        if entries > self._entries:
            self._entries, self._scratch = entries, new_scratch(self.job.n_outputs, np.float64, entries)
        at = 0
        while at < len(order):
            n = min(len(order) - at, self._wanted())
            counts = np.bincount(order[at : at + n], minlength=len(heads))
            tiles = np.flatnonzero(counts)
            self._look_at(block, heads[tiles], counts[tiles])
            heads += counts
            at += n
            self._go_on()

    def _wanted(self) -> int:
        now = self.now
        if now.looks:
            return now.look - now.fresh
        return 1 << 40 if self._waits else max(1, now.goal - self.here.rows)

    @property
    def _n_rows(self) -> int:
        return self.now.epoch_rows or self.job.plan.n_rows

    @property
    def _waits(self) -> bool:
        """Whether a gradient takes all rows until the end of an epoch."""
        return self.now.at_rest > 0 or 2 * self.now.goal >= self._n_rows

    def _look_at(self, block: Block, starts: np.ndarray, counts: np.ndarray) -> None:
        now, tally, n = self.now, self.state.tally, int(counts.sum())
        if now.looks:
            found = paired.no_sums()
            paired.compare(self.job.parts.loss, block, starts, counts, self.both, found, self._scratch)
            self.there.add(self.job.parts.loss, (block, starts, counts), self.both[1], self._scratch)
            paired.join_sums(self.differences, found)
            now.fresh += n
            now.judged += n
            tally[LOSS] += found[paired.BEFORE]
            tally[WEIGHT] += found[paired.WEIGHT]
        else:
            total = self.here.add(self.job.parts.loss, (block, starts, counts), self.both[0], self._scratch)
            tally[LOSS] += total[TILE_LOSS]
            tally[WEIGHT] += total[2]
        tally[ROWS] += n
        now.seen += n

    # --- proposals and verdicts

    def _go_on(self) -> None:
        """Judge or propose, if it is time to."""
        now = self.now
        if now.at_rest:
            return
        if now.looks and now.fresh == now.look:
            found = self._evidence()
            verdict = found.verdict(self.threshold)
            if verdict is None:
                now.looks += 1
                now.look *= 2
            else:
                self.decide(found, accept=verdict, exact=False)
        elif not now.looks and not self._waits and self.here.rows >= now.goal:
            self._propose(from_start=False)

    def _evidence(self) -> Evidence:
        now, sums = self.now, self.differences
        z = quantile(self.optimizer.alpha, now.looks)
        n_all = float(self._n_rows) if now.from_start else math.inf
        reach = max(self._range(), now.tail * now.length)
        found = evidence(float(sums[paired.LESS]), float(sums[paired.SQUARES]), now.fresh, z, reach=reach, n_all=n_all)
        return found._replace(mean=found.mean + now.easier)

    def _range(self) -> float:
        """Return the range of the differences so far."""
        return float(self.differences[paired.MOST] - self.differences[paired.LEAST])

    @property
    def threshold(self) -> float:
        """By how much the loss must fall, by penalty and rows, for a step to be taken."""
        return float(self.optimizer.accept) * self.now.predicted

    def _propose(self, *, from_start: bool) -> None:
        """Say where to go next, or that there is nothing to be gained."""
        now, found = self.now, self._proposal()
        now.from_start = int(from_start)
        if not found.predicted > (AT_REST * self.here.sums[0] / self.here.rows if now.exact else 0.0):
            now.at_rest = now.exact
            now.goal = min(2 * now.goal, self._n_rows)
            return
        self.both[1] = self.both[0] + found.step
        now.predicted, now.length = found.predicted, found.length
        now.easier = self._penalty(self.both[0])[0] - self._penalty(self.both[1])[0]
        now.fresh, now.look, now.looks = 0, self.optimizer.start, 1
        now.largest = max(now.largest, self.here.rows)
        now.proposals += 1
        self._forget_fresh()

    def _proposal(self) -> Proposal:
        here, n = self.here, self.here.rows
        _cost, pull = self._penalty(self.both[0])
        gradient = here.gradient / n + pull
        if self.searches:
            return along_gradient(gradient, self.now.radius)
        diagonal, block, known = self._curvature()
        l2 = self._l2 * (np.arange(len(gradient)) < self._n_penalised)
        diagonal = diagonal / known[1] + l2
        matrix = None
        if len(here.curvature.members):
            matrix = block / max(1.0, known[2])
            matrix[np.diag_indices(len(gradient))] += l2
        return within_radius(gradient, diagonal, matrix, float(known[2]), self.now.radius)

    def _curvature(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return diagonal, block and sums of the rows of the gradient, with those of past steps where these are few."""
        here, past = self.here, self.past
        if here.sums[2] >= ENOUGH * self.job.n_weights:
            return here.curvature.diagonal, here.curvature.block, here.sums
        one, other = here.curvature, past.curvature
        return one.diagonal + other.diagonal, one.block + other.block, here.sums + past.sums

    @property
    def _l2(self) -> float:
        return float(getattr(self.job.parts.penalty, "l2", 0.0))

    @property
    def _n_penalised(self) -> int:
        return self.job.n_weights - self.job.n_outputs

    def _penalty(self, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the penalty at some weights, and its gradient."""
        pull = np.zeros(len(weights))
        return float(penalise(weights, 0.0, self._l2, self._n_penalised, pull)), pull

    def decide(self, found: Evidence, *, accept: bool, exact: bool) -> None:
        """Take the step or not; the radius and the rows of gradients follow."""
        now, kept = self.now, found.mean / self.now.predicted
        self._note(found, accept=accept)
        now.tail = max(MEMORY * now.tail, min(self._range() / now.length, sys.float_info.max))
        inside = now.length <= MOST_OF_RADIUS * now.radius
        grows = 2 * (not accept) or (4 if kept < NOISE or inside else 1)
        now.looks = 0
        if grows > 1:
            now.goal = max(now.goal, min(max(now.goal, self.here.rows) * grows, self._n_rows))
        now.refused = 0 if accept else now.refused + 1
        if accept:
            self._take(exact=exact)
            if kept > KEPT_PROMISE and not inside:
                now.radius *= 2.0
                if now.accepted == now.proposals:  # far away gradients need few rows; a refusal says that this is over
                    now.goal = max(self._least, now.goal // 4)
        else:
            now.radius = 0.5 * min(now.radius, now.length)
            now.from_start = 0
            self._forget_fresh()
        if not exact and (now.exact or (not self._waits and self.here.rows >= now.goal)):
            self._propose(from_start=False)

    def _take(self, *, exact: bool) -> None:
        now = self.now
        now.accepted += 1
        self.both[0] = self.both[1]
        self.state.weights[:] = self.both[0]
        self.state.clock[STEPS] += 1
        self._pass_by()
        self.here, self.there = self.there, self.here
        now.exact = int(exact)

    def _pass_by(self) -> None:
        """Keep of the gradient's rows what they say of curvature, for a while."""
        self.past.plus(self.here)
        self.past.fade(MEMORY)
        self.here.clear()

    def _forget_fresh(self) -> None:
        self.there.clear()
        self.differences[:] = paired.no_sums()

    # --- ends of epochs

    def end_epoch(self) -> None:
        """Decide exactly if all rows have judged; else begin anew with the next epoch."""
        now = self.now
        now.epoch_rows, now.seen = now.seen, 0
        if now.at_rest:
            return
        if now.looks and now.from_start and now.fresh:
            found = self._evidence()._replace(half=0.0)
            self.decide(found, accept=bool(found.verdict(self.threshold)), exact=True)
        elif not now.looks and self._waits:
            now.exact |= now.from_start and self.here.rows > 0
        if now.looks:
            now.fresh, now.look, now.from_start = 0, self.optimizer.start, 1
            self._forget_fresh()
        elif now.exact or (self._waits and not now.refused and self.here.rows):
            self._propose(from_start=True)
        if not now.looks:
            self._begin_epoch()

    def _begin_epoch(self) -> None:
        """Go on with the gradient, or, if it is to be that of all rows, begin it anew."""
        now = self.now
        if self._waits and not now.exact:
            self._pass_by()
        now.from_start = int(self.here.rows == 0)

    # --- what comes out, and what is kept

    def _note(self, found: Evidence, *, accept: bool) -> None:
        now = self.now
        if (now.proposals - 1) % now.every == 0:
            if now.lines == MOST_LINES:
                self.ledger[: MOST_LINES // 2] = self.ledger[::2]
                now.lines, now.every = MOST_LINES // 2, 2 * now.every
            if (now.proposals - 1) % now.every == 0:
                values = (now.proposals, self.here.rows, now.fresh, now.looks, now.radius, now.predicted)
                self.ledger[now.lines] = (*values, found.mean, found.half, self.threshold, float(accept))
                now.lines += 1

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what a checkpoint keeps, copied."""
        numbers = np.array(astuple(self.now), np.float64)
        found = {"numbers": numbers, "both": self.both, "differences": self.differences, "ledger": self.ledger}
        for name in ("here", "there", "past"):
            found |= getattr(self, name).arrays(name)
        return {f"judge_{name}": array.copy() for name, array in found.items()}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take back what `arrays` gave."""
        for field, value in zip(fields(Counters), arrays["judge_numbers"].tolist(), strict=True):
            setattr(self.now, field.name, value if field.type == "float" else int(value))
        mine = {"both": self.both, "differences": self.differences, "ledger": self.ledger}
        for name in ("here", "there", "past"):
            mine |= getattr(self, name).arrays(name)
        for name, array in mine.items():
            array[...] = arrays[f"judge_{name}"]

    def ledger_lines(self) -> dict[str, Any]:
        """Return the decisions, as JSON values."""
        lines = self.ledger[: self.now.lines]
        found: dict[str, Any] = {"every": self.now.every}
        for c, name in enumerate(COLUMNS):
            kind = int if name in WHOLE_NUMBERS else (bool if name == "accepted" else _finite)
            found[name] = [kind(v) for v in lines[:, c]]
        return found

    def result(self, rows: int) -> dict[str, Any]:
        """Return what came of it, as JSON values."""
        now = self.now
        return {
            "proposals": now.proposals,
            "accepted": now.accepted,
            "judging_rows": now.judged,
            "rows": rows,
            "largest_gradient": now.largest,
            "radius": now.radius,
            "at_rest": bool(now.at_rest),
        }


def _finite(v: float) -> float | None:
    """Return a number that JSON knows."""
    return float(v) if math.isfinite(v) else None


def in_words(found: Mapping[str, Any]) -> str:
    """Return what came of it, for people."""
    end = "; a gradient of all rows promised nothing more" if found["at_rest"] else ""
    return (
        f"steps: {found['accepted']:,} of {found['proposals']:,} proposals were taken; {found['judging_rows']:,} of "
        f"{found['rows']:,} row visits judged them, the largest gradient was of {found['largest_gradient']:,} rows{end}"
    )
