"""Variance reduction out of core: passes that measure the whole gradient at a snapshot of the weights, and passes that learn.

Every pass streams all the data once in the order of the plan, and counts as one epoch, whatever it does:

    pass 0   measures: G = gradient at the first weights, summed in float64, and what bounds the curvature
    then     learns, in shuffled batches corrected by G (`kernels.learn.svrg`)
    then     a coin of probability `renewal`, addressed by seed and pass: measure at the weights as they are, or learn again

The last pass learns. G is exact: no row is left out and none is met at other weights, so convergence is linear (Malinovsky,
Sailanbayev and Richtarik 2023, UAI, of this scheme). The coin of loopless SVRG (Kovalev, Horvath and Richtarik 2020) is thrown
after every step; thrown between passes no chunk is read half and then again, and each snapshot serves whole passes, over which
the corrections cancel: sum over rows of (g_i(s) - G) is 0.

The rate, if none is set, is 1 / L_b, where (Gower et al. 2019, ICML, proposition 3.8, "expected smoothness" of batches of b
out of n)

    L_b = n (b - 1) / (b (n - 1)) L + (n - b) / (b (n - 1)) L_max + l2
    L_max = c max h |x|^2,   L = c lambda_max(1/n sum h x x')       c: `curvature` of the loss

The matrix is that of all rows as long as it has few elements, else of every so many rows; beyond `MOST_PRODUCTS` weights its
trace stands for its eigenvalue. A snapshot whose objective is above that of the last one is not taken: learning goes on from
there at half the rate. A rate that was set stays.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.errors import DivergedError, SettingsError
from streamsgd.kernels.algebra.eigen import largest_eigenvalue
from streamsgd.kernels.algebra.lbfgs import penalise, steepest
from streamsgd.kernels.learn.fit import settled
from streamsgd.kernels.parts.traits import reduces
from streamsgd.kernels.structs.state import ETA
from streamsgd.kernels.sums.bounds import COUNTED, LARGEST, ROWS, SUM
from streamsgd.planning.tree import FAN
from streamsgd.settings.registry import PARTS
from streamsgd.training.phases.around import AroundEpochs
from streamsgd.training.phases.base import Outcome, PhaseEvent, PhaseKind, Saved, prefixed, under
from streamsgd.training.phases.smooth import TOLERANCE
from streamsgd.training.tasks.base import Round
from streamsgd.training.tasks.bounds import MOST_PRODUCTS, AddBounds, Bounds, no_bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from streamsgd.features.encoding import Encoding
    from streamsgd.kernels.structs.block import Parts
    from streamsgd.settings.fields import Settings
    from streamsgd.training.job import Job
    from streamsgd.training.learner import Learner
    from streamsgd.training.tasks.base import ChunkReport

ROUGH = {"float64": 1e-13, "float32": 1e-6}
"""Of the sum of absolute losses: how far rounding of weights and sums may lift the objective."""

COIN = 1 << 40
"""Where the coins are among the addresses of randomness: no plan has so many chunks."""

COPIES = 3
"""Of its arrays: the gradient, the weights in float64, and what a checkpoint packs."""

SHARES = 3
"""Of chunks, while they are merged."""

SUMS = ("sums", "gradient", "bounds", "products")
"""Arrays of a measuring pass."""

KEPT = ("rate", "objective", "largest", "snapshots", "refused", "smoothness", "stopped")
"""What a checkpoint keeps of it as JSON."""


def measuring(seed: int, renewal: float, n_passes: int) -> list[bool]:
    """Return of every pass whether it measures."""
    found: list[bool] = []
    for number in range(n_passes):
        if number == 0 or found[-1] or number + 1 == n_passes:
            found.append(number == 0)
        else:
            word = np.random.SeedSequence([seed, number, COIN]).generate_state(1, np.uint64)[0]
            found.append(int(word) < renewal * 2.0**64)
    return found


def passes(job: Job) -> list[bool]:
    """Return of every pass that is planned whether it measures."""
    return measuring(job.settings.seed, job.parts.optimizer.renewal, job.epochs)


class VarianceReduction(AroundEpochs):
    """Passes that measure, and between them passes that learn.

    Attributes
    ----------
    learning
        The passes that learn; the cursor is theirs.
    rate
        What the data and refused snapshots made of the rate; None if it was set.
    objective, largest
        Loss and penalty, and the largest component of their gradient, at the last snapshot.
    snapshots, refused
        How many there were, and how many were not taken.
    smoothness
        L_b of the first pass.
    stopped
        `gradient` once it is within the tolerance.

    """

    name = "svrg"

    def __init__(self, job: Job, reached: Callable[[float], None] | None = None) -> None:
        super().__init__(job, reached)
        self._measuring = passes(job)
        self.rate: float | None = None
        self.objective: float | None = None
        self.largest: float | None = None
        self.smoothness: float | None = None
        self.snapshots, self.refused, self.stopped = 0, 0, ""
        self._at: np.ndarray | None = None
        """The weights of this pass, in float64."""
        self._total = self._nothing()

    def _nothing(self) -> Bounds:
        return no_bounds(self.job.encoding.n_coordinates, self.job.n_outputs)

    # --- rounds

    @property
    def learner(self) -> Learner:
        """Whose weights are measured and learn."""
        return self.learning.learner

    @property
    def done(self) -> bool:
        """Whether all passes are over, or the gradient is within the tolerance."""
        return self.learning.done or bool(self.stopped)

    @property
    def measures(self) -> bool:
        """Whether this pass measures."""
        return self._measuring[self.cursor[0]]

    def begin(self, before: Outcome) -> None:
        """Do nothing: a learner begins where it is made."""

    def next(self) -> Round:
        """Return some chunks to be measured, or the next one to be learned."""
        if not self.measures:
            return self.learning.next()
        if self._at is None:
            self._at = self._settle()
        epoch, chunk = self.cursor
        width = min(FAN, self.job.plan.n_chunks(epoch) - chunk)
        task = AddBounds(self._at, bounded=self.objective is None and self._works_out)
        return Round(task, epoch, chunk, width, self.learning.epochs - epoch)

    def _settle(self) -> np.ndarray:
        """Let all weights drift to where the last step leaves them; return them as float64."""
        state = self.learner.state
        now = np.empty(state.weights.size, state.weights.dtype)
        settled(self.job.parts, state, self.learner.n_penalised, now)
        state.weights[:] = now
        state.paid[:], state.sums[ETA] = 0.0, 0.0
        return now.astype(np.float64)

    @property
    def _works_out(self) -> bool:
        return self.rate is not None or self.job.parts.optimizer.learning_rate == 0.0

    def take(self, share: Any, reports: Sequence[ChunkReport]) -> Iterator[PhaseEvent]:
        """Add up what was measured, or go on with what was learned."""
        if not self.measures:
            yield from self.learning.take(share, reports)
            return
        self._total = self._total.merge(share)
        epoch, plan = self.cursor[0], self.job.plan
        self.learning.chunk += len(reports)
        last = self.learning.chunk == plan.n_chunks(epoch)
        passes = epoch + (1.0 if last else plan.rows_before(epoch, self.learning.chunk) / plan.n_rows)
        yield PhaseEvent("chunk", passes)
        if last:
            self._end_pass()
            self.learning.skip_pass()
            self.learner.go_on_at(self.rate)
            numbers = {key: value for key, value in self.metrics().items() if isinstance(value, float | int)}
            yield PhaseEvent("snapshot", passes, self.line(), numbers)

    def _end_pass(self) -> None:
        """Make the weights the snapshot, or go back to the last one.

        Raises
        ------
        DivergedError
            Loss or gradient are not finite.

        """
        total, at, state, n_penalised = self._total, self._at, self.learner.state, self.learner.n_penalised
        assert at is not None, "next comes first"  # noqa: S101  for the type checker
        n, gradient = max(float(total.sums[1]), 1.0), total.gradient
        gradient /= n
        value = math.fsum(total.losses) / n
        if not (math.isfinite(value) and np.isfinite(gradient).all()):
            raise DivergedError(
                f"the gradient of all rows is not finite at learning rate {self.job.parts.optimizer.learning_rate:g}: lower "
                "--learning-rate, or leave it out, or pass --scale standard"
            )
        before = gradient.astype(state.weights.dtype)
        l1, l2 = (float(getattr(self.job.parts.penalty, name, 0.0)) for name in ("l1", "l2"))
        value += penalise(at, l1, l2, n_penalised, gradient)
        rough = ROUGH[self.job.settings.precision] * max(float(total.sums[0]) / n, abs(value))
        if self.rate is not None and self.objective is not None and value > self.objective + rough:
            self.rate *= 0.5
            self.refused += 1
            state.weights[:] = state.slots[0]
        else:
            if self._works_out and self.objective is None:
                self.smoothness = self._bound(l2)
                self.rate = 1.0 / self.smoothness
            state.slots[0], state.slots[1] = state.weights, before
            self.objective, self.largest = value, float(steepest(at, gradient, l1, n_penalised, gradient))
            self.snapshots += 1
            known = type(self.job.parts.penalty) in PARTS["penalty"].values()
            self.stopped = "gradient" if known and self.largest <= self._tolerance else ""
        self._total, self._at = self._nothing(), None

    @property
    def _tolerance(self) -> float:
        wanted = float(self.job.parts.optimizer.tolerance)
        return max(wanted, TOLERANCE["float32"]) if self.job.settings.precision == "float32" else wanted

    def _bound(self, l2: float) -> float:
        """Return L_b."""
        bounds, products = self._total.bounds, self._total.products
        n, b, c = bounds[ROWS], float(self.job.batch_size), self.job.parts.loss.curvature
        n, b = max(n, 2.0), min(b, max(n, 1.0))
        mean = bounds[SUM] / n
        if bounds[COUNTED] and products.size:
            products /= bounds[COUNTED]
            mean = min(mean, largest_eigenvalue(products, *np.zeros((2, *products.shape))))
        within, alone = n * (b - 1.0) / (b * (n - 1.0)), (n - b) / (b * (n - 1.0))
        return float(max(c * (within * mean + alone * bounds[LARGEST]) + l2, 1e-300))

    # --- what comes out

    def metrics(self) -> dict[str, Any]:
        """Return what came of it, for the model file."""
        kept = {name: getattr(self, name) for name in KEPT if name not in ("rate", "largest")}
        return {**kept, "gradient": self.largest, "rate": self.rate or self.job.parts.optimizer.learning_rate}

    def line(self) -> str:
        """Return what the pass came to, for people."""
        found = f"snapshot {self.snapshots:,}: objective {self.objective:.10g}, gradient {self.largest:.2g}"
        return f"{found}, rate {self.metrics()['rate']:.3g}"

    def outcome(self) -> Outcome:
        """Return what was learned."""
        outcome = self.learning.outcome()
        outcome.metrics[self.name] = self.metrics()
        return outcome

    def save(self) -> Saved:
        """Return the learner, the cursor, and the measuring pass so far."""
        learning, total = self.learning.save(), self._total
        header = {**{name: getattr(self, name) for name in KEPT}, "learning": learning.header, "losses": total.losses}
        arrays = prefixed("learning", learning.arrays)
        if total.losses:
            wanted = SUMS if self.objective is None else SUMS[:-1]
            arrays |= prefixed("pass", {name: getattr(total, name) for name in wanted} | {"at": self._at})
        return Saved(header, arrays)

    def restore(self, saved: Saved, before: Outcome) -> None:
        """Go to where a checkpoint was saved."""
        header, measured = saved.header, under("pass", saved.arrays)
        self.learning.restore(Saved(header["learning"], under("learning", saved.arrays)), before)
        for name in KEPT:
            setattr(self, name, header[name])
        self.learner.go_on_at(self.rate)
        self._total.losses += header["losses"]
        if measured:
            self._at = measured.pop("at").copy()
            if self._at.shape != (self.job.n_weights,):
                raise ValueError(f"at is {self._at.shape}, not of {self.job.n_weights} weights")
            for name, array in measured.items():
                getattr(self._total, name)[...] = array


def svrg_bytes(n_weights: int, n_coordinates: int) -> int:
    """Return the bytes that this takes beside the optimizer's memory, checkpoints included."""
    return 8 * (COPIES + SHARES) * (n_weights + (n_coordinates**2 if n_coordinates <= MOST_PRODUCTS else 0))


def check_svrg(settings: Settings, parts: Parts, encoding: Encoding) -> None:
    """Refuse what variance reduction is not for.

    Raises
    ------
    SettingsError
        The loss has kinks, or no bound for a rate to be worked out from; clipping; averaging; a single pass; a penalty of
        one's own that lacks what is needed.

    """
    optimizer, loss = parts.optimizer, type(parts.loss).__name__
    name = f"--optimizer {type(optimizer).__name__.lower()}"
    if settings.average != "none":
        raise SettingsError(f"{name} comes to rest at the minimum, where there is nothing to average: leave --average out")
    if settings.epochs == 1:
        raise SettingsError(f"{name} measures the gradient in one pass before it learns in another: pass --epochs 2 or more")
    if not getattr(parts.loss, "smooth", True):
        other = {"Hinge": "--loss squared-hinge", "Quantile": "--loss huber"}.get(loss, "another loss")
        raise SettingsError(f"{name} needs a loss without kinks, and {loss} has some; pass {other}, or another optimizer")
    clips = [f"--{key.replace('_', '-')}" for key in ("clip_norm", "clip_value") if getattr(settings, key) is not None]
    if clips:
        raise SettingsError(f"{name} keeps its gradients without bias, which clipping would bring in: leave {clips[0]} out")
    if encoding.is_wide and not hasattr(parts.penalty, "drift"):
        raise SettingsError(
            f"{name} with --penalty {settings.penalty} needs drift(...), by which weights that a row does not touch move late"
        )
    _check_rate(name, settings, parts)


def _check_rate(name: str, settings: Settings, parts: Parts) -> None:
    rate, loss = parts.optimizer.learning_rate, type(parts.loss).__name__
    if rate:
        return
    if not hasattr(parts.loss, "curvature"):
        raise SettingsError(
            f"{name} has no rate for {loss}, whose curvature has no bound: pass --learning-rate, or take --polish instead"
        )
    if type(parts.penalty) not in PARTS["penalty"].values():
        known = ", ".join(PARTS["penalty"])
        raise SettingsError(f"{name} works its rate out for the penalties {known} only: pass --learning-rate")
    if settings.rate_scaling in ("linear", "sqrt"):
        raise SettingsError(f"{name} works its rate out for the batches there are: leave --rate-scaling out")


def describe(metrics: dict[str, Any]) -> list[str]:
    """Return what came of it, for people."""
    why = "as near as the tolerance asks" if metrics["stopped"] else "the passes are made; more would bring it nearer"
    return [
        (
            f"svrg: {metrics['snapshots']:,} snapshots at rate {metrics['rate']:.3g}; at the last one objective "
            f"{metrics['objective']:.10g}, gradient {metrics['gradient']:.2g}: {why}"
        )
    ]


SVRG = PhaseKind(
    "svrg",
    wanted=lambda settings, parts: reduces(parts.optimizer) and not settings.noise,
    check=check_svrg,
    memory=lambda outline: svrg_bytes(outline.n_parameters, outline.n_coordinates),
    passes=lambda outline: outline.epochs,
    make=VarianceReduction,
    learns=lambda job: passes(job).count(False),
    describe=describe,
)
