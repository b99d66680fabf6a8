"""Phases: stages of a run. Each asks for rounds and takes what they bring until it is done, and owns its state alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from streamsgd.features.encoding import Encoding
    from streamsgd.kernels.structs.block import Parts
    from streamsgd.model.memory import Memory
    from streamsgd.model.model import Model
    from streamsgd.model.posterior.draws import Draws
    from streamsgd.model.probability.score_map import ScoreMap
    from streamsgd.model.probability.sketch import ScoreSketch, Spread
    from streamsgd.settings.fields import Settings
    from streamsgd.training.job import Job
    from streamsgd.training.outline import Outline
    from streamsgd.training.tasks.base import ChunkReport, Round


class View(Protocol):
    """How later phases see the rows, and what is done when all are over: of a phase that chose among the rows."""

    def refine(self, work: Round) -> Round:
        """Return a round of a later phase as it is to be run."""

    def settle(self, weights: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the final weights, (n_coordinates, n_outputs), as they are to be saved, and metrics about it."""


@dataclass
class Outcome:
    """What a run has come to after some phases."""

    job: Job
    """Its parts are those that learned last: the end of a race brings another optimizer."""
    weights: np.ndarray
    """(n_coordinates, n_outputs)."""
    tally: np.ndarray = field(default_factory=lambda: np.zeros(3))
    """float64 (3,): weighted loss before learning, weight and number of the rows learned."""
    first: np.ndarray = field(default_factory=lambda: np.zeros(3))
    """The same of the first pass alone, in which every row is new; zero where it did not end, or all rows were new."""
    latest: np.ndarray = field(default_factory=lambda: np.zeros(3))
    """The same of the last pass that ended, of rows that were learned before; zero where there was none."""
    epochs: int = 0
    """Passes that learned, and that measured for them."""
    passes: int = 0
    """All passes: the next phase's cursor goes on from there."""
    steps: int = 0
    clipped: int = 0
    """Rows whose score was brought within what the loss makes sense for, where these are counted."""
    lost: int = 0
    """Rows that were left out with late lanes, each as often as it was."""
    race: dict[str, Any] | None = None
    best_constant: float | None = None
    """Mean loss of the best constant prediction, where it is known."""
    covariance: np.ndarray | None = None
    """float64 (n_weights, n_weights), if a phase has found it."""
    draws: Draws | None = None
    """From the posterior, if there are any."""
    conformal: ScoreSketch | None = None
    """Of held-out rows, if there is one."""
    spread: Spread | None = None
    """What the residuals of a regression are divided by, if they are."""
    score_map: ScoreMap | None = None
    """From scores to log-odds that hold on held-out rows, if there is one."""
    memory: Memory | None = None
    """What the optimizer remembers, if it is to be kept."""
    ledger: dict[str, Any] | None = None
    """Decisions of the steps, where they decide something: of bounded length, for the report and the model's provenance."""
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By phase, what it has to say of itself: for the model file and the report."""
    view: tuple[str, View] | None = None
    """A phase that chose among the rows, and how later ones see them."""


class PhaseEvent(NamedTuple):
    """What a phase tells after a round."""

    kind: str
    """As of `events.Event`."""
    epoch: float
    """Passes done."""
    note: str = ""
    metrics: dict[str, float] = {}  # noqa: RUF012  never changed
    judge: Literal["", "due", "pass", "drop"] = ""
    """What is to be done with held-out rows: nothing; judge if it is time; judge a whole pass; drop what a refused pass saw."""


class Saved(NamedTuple):
    """The state of a phase in a checkpoint."""

    header: dict[str, Any]
    """JSON."""
    arrays: dict[str, np.ndarray]


class Phase(Protocol):
    """One stage of a run."""

    name: str
    """Of its state in a checkpoint, and of its metrics in the model."""
    counts: bool
    """Whether the rows of its first pass are counted: filtered, skipped, held out."""
    validated: bool
    """Whether validation judges the weights that it passes through, and may choose among them."""

    @property
    def done(self) -> bool:
        """Whether it has ended."""

    @property
    def cursor(self) -> tuple[int, int]:
        """Pass, those of earlier phases included, and number of the next chunk."""

    @property
    def tally(self) -> np.ndarray:
        """float64 (3,): weighted loss before learning, weight and number of the rows learned so far."""

    def begin(self, before: Outcome) -> None:
        """Start from what earlier phases came to."""

    def next(self) -> Round:
        """Return the next round."""

    def take(self, share: Any, reports: Sequence[ChunkReport]) -> Iterator[PhaseEvent]:
        """Take what the round brought, None if all of it was lost; yield what there is to tell."""

    def model(self) -> Model:
        """Return the model by which held-out rows are judged now."""

    def stop(self, why: str) -> None:
        """End early: for want of `patience`, or for a `callback`."""

    def outcome(self) -> Outcome:
        """Return what the run has come to with this phase."""

    def save(self) -> Saved:
        """Return the state between two rounds."""

    def restore(self, saved: Saved, before: Outcome) -> None:
        """Take back what `save` gave, instead of `begin`."""


class PhaseKind(NamedTuple):
    """A row of `phases.PHASES`: what preparing a job asks before anything runs."""

    name: str
    wanted: Callable[[Settings, Parts], bool]
    """Whether a run of these settings and parts has such a phase."""
    check: Callable[[Settings, Parts, Encoding], None]
    """Raises SettingsError where it cannot be."""
    memory: Callable[[Outline], int]
    """Bytes, checkpoints included, of a phase that runs."""
    passes: Callable[[Outline], int]
    """Over the data, at most; none says that it leaves all as it is, and takes no memory."""
    make: Callable[[Job, Callable[[float], None]], Phase]
    """Builds the phase of a job; the function is to be called with the passes done at 1024, 2048 ... rows."""
    learns: Callable[[Job], int] = lambda _job: 0
    """Passes that learn every row."""
    describe: Callable[[dict[str, Any]], list[str]] = lambda _metrics: []
    """Lines for people about its metrics."""


def kept(arrays: Mapping[str, np.ndarray], name: str, like: np.ndarray) -> np.ndarray:
    """Return a copy of a saved array that takes the place of another; kernels trust its shape.

    Raises
    ------
    ValueError
        It is of another type or shape.

    """
    array = arrays[name]
    if (array.dtype, array.shape) != (like.dtype, like.shape):
        raise ValueError(f"{name} is {array.dtype} {array.shape}, not {like.dtype} {like.shape}")
    return array.copy()


def kept_members(arrays: Mapping[str, np.ndarray], name: str, n: int) -> np.ndarray:
    """Return a copy of saved places among n, each once.

    Raises
    ------
    ValueError
        They are not.

    """
    places = arrays[name]
    if places.dtype.kind != "i" or places.ndim != 1 or len(np.unique(places)) < len(places):
        raise ValueError(f"{name} are not places, each once")
    if len(places) and not (places.min() >= 0 and places.max() < n):
        raise ValueError(f"{name} are not within {n:,}")
    return places.copy()


def prefixed(name: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays under a name: `name.key`."""
    return {f"{name}.{key}": np.ascontiguousarray(value) for key, value in arrays.items()}


def under(name: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what `prefixed` put under a name."""
    start = f"{name}."
    return {key.removeprefix(start): value for key, value in arrays.items() if key.startswith(start)}
