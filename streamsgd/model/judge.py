"""Models side by side on one data set, from one decode: their metrics, and paired differences of their losses.

The data is measured in ranges of chunks whose sums are merged in the order of the data, as in `model.evaluate`.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.compute.memory import MemorySlots
from streamsgd.errors import SettingsError
from streamsgd.messages import few
from streamsgd.model.confusion import Confusion
from streamsgd.model.evaluate import Evaluator, RangeEvaluator, evaluating, measure_on_worker
from streamsgd.model.evaluation import NO_DETAILS, Details, Evaluation, ScoredRows
from streamsgd.model.paired import LOSSES, OF_TASK, PairedDifference
from streamsgd.stream.joint import joint_loader
from streamsgd.stream.stats import Account
from streamsgd.stream.stream import read_chunk, sequential_plan, sequential_stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from streamsgd.model.options import ScoringOptions
    from streamsgd.model.predictor import Predictor
    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.stream.loader import Loader


class Judgement:
    """What is added up of some rows: metrics of each model, differences to the first, and its confusion if wanted."""

    def __init__(
        self, metrics: list[Evaluation], pairs: list[dict[str, PairedDifference]], confusion: Confusion | None
    ) -> None:
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
    model
        What the others are compared with.
    others
        By name.
    threshold
        Probability from which on a row counts as of the second class; None for no confusion, unless `confusion`.
    details
        What is measured of each beyond the metrics of training; not by group.

    """

    model: Predictor
    others: Mapping[str, Predictor]
    threshold: float | None = None
    confusion: bool = False
    details: Details = NO_DETAILS

    @property
    def models(self) -> list[Predictor]:
        """All of them, in order."""
        return [self.model, *self.others.values()]

    def new(self) -> Judgement:
        """Return empty sums."""
        pairs = [{name: PairedDifference() for name in _compared(self.model, other)} for other in self.others.values()]
        wanted = self.confusion or self.threshold is not None
        table = Confusion.of(self.model.target, self.threshold) if wanted else None
        return Judgement([Evaluation(model.loss, model.target, self.details) for model in self.models], pairs, table)

    def update(self, total: Judgement, filled: LoadedChunk) -> None:
        """Add the rows of a chunk."""
        blocks = filled.block if self.others else (filled.block,)
        for start, stop in filled.learned_runs():
            apart = zip(total.metrics, self.models, blocks, strict=True)
            scored = [metrics.seen(model, block, start, stop) for metrics, model, block in apart]
            for metrics, rows in zip(total.metrics, scored, strict=True):
                metrics.add(rows)
            exact = [_exactly(rows) for rows in scored]
            self._pair(total, exact)
            if total.confusion is not None:
                total.confusion.add(exact[0].y, exact[0].mean, exact[0].weight)

    def _pair(self, total: Judgement, scored: list[ScoredRows]) -> None:
        first = scored[0]
        for pairs, other in zip(total.pairs, scored[1:], strict=True):
            for name, pair in pairs.items():
                if name == "loss":
                    pair.add(other.loss - first.loss, first.weight)
                else:
                    pair.add(LOSSES[name](first.y, other.mean) - LOSSES[name](first.y, first.mean), first.weight)

    def with_own_weights(self) -> Judge:
        """Return the same with weights that kernels take: what came by wire may not be so."""
        others = {name: model.with_own_weights() for name, model in self.others.items()}
        return replace(self, model=self.model.with_own_weights(), others=others)


def _exactly(rows: ScoredRows) -> ScoredRows:
    """Return rows in float64, in which differences are taken."""
    return ScoredRows(*(np.asarray(column, np.float64) for column in rows))


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


def check_comparable(first: Predictor, others: Mapping[str, Predictor]) -> None:
    """Refuse models that do not predict the same.

    Raises
    ------
    SettingsError
        Their targets, tasks or classes differ.

    """
    for name, model in others.items():
        for what, mine, theirs in (
            ("target", first.target.name, model.target.name),
            ("task", first.target.task, model.target.task),
            ("classes", few(first.classes), few(model.classes)),
        ):
            if mine != theirs:
                raise SettingsError(
                    f"--also {name}: its {what} is {theirs!r}, that of the first model is {mine!r}: their losses cannot be "
                    "compared"
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


def judge_source(judge: Judge, source: Any, options: ScoringOptions) -> dict[str, Any]:
    """Return metrics by model, the confusion of the first among its own, and differences of the others to it, as plain values.

    Raises
    ------
    DataError, SettingsError
        The data lacks a column of one of them, or they do not predict the same.

    """
    check_comparable(judge.model, judge.others)
    with evaluating(judge.model, source, options) as evaluator:
        joint = JointEvaluator(**{**vars(evaluator), "recipe": _recipe(judge, evaluator.recipe)})
        before = joint.account.unseen
        total = joint.judge(judge)
        told = joint.unseen_classes(before)
    total.metrics[0].far.say()
    results = [metrics.result() | told for metrics in total.metrics]
    differences = [{name: pair.result() for name, pair in pairs.items()} for pairs in total.pairs]
    found: dict[str, Any] = {"metrics": results[0]}
    if total.confusion is not None:
        found["metrics"] = {**results[0], **total.confusion.result(), "confusion": total.confusion.table()}
    if judge.others:
        found["also"] = {
            name: {"metrics": metrics, "differences": difference}
            for name, metrics, difference in zip(judge.others, results[1:], differences, strict=True)
        }
    return found


def _recipe(judge: Judge, recipe: Loader) -> Loader:
    """Return what encodes the rows of the first model's loader for all models."""
    if not judge.others:
        return recipe
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
        for model in judge.others.values()
    ]
    return joint_loader(recipe, features)
