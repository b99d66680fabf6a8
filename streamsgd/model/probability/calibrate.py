"""Calibration of a model on labelled rows that it has not seen."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from streamsgd.compute.executors import reading
from streamsgd.data.stores.filesystems import IO_TIMEOUT, set_io_timeout
from streamsgd.data.stores.output import check_no_input, reserved
from streamsgd.errors import DataError
from streamsgd.messages import counted, verb
from streamsgd.model.evaluate import Evaluator
from streamsgd.model.model import Model
from streamsgd.model.options import ScoringOptions
from streamsgd.model.probability.conformal import sketch_rows
from streamsgd.model.probability.sketch import new_sketch, said_of
from streamsgd.model.read import load
from streamsgd.model.score_stream import scoring_block_bytes
from streamsgd.settings.words import speaks_python
from streamsgd.stream.stream import sequential_stream

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from streamsgd.model.probability.sketch import ScoreSketch
    from streamsgd.stream.stats import Account

log = logging.getLogger("streamsgd")

USUAL_LEVEL = 0.9
"""For which a class is said to have too few rows."""


@speaks_python
def calibrate(
    model: Model | str | os.PathLike[str],
    source: Any,
    *,
    out: str | os.PathLike[str] | None = None,
    loss: str | None = None,
    column_kind: Sequence[str] = (),
    filter: str | None = None,  # noqa: A002  the name of the setting
    memory: str | None = None,
    threads: int | None = None,
    executor: str = "auto",
    io_timeout: float = IO_TIMEOUT,
    account: Account | None = None,
    bad_rows: str | None = None,
    unreadable: str | None = None,
    infinite: str | None = None,
) -> Model:
    """Return a model whose intervals hold outcomes: see docs/uncertainty.md.

    Parameters
    ----------
    model
        A model or the path of one.
    source
        Labelled rows that the model has not learned from, as in training.
    out
        Where to save the model.
    loss, column_kind
        Where parts of a model file are that are not streamsgd's: package.module:Class.
    filter, memory, threads, executor, io_timeout, bad_rows, unreadable, infinite
        As the settings of these names; the last three by default what they were in training.
    account
        Filled meanwhile.

    Raises
    ------
    StreamSGDError
        No row is left, the data lacks a column, or the storage is at fault.

    """
    set_io_timeout(io_timeout)
    known = load(model, loss=loss, column_kind=column_kind) if not isinstance(model, Model) else model
    options, block_bytes = (
        ScoringOptions(None, bad_rows, unreadable, infinite, filter, memory, account=account),
        scoring_block_bytes(memory),
    )
    with reserved(out, None), reading(executor, threads) as reader:
        data = Evaluator.for_model(known, source, reader, block_bytes=block_bytes, options=options)
        check_no_input("--out", out, data.recipe.dataset.source)
        made = with_sketch(known, _sketch_all(known, data))
        if out is not None:
            made.save(out)
    return made


def _sketch_all(model: Model, data: Evaluator) -> ScoreSketch:
    data.account.start(data.recipe.dataset.n_rows)
    sketch = new_sketch()
    for filled in sequential_stream(data.recipe, data.executor, data.block_bytes).chunks():
        sketch = sketch.merge(sketch_rows(model, filled.block, filled.learned_runs()))
        data.account.add(filled)
    data.account.settle()
    return sketch


def with_sketch(model: Model, sketch: ScoreSketch) -> Model:
    """Return a model with a sketch, and what there is to say of it.

    Raises
    ------
    DataError
        It is of no row.

    """
    if not sketch.rows:
        raise DataError("no row is left to calibrate on: pass others, or hold more out")
    warn_of_few(sketch, model.classes)
    return replace(model, conformal=sketch, metrics={**model.metrics, "calibration": said_of(sketch, model.classes)})


def warn_of_few(sketch: ScoreSketch, classes: tuple[Any, ...]) -> None:
    """Say which classes have too few rows for a level of 90 %: they are in every set of labels."""
    few = [str(name) for k, name in enumerate(classes) if not math.isfinite(sketch.quantile(USUAL_LEVEL, k).value)]
    if few:
        log.warning(
            "calibration: %d of %d classes have too few rows for sets of 90 %% (less than 9), and are in every set: %s",
            len(few),
            len(classes),
            ", ".join(few[:10]),
        )
    if not classes and not math.isfinite(sketch.quantile(USUAL_LEVEL).value):
        told, are = counted(sketch.rows, "row"), verb(sketch.rows)
        log.warning("calibration: %s %s too few for intervals of 90 %%, which are infinite", told, are)
