"""The last few passes: from where training ended to the minimum of the whole objective, by L-BFGS.

Passes of rows or batches come near the minimum fast and then circle it; passes of the whole gradient go from near to all digits
fast, but from far slowly. So one kind after the other (Agarwal et al. 2014, JMLR 15).

The objective is that of training: the mean over rows of weight times loss, and the penalty. Losses and gradient are added up in
float64 over the chunks of training, in the order of the data, so that a pass takes the time and memory of an epoch.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamsgd.descent import VECTORS, Descent, Hessian
from streamsgd.errors import DivergedError, SettingsError
from streamsgd.kernels.loops import new_scratch
from streamsgd.kernels.objective import LOSS, MOST_OUTPUTS, SIZE, WEIGHT, Curvature, add_chunk, new_curvature
from streamsgd.layout import most_entries
from streamsgd.merging import FAN
from streamsgd.registry import PARTS
from streamsgd.stream import Filled, Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streamsgd.executors import Executor
    from streamsgd.job import Job
    from streamsgd.kernels.loops import Parts
    from streamsgd.settings import Settings

log = logging.getLogger("streamsgd")

TOLERANCE = {"float64": 1e-8, "float32": 1e-6}
"""Largest component of the gradient at which to stop; rounding the weights to float32 brings one of about 1e-7 back."""

COPIES = 3
"""Of its arrays, while a checkpoint is packed."""

BLOCK = 1024
"""Weights whose second derivatives by each other are added up, and ..."""

MATRICES = 3
"""... how often so many of them are held: added up, in use, and factorised."""

SHARES = 3
"""Sums over chunks that are held beside those of the pass: a chunk's, and one per level of the tree."""

RENEW = 25
"""Passes after which they are added up anew, if it takes that long."""

WORK = 1 << 13
"""Pairs of weights that a row may add to, on average; of longer rows only every so many is taken, ..."""

ROWS_PER_WEIGHT = 64
"""... but as many rows per weight of the block as this, if there are."""

FAR = 2.0
"""Times the loss of the best constant, beyond which it is the better start."""

KEPT = ("first_epoch", "passes", "stopped", "anew", "_bent")
"""What a checkpoint keeps of it as JSON."""


class Wanted(NamedTuple):
    """What is to be added up over rows."""

    weights: np.ndarray
    """float64 (n,): at which."""
    bends: bool
    """Whether second derivatives are."""
    zeros: bool
    """Whether weights may be 0 by l1."""
    members: np.ndarray | None
    """int32: the coordinates of the block of second derivatives; None if the chunk is to choose them."""
    every: int
    """Of how many rows one is in the block."""

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return self.weights.nbytes + (0 if self.members is None else self.members.nbytes)


@dataclass(slots=True)
class Share:
    """What some chunks add to a pass."""

    losses: list[float]
    """Of each of them."""
    sums: np.ndarray
    """float64 (3,): sizes of losses, weights and rows."""
    gradient: np.ndarray
    """float64 (n,)."""
    curvature: Curvature | None

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        bent = () if self.curvature is None else (self.curvature.diagonal, self.curvature.block)
        return int(self.gradient.nbytes + sum(array.nbytes for array in bent))


def share_of(job: Job, filled: Filled, wanted: Wanted) -> Share:
    """Return what a chunk adds to a pass."""
    entries = most_entries(filled.block, filled.layout)
    n = wanted.weights.size
    curvature = _curvature_for(job, filled, wanted, entries) if wanted.bends else None
    gradient = np.zeros(n)
    nothing = new_curvature(0, np.zeros(0, np.int32), job.n_outputs, 1)
    tiles = _add(job, filled, wanted, gradient, curvature or nothing)
    loss = math.fsum(tiles[:, LOSS].tolist()) if np.isfinite(tiles).all() else math.nan
    return Share([loss], np.array([tiles[:, SIZE].sum(), tiles[:, WEIGHT].sum(), filled.counts.sum()]), gradient, curvature)


def _add(job: Job, filled: Filled, wanted: Wanted, gradient: np.ndarray, curvature: Curvature) -> np.ndarray:
    scratch = new_scratch(job.n_outputs, np.float64, most_entries(filled.block, filled.layout))
    tiles, rows = np.zeros((len(filled.starts), 3)), (filled.block, filled.starts, filled.counts)
    add_chunk(job.parts.loss, *rows, wanted.weights, gradient, curvature, tiles, scratch)
    return tiles


def _curvature_for(job: Job, filled: Filled, wanted: Wanted, entries: int) -> Curvature:
    """Return zeros for all weights and the block: all weights, or those with the largest curvature in this chunk, or none.

    With l1 there is none: where columns depend on one another, as values of a category do, there are directions in which
    l1 alone holds the weights, and a step as long as the loss allows is refused again and again.
    """
    n_weights, n_outputs = wanted.weights.size, job.n_outputs
    if wanted.members is not None:
        return new_curvature(n_weights, wanted.members, n_outputs, wanted.every)
    n_coordinates = n_weights // n_outputs
    most = 0 if wanted.zeros or n_outputs > MOST_OUTPUTS else BLOCK // n_outputs
    members = np.arange(min(most, n_coordinates), dtype=np.int32)
    if 0 < most < n_coordinates:
        alone = new_curvature(n_weights, members[:0], n_outputs, 1)
        _add(job, filled, wanted, np.zeros(n_weights), alone)
        sizes = alone.diagonal.reshape(-1, n_outputs).sum(axis=1)
        members = np.sort(np.argsort(-sizes, kind="stable")[:most]).astype(np.int32)
    return new_curvature(n_weights, members, n_outputs, _every(job, len(members), entries))


def _every(job: Job, n_members: int, entries: int) -> int:
    """Return of how many rows one is added to the block."""
    n_outputs, layout = job.n_outputs, job.recipe.layout
    reached = min(n_members, entries) if layout.mixed else n_members
    enough = job.plan.n_rows // max(1, ROWS_PER_WEIGHT * n_members * n_outputs)
    return max(1, min((reached * n_outputs) ** 2 // 2 // WORK, enough))


def join_shares(a: Share, b: Share) -> Share:
    """Return what the chunks of both add, those of the first before."""
    curvature = a.curvature
    if curvature is not None and b.curvature is not None:
        curvature = curvature._replace(
            diagonal=curvature.diagonal + b.curvature.diagonal, block=curvature.block + b.curvature.block
        )
    return Share(a.losses + b.losses, a.sums + b.sums, a.gradient + b.gradient, curvature)


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
        self.descent: Descent | None = None
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
        self.descent = Descent(weights, weights.size - job.n_outputs, l1, l2, tolerance)
        self._gradient = np.zeros(weights.size)

    def chunks(self, executor: Executor) -> Iterator[Filled]:
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
    def wanted(self) -> Wanted:
        """What is to be added up next."""
        bends = not self._descent.begun or self.passes - self._bent >= RENEW
        members = None if self._curvature is None else self._curvature.members
        every = 1 if self._curvature is None else int(self._curvature.every[0])
        return Wanted(self._descent.trial, bends, bool(self._descent.l1), members, every)

    def add(self, share: Share) -> None:
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
    def _descent(self) -> Descent:
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


def check_objective(what: str, parts: Parts) -> None:
    """Refuse to do `what` to a loss without a second derivative, or to an objective that is not known.

    Raises
    ------
    SettingsError
        As `check_polish`.

    """
    if not getattr(parts.loss, "smooth", True):
        name = type(parts.loss).__name__
        other = {"Hinge": "; take --loss squared-hinge", "Quantile": "; take --loss huber"}.get(name, "")
        raise SettingsError(f"{what} needs a loss without kinks, and {name} has some{other}")
    if type(parts.penalty) not in PARTS["penalty"].values():
        raise SettingsError(f"{what} knows the penalties {', '.join(PARTS['penalty'])} only")
    own = [name for name in ("l1", "l2", "weight_decay") if getattr(parts.optimizer, name, 0.0)]
    if own:
        raise SettingsError(
            f"{what} minimises the loss and --penalty, but {type(parts.optimizer).__name__.lower()} "
            f"has {own[0]} of its own: set it to 0, and pass --penalty l2 or elastic-net"
        )
