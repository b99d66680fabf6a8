"""Evaluation: a model against a data set, streamed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from streamsgd.account import Account
from streamsgd.budget import tile_rows
from streamsgd.columns import WHAT, check_columns, fits
from streamsgd.dataset import require
from streamsgd.errors import DataError
from streamsgd.metrics import Metrics
from streamsgd.planning import make_plan
from streamsgd.recipe import Recipe
from streamsgd.samplers import Sequential
from streamsgd.stream import Stream
from streamsgd.survey import open_data

if TYPE_CHECKING:
    import numpy as np

    from streamsgd.encode import Target
    from streamsgd.executors import Executor
    from streamsgd.job import Job
    from streamsgd.kernels.loops import Block
    from streamsgd.model import Model


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


def sequential_stream(recipe: Recipe, executor: Executor, block_bytes: int) -> Stream:
    """Return a stream of the whole data set in its own order, in blocks of about so many bytes."""
    recipe.tile_rows = tile_rows(recipe.row_bytes)
    plan = make_plan(
        recipe.dataset.rows,
        recipe.dataset.file,
        row_bytes=recipe.row_bytes,
        chunk_rows=max(1, block_bytes // recipe.row_bytes),
        tile_rows=recipe.tile_rows,
        sampler=Sequential(),  # type: ignore[call-arg]
        seed=0,
    )
    return Stream(recipe, plan, executor)


@dataclass
class Evaluator:
    """Scores models on one data set, as often as asked."""

    recipe: Recipe
    executor: Executor
    block_bytes: int
    account: Account = field(default_factory=Account)

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
        metrics = new_metrics(model.loss, model.target)
        self.account.start(self.recipe.dataset.n_rows)
        for filled in sequential_stream(self.recipe, self.executor, self.block_bytes).chunks():
            for start, stop in filled.learned_runs():
                update_metrics(metrics, model, filled.block, start, stop)
            self.account.add(filled)
        return named(metrics, model.loss)


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
