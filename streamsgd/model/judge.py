"""Models side by side on one data set, from one decode: their metrics, and paired differences of their losses.

The data is measured in ranges of chunks whose sums are merged in the order of the data, as in `model.evaluate`.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamsgd.compute.client import client_of
from streamsgd.compute.executors import reading
from streamsgd.compute.memory import MemorySlots
from streamsgd.data.dask_tables import lazily
from streamsgd.errors import SettingsError
from streamsgd.messages import few
from streamsgd.model.confusion import Confusion
from streamsgd.model.evaluate import Evaluator, RangeEvaluator, measure_on_worker
from streamsgd.model.evaluation import named, new_metrics
from streamsgd.model.options import ScoringOptions
from streamsgd.model.paired import LOSSES, OF_TASK, PairedDifference
from streamsgd.model.score_stream import scoring_block_bytes
from streamsgd.stream.joint import joint_loader
from streamsgd.stream.stats import Account
from streamsgd.stream.stream import read_chunk, sequential_plan, sequential_stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from streamsgd.model.metrics import Metrics
    from streamsgd.model.predictor import Predictor
    from streamsgd.stream.chunk import LoadedChunk


class Scores(NamedTuple):
    """Rows scored by one model, in units of the target."""

    y: np.ndarray
    mean: np.ndarray
    """(n,) or (n, n_classes)."""
    loss: np.ndarray


class Judgement:
    """What is added up of some rows: metrics of each model, differences to the first, and its confusion if wanted."""

    def __init__(self, metrics: list[Metrics], pairs: list[dict[str, PairedDifference]], confusion: Confusion | None) -> None:
        self.metrics, self.pairs, self.confusion = metrics, pairs, confusion

    def merge(self, other: Judgement) -> None:
        """Add the rows that another has counted."""
        for mine, theirs in zip(self.metrics, other.metrics, strict=True):
            mine.merge(theirs)
        for own, others in zip(self.pairs, other.pairs, strict=True):
            for name, pair in own.items():
                pair.merge(others[name])
        if self.confusion is not None and other.confusion is not None:
            self.confusion.merge(other.confusion)


@dataclass
class Judge:
    """Measures models on rows that all of them scored.

    Parameters
    ----------
    models
        By name; the first one is what the others are compared with.
    threshold
        Probability from which on a row counts as of the second class; None for no confusion, unless `confusion`.

    """

    models: Mapping[str, Predictor]
    threshold: float | None = None
    confusion: bool = False

    def new(self) -> Judgement:
        """Return empty sums."""
        first, *others = self.models.values()
        pairs = [{name: PairedDifference() for name in _compared(first, other)} for other in others]
        wanted = self.confusion or self.threshold is not None
        table = Confusion.of(first.target, self.threshold) if wanted else None
        return Judgement([new_metrics(model.loss, model.target) for model in self.models.values()], pairs, table)

    def update(self, total: Judgement, filled: LoadedChunk) -> None:
        """Add the rows of a chunk."""
        blocks = filled.block if len(self.models) > 1 else (filled.block,)
        for start, stop in filled.learned_runs():
            weight = blocks[0].weight[start:stop].astype(np.float64)
            scored = []
            for model, metrics, block in zip(self.models.values(), total.metrics, blocks, strict=True):
                scores, means, losses = model.score_block(block, start, stop)
                y, mean, score = (model.in_target_units(some) for some in (block.y[start:stop], means, scores))
                metrics.update(y, _one(mean), _one(score), weight, losses)
                scored.append(Scores(y.astype(np.float64), _one(mean).astype(np.float64), losses.astype(np.float64)))
            self._pair(total, scored, weight)
            if total.confusion is not None:
                total.confusion.add(scored[0].y, scored[0].mean, weight)

    def _pair(self, total: Judgement, scored: list[Scores], weight: np.ndarray) -> None:
        first = scored[0]
        for pairs, other in zip(total.pairs, scored[1:], strict=True):
            for name, pair in pairs.items():
                if name == "loss":
                    pair.add(other.loss - first.loss, weight)
                else:
                    pair.add(LOSSES[name](first.y, other.mean) - LOSSES[name](first.y, first.mean), weight)

    def with_own_weights(self) -> Judge:
        """Return the same with weights that kernels take: what came by wire may not be so."""
        return replace(self, models={name: model.with_own_weights() for name, model in self.models.items()})


def _one(values: np.ndarray) -> np.ndarray:
    return values[:, 0] if values.shape[1] == 1 else values


def _compared(first: Predictor, other: Predictor) -> list[str]:
    """Return the losses by which two models can be compared."""
    names = list(OF_TASK[first.target.task])
    if "log_loss" in names and not (first.has_probabilities and other.has_probabilities):
        names.remove("log_loss")
    alike = first.target.task != "regression" or (first.target.scale, first.target.shift) == (
        other.target.scale,
        other.target.shift,
    )
    return [*names, *(["loss"] if first.loss == other.loss and type(first.loss) is type(other.loss) and alike else [])]


def check_comparable(models: Mapping[str, Predictor]) -> None:
    """Refuse models that do not predict the same.

    Raises
    ------
    SettingsError
        Their targets, tasks or classes differ.

    """
    first, *others = models.items()
    for name, model in others:
        for what, mine, theirs in (
            ("target", first[1].target.name, model.target.name),
            ("task", first[1].target.task, model.target.task),
            ("classes", few(first[1].classes), few(model.classes)),
        ):
            if mine != theirs:
                raise SettingsError(
                    f"--also {name}: its {what} is {theirs!r}, that of {first[0]} is {mine!r}: their losses cannot be compared"
                )


@dataclass
class RangeJudge(RangeEvaluator):
    """What measures ranges of a data set apart, for several models."""

    def measure(self, model: Any, number: int) -> tuple[Any, Account]:
        """Return the sums of a range, and the account of it; `model` is a `Judge`."""
        total, account = model.new(), Account()
        with self.turns:
            most = min(self.plan.chunk_rows, self.plan.n_rows)
            block, room = self.recipe.allocate(most), np.empty(most, np.int32)
            for k in self.chunks(number):
                filled = read_chunk(self.recipe, self.plan, self.plan.chunk(0, k), block, room)
                model.update(total, filled)
                account.add(filled)
        return total, account


class JointEvaluator(Evaluator):
    """Scores several models on one data set."""

    def judge(self, judge: Judge) -> Judgement:
        """Return the sums over all rows."""
        total, n_rows = judge.new(), self.recipe.dataset.n_rows
        left_out = self.account.skipped + self.account.filtered
        self.account.start(n_rows)
        for found in self._judged_here(judge) if self.client is None else self._judged_there(judge):
            total.merge(found)
        self.account.settle()
        self.check_rows(left_out)
        return total

    def _judged_here(self, judge: Judge) -> Iterator[Judgement]:
        chunks = sequential_stream(self.recipe, self.executor, self.block_bytes).chunks()
        for _, some in groupby(chunks, key=lambda filled: filled.chunk.number // self._per_range):
            total = judge.new()
            for filled in some:
                judge.update(total, filled)
                self.account.add(filled)
            yield total

    def _judged_there(self, judge: Judge) -> Iterator[Judgement]:
        from streamsgd.compute.task_map import TaskMap, TaskSpec  # noqa: PLC0415

        recipe = self.recipe
        each = self.block_bytes + recipe.dataset.source.cost(recipe.sources, recipe.at_once).per_thread
        plan = sequential_plan(recipe, self.block_bytes)
        measurer = RangeJudge(recipe, plan, self._per_range, MemorySlots(self.memory, each))
        feed = recipe.dataset.source.feed(recipe.columns, self.client)
        kind = TaskSpec(
            "compare",
            measure_on_worker,
            label=lambda number: f"range{number}",
            where=measurer.where,
            inputs=lambda number: feed.inputs(measurer.groups(number)),
            blame=feed.blame,
        )
        with closing(TaskMap(self.client, kind, (measurer, judge)).each(measurer.ranges)) as answers:
            for total, account in answers:
                self.account.take(account)
                yield total


def judge_models(evaluator: Evaluator, judge: Judge) -> dict[str, Any]:
    """Return metrics by model, the confusion of the first among its own, and differences of the others to it, as plain values.

    Parameters
    ----------
    evaluator
        Of the first model, on the data.
    judge
        Of all models.

    Raises
    ------
    DataError, SettingsError
        The data lacks a column of one of them, or they do not predict the same.

    """
    check_comparable(judge.models)
    _first, *others = judge.models.items()
    recipe = evaluator.recipe
    if others:
        features = [
            replace(
                recipe,
                encoding=model.encoding,
                target=model.target,
                filter=None,
                filter_columns=(),
                missing=tuple(model.settings.get("missing", ())),
                precision=str(model.weights.dtype),
            )
            for _, model in others
        ]
        recipe = joint_loader(recipe, features)
    joint = JointEvaluator(
        recipe, evaluator.executor, evaluator.block_bytes, evaluator.account, evaluator.client, evaluator.memory
    )
    total = joint.judge(judge)
    results = [named(metrics, model.loss) for metrics, model in zip(total.metrics, judge.models.values(), strict=True)]
    differences = [{name: pair.result() for name, pair in pairs.items()} for pairs in total.pairs]
    found: dict[str, Any] = {"metrics": results[0]}
    if total.confusion is not None:
        found["metrics"] = {**results[0], **total.confusion.result(), "confusion": total.confusion.table()}
    if others:
        found["also"] = {
            name: {"metrics": metrics, "differences": difference}
            for (name, _), metrics, difference in zip(others, results[1:], differences, strict=True)
        }
    return found


def judge_source(
    judge: Judge,
    source: Any,
    *,
    filter: str | None = None,  # noqa: A002  the name of the setting
    memory: str | None = None,
    threads: int | None = None,
    executor: str = "auto",
    workers: int | None = None,
    scheduler: str | None = None,
    client: Any = None,
    account: Account | None = None,
    weight: str | None = None,
    bad_rows: str | None = None,
    unreadable: str | None = None,
    infinite: str | None = None,
) -> dict[str, Any]:
    """Return what `judge_models` does of labelled data; the options are those of `streamsgd.evaluate`."""
    with client_of(client, scheduler, workers) as found, reading("inline" if found else executor, threads) as reader:
        evaluator = Evaluator.for_model(
            next(iter(judge.models.values())),
            lazily(source, found),
            reader,
            block_bytes=scoring_block_bytes(memory),
            filter_text=filter,
            account=account,
            client=found,
            memory=memory,
            options=ScoringOptions(weight, bad_rows, unreadable, infinite),
        )
        return judge_models(evaluator, judge)
