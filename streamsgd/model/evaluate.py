"""Evaluation: a model against a data set, streamed.

The data is measured in ranges of chunks whose metrics are merged in the order of the data, so that a cluster, which measures
ranges apart, gets the same bits as one process.
"""

from __future__ import annotations

import logging
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from streamsgd.compute.client import client_of
from streamsgd.compute.executors import reading
from streamsgd.compute.memory import MemorySlots, parse_limit
from streamsgd.data.dataset import require
from streamsgd.data.open import open_data
from streamsgd.data.sources.dask_tables import lazily
from streamsgd.errors import DataError, SchemaError
from streamsgd.messages import counted, verb
from streamsgd.model.evaluation import LEAST_ROOM, NO_DETAILS, Details, Evaluation, check_details, scored_rows
from streamsgd.model.options import NO_OPTIONS, ScoringOptions
from streamsgd.model.score_stream import scoring_block_bytes
from streamsgd.planning.chunks import Plan, row_groups
from streamsgd.stream.loader import Loader, check_loader
from streamsgd.stream.stats import Account
from streamsgd.stream.stream import read_chunk, sequential_plan, sequential_stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamsgd.compute.executors import Executor
    from streamsgd.data.dataset import Dataset
    from streamsgd.kernels.structs.block import Block
    from streamsgd.model.metrics import Metrics
    from streamsgd.model.predictor import Predictor


log = logging.getLogger("streamsgd")

RANGE_BYTES = 64 << 20
"""Bytes of rows that are measured together: a task of a cluster takes some tenths of a second."""


def update_metrics(metrics: Metrics, model: Predictor, block: Block, start: int, stop: int) -> None:
    """Add rows start to stop of a block, scored by the model, in units of the target."""
    metrics.update(*scored_rows(model, block, start, stop))


@dataclass
class RangeEvaluator:
    """What measures ranges of a data set apart, in whatever process.

    Parameters
    ----------
    recipe, plan
        Of the data.
    per_range
        Chunks of a range.
    turns
        Lets as many ranges be measured at a time as memory allows.
    details
        What is measured beyond the metrics of training.

    """

    recipe: Loader
    plan: Plan
    per_range: int
    turns: MemorySlots
    details: Details | None = None

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
        return f"what begins with {self.recipe.dataset.source.where(self.plan.chunk(0, self.chunks(number)[0]).pieces[0])}"

    def measure(self, model: Predictor, number: int) -> tuple[Evaluation, Account]:
        """Return what a range comes to, and the account of it."""
        found, account = Evaluation(model.loss, model.target, self.details), Account()
        with self.turns:
            most = min(self.plan.chunk_rows, self.plan.n_rows)
            block, room = self.recipe.allocate(most), np.empty(most, np.int32)
            for k in self.chunks(number):
                filled = read_chunk(self.recipe, self.plan, self.plan.chunk(0, k), block, room)
                found.update_with(model, filled)
                account.add(filled)
        return found, account


def measure_on_worker(measurer: RangeEvaluator, model: Predictor, number: int, *tables: Any) -> tuple[Evaluation, Account]:
    """Measure a range, lending it the partitions that it reads, if the data is made of such."""
    model = model.with_own_weights()
    with measurer.recipe.dataset.source.lending(tables):
        return measurer.measure(model, number)


@dataclass
class Evaluator:
    """Scores models on one data set, as often as asked."""

    recipe: Loader
    executor: Executor
    block_bytes: int
    account: Account = field(default_factory=Account)
    client: Any = None
    """Of distributed, whose workers measure; None for this process."""
    memory: str | None = None
    """Limit of a worker."""
    details: Details | None = None
    """What is measured beyond the metrics of training."""

    @classmethod
    def for_model(
        cls,
        model: Predictor,
        data: Any,
        executor: Executor,
        *,
        block_bytes: int,
        client: Any = None,
        options: ScoringOptions = NO_OPTIONS,
        details: Details | None = None,
    ) -> Evaluator:
        """Return the evaluator of a saved model on labelled data; what is skipped or missing is so as in training."""
        nulls = model.settings.get("missing_columns") == "null"
        dataset, expression, columns = open_data(data, options.filter, trained=model.encoding.types, nulls=nulls)
        recipe = Loader(
            dataset,
            model.encoding,
            model.target,
            weight_for(model, dataset, options.weight),
            expression,
            columns,
            skip_bad_rows=options.of(model, "bad_rows") == "skip",
            skip_unreadable=options.of(model, "unreadable") == "skip",
            infinite_is_missing=options.of(model, "infinite") == "missing",
            missing=tuple(model.settings.get("missing", ())),
            counts_unseen=True,
            precision=str(model.weights.dtype),
            nulls_for_missing=nulls,
            by=details.by if details else None,
        )
        if recipe.by is not None:
            require(dataset, [recipe.by])
            by_type = dataset.schema.field(recipe.by).type
            if pa.types.is_nested(by_type):
                raise SchemaError(f"--by {recipe.by}: lists and maps are no groups; name a column of single values")
            details = details._replace(by_type=str(by_type)) if details else None
        account = options.account or Account()
        return cls(check_loader(recipe), executor, block_bytes, account, client, options.memory, details)

    def evaluate(self, model: Predictor) -> dict[str, Any]:
        """Return the metrics of a model; see `metrics` and `evaluation`."""
        total, before = Evaluation(model.loss, model.target, self.details), self.account.unseen
        n_rows, left_out = self.recipe.dataset.n_rows, self.account.skipped + self.account.filtered
        self.account.start(n_rows)
        for part in self._here(model) if self.client is None else self._there(model):
            total.merge(part)
        self.account.settle()
        self.check_rows(left_out)
        total.far.say()
        return total.result() | self.unseen_classes(before)

    def unseen_classes(self, before: int) -> dict[str, float]:
        """Return how many rows are of a class that the model does not know, beyond those of before; nothing if none is."""
        unseen = self.account.unseen - before
        if not unseen:
            return {}
        log.warning(
            "%s %s a class that the model does not know; %s counted, and in no other metric",
            *(counted(unseen, "row"), verb(unseen, "has", "have"), verb(unseen, "it is", "they are")),
        )
        return {"unseen_classes": float(unseen)}

    def check_rows(self, left_out: int) -> None:
        """Make sure that a row is left, given how many were left out before.

        Raises
        ------
        DataError
            None is.

        """
        n_rows, account = self.recipe.dataset.n_rows, self.account
        if account.skipped + account.filtered - left_out == n_rows:
            raise DataError(
                f"of {n_rows:,} rows none is left to measure the model on: {account.skipped:,} were skipped as unusable "
                f"or unreadable, {account.filtered:,} filtered"
                + (f"; the first problem: {account.problems[0]}" if account.problems else "")
            )

    @property
    def _per_range(self) -> int:
        return max(1, RANGE_BYTES // self.block_bytes)

    def _here(self, model: Predictor) -> Iterator[Evaluation]:
        chunks = sequential_stream(self.recipe, self.executor, self.block_bytes).chunks()
        for _, some in groupby(chunks, key=lambda filled: filled.chunk.number // self._per_range):
            part = Evaluation(model.loss, model.target, self.details)
            for filled in some:
                part.update_with(model, filled)
                self.account.add(filled)
            yield part

    def _there(self, model: Predictor) -> Iterator[Evaluation]:
        from streamsgd.compute.task_map import TaskMap, TaskSpec  # noqa: PLC0415

        recipe = self.recipe
        plan = sequential_plan(recipe, self.block_bytes)
        each = self.block_bytes + recipe.dataset.source.cost(recipe.encoding.sources, recipe.at_once).per_thread
        measurer = RangeEvaluator(recipe, plan, self._per_range, MemorySlots(self.memory, each), self.details)
        feed = recipe.dataset.source.feed(recipe.columns, self.client)
        kind = TaskSpec(
            "evaluate",
            measure_on_worker,
            label=lambda number: f"range{number}",
            where=measurer.where,
            inputs=lambda number: feed.inputs(measurer.groups(number)),
            blame=feed.blame,
        )
        with closing(TaskMap(self.client, kind, (measurer, model)).each(measurer.ranges)) as answers:
            for part, account in answers:
                self.account.take(account)
                yield part


def weight_for(model: Predictor, dataset: Dataset, asked: str | None) -> str | None:
    """Return the column of row weights: that asked for, else that of training, if the data has it.

    Raises
    ------
    SchemaError
        The one asked for is not there.

    """
    if asked is not None:
        require(dataset, [asked])
        return asked
    trained: str | None = model.settings.get("weight")
    if trained is not None and trained not in dataset.schema.names:
        log.warning("the data has no weight column %r, as training had: every row counts alike", trained)
        return None
    return trained


@contextmanager
def evaluating(model: Predictor, source: Any, options: ScoringOptions, details: Details | None = None) -> Iterator[Evaluator]:
    """Give the evaluator of a model on labelled data, with the client and the executor that the options ask for.

    Raises
    ------
    StreamSGDError
        The data cannot be used, or the workers cannot be reached.

    """
    client = client_of(options.client, options.scheduler, options.workers)
    with client as found, reading("inline" if found else options.executor, options.threads) as reader:
        data, block_bytes = lazily(source, found), scoring_block_bytes(options.memory)
        yield Evaluator.for_model(model, data, reader, block_bytes=block_bytes, client=found, options=options, details=details)


def evaluate_source(
    model: Predictor, source: Any, options: ScoringOptions = NO_OPTIONS, details: Details = NO_DETAILS
) -> dict[str, Any]:
    """Return the metrics of a model on labelled data; see `streamsgd.evaluate`."""
    room = max(LEAST_ROOM, parse_limit(options.memory) // 16)  # for a range, and as much for the whole
    with evaluating(model, source, options, check_details(details._replace(room=room))) as evaluator:
        return evaluator.evaluate(model)


def evaluate_with(model: Predictor, source: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Return the metrics of a model on labelled data, by options as `streamsgd.evaluate` has them."""
    details = {name: given[name] for name in Details._fields if name in given}
    options = {name: value for name, value in given.items() if name not in details}
    return evaluate_source(model, source, ScoringOptions(**options), Details(**details))
