"""Variance reduction out of core: passes that measure the whole gradient at a snapshot of the weights, and passes that learn.

Every pass streams all the data once in the order of the plan, and counts as one epoch, whatever it does:

    pass 0   measures: G = gradient at the first weights, summed in float64, and what bounds the curvature
    then     learns, in shuffled batches corrected by G (`kernels.svrg`)
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
from streamsgd.features.layout import most_entries
from streamsgd.kernels.algebra.eigen import largest_eigenvalue
from streamsgd.kernels.algebra.lbfgs import penalise, steepest
from streamsgd.kernels.learn.fit import settled
from streamsgd.kernels.parts.traits import reduces
from streamsgd.kernels.structs.block import new_scratch
from streamsgd.kernels.structs.state import ETA
from streamsgd.kernels.sums.bounds import COUNTED, LARGEST, ROWS, SUM, measure_chunk
from streamsgd.kernels.sums.objective import LOSS, SIZE, add_chunk, new_curvature
from streamsgd.settings.registry import PARTS
from streamsgd.training.phases.smooth import TOLERANCE

if TYPE_CHECKING:
    from streamsgd.kernels.structs.block import Parts
    from streamsgd.kernels.structs.state import State
    from streamsgd.settings.fields import Settings
    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.training.job import Job


MOST_PRODUCTS = 256
"""Weights per output up to which all their products are added up, ..."""

WORK = 1 << 13
"""... so many of them per row on average: of longer rows only every so many is taken."""

ROUGH = {"float64": 1e-13, "float32": 1e-6}
"""Of the sum of absolute losses: how far rounding of weights and sums may lift the objective."""

COIN = 1 << 40
"""Where the coins are among the addresses of randomness: no plan has so many chunks."""

COPIES = 3
"""Of its arrays: the gradient, the weights in float64, and what a checkpoint packs."""

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
    """Return of every pass that is planned whether it measures, which none does without variance reduction."""
    if not reduces(job.parts.optimizer):
        return [False] * job.epochs
    return measuring(job.settings.seed, job.parts.optimizer.renewal, job.epochs)


class Reduction:
    """The state of variance reduction beside the optimizer's memory: the pass that measures, and what came of it.

    Attributes
    ----------
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

    def __init__(self, job: Job) -> None:
        self.job = job
        self.active = reduces(job.parts.optimizer)
        self._measuring = passes(job)
        self.rate: float | None = None
        self.objective: float | None = None
        self.largest: float | None = None
        self.smoothness: float | None = None
        self.snapshots, self.refused, self.stopped = 0, 0, ""
        self._losses: list[float] = []
        """Of each chunk of this pass so far."""
        self._sums = np.zeros(2)
        """Sizes of losses and rows of this pass so far."""
        self._bounds, self._products = np.zeros(4), np.zeros((0, 0))
        self._gradient = np.zeros(0)
        self._at: np.ndarray | None = None
        """The weights of this pass, in float64."""
        self._scratch: Any = None
        self._entries = -1
        if self.active:
            n = job.encoding.n_coordinates
            self._gradient = np.zeros(n * job.n_outputs)
            self._products = np.zeros((n, n) if n <= MOST_PRODUCTS else (0, 0))

    # --- passes

    def measures(self, number: int) -> bool:
        """Whether a pass measures."""
        return self.active and self._measuring[number]

    @property
    def learning_passes(self) -> int:
        """How many of the planned passes learn."""
        return self._measuring.count(False)

    def add(self, filled: LoadedChunk, state: State, n_penalised: int) -> None:
        """Add a chunk's losses and gradient to those of the pass; the first pass also bounds the curvature."""
        job, entries = self.job, most_entries(filled.block, filled.layout)
        if entries > self._entries:
            self._entries, self._scratch = entries, new_scratch(job.n_outputs, np.float64, entries)
        if self._at is None:
            self._at = self._settle(state, n_penalised)
        tiles, nothing = np.zeros((len(filled.starts), 3)), new_curvature(0, np.zeros(0, np.int32), job.n_outputs, 1)
        rows = (filled.block, filled.starts, filled.counts)
        add_chunk(job.parts.loss, *rows, self._at, self._gradient, nothing, tiles, self._scratch)
        self._losses.append(math.fsum(tiles[:, LOSS].tolist()) if np.isfinite(tiles).all() else math.nan)
        self._sums += tiles[:, SIZE].sum(), filled.counts.sum()
        if self.objective is None and self._works_out:
            measure_chunk(*rows, self._every, self._bounds, self._products, state.grad, self._scratch)

    def _settle(self, state: State, n_penalised: int) -> np.ndarray:
        """Let all weights drift to where the last step leaves them; return them as float64."""
        now = np.empty(state.weights.size, state.weights.dtype)
        settled(self.job.parts, state, n_penalised, now)
        state.weights[:] = now
        state.paid[:], state.sums[ETA] = 0.0, 0.0
        return now.astype(np.float64)

    @property
    def _works_out(self) -> bool:
        return self.rate is not None or self.job.parts.optimizer.learning_rate == 0.0

    @property
    def _every(self) -> int:
        """Of how many rows one is in the products."""
        reached = min(self.job.encoding.n_coordinates, self._entries)
        return max(1, reached * reached // 2 // WORK)

    def end_pass(self, state: State, n_penalised: int) -> None:
        """Make the weights the snapshot, or go back to the last one.

        Raises
        ------
        DivergedError
            Loss or gradient are not finite.

        """
        n, at, gradient = max(float(self._sums[1]), 1.0), self._at, self._gradient
        assert at is not None, "add comes first"  # noqa: S101  for the type checker
        gradient /= n
        value = math.fsum(self._losses) / n
        if not (math.isfinite(value) and np.isfinite(gradient).all()):
            raise DivergedError(
                f"the gradient of all rows is not finite at learning rate {self.job.parts.optimizer.learning_rate:g}: lower "
                "--learning-rate, or leave it out, or pass --scale standard"
            )
        before = gradient.astype(state.weights.dtype)
        l1, l2 = (float(getattr(self.job.parts.penalty, name, 0.0)) for name in ("l1", "l2"))
        value += penalise(at, l1, l2, n_penalised, gradient)
        rough = ROUGH[self.job.settings.precision] * max(float(self._sums[0]) / n, abs(value))
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
        gradient[:], self._sums[:], self._losses, self._at = 0.0, 0.0, [], None

    @property
    def _tolerance(self) -> float:
        wanted = float(self.job.parts.optimizer.tolerance)
        return max(wanted, TOLERANCE["float32"]) if self.job.settings.precision == "float32" else wanted

    def _bound(self, l2: float) -> float:
        """Return L_b."""
        n, b, c = self._bounds[ROWS], float(self.job.batch_size), self.job.parts.loss.curvature
        n, b = max(n, 2.0), min(b, max(n, 1.0))
        mean = self._bounds[SUM] / n
        if self._bounds[COUNTED]:
            self._products /= self._bounds[COUNTED]
            mean = min(mean, largest_eigenvalue(self._products, *np.zeros((2, *self._products.shape))))
        within, alone = n * (b - 1.0) / (b * (n - 1.0)), (n - b) / (b * (n - 1.0))
        return float(max(c * (within * mean + alone * self._bounds[LARGEST]) + l2, 1e-300))

    # --- what comes out

    def metrics(self) -> dict[str, Any]:
        """Return what came of it, for the model file."""
        kept = {name: getattr(self, name) for name in KEPT if name not in ("rate", "largest")}
        return {**kept, "gradient": self.largest, "rate": self.rate or self.job.parts.optimizer.learning_rate}

    def line(self) -> str:
        """Return what the pass came to, for people."""
        found = f"snapshot {self.snapshots:,}: objective {self.objective:.10g}, gradient {self.largest:.2g}"
        return f"{found}, rate {self.metrics()['rate']:.3g}"

    # --- checkpoints

    def header(self) -> dict[str, Any] | None:
        """Return what a checkpoint keeps as JSON."""
        return {name: getattr(self, name) for name in KEPT} if self.active else None

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what a checkpoint keeps as arrays: the pass so far, if it measures."""
        if not self._losses:
            return {}
        kept = {"sums": self._sums, "losses": np.array(self._losses), "gradient": self._gradient, "bounds": self._bounds}
        kept |= {"products": self._products} if self.objective is None else {}
        return {f"svrg.{name}": value for name, value in kept.items()}

    def restore(self, header: dict[str, Any] | None, arrays: dict[str, np.ndarray]) -> None:
        """Take back what a checkpoint kept."""
        if header is None:
            return
        for name in KEPT:
            setattr(self, name, header[name])
        if "svrg.losses" in arrays:
            self._losses = arrays["svrg.losses"].tolist()
            for name in ("sums", "gradient", "bounds", "products"):
                if f"svrg.{name}" in arrays:
                    getattr(self, f"_{name}")[...] = arrays[f"svrg.{name}"]


def svrg_bytes(n_weights: int, n_coordinates: int) -> int:
    """Return the bytes that this takes beside the optimizer's memory, checkpoints included."""
    return 8 * COPIES * (n_weights + (n_coordinates**2 if n_coordinates <= MOST_PRODUCTS else 0))


def check_svrg(settings: Settings, parts: Parts, *, wide: bool) -> None:
    """Refuse what variance reduction is not for.

    Raises
    ------
    SettingsError
        The loss has kinks, or no bound for a rate to be worked out from; clipping; averaging; a single pass; a penalty of
        one's own that lacks what is needed.

    """
    optimizer, loss = parts.optimizer, type(parts.loss).__name__
    if not reduces(optimizer):
        return
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
    if not 0.0 < optimizer.renewal <= 1.0:
        raise SettingsError(f"{name}: renewal={optimizer.renewal:g} is not a probability above 0")
    if wide and not hasattr(parts.penalty, "drift"):
        raise SettingsError(
            f"{name} with --penalty {settings.penalty} needs drift(...), by which weights that a row does not touch move late"
        )
    _check_rate(name, settings, parts)


def _check_rate(name: str, settings: Settings, parts: Parts) -> None:
    rate, loss = parts.optimizer.learning_rate, type(parts.loss).__name__
    if not 0.0 <= rate < math.inf:
        raise SettingsError(f"{name}: learning_rate={rate:g} is not a rate; 0 is one that is worked out of the data")
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
