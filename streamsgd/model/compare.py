"""Models side by side, and a model's rows explained: what people call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamsgd.compute.client import client_of
from streamsgd.compute.executors import reading
from streamsgd.data.stores.filesystems import IO_TIMEOUT, set_io_timeout
from streamsgd.model.evaluation import NO_DETAILS, Details, check_details
from streamsgd.model.judge import Judge, judge_source
from streamsgd.model.model import Model
from streamsgd.model.options import ScoringOptions
from streamsgd.model.outputs import named_models
from streamsgd.model.predict import Scored, score_data
from streamsgd.model.read import load
from streamsgd.model.score_stream import scoring_block_bytes
from streamsgd.settings.words import speaks_python

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from streamsgd.stream.stats import Account


def loaded(model: Any, loss: str | None = None, column_kind: Sequence[str] = ()) -> Model:
    """Return a model, or that of a path."""
    return model if isinstance(model, Model) else load(model, loss=loss, column_kind=column_kind)


@speaks_python
def compare(
    model: Model | str | os.PathLike[str],
    others: Any,
    source: Any,
    *,
    loss: str | None = None,
    column_kind: Sequence[str] = (),
    io_timeout: float = IO_TIMEOUT,
    threshold: float | None = None,
    confusion: bool = False,
    at_precision: Sequence[float] = NO_DETAILS.at_precision,
    top: Sequence[float] = NO_DETAILS.top,
    **options: Any,
) -> dict[str, Any]:
    """Measure models on the same rows of labelled data, decoded once, and say how surely their losses differ.

    Parameters
    ----------
    model
        A model or the path of one, which the others are compared with.
    others
        Another model or its path, several, or a dict of names to them; a path is called by its file without the ending.
    source
        As in training.
    loss, column_kind, io_timeout, options
        As of `streamsgd.evaluate`: filter, memory, weight, client ...
    threshold
        Of two classes: the probability from which on a row counts as of the second one, for precision, recall and the like.
    confusion
        Whether to return which classes are taken for which.
    at_precision, top
        As of `streamsgd.evaluate`.

    Returns
    -------
    dict
        `metrics` of the model; and by name, in `also`, `metrics` of each other and `differences`: for every loss the mean over
        rows of the other's less the model's (negative: the other is better), its `standard_error`, and an `interval` of 95 %.
        Rows count as independent.

    Raises
    ------
    StreamSGDError
        The models do not predict the same, or the data lacks a column of one or holds what it cannot use.

    """
    set_io_timeout(io_timeout)
    known = {name: loaded(other, loss, column_kind) for name, other in named_models(others).items()}
    details = check_details(Details(tuple(at_precision), tuple(top)))
    judge = Judge(loaded(model, loss, column_kind), known, threshold, confusion, details)
    return judge_source(judge, source, ScoringOptions(**options))


@speaks_python
def explain(
    model: Model | str | os.PathLike[str],
    source: Any,
    out: str | os.PathLike[str],
    *,
    id: Sequence[str] | None = None,  # noqa: A002  the name of the setting
    loss: str | None = None,
    column_kind: Sequence[str] = (),
    filter: str | None = None,  # noqa: A002  the name of the setting
    memory: str | None = None,
    threads: int | None = None,
    executor: str = "auto",
    workers: int | None = None,
    scheduler: str | None = None,
    io_timeout: float = IO_TIMEOUT,
    client: Any = None,
    account: Account | None = None,
    unreadable: str | None = None,
    infinite: str | None = None,
) -> Scored:
    """Write what each column of every row adds to its score, as Parquet: one output per input file, safe to kill.

    Beside the columns of `id` an output has `prediction`, `score`, `intercept`, and `contribution_COLUMN` of every column and
    cross; intercept and contributions add up to the score. Of several classes each has its own, `score_CLASS` and so on. The
    score is the log-odds of two classes, the logarithm of a count, and of a regression in units of the target. Numbers count
    relative to where they are usual.

    Parameters
    ----------
    model, source, out, id, loss, column_kind, filter, memory, threads, executor, workers, scheduler, io_timeout, client, \
    account, unreadable, infinite
        As of `streamsgd.predict`.

    Raises
    ------
    StreamSGDError
        The data or the storage is at fault; finished files stay.

    """
    set_io_timeout(io_timeout)
    ids = None if id is None else tuple(id)
    with client_of(client, scheduler, workers) as found, reading("inline" if found else executor, threads) as reader:
        return score_data(
            loaded(model, loss, column_kind),
            source,
            str(out),
            executor=reader,
            block_bytes=scoring_block_bytes(memory),
            ids=ids,
            filter_text=filter,
            account=account,
            client=found,
            memory=memory,
            options=ScoringOptions(unreadable=unreadable, infinite=infinite),
            explained=True,
        )
