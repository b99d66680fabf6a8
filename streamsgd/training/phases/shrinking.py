"""How much weights of small data are shrunk that nobody set a penalty for: by what rows held out are the better for.

Rows of categories, texts, lists or bins have so many weights that the epochs, one row at a time, leave them far from where all
rows together want them, and all rows together want them too far out. So there is a descent from a large ridge to a small one, a
few passes of the whole gradient at each; rows held out, and what is usual, say at which one weights are best. They judge too
whether these weights are kept, those of before, or, where they cannot tell, the means of the two: both kinds err in other
places, and a linear model of mean weights is the mean of their scores.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from streamsgd.messages import counted
from streamsgd.training.phases.base import Outcome, PhaseKind, Saved
from streamsgd.training.phases.held_judge import Unasked, is_judged, is_wanted
from streamsgd.training.phases.lbfgs import LBFGS, Hessian
from streamsgd.training.phases.polish import SHARES, polish_bytes
from streamsgd.training.phases.smooth import TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.training.job import Job
    from streamsgd.training.outline import Outline
    from streamsgd.training.tasks.objective import ObjectiveRequest

RIDGES = (30.0, 10.0, 3.0, 1.0, 0.3)
"""Penalties on squared weights, in rows: as many of them would move a weight as much."""

PASSES = 5
"""Over the data at each of them, at most."""

MOST_PASSES = 1 + len(RIDGES) * PASSES + 2
"""With that of the weights of before, that of the means, and that of the ridge's weights if these are kept."""

USUAL, DOUBT = 3.0, 2.0
"""The ridge that is best on most tables, and the evidence, in nats, that one ten times as large or small must bring."""

FIRM = 1.5
"""Nats by which rows held out must prefer one of the two kinds of weights to the means."""

MISSES = 2
"""Ridges one after another that are no better, after which no smaller one is tried."""

MOST_NUMBERS = 4_000_000
"""Numbers and categories of all rows, by a fifth more for every class: what bounds the time, to a second."""

MOST_WEIGHTS, MOST_MOVED = 1 << 19, 1 << 14
"""Weights of the model, and those of them that rows have moved."""

BLOCK = 256
"""Weights whose second derivatives by each other are added up."""


class Shrinking(Unasked):
    """A descent at one ridge after another.

    Attributes
    ----------
    stage
        `path`, then `means`, then, if they are kept, `ridge`: whose weights the next pass judges.
    place, since
        Which ridge it is, and how many passes it had.
    misses
        Ridges since the best one.
    before, latest, shrunk, held
        Mean losses of held-out rows: of the weights of before, of the last ones accepted, of the best ridge's, and of those
        that are kept; None where they are not known.
    ridge
        The best one so far, in rows; 0 for none.
    choice
        What is kept: `before`, `means` or `ridge`.

    """

    name = "shrink"
    n_judges = 3
    kept_fields = ("stage", "place", "since", "misses", "before", "latest", "shrunk", "ridge", "held", "choice")
    kept_arrays: ClassVar = {"best": "_best", "chosen": "chosen", "judges": "judges"}

    def __init__(self, job: Job, reached: Callable[[float], None] | None = None) -> None:
        super().__init__(job, reached, most=MOST_PASSES, idle=not is_small(job.outline))
        self.stage, self.place, self.since, self.misses = "path", 0, 0, 0
        self.before: float | None = None
        self.latest: float | None = None
        self.shrunk: float | None = None
        self.held: float | None = None
        self.ridge, self.choice = 0.0, "before"
        self._moved = np.zeros(0, np.int64)
        self._learned, self._best = np.zeros((2, 0))
        """Weights: of before, and of the best ridge."""

    # --- which weights

    def know(self, before: Outcome) -> None:
        """Take note of the weights of before; the descent moves only those that rows have moved."""
        super().know(before)
        if self.idle:
            return
        self._learned = self.chosen.copy()
        n, n_outputs = self._learned.size, self.job.n_outputs
        moves = self._learned != 0.0
        moves[n - n_outputs :] = True
        self._moved = np.flatnonzero(moves)
        self.idle = len(self._moved) > MOST_MOVED or not np.isfinite(self._learned).all()
        self._best = self._learned[self._moved]

    @property
    def n_free(self) -> int:
        """Weights that the descent moves."""
        return len(self._moved)

    def _start(self, weights: np.ndarray) -> None:
        weights = weights if weights.size == self.n_free else weights[self._moved]
        tolerance = TOLERANCE[self.job.settings.precision]
        self.descent = LBFGS(weights, weights.size - self.job.n_outputs, 0.0, self._l2, tolerance)
        self._gradient = np.zeros(self.job.n_weights)

    @property
    def _l2(self) -> float:
        return RIDGES[self.place] / self.job.data.n_rows

    def _whole(self, weights: np.ndarray) -> np.ndarray:
        """Return the weights of all from those that the descent moves."""
        found = np.zeros(self.job.n_weights)
        found[self._moved] = weights
        return found

    def _means(self) -> np.ndarray:
        return 0.5 * (self._whole(self._best) + self._learned)

    @property
    def wanted(self) -> ObjectiveRequest:
        """What is to be added up next."""
        found = super().wanted._replace(most=BLOCK)
        if self.stage == "path":
            return found._replace(weights=self._whole(found.weights))
        weights = self._means() if self.stage == "means" else self._whole(self._best)
        return found._replace(weights=weights, bends=False, members=None)

    # --- passes

    def _tell(self, value: float, rounding: float, hessian: Hessian | None) -> bool:
        """Tell the descent of the weights that it moves; of those that are only judged it knows nothing."""
        if self.stage != "path":
            return True
        return self._descent.tell(value, rounding, self._gradient[self._moved], self._of_moved(hessian))

    def _of_moved(self, hessian: Hessian | None) -> Hessian | None:
        if hessian is None:
            return None
        places = np.minimum(np.searchsorted(self._moved, hessian.members), self.n_free - 1)
        known = np.flatnonzero(self._moved[places] == hessian.members)
        return Hessian(hessian.diagonal[self._moved], hessian.block[np.ix_(known, known)], places[known])

    def after_pass(self, *, accepted: bool) -> bool:
        """Choose what the next pass is of; return whether the weights of this one are those that are kept."""
        loss, judges = float(self.judges[0] / max(self.judges[1], 1e-300)), float(self.judges[2])
        self.stopped = ""
        if not judges:
            self.stopped = "held out"
            return False
        if self.stage == "path":
            self._along(loss, judges, accepted=accepted)
            return False
        if self.stage == "means":
            return self._choose(loss, judges)
        self._keep("ridge", loss, self._whole(self._best))
        return True

    def _along(self, loss: float, judges: float, *, accepted: bool) -> None:
        """Go on at this ridge, or at the next one, or judge the means."""
        self.latest = loss if accepted else self.latest
        if self.before is None:
            self.before = self.held = loss
            return
        self.since += 1
        if self.since < PASSES and not self._descent.stopped:
            return
        self._note(judges)
        self.place, self.since = self.place + 1, 0
        if self.place == len(RIDGES) or self.misses == MISSES:
            self.stage = "means"
        else:
            self._descent.shrink(self._l2)

    def _note(self, judges: float) -> None:
        """Keep the weights of this ridge if it is the best so far."""
        assert self.latest is not None, "the first pass is accepted"  # noqa: S101  for the type checker
        ridge = RIDGES[self.place]
        if self.shrunk is None or self._gain(self.shrunk, self.latest, judges) > doubt(ridge) - doubt(self.ridge):
            self.ridge, self.shrunk, self.misses = ridge, self.latest, 0
            self._best = self._descent.weights.copy()
        else:
            self.misses += 1

    def _choose(self, means: float, judges: float) -> bool:
        """Choose among the weights of before, of the best ridge, and their means; return whether it is these."""
        assert self.before is not None  # noqa: S101  for the type checker
        assert self.shrunk is not None  # noqa: S101
        to_ridge, to_before = (self._gain(means, loss, judges) for loss in (self.shrunk, self.before))
        if max(to_ridge, to_before) <= FIRM:
            self._keep("means", means, self._means())
            return True
        if to_ridge > to_before:
            self.stage = "ridge"
        else:
            self.stopped = "held out"
        return False

    def _gain(self, first: float, second: float, judges: float) -> float:
        """Return by how many nats so many rows prefer the second of two mean losses."""
        if getattr(self.job.parts.loss, "likelihood", "") == "exact":
            return judges * (first - second)
        return 0.5 * judges * math.log(max(first, 1e-300) / max(second, 1e-300))

    def _keep(self, choice: str, loss: float, weights: np.ndarray) -> None:
        self.choice, self.held, self.chosen, self.stopped = choice, loss, weights, "held out"

    # --- what comes out

    def line_of_end(self) -> str:
        """Say what the passes came to, for people."""
        return in_words(self.metrics())

    def metrics(self) -> dict[str, Any]:
        """Return what was kept, and what held-out rows lost."""
        told = {"choice": self.choice, "ridge": self.ridge, "held_out_before": self.before, "held_out": self.held}
        return {"passes": self.passes, "l2": self.ridge / max(1, self.job.data.n_rows), **told}

    def restore(self, saved: Saved, before: Outcome) -> None:
        """Take back what a checkpoint kept."""
        super().restore(saved, before)
        if not self.idle:
            self._descent.l2 = RIDGES[min(self.place, len(RIDGES) - 1)] / self.job.data.n_rows


def doubt(ridge: float) -> float:
    """Return the nats that a ridge must bring beyond the usual one."""
    return DOUBT * math.log10(ridge / USUAL) ** 2


def is_small(outline: Outline) -> bool:
    """Whether rows are lists of entries, few enough, without a penalty, and judged by rows held out."""
    numbers = outline.n_rows * outline.row_bytes // np.dtype(outline.settings.precision).itemsize
    small = outline.n_weights <= MOST_WEIGHTS and numbers * (4 + outline.n_outputs) // 5 <= MOST_NUMBERS
    return small and not outline.parts.penalty._fields and outline.encoding.is_wide and is_judged(outline)


def in_words(metrics: dict[str, Any]) -> str:
    """Say what the passes came to, for people."""
    passes, before, now = counted(metrics["passes"], "pass"), metrics["held_out_before"], metrics["held_out"]
    if metrics["choice"] == "before":
        return f"shrunk for nothing: {passes}, by which rows held out are no better; the weights are those of before"
    l2 = f"--penalty l2:l2={metrics['l2']:.3g}"
    what = f"the minimum under {l2}" if metrics["choice"] == "ridge" else f"halfway to the minimum under {l2}"
    return (
        f"shrunk: weights are {what}, found in {passes}; the loss of rows held out went from {before:.6g} to {now:.6g}; "
        "--polish none leaves it out"
    )


def _bytes(n_weights: int) -> int:
    """Return the bytes that it takes for so many weights, checkpoints included."""
    return polish_bytes(min(n_weights, MOST_MOVED), BLOCK) + 8 * n_weights * (6 + 2 * SHARES)


SHRINK = PhaseKind(
    "shrink",
    wanted=is_wanted,
    check=lambda _settings, _parts, _encoding: None,
    memory=lambda outline: _bytes(outline.n_weights),
    passes=lambda outline: MOST_PASSES if is_small(outline) else 0,
    make=Shrinking,
    describe=lambda metrics: [in_words(metrics)],
)
