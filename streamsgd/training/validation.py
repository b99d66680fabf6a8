"""Validation: rows held out of training, or a data set of its own; when to stop, and which weights to keep."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.data.open import open_data
from streamsgd.model.evaluate import Evaluator
from streamsgd.model.evaluation import named, new_metrics
from streamsgd.stream.held import NOTHING_HELD
from streamsgd.stream.loader import check_loader
from streamsgd.training.classes.class_weights import of_population
from streamsgd.training.memory import VALID_BLOCK_BYTES
from streamsgd.training.tasks.base import held_metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.compute.executors import Executor
    from streamsgd.model.metrics import Metrics
    from streamsgd.model.model import Model
    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.training.job import Job


@dataclass
class Validator:
    """Scores weights on rows that were not learned from, remembers the best, and loses patience.

    Held-out rows are scored as their chunk streams by, after the chunk's other rows were learned: no extra pass, and every
    one counts once per epoch. A data set of its own is scored whole at each judgement.
    """

    job: Job
    evaluator: Evaluator | None = None
    best_loss: float = np.inf
    best_weights: np.ndarray | None = None
    misses: int = 0
    judged_rows: int = 0
    history: list[float] = field(default_factory=list)
    last: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    """What was measured of `best_weights`."""
    exhausted: bool = False

    def __post_init__(self) -> None:
        self.epoch_metrics = new_metrics(self.job.parts.loss, self.job.target)
        self.window = new_metrics(self.job.parts.loss, self.job.target)

    @property
    def active(self) -> bool:
        """Whether there is anything to judge by."""
        return self.evaluator is not None or bool(self.job.recipe.held)

    def watch(self, filled: LoadedChunk, model: Callable[[], Model]) -> None:
        """Score the held-out rows of a chunk."""
        self.take(held_metrics(self.job, filled, model))

    def take(self, found: Metrics | None) -> None:
        """Take in the metrics of a chunk's held-out rows, scored elsewhere."""
        if found is not None:
            self.epoch_metrics.merge(found)
            self.window.merge(found)

    def due(self, rows: int) -> bool:
        """Whether a judgement within the epoch is due after so many rows."""
        every = self.job.settings.validate_every
        if not self.active or every is None or rows - self.judged_rows < every:
            return False
        self.judged_rows = rows
        return True

    def judge(self, model: Callable[[], Model], *, end_of_epoch: bool) -> str:
        """Judge the model; return a line about it, or nothing."""
        if not self.active:
            return ""
        if self.evaluator is not None:
            found = self.evaluator.evaluate(of_population(self.job, model()))
        else:
            found = named(self.epoch_metrics if end_of_epoch else self.window, self.job.parts.loss)
            self.window = new_metrics(self.job.parts.loss, self.job.target)
            if end_of_epoch:
                self.epoch_metrics = new_metrics(self.job.parts.loss, self.job.target)
        if "loss" not in found:  # no held-out row came by, which is no reason to lose patience
            return ""
        self.last = found
        # Windows of held-out rows differ from one another; only whole epochs compare like with like, unless asked.
        self._count(found["loss"], model)
        return ", ".join(f"{key} {value:.6g}" for key, value in self.last.items() if "error" not in key and key != "weight")

    def _count(self, loss: float, model: Callable[[], Model]) -> None:
        self.history.append(loss)
        settings = self.job.settings
        if settings.patience is None:
            return
        # Not a multiple of the best: a Poisson loss may be below zero.
        wanted = self.best_loss - settings.min_improvement * abs(self.best_loss)
        if loss < wanted or not np.isfinite(self.best_loss):
            self.best_loss, self.best_weights, self.misses = loss, model().weights.ravel(), 0
            self.best = self.last
        else:
            self.misses += 1
        self.exhausted = self.misses >= settings.patience

    def forget(self) -> None:
        """Drop what was watched since the last judgement."""
        self.epoch_metrics = new_metrics(self.job.parts.loss, self.job.target)
        self.window = new_metrics(self.job.parts.loss, self.job.target)

    def renew_patience(self) -> None:
        """Begin to count misses anew, against the best so far."""
        self.misses, self.exhausted = 0, False

    def metrics(self) -> dict[str, Any]:
        """Return the judgement of the weights that are kept, the last one or the best, for the model file."""
        if not self.active:
            return {}
        name = "valid" if self.evaluator is not None else "held_out"
        return {name: self.last if self.best_weights is None else self.best, f"{name}_losses": self.history}

    # --- checkpoints

    def header(self) -> dict[str, Any]:
        """Return what a checkpoint keeps as JSON."""
        return {
            "best_loss": self.best_loss if np.isfinite(self.best_loss) else None,
            "misses": self.misses,
            "judged_rows": self.judged_rows,
            "history": self.history,
            "last": self.last,
            "best": self.best,
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what a checkpoint keeps as arrays."""
        kept = {f"epoch.{key}": value for key, value in self.epoch_metrics.arrays().items()}
        kept |= {f"window.{key}": value for key, value in self.window.arrays().items()}
        return kept if self.best_weights is None else {**kept, "best_weights": self.best_weights}

    def restore(self, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Take back what a checkpoint kept."""
        self.best_loss = np.inf if header["best_loss"] is None else header["best_loss"]
        self.misses, self.judged_rows = header["misses"], header["judged_rows"]
        self.history, self.last = list(header["history"]), dict(header["last"])
        self.best = dict(header["best"])
        self.best_weights = arrays.get("best_weights")
        for name, metrics in (("epoch", self.epoch_metrics), ("window", self.window)):
            prefix = f"{name}."
            metrics.restore({key[len(prefix) :]: value for key, value in arrays.items() if key.startswith(prefix)})


def make_validator(job: Job, executor: Executor, client: Any = None) -> Validator:
    """Return the judge that the settings ask for; with a client its workers score a data set of its own."""
    if job.settings.valid is None:
        return Validator(job)
    return Validator(job, evaluator_for(job, job.settings.valid, executor, client))


def evaluator_for(job: Job, data: Any, executor: Executor, client: Any = None) -> Evaluator:
    """Return the evaluator of a run's validation set; with a client its workers score."""
    nulls, text = job.settings.missing_columns == "null", job.settings.valid_filter
    dataset, expression, columns = open_data(data, text, flag="--valid-filter", trained=job.encoding.types, nulls=nulls)
    # Workers score in as much memory as they learn in.
    cache = None if client is not None else job.recipe.cache
    recipe = replace(
        job.recipe,
        dataset=dataset,
        held=NOTHING_HELD,
        names_values=False,
        filter=expression,
        filter_columns=columns,
        cache=cache,
    )
    recipe = replace(recipe, class_weights=recipe.held_class_weights)
    return Evaluator(
        check_loader(recipe, f"--valid {data}"), executor, VALID_BLOCK_BYTES, client=client, memory=job.settings.memory
    )
