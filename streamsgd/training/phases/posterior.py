"""Draws from the posterior of the weights: passes to its mode, a look at the noise of batches, and chains that walk.

Each pass adds up gradient and curvature of the log likelihood (`ModeSearch`) and takes Newton's step: one pass after polishing,
or two without a prior, by which rows that separate are found out. Chains then start apart around the mode. Chain c walks with
the rows of the next chunk, chain c + 1 with those of the one after it, and so on: what one chunk has that others have not is
seen in the difference of the chains.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.errors import SettingsError
from streamsgd.kernels.algebra.whiten import gram
from streamsgd.kernels.learn.langevin import Law, draw_normal
from streamsgd.kernels.structs.rows import TAIL
from streamsgd.model.posterior.draws import Draws
from streamsgd.planning.tree import FAN
from streamsgd.settings.registry import make
from streamsgd.training.job import IN_ORDER
from streamsgd.training.learner import model_of
from streamsgd.training.phases.base import Outcome, PhaseEvent, PhaseKind, Saved, kept, prefixed, under
from streamsgd.training.phases.chains import Chains, law_of
from streamsgd.training.phases.mode import ModeSearch
from streamsgd.training.phases.posterior_words import describe, warn
from streamsgd.training.phases.smooth import check_objective
from streamsgd.training.posterior import Walk, choose_walk, drift_inflation, inflation_of, name_of
from streamsgd.training.tasks.base import Round
from streamsgd.training.tasks.walk import DRIFT_ROWS, LookAtNoise, NoiseLook, keys_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from streamsgd.features.encoding import Encoding
    from streamsgd.features.layout import Layout
    from streamsgd.kernels.structs.block import Parts
    from streamsgd.model.model import Model
    from streamsgd.settings.fields import Settings
    from streamsgd.training.job import Job
    from streamsgd.training.tasks.base import ChunkReport

log = logging.getLogger("streamsgd")


MOST_WEIGHTS = 2048
"""Weights whose pairs are added up; of more, variances alone."""

MATRICES = 12
"""Of that size at the same time at most."""

VECTORS = 64
"""Of all weights, likewise."""

MOST_DRAWS = 4000
"""That are kept, all chains together; ..."""

DRAWN_NUMBERS = 1 << 22
"""... of so many weights in all, ..."""

LEAST_DRAWS = 16
"""... but at least so many."""

LOOKED_AT = 4
"""Chunks at whose rows one looks before chains start."""

LOOKED_ROWS = 1 << 14
"""Of each, ..."""

LOOKED_PAIRS = 1 << 31
"""... or as many as take so many products."""

NORMAL = 4
"""What randomness is for, beside that of tasks and chains."""

MUCH = 0.02
"""By which what chunks have apart may widen variances before it is said."""


class PosteriorSampling:
    """The passes, the look, and the walks."""

    name = "posterior"
    counts = False
    validated = False

    def __init__(self, job: Job, _reached: Callable[[float], None] | None = None) -> None:
        settings = job.settings
        self.job, self.n = job, job.n_weights
        self.method = make("method", settings.method or "sgld-cv")
        self.dense = self.n <= MOST_WEIGHTS
        self._plain = bool(self.method.walks) and not self.method.control
        if self._plain and job.plan.n_chunks(0) > 1:
            raise SettingsError(
                f"--method {settings.method} draws every row from all {job.plan.n_rows:,}, and a chunk here holds "
                f"{job.plan.chunk_rows:,}: pass --chunk-rows {job.plan.n_rows}, and --memory that holds them, or take sgld-cv"
            )
        precision = make("prior", settings.prior).precision
        self.mode = ModeSearch(job, precision, dense=self.dense, plain=self._plain)
        self.chains: Chains | None = None
        self._before: Outcome | None = None
        self._chunk = self._pass = 0
        """Of this phase."""
        self._kicks, self._drift = np.zeros(self.n), 0.0

    # --- rounds

    def begin(self, before: Outcome) -> None:
        """Start at the weights that were learned."""
        self._before = before
        self.mode.weights = before.weights.astype(np.float64).ravel()

    @property
    def _known(self) -> Outcome:
        assert self._before is not None, "begin comes first"  # noqa: S101  for the type checker
        return self._before

    @property
    def done(self) -> bool:
        """Whether all chains have come to their ends."""
        return self.chains.done if self.chains else self.mode.found and not self.method.walks

    @property
    def cursor(self) -> tuple[int, int]:
        """Pass and number of the next chunk."""
        return self._known.passes + self._pass, self._chunk

    @property
    def tally(self) -> np.ndarray:
        """What came before: nothing is learned here."""
        return self._known.tally

    @property
    def _epoch(self) -> int:
        """Whose order of chunks: that of the data for sums; chains follow the shuffle, if there is more than one chunk."""
        return self.cursor[0] if self.mode.found and self.job.plan.n_chunks(0) > 1 else IN_ORDER

    @property
    def _n_chunks(self) -> int:
        return self.job.plan_at(self._epoch).n_chunks(max(self._epoch, 0))

    def next(self) -> Round:
        """Return some chunks."""
        n_chunks, at = self._n_chunks, self._chunk
        if not self.mode.found:
            width = min(max(self.job.lanes.number, FAN), n_chunks - at)
            return Round(self.mode.task(), IN_ORDER, at, width, 2, again=n_chunks)
        again = 1 if self._epoch == IN_ORDER else 0
        if self.chains is None:
            pairs = self.n * (self.n if self.dense else 1)
            rows = max(256, min(LOOKED_ROWS, LOOKED_PAIRS // pairs))
            law = Law(1.0, self.mode.rows / self.mode.noise, 0.0, 0.0, 1, 2, 0, 1, 1)
            look = LookAtNoise(self.mode.posterior, law, rows)
            return Round(look, self._epoch, at, min(LOOKED_AT, n_chunks - at), 2, again=again)
        width = min(self.job.settings.chains, n_chunks - at)
        return Round(self.chains.task(at, width), self._epoch, at, width, 2, again=again)

    def take(self, share: Any, reports: Sequence[ChunkReport]) -> Iterator[PhaseEvent]:
        """Add to the pass, or to the chains."""
        self._chunk += len(reports)
        ended = self._chunk >= self._n_chunks
        if not self.mode.found:
            self.mode.add(share)
        elif self.chains is None:
            self._take_look(share)
        else:
            self.chains.take(share)
        if ended:
            self._chunk, self._pass = 0, self._pass + 1
            if not self.mode.found:
                self.mode.end_pass()
        yield PhaseEvent("chunk", float(self.cursor[0]))

    def _take_look(self, share: NoiseLook) -> None:
        """Choose how chains walk.

        Raises
        ------
        SettingsError
            As set, they would run away.

        """
        self._kicks = share.squares / max(share.rows, 1) / self.mode.variance
        self._drift = drift_inflation(share.drifts, float(self._kicks.mean()), DRIFT_ROWS, whole=self.dense)
        chosen = self._choose()
        if not np.isfinite(self._inflation(chosen.law)).all():
            raise SettingsError(
                f"--method {self.job.settings.method}: with a step of {chosen.law.step:g} and {chosen.law.batch:,} rows a "
                f"batch chains run away, first of all that of the weight of {name_of(self.job, int(self._kicks.argmax()))}, "
                "which few rows have; pass a smaller step, a larger batch, or --method laplace"
            )
        if self._drift > MUCH:
            log.warning(
                "rows of a chunk are not like those of all: that widens standard deviations by %.2g %% or more; pass --shuffle "
                "external, or more --memory",
                50.0 * self._drift,
            )
        self.chains = Chains(self.job, self.mode.posterior, chosen, self.mode.rows)

    def _choose(self) -> Walk:
        settings = self.job.settings
        return choose_walk(
            self.method,
            n_rows=self.mode.rows,
            noise=self.mode.noise,
            temperature=settings.temperature,
            n_chains=settings.chains,
            n_draws=self._draws_of_each,
            spread=1.0 if self.dense else float(most_entries(self.job.recipe.layout)),
            kicks=self._kicks,
            plain=self.mode.plain if len(self.mode.plain) else None,
        )

    def _inflation(self, law: Law) -> np.ndarray:
        plain = self.mode.plain if len(self.mode.plain) else None
        return inflation_of(law, self.mode.rows, self._kicks, plain)

    @property
    def _draws_of_each(self) -> int:
        """Draws that are kept of each chain, at most."""
        return max(1, most_draws(self.n, self.job.settings) // self.job.settings.chains)

    # --- what comes out

    def draws(self) -> Draws:
        """Return the posterior for the model file."""
        mode = self.mode.weights
        if self.chains:
            return Draws.of(mode, mode + self.chains.mean, self.chains.covariance(), self.chains.store)
        settings, center = self.job.settings, self.mode.center
        store = np.zeros((settings.chains, self._draws_of_each, self.n), np.float32)
        for number in range(settings.chains):
            chain = self.mode.posterior.chain(self._draws_of_each)
            draw_normal(keys_of(settings.seed, NORMAL, number), 0, math.sqrt(settings.temperature), center, chain)
            store[number] = chain.draws - mode
        covariance = self.mode.variance[None, :]
        if self.dense:
            covariance = np.zeros((self.n, self.n))
            gram(center.whiten, covariance)
        return Draws.of(mode, mode, covariance * settings.temperature, store)

    def metrics(self, draws: Draws) -> dict[str, Any]:
        """Return what there is to say, for the model file."""
        settings, mode = self.job.settings, self.mode
        widths = np.sqrt(draws.variance / (settings.temperature * mode.variance))
        said = {
            "method": settings.method,
            "prior": settings.prior,
            "temperature": settings.temperature,
            "rows": mode.rows,
            "weights": self.n,
            "pairs": self.dense,
            "noise_variance": mode.noise,
            "mode_passes": mode.passes,
            "off": mode.off,
            "sd_over_curvature": [float(widths.min()), float(widths.max())],
            **draws.numbers(),
        }
        return said | (self._walk_metrics(self.chains) if self.chains else {})

    def _walk_metrics(self, chains: Chains) -> dict[str, Any]:
        law, temperature = chains.law, self.job.settings.temperature
        predicted = np.sqrt(self._inflation(law) / temperature)
        known = self.dense and not law.friction
        return {
            **{name: getattr(law, name) for name in ("step", "batch", "burn_in", "thin")},
            "steps": chains.steps,
            "recorded": chains.recorded,
            "row_gradients": law.batch * law.sides * chains.steps * self.job.settings.chains,
            "predicted_sd_over_curvature": [float(predicted.min()), float(predicted.max())] if known else None,
            "chunks_widen_variance": self._drift,
        }

    def model(self) -> Model:
        """Return the model at the mode so far."""
        return model_of(self.job, self.mode.weights.astype(self.job.settings.precision))

    def stop(self, why: str) -> None:
        """Do nothing: chains that ended early would be other draws."""

    def outcome(self) -> Outcome:
        """Return what came before, with the draws, and the weights at the mode."""
        draws = self.draws()
        said = self.metrics(draws)
        warn(said)
        weights = self.mode.weights.astype(self.job.settings.precision).reshape(-1, self.job.n_outputs)
        metrics = {**self._known.metrics, self.name: said}
        return replace(self._known, weights=weights, draws=draws, passes=self.cursor[0] + 1, metrics=metrics)

    # --- checkpoints

    def save(self) -> Saved:
        """Return the state between two rounds."""
        header: dict[str, Any] = {"chunk": self._chunk, "pass": self._pass, "mode": self.mode.header(), "walk": None}
        arrays = prefixed("mode", self.mode.arrays())
        if self.chains:
            header["walk"] = {"law": self.chains.law._asdict(), "steps": self.chains.steps, "drift": self._drift}
            header["chains"] = self.chains.header()
            arrays |= prefixed("chains", self.chains.arrays()) | {"kicks": self._kicks}
        return Saved(header, arrays)

    def restore(self, saved: Saved, before: Outcome) -> None:
        """Take back what a checkpoint kept."""
        header = saved.header
        self._before, self._chunk, self._pass = before, header["chunk"], header["pass"]
        self.mode.restore(header["mode"], under("mode", saved.arrays))
        if (walk := header["walk"]) is None:
            return
        self._kicks, self._drift = kept(saved.arrays, "kicks", np.zeros(self.n)), walk["drift"]
        law = law_of(walk["law"])
        chosen = Walk(law, int(walk["steps"]))
        self.chains = Chains(self.job, self.mode.posterior, chosen, self.mode.rows)
        self.chains.restore(header["chains"], under("chains", saved.arrays))


def most_entries(layout: Layout) -> int:
    """Return the most entries of a row that are planned for: no eigenvalue of a curvature whose diagonal is 1 is larger."""
    return layout.entries + -(-layout.tail_bytes // TAIL)


def most_draws(n_weights: int, settings: Settings) -> int:
    """Return the draws that are kept, all chains together, at most."""
    if settings.draws != "auto":
        return int(settings.draws)
    return min(MOST_DRAWS, max(LEAST_DRAWS, DRAWN_NUMBERS // n_weights))


def posterior_bytes(n_weights: int, settings: Settings) -> int:
    """Return the bytes that sampling takes, checkpoints included."""
    pairs = n_weights**2 if n_weights <= MOST_WEIGHTS else 0
    chains = settings.chains * (pairs + VECTORS * n_weights)
    return 8 * (MATRICES * pairs + VECTORS * n_weights + chains + 4 * n_weights * max(most_draws(n_weights, settings), 1))


def check_posterior(settings: Settings, parts: Parts, encoding: Encoding) -> None:  # noqa: ARG001
    """Refuse to sample what has no posterior.

    Raises
    ------
    SettingsError
        The loss is no likelihood, the prior no distribution, or a penalty is paid beside it.

    """
    method = make("method", settings.method or "sgld-cv")
    if settings.penalty != "none":
        raise SettingsError(
            f"--penalty {settings.penalty} beside a prior would count twice: pass --prior normal:sd=... alone, sd being "
            "1 / sqrt(rows * l2)"
        )
    check_objective(f"--method {settings.method}", parts)
    if getattr(method, "step", 0.0) >= 1.0:
        raise SettingsError(f"--method {settings.method}: a step of 1 goes all the way to the mode; pass one below")
    if getattr(method, "steps", 0) and method.steps <= method.burn_in:
        raise SettingsError(f"--method {settings.method}: no step is left after the burn-in; pass more steps")


POSTERIOR = PhaseKind(
    "posterior",
    wanted=lambda settings, _parts: settings.method is not None,
    check=check_posterior,
    memory=lambda outline: posterior_bytes(outline.n_parameters, outline.settings),
    passes=lambda _outline: 3,
    make=PosteriorSampling,
    describe=describe,
)
