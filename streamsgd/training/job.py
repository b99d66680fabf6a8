"""From data and settings to everything a run needs: the dry half of training, which `plan` prints."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from streamsgd.kernels.parts.by_rows import USUAL_BATCH
from streamsgd.kernels.parts.traits import holds_factors, is_sequential, reduces
from streamsgd.planning.samplers import Sequential
from streamsgd.settings.batches import adaptive
from streamsgd.settings.registry import make
from streamsgd.training.averaging import average_from
from streamsgd.training.outline import Outline
from streamsgd.training.rates import SVRG_BATCH

if TYPE_CHECKING:
    from streamsgd.data.dataset import Dataset
    from streamsgd.data.shuffled.shuffle_layout import ShuffleLayout
    from streamsgd.features.encoding import Encoding
    from streamsgd.features.roles import Roles
    from streamsgd.features.target import Target
    from streamsgd.kernels.structs.block import Parts
    from streamsgd.planning import budget as budgets
    from streamsgd.planning.chunks import Chunk, Plan
    from streamsgd.planning.lanes import Lanes
    from streamsgd.settings.fields import Settings
    from streamsgd.stream.loader import Loader
    from streamsgd.training.classes.rare import Thinner


WHOLE_EPOCH = 1 << 62
"""A batch size that no epoch reaches: its one update is made when the epoch ends."""

IN_ORDER = -1
"""The epoch of passes that take chunks in the order of the data."""


def batch_size(settings: Settings, parts: Parts) -> int:
    """Return the rows per update; of a full batch more than there are, of an adaptive one those that it starts with."""
    if settings.batch_size == "auto":
        of_batches = SVRG_BATCH if reduces(parts.optimizer) else USUAL_BATCH
        return 1 if is_sequential(parts.optimizer) else of_batches
    if (growing := adaptive(settings)) is not None:
        return growing.start
    return WHOLE_EPOCH if settings.batch_size == "full" else int(settings.batch_size)


def size_in_words(job: Job) -> int | str:
    """Return the rows per update, or in words how many they are."""
    size = job.settings.batch_size
    return size if isinstance(size, str) and size != "auto" else job.batch_size


@dataclass(frozen=True)
class Job:
    """Everything decided before the first update."""

    settings: Settings
    dataset: Dataset
    roles: Roles
    encoding: Encoding
    target: Target
    parts: Parts
    budget: budgets.Budget
    plan: Plan
    recipe: Loader
    epochs: int
    lanes: Lanes
    decided_by_memory: tuple[str, ...] = ()
    """What would be another model with more memory, in words."""
    order: dict[str, Any] | None = None
    """What a look at the target found about the order of the rows, as plain values."""
    external: ShuffleLayout | None = None
    """Of the rows on disk, where they are to be shuffled there first, or were."""
    original: Dataset | None = None
    """The data as it was given, where it was shuffled on disk."""
    class_weights: tuple[float, ...] = ()
    """By class, in the order of the target's; nothing where all count alike."""
    chosen: str = ""
    """What the first look chose that is worth a line, and why; where a run goes on from a model, what it leaves out."""
    penalty: str = ""
    """What shrinks weights, where the first look chose it."""
    thinner: Thinner | None = None
    """How rows are thinned by their class, if they are."""
    pilot: dict[str, Any] | None = None
    """By what the size of its batches was found, as JSON values, where a pilot found it."""
    distilled: int = 0
    """Bytes in memory of what thinning leaves, for later passes; 0 where there are none, or it is too much."""
    rival: Job | None = None
    """The same run with the linear model, where a machine learns beside it; see `training.rivals.rival`."""
    others: tuple[Job, ...] = ()
    """The same machine with factors of other rates, which learns the first rows beside; see `training.rivals.factor_rates`."""
    raced: tuple[float, ...] = ()
    """Their rates, where that was over before a checkpoint that the run goes on from."""

    @property
    def known_thinner(self) -> Thinner:
        """How rows are thinned, where they are."""
        assert self.thinner is not None, "its phase is wanted"  # noqa: S101  for the type checker
        return self.thinner

    @property
    def data(self) -> Dataset:
        """The data as it was given."""
        return self.original or self.dataset

    @cached_property
    def outline(self) -> Outline:
        """What was known before the memory was planned."""
        given = self.settings, self.parts, self.recipe, self.epochs
        of_recipe = Outline.of(*given, thinned=self.thinner is not None, lanes=self.lanes.number)
        return replace(of_recipe, n_rows=self.data.n_rows)

    @cached_property
    def plan_in_order(self) -> Plan:
        """The same chunks in the order of the data, whatever the epoch; where rows are thinned, those of every epoch."""
        if self.thinner:
            return self.plan
        return replace(self.plan, sampler=Sequential())  # type: ignore[call-arg]

    def plan_at(self, epoch: int) -> Plan:
        """Return the plan of an epoch, or of `IN_ORDER`."""
        return self.plan_in_order if epoch == IN_ORDER else self.plan

    def chunk_at(self, place: tuple[int, int]) -> Chunk:
        """Return the chunk of an epoch and number."""
        epoch, number = place
        return self.plan_at(epoch).chunk(max(epoch, 0), number)

    @property
    def batch_size(self) -> int:
        """Rows per update; of a full batch more than there are."""
        return batch_size(self.settings, self.parts)

    @property
    def updates_alone(self) -> bool:
        """Whether the end of an epoch or the optimizer itself updates, not the count of rows."""
        return self.settings.batch_size == "full" or is_sequential(self.parts.optimizer) or self.grows

    @property
    def span(self) -> float:
        """Passes of learning, as a fraction where steps end the run: what schedules are drawn out over."""
        settings = self.settings
        if settings.steps is None:
            return float(self.epochs)
        learned = max(1.0, self.plan.n_rows * (1.0 - self.recipe.held.share))
        return min(float(self.epochs), settings.steps * self.batch_size / learned)

    @property
    def grows(self) -> bool:
        """Whether a step takes rows until they pass."""
        return adaptive(self.settings) is not None

    @property
    def clips(self) -> tuple[float, float]:
        """The most that the length and a coordinate of a batch's gradient may be."""
        return self.settings.clip_norm or math.inf, self.settings.clip_value or math.inf

    @property
    def average_from(self) -> float:
        """The epoch, as a fraction, from which on the weights are averaged."""
        return average_from(self.settings, self.epochs)

    @property
    def undoes_weights(self) -> bool:
        """Whether the intercept of the model undoes weights of classes: not of margins, which are no probabilities."""
        return bool(self.class_weights) and not self.settings.keep_weights and self.parts.loss.task in ("binary", "multiclass")

    @property
    def n_outputs(self) -> int:
        """Scores per row."""
        return self.outline.n_outputs

    @cached_property
    def structure(self) -> Any:
        """The model as people name it, with the rate of its factors; `parts.model` is what kernels take of it."""
        named = make("model", self.settings.model)
        rates = [getattr(model, "rate", None) for model in (named, self.parts.model)]
        return named if None in rates or rates[0] == rates[1] else named._replace(rate=rates[1])

    @property
    def width(self) -> int:
        """Parameters per coordinate: the columns of weights."""
        return self.outline.width

    @property
    def shape(self) -> tuple[int, int]:
        """Of the weights of the model: a row per coordinate, and what belongs to none below."""
        return self.outline.shape

    @property
    def n_weights(self) -> int:
        """Weights of the learner, intercepts included; where factors are memories of an optimizer, of the linear part."""
        return self.outline.n_weights

    @property
    def n_parameters(self) -> int:
        """Weights of the model, wherever the learner keeps them."""
        return self.outline.n_parameters

    @property
    def n_penalised(self) -> int:
        """Leading weights that the penalty sees: those of all coordinates but the intercept's."""
        return (self.encoding.n_coordinates - 1) * (1 if holds_factors(self.parts.optimizer) else self.width)
