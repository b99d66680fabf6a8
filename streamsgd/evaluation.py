"""Evaluation: a model against a data set, streamed.

The data is measured in ranges of chunks whose metrics are merged in the order of the data, so that a cluster, which measures
ranges apart, gets the same bits as one process.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.account import Account
from streamsgd.budget import tile_rows
from streamsgd.columns import WHAT, check_columns, fits
from streamsgd.dataset import require
from streamsgd.delayed import feed_of
from streamsgd.errors import DataError
from streamsgd.metrics import Metrics
from streamsgd.parquet import reading_bytes
from streamsgd.planning import Plan, make_plan, row_groups
from streamsgd.recipe import Recipe
from streamsgd.samplers import Sequential
from streamsgd.stream import Filled, Stream, read_chunk
from streamsgd.survey import open_data
from streamsgd.tables import lending
from streamsgd.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamsgd.encode import Target
    from streamsgd.executors import Executor
    from streamsgd.job import Job
    from streamsgd.kernels.loops import Block
    from streamsgd.model import Model


RANGE_BYTES = 64 << 20
"""Bytes of rows that are measured together: a task of a cluster takes some tenths of a second."""


def new_metrics(loss: Any, target: Target) -> Metrics:
    """Return empty metrics for a loss and a target."""
    n_outputs = len(target.classes) if target.task == "multiclass" else 1
    return Metrics.for_task(target.task, n_outputs, quantile=getattr(loss, "level", 0.5))


def update_metrics(metrics: Metrics, model: Model, block: Block, start: int, stop: int) -> None:
    """Add rows start to stop of a block, scored by the model, in units of the target."""
    scores, means, losses = model.score_block(block, start, stop)
    metrics.update(
        model.in_target_units(block.y[start:stop]),
        _one(model.in_target_units(means)),
        _one(model.in_target_units(scores)),
        block.weight[start:stop],
        losses,
    )


def _one(values: np.ndarray) -> np.ndarray:
    return values[:, 0] if values.shape[1] == 1 else values


def sequential_plan(recipe: Recipe, block_bytes: int) -> Plan:
    """Return the plan of the whole data set in its own order, in blocks of about so many bytes."""
    recipe.tile_rows = tile_rows(recipe.row_bytes)
    return make_plan(
        recipe.dataset.rows,
        recipe.dataset.file,
        row_bytes=recipe.row_bytes,
        chunk_rows=max(1, block_bytes // recipe.row_bytes),
        tile_rows=recipe.tile_rows,
        sampler=Sequential(),  # type: ignore[call-arg]
        seed=0,
    )


def sequential_stream(recipe: Recipe, executor: Executor, block_bytes: int) -> Stream:
    """Return a stream of the whole data set in its own order, in blocks of about so many bytes."""
    return Stream(recipe, sequential_plan(recipe, block_bytes), executor)


@dataclass
class Measurer:
    """What measures ranges of a data set apart, in whatever process.

    Parameters
    ----------
    recipe, plan
        Of the data.
    per_range
        Chunks of a range.
    turns
        Lets as many ranges be measured at a time as memory allows.

    """

    recipe: Recipe
    plan: Plan
    per_range: int
    turns: Turns

    @property
    def ranges(self) -> range:
        """Numbers of the ranges."""
        return range(-(-self.plan.n_chunks(0) // self.per_range))

    def chunks(self, number: int) -> range:
        """Return the numbers of a range's chunks."""
        return range(number * self.per_range, min((number + 1) * self.per_range, self.plan.n_chunks(0)))

    def groups(self, number: int) -> list[int]:
        """Return the row groups that a range reads."""
        return row_groups([piece for k in self.chunks(number) for piece in self.plan.chunk(0, k).pieces])

    def where(self, number: int) -> str:
        """Name the beginning of a range."""
        return f"what begins with {self.recipe.reader.where(self.plan.chunk(0, self.chunks(number)[0]).pieces[0])}"

    def measure(self, model: Model, number: int) -> tuple[Metrics, Account]:
        """Return the metrics of a range, and the account of it."""
        metrics, account = new_metrics(model.loss, model.target), Account()
        with self.turns:
            most = min(self.plan.chunk_rows, self.plan.n_rows)
            block, room = self.recipe.allocate(most), np.empty(most, np.int32)
            for k in self.chunks(number):
                filled = read_chunk(self.recipe, self.plan, self.plan.chunk(0, k), block, room)
                update_with(metrics, model, filled)
                account.add(filled)
        return metrics, account


def measure_on_worker(measurer: Measurer, model: Model, number: int, *tables: Any) -> tuple[Metrics, Account]:
    """Measure a range, lending it the partitions that it reads, if the data is made of such."""
    model = replace(model, weights=np.require(model.weights, requirements=["C", "W"]))  # what came by wire may be read-only
    with lending(measurer.recipe.dataset.source, tables):
        return measurer.measure(model, number)


def update_with(metrics: Metrics, model: Model, filled: Filled) -> None:
    """Add the rows of a chunk."""
    for start, stop in filled.learned_runs():
        update_metrics(metrics, model, filled.block, start, stop)


@dataclass
class Evaluator:
    """Scores models on one data set, as often as asked."""

    recipe: Recipe
    executor: Executor
    block_bytes: int
    account: Account = field(default_factory=Account)
    client: Any = None
    """Of distributed, whose workers measure; None for this process."""
    memory: str | None = None
    """Limit of a worker."""

    @classmethod
    def for_job(cls, job: Job, data: Any, executor: Executor, *, block_bytes: int) -> Evaluator:
        """Return the evaluator of a training run's validation set."""
        dataset, expression, columns = open_data(data, job.settings.filter)
        recipe = replace(
            job.recipe, dataset=dataset, held_share=0.0, names_values=False, filter=expression, filter_columns=columns
        )
        return cls(check_recipe(recipe), executor, block_bytes)

    @classmethod
    def for_model(
        cls, model: Model, data: Any, executor: Executor, *, block_bytes: int, filter_text: str | None = None
    ) -> Evaluator:
        """Return the evaluator of a saved model on labelled data; what is skipped or missing is so as in training."""
        dataset, expression, columns = open_data(data, filter_text)
        recipe = Recipe(
            dataset,
            model.encoding,
            model.target,
            model.settings.get("weight"),
            expression,
            columns,
            skip_bad_rows=model.settings.get("bad_rows") == "skip",
            skip_unreadable=model.settings.get("unreadable") == "skip",
            infinite_is_missing=model.settings.get("infinite") == "missing",
            precision=str(model.weights.dtype),
        )
        return cls(check_recipe(recipe), executor, block_bytes)

    def evaluate(self, model: Model) -> dict[str, float]:
        """Return the metrics of a model; see `metrics`."""
        total = new_metrics(model.loss, model.target)
        self.account.start(self.recipe.dataset.n_rows)
        for metrics in self._here(model) if self.client is None else self._there(model):
            total.merge(metrics)
        return named(total, model.loss)

    @property
    def _per_range(self) -> int:
        return max(1, RANGE_BYTES // self.block_bytes)

    def _here(self, model: Model) -> Iterator[Metrics]:
        chunks = sequential_stream(self.recipe, self.executor, self.block_bytes).chunks()
        for _, some in groupby(chunks, key=lambda filled: filled.chunk.number // self._per_range):
            metrics = new_metrics(model.loss, model.target)
            for filled in some:
                update_with(metrics, model, filled)
                self.account.add(filled)
            yield metrics

    def _there(self, model: Model) -> Iterator[Metrics]:
        from streamsgd.errands import Errands, Kind  # noqa: PLC0415

        recipe = self.recipe
        plan = sequential_plan(recipe, self.block_bytes)
        each = self.block_bytes + reading_bytes(recipe.dataset, recipe.encoding.sources, recipe.at_once)
        measurer = Measurer(recipe, plan, self._per_range, Turns(self.memory, each))
        feed = feed_of(recipe, self.client)
        kind = Kind(
            "evaluate",
            measure_on_worker,
            label=lambda number: f"range{number}",
            where=measurer.where,
            inputs=lambda number: feed.inputs(measurer.groups(number)),
            blame=feed.blame,
        )
        with closing(Errands(self.client, kind, (measurer, model)).each(measurer.ranges)) as answers:
            for metrics, account in answers:
                self.account.take(account)
                yield metrics


def named(metrics: Metrics, loss: Any) -> dict[str, float]:
    """Return the metrics that mean something for this loss: margins are not probabilities."""
    found = metrics.result()
    if loss.task == "margin":
        for key in ("log_loss", "best_constant_log_loss"):
            found.pop(key, None)
    return found


def check_recipe(recipe: Recipe) -> Recipe:
    """Return the recipe if the data has every column it needs, of a type it can use.

    Raises
    ------
    DataError
        It has not.

    """
    check_columns(recipe.encoding, recipe.dataset.schema, "the data")
    names = list(recipe.encoding.sources)
    extra = [recipe.target.name] if recipe.target else []
    extra += [recipe.weight] if recipe.weight else []
    for name in extra:
        if name not in recipe.dataset.schema.names:
            raise DataError(f"the data has no column {name!r}, which the model was trained with")
        kind = recipe.dataset.schema.field(name).type
        of_text = recipe.target is not None and name == recipe.target.name and recipe.target.of_text
        if not fits("text" if of_text else "number", kind):
            raise DataError(
                f"column {name!r} of the data is of type {kind}; the model needs {WHAT['text' if of_text else 'number']}"
            )
    require(recipe.dataset, [*names, *extra])
    return recipe
