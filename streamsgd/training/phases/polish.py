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
from streamsgd.planning.tree import FAN
from streamsgd.stream.stream import Stream
from streamsgd.training.phases.lbfgs import LBFGS, VECTORS, Hessian
from streamsgd.training.phases.smooth import TOLERANCE, check_objective
from streamsgd.training.tasks.objective import BLOCK, ObjectiveRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streamsgd.compute.executors import Executor
    from streamsgd.kernels.structs.block import Parts
    from streamsgd.settings.fields import Settings
    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.training.job import Job
    from streamsgd.training.tasks.objective import ObjectiveSums

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

KEPT = ("first_epoch", "passes", "stopped", "anew", "_bent")
"""What a checkpoint keeps of it as JSON."""


class Polish:
    """The state of polishing: a descent, and the pass that is under way.

    Attributes
    ----------
    first_epoch
        Epochs learned before; the cursor of checkpoints counts on from there.
    passes
        Passes made.
    stopped
        Why it ended: `gradient` is within the tolerance, `rounding` allows no more, the `passes` are made, no `patience` is
        left; empty while it goes on.

    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.plan = job.plan_in_order
        self.descent: LBFGS | None = None
        self.first_epoch, self.passes, self.stopped = 0, 0, ""
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

    def begin(self, weights: np.ndarray, epoch: int) -> None:
        """Start from these weights, which were learned in so many epochs."""
        self.first_epoch = epoch
        self._start(weights.astype(np.float64).ravel())

    def _start(self, weights: np.ndarray) -> None:
        job = self.job
        l1, l2 = (float(getattr(job.parts.penalty, name, 0.0)) for name in ("l1", "l2"))
        tolerance = TOLERANCE[job.settings.precision]
        self.descent = LBFGS(weights, weights.size - job.n_outputs, l1, l2, tolerance)
        self._gradient = np.zeros(weights.size)

    def chunks(self, executor: Executor) -> Iterator[LoadedChunk]:
        """Yield chunk after chunk, pass after pass, until it is stopped; data of a single chunk is read once."""
        stream, (epoch, chunk) = Stream(self.job.recipe, self.plan, executor), self.cursor
        one = self.plan.n_chunks(0) == 1
        for filled in stream.chunks(epoch, chunk, epoch + 1 if one else self.first_epoch + self.job.settings.polish):
            yield filled
            again = replace(filled, pieces=[], waited=0.0)  # so that its reading is accounted for once
            while one and not self.stopped:
                yield again

    @property
    def begun(self) -> bool:
        """Whether there is a descent."""
        return self.descent is not None

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

    def add(self, share: ObjectiveSums) -> None:
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
    def at_end(self) -> bool:
        """Whether the pass has seen every chunk."""
        return len(self._losses) == self.plan.n_chunks(0)

    def end_pass(self, best_constant: float | None, cold: Callable[[], np.ndarray]) -> bool:
        """Take the step that the pass calls for; return whether its weights are the best so far.

        Parameters
        ----------
        best_constant
            Mean loss of the best constant, or None.
        cold
            Gives the weights that training began with.

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
        if first and not self.anew and self._is_far(total / max(weight, 1e-300), best_constant):
            log.warning("polishing starts anew from the best constant: the loss where training ended is %.6g", total / n)
            self.anew, accepted = True, False
            self._start(cold().astype(np.float64).ravel())
        else:
            hessian = self._hessian(n)
            accepted = descent.tell(total / n, size / n, self._gradient, hessian)
            self._bent = self.passes if accepted and hessian is not None else self._bent
            if not descent.begun:
                raise DivergedError(
                    "polishing: the objective is not finite even at the weights of the start; pass --scale standard, or leave "
                    "--polish out"
                )
        self._gradient[:], self._sums[:], self._losses, self._curvature = 0.0, 0.0, [], None
        self.stopped = descent.stopped or ("passes" if self.passes >= self.job.settings.polish else "")
        return accepted

    def _hessian(self, n: float) -> Hessian | None:
        if self._curvature is None:
            return None
        diagonal, _place, members, block, *_ = self._curvature
        diagonal /= n
        outputs = np.arange(self.job.n_outputs)
        of = (members.astype(np.int64)[:, None] * len(outputs) + outputs).ravel()
        return Hessian(diagonal, block, of)

    def _is_far(self, loss: float, best_constant: float | None) -> bool:
        if not (np.isfinite(loss) and np.isfinite(self._gradient).all()):
            return True
        return best_constant is not None and loss - best_constant > (FAR - 1.0) * abs(best_constant)

    # --- what comes out

    @property
    def tried(self) -> np.ndarray:
        """The weights of this pass, (n_coordinates, n_outputs), in the precision of the model."""
        return self._shaped(self._descent.trial)

    @property
    def weights(self) -> np.ndarray:
        """The best weights so far, likewise."""
        return self._shaped(self._descent.weights)

    def _shaped(self, weights: np.ndarray) -> np.ndarray:
        return weights.astype(self.job.settings.precision).reshape(-1, self.job.n_outputs)

    def numbers(self) -> dict[str, float]:
        """Return passes, the most there may be, objective, and largest component of the gradient."""
        value, largest = float(self._descent.value), float(self._descent.largest)
        return {"passes": self.passes, "most_passes": self.job.settings.polish, "objective": value, "gradient": largest}

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

    def header(self) -> dict[str, Any] | None:
        """Return what a checkpoint keeps as JSON; None before it began."""
        if self.descent is None:
            return None
        return {**{name: getattr(self, name) for name in KEPT}, "descent": self.descent.header()}

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what a checkpoint keeps as arrays."""
        if self.descent is None:
            return {}
        kept = {"sums": self._sums, "losses": np.array(self._losses), "pass": self._gradient, **self.descent.arrays()}
        if self._curvature is not None:
            kept |= {f"pass.{name}": getattr(self._curvature, name) for name in ("diagonal", "members", "block", "every")}
        return {f"polish.{name}": value for name, value in kept.items()}

    def restore(self, header: dict[str, Any] | None, arrays: dict[str, np.ndarray]) -> None:
        """Take back what a checkpoint kept."""
        if header is None:
            return
        kept = {name.removeprefix("polish."): value for name, value in arrays.items() if name.startswith("polish.")}
        self._start(kept["weights"].copy())
        for name in KEPT:
            setattr(self, name, header[name])
        self._gradient[:], self._sums[:], self._losses = kept.pop("pass"), kept.pop("sums"), kept.pop("losses").tolist()
        self._descent.restore(header["descent"], kept)
        if "pass.members" in kept:
            again = new_curvature(
                self._gradient.size, kept["pass.members"].copy(), self.job.n_outputs, int(kept["pass.every"][0])
            )
            again.diagonal[:], again.block[:] = kept["pass.diagonal"], kept["pass.block"]
            self._curvature = again


def polish_bytes(n_weights: int) -> int:
    """Return the bytes that polishing so many weights takes, checkpoints included."""
    block = min(n_weights, BLOCK) ** 2
    return 8 * (COPIES * (n_weights * VECTORS + block * MATRICES) + SHARES * (2 * n_weights + block))


def check_polish(settings: Settings, parts: Parts) -> None:
    """Refuse to polish what has no gradient, or an objective that is not known.

    Raises
    ------
    SettingsError
        The loss has kinks, or the penalty is not one of streamsgd's, or the optimizer has one of its own.

    """
    if settings.polish:
        check_objective(f"--polish {settings.polish}", parts)
