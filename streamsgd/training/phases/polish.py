"""The last few passes: from where training ended to the minimum of the whole objective, by L-BFGS.

Passes of rows or batches come near the minimum fast and then circle it; passes of the whole gradient go from near to all digits
fast, but from far slowly. So one kind after the other (Agarwal et al. 2014, JMLR 15).

The objective is that of training: the mean over rows of weight times loss, and the penalty. Losses and gradient are added up in
float64 over the chunks of training, in the order of the data, so that a pass takes the time and memory of an epoch.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.errors import DivergedError
from streamsgd.kernels.sums.objective import Curvature, new_curvature
from streamsgd.messages import counted
from streamsgd.planning.tree import FAN
from streamsgd.training.initial import new_state
from streamsgd.training.job import IN_ORDER
from streamsgd.training.learner import model_of
from streamsgd.training.phases.base import Outcome, PhaseEvent, PhaseKind, Saved, kept, kept_members, prefixed, under
from streamsgd.training.phases.lbfgs import LBFGS, VECTORS, hessian_of
from streamsgd.training.phases.smooth import TOLERANCE, check_objective
from streamsgd.training.tasks.base import Round
from streamsgd.training.tasks.objective import BLOCK, AddObjective, ObjectiveRequest, ObjectiveSums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from streamsgd.features.encoding import Encoding
    from streamsgd.kernels.structs.block import Parts
    from streamsgd.model.model import Model
    from streamsgd.settings.fields import Settings
    from streamsgd.training.job import Job
    from streamsgd.training.phases.lbfgs import Hessian
    from streamsgd.training.tasks.base import ChunkReport

log = logging.getLogger("streamsgd")


COPIES = 3
"""Of its arrays, while a checkpoint is packed."""

MATRICES = 3
"""... how often so many of them are held: added up, in use, and factorised."""

SHARES = 3
"""Sums over chunks that are held beside those of the pass: a chunk's, and one per level of the tree."""

RENEW = 25
"""Passes after which they are added up anew, if it takes that long."""

FAR = 2.0
"""Times the loss of the best constant, beyond which it is the better start."""

CURVATURE = ("diagonal", "members", "block", "every")
"""What a checkpoint keeps of the curvature."""

KEPT = ("first_epoch", "passes", "stopped", "anew", "_bent")
"""What a checkpoint keeps of it as JSON."""


class Polishing:
    """A descent, and the pass that is under way.

    Attributes
    ----------
    first_epoch
        Epochs learned before; the cursor of checkpoints counts on from there.
    passes
        Passes made.
    most
        Passes that may be made.
    stopped
        Why it ended: `gradient` is within the tolerance, `rounding` allows no more, the `passes` are made, no `patience` is
        left; empty while it goes on.

    """

    name = "polish"
    counts = False
    validated = True

    def __init__(self, job: Job, _reached: Callable[[float], None] | None = None) -> None:
        self.job = job
        self.plan = job.plan_in_order
        self._before: Outcome | None = None
        self._best_constant: float | None = None
        self.descent: LBFGS | None = None
        self.first_epoch, self.passes, self.stopped = 0, 0, ""
        self.most = job.settings.polish or 0
        self.anew = False
        """Whether the first start was no good."""
        self._gradient = np.zeros(0)
        self._sums = np.zeros(3)
        """Sizes of losses, weights and rows of this pass so far."""
        self._losses: list[float] = []
        """Of each of its chunks so far."""
        self._curvature: Curvature | None = None
        """Of this pass so far, if it is wanted."""
        self._bent = 0
        """The pass after which it was last known."""

    # --- passes

    def begin(self, before: Outcome) -> None:
        """Start from the weights that were learned."""
        self.first_epoch = before.passes
        self._before = before
        self._best_constant = None if before.view else before.best_constant  # of rows that were chosen it is another
        self._start(before.weights.astype(np.float64).ravel())

    def _start(self, weights: np.ndarray) -> None:
        job = self.job
        l1, l2 = (float(getattr(job.parts.penalty, name, 0.0)) for name in ("l1", "l2"))
        tolerance = TOLERANCE[job.settings.precision]
        self.descent = LBFGS(weights, weights.size - job.n_outputs, l1, l2, tolerance)
        self._gradient = np.zeros(weights.size)

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return bool(self.stopped)

    @property
    def tally(self) -> np.ndarray:
        """What came before: nothing is learned row by row here."""
        return self._known.tally

    @property
    def _known(self) -> Outcome:
        assert self._before is not None, "begin comes first"  # noqa: S101  for the type checker
        return self._before

    def next(self) -> Round:
        """Return some chunks in the order of the data."""
        left = self.most - self.passes
        return Round(AddObjective(self.wanted), IN_ORDER, len(self._losses), self.width, left, again=self.plan.n_chunks(0))

    def take(self, share: ObjectiveSums, reports: Sequence[ChunkReport]) -> Iterator[PhaseEvent]:  # noqa: ARG002
        """Add up; at the end of a pass take the step that it calls for."""
        self._add(share)
        if not self._at_end:
            yield PhaseEvent("chunk", float(self.cursor[0]))
            return
        accepted = self._end_pass()
        note, numbers = self.line(accepted=accepted), self.numbers()
        yield PhaseEvent("polish", float(self.cursor[0]), note, numbers, judge="pass" if accepted else "drop")

    @property
    def cursor(self) -> tuple[int, int]:
        """Epoch and number of the next chunk, passes counting as epochs."""
        return self.first_epoch + self.passes, len(self._losses)

    @property
    def width(self) -> int:
        """How many chunks are added up apart before they are added to the pass: so many workers may have a part in it."""
        if self.wanted.bends and self.wanted.members is None:
            return 1  # the first chunk chooses the block
        return min(max(self.job.lanes.number, FAN), self.plan.n_chunks(0) - len(self._losses))

    @property
    def wanted(self) -> ObjectiveRequest:
        """What is to be added up next."""
        bends = not self._descent.begun or self.passes - self._bent >= RENEW
        members = None if self._curvature is None else self._curvature.members
        every = 1 if self._curvature is None else int(self._curvature.every[0])
        return ObjectiveRequest(self._descent.trial, bends, bool(self._descent.l1), members, every)

    def _add(self, share: ObjectiveSums) -> None:
        """Add the next chunks' losses, gradient and curvature to those of the pass."""
        self._losses += share.losses
        self._sums += share.sums
        self._gradient += share.gradient
        if share.curvature is None:
            return
        if self._curvature is None:
            self._curvature = share.curvature
            return
        self._curvature.diagonal[:] += share.curvature.diagonal
        self._curvature.block[:] += share.curvature.block

    @property
    def _descent(self) -> LBFGS:
        assert self.descent is not None, "begin or restore comes first"  # noqa: S101  for the type checker
        return self.descent

    @property
    def n_free(self) -> int:
        """Weights that the descent moves."""
        return self.job.n_weights

    @property
    def _at_end(self) -> bool:
        """Whether the pass has seen every chunk."""
        return len(self._losses) == self.plan.n_chunks(0)

    def _end_pass(self) -> bool:
        """Take the step that the pass calls for; return whether its weights are the best so far.

        Raises
        ------
        DivergedError
            The objective is not finite where training ended, nor where it began.

        """
        descent, (size, weight, rows) = self._descent, self._sums.tolist()
        self.passes += 1
        total, n = math.fsum(self._losses), max(rows, 1.0)
        first = not descent.begun
        self._gradient /= n
        if first and not self.anew and self._is_far(total / max(weight, 1e-300)):
            log.warning("polishing starts anew from the best constant: the loss where training ended is %.6g", total / n)
            self.anew, accepted = True, False
            self._start(new_state(self.job).weights.astype(np.float64).ravel())
        else:
            hessian = hessian_of(self._curvature, n, self.job.n_outputs)
            accepted = self._tell(total / n, size / n, hessian)
            self._bent = self.passes if accepted and hessian is not None else self._bent
            if not descent.begun:
                raise DivergedError(
                    "polishing: the objective is not finite even at the weights of the start; pass --scale standard, or leave "
                    "--polish out"
                )
        self._gradient[:], self._sums[:], self._losses, self._curvature = 0.0, 0.0, [], None
        self.stopped = descent.stopped or ("passes" if self.passes >= self.most else "")
        return accepted

    def _tell(self, value: float, rounding: float, hessian: Hessian | None) -> bool:
        """Tell the descent what the pass found; return whether its weights are the best so far."""
        return self._descent.tell(value, rounding, self._gradient, hessian)

    def _is_far(self, loss: float) -> bool:
        if not (np.isfinite(loss) and np.isfinite(self._gradient).all()):
            return True
        best = self._best_constant
        return best is not None and loss - best > (FAR - 1.0) * abs(best)

    # --- what comes out

    def model(self) -> Model:
        """Return the model of the best weights so far."""
        return model_of(self.job, self.weights)

    def stop(self, why: str) -> None:
        """End with the best weights so far."""
        self.stopped = why

    def outcome(self) -> Outcome:
        """Return what came before, with the best weights."""
        metrics = {**self._known.metrics, self.name: self.metrics()}
        return replace(self._known, weights=self.weights, passes=self.cursor[0], metrics=metrics)

    @property
    def weights(self) -> np.ndarray:
        """The best weights so far, (n_coordinates, n_outputs), in the precision of the model."""
        return self._shaped(self._descent.weights)

    def _shaped(self, weights: np.ndarray) -> np.ndarray:
        return weights.astype(self.job.settings.precision).reshape(-1, self.job.n_outputs)

    def numbers(self) -> dict[str, float]:
        """Return passes, the most there may be, objective, and largest component of the gradient."""
        value, largest = float(self._descent.value), float(self._descent.largest)
        return {"passes": self.passes, "most_passes": self.most, "objective": value, "gradient": largest}

    def metrics(self) -> dict[str, Any]:
        """Return the same for the model file, and why it ended."""
        return {**self.numbers(), "stopped": self.stopped}

    def line(self, *, accepted: bool) -> str:
        """Return what the pass came to, for people."""
        if not self._descent.begun:
            return f"polish {self.passes:,}: starts anew from the best constant"
        found = "polish {passes:,}: objective {objective:.10g}, gradient {gradient:.2g}".format(**self.numbers())
        return found if accepted else f"{found}; the step was too long"

    # --- checkpoints

    def save(self) -> Saved:
        """Return the descent, and the pass so far."""
        header = {name: getattr(self, name) for name in KEPT}
        header |= {"best_constant": self._best_constant, "descent": self._descent.header(), "losses": self._losses}
        now = {"sums": self._sums, "gradient": self._gradient}
        if self._curvature is not None:
            now |= {name: getattr(self._curvature, name) for name in CURVATURE}
        return Saved(header, prefixed("pass", now) | prefixed("descent", self._descent.arrays()))

    def restore(self, saved: Saved, before: Outcome) -> None:
        """Take back what a checkpoint kept."""
        header, done, descent = saved.header, under("pass", saved.arrays), under("descent", saved.arrays)
        self._before, self._best_constant = before, header["best_constant"]
        self._start(kept(descent, "weights", np.zeros(self.n_free)))
        for name in KEPT:
            setattr(self, name, header[name])
        self._gradient[:], self._sums[:], self._losses = done["gradient"], done["sums"], list(header["losses"])
        self._descent.restore(header["descent"], descent)
        if "members" in done:
            members = kept_members(done, "members", self.job.encoding.n_coordinates)
            again = new_curvature(self._gradient.size, members, self.job.n_outputs, max(1, int(done["every"][0])))
            again.diagonal[:], again.block[:] = done["diagonal"], done["block"]
            self._curvature = again


def polish_bytes(n_weights: int, most: int = BLOCK) -> int:
    """Return the bytes that polishing so many weights takes, checkpoints included; at most so many are in the block."""
    block = min(n_weights, most) ** 2
    return 8 * (COPIES * (n_weights * VECTORS + block * MATRICES) + SHARES * (2 * n_weights + block))


def check_polish(settings: Settings, parts: Parts, _encoding: Encoding) -> None:
    """Refuse to polish what has no gradient, or an objective that is not known.

    Raises
    ------
    SettingsError
        The loss has kinks, or the penalty is not one of streamsgd's, or the optimizer has one of its own.

    """
    check_objective(f"--polish {settings.polish}", parts)


def describe(metrics: dict[str, Any]) -> list[str]:
    """Return what the passes came to, for people."""
    why = {
        "gradient": "as near as the tolerance asks",
        "rounding": "as near as rounding allows",
        "passes": "the passes are made; more would bring it nearer",
        "patience": "no better on rows not learned from",
    }
    return [
        (
            f"polished: {counted(metrics['passes'], 'pass')}, objective {metrics['objective']:.10g}, gradient "
            f"{metrics['gradient']:.2g}: {why[metrics['stopped']]}"
        )
    ]


POLISH = PhaseKind(
    "polish",
    wanted=lambda settings, _parts: bool(settings.polish),
    check=check_polish,
    memory=lambda outline: polish_bytes(outline.n_parameters),
    passes=lambda outline: outline.settings.polish or 0,
    make=Polishing,
    describe=describe,
)
