"""Rows of any data, scored one after another in their order: what predictions of arrays and of files stand on."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

from streamsgd.compute.executors import reading
from streamsgd.compute.memory import parse_limit
from streamsgd.data.open import open_data
from streamsgd.messages import counted
from streamsgd.model.options import NO_OPTIONS, ScoringOptions
from streamsgd.stream.loader import Loader, check_loader
from streamsgd.stream.stream import sequential_stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from streamsgd.compute.executors import Executor
    from streamsgd.data.dataset import Dataset
    from streamsgd.model.predictor import Predictor

log = logging.getLogger("streamsgd")

SCORING_BLOCK_SHARE = 1 / 16
"""Share of the memory limit that each of the two blocks of a scoring run takes, up to `SCORING_BLOCK_BYTES`."""

SCORING_BLOCK_BYTES = 64 << 20


def scoring_block_bytes(memory: str | None) -> int:
    """Return the bytes of a block of rows that are scored, within a memory limit."""
    return int(min(SCORING_BLOCK_BYTES, parse_limit(memory) * SCORING_BLOCK_SHARE))


def score_rows(
    model: Predictor, data: Any, *, executor: Executor, block_bytes: int, filter_text: str | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield scores and means, (n, n_outputs) in block units, of some rows after others in the order of the data.

    Raises
    ------
    DataError
        The data cannot be read, or lacks a column.

    """
    recipe = scoring_loader(model, *open_for(model, data, filter_text))
    with contextlib.closing(sequential_stream(recipe, executor, block_bytes).chunks()) as chunks:
        for filled in chunks:
            for start, stop in filled.learned_runs():
                yield model.score_block(filled.block, start, stop)[:2]


def score_source(model: Predictor, source: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield scores and means, in block units, of the rows of Parquet, in its order, read by threads."""
    with reading("auto", None) as reader:
        yield from score_rows(model, source, executor=reader, block_bytes=scoring_block_bytes(None))


def scoring_loader(
    model: Predictor,
    dataset: Dataset,
    expression: Any,
    columns: tuple[str, ...],
    options: ScoringOptions = NO_OPTIONS,
) -> Loader:
    """Return what reads the rows of opened data for a model to score.

    Raises
    ------
    DataError
        The data lacks a column, or has it in another type.

    """
    return check_loader(
        Loader(
            dataset,
            model.encoding,
            None,
            None,
            expression,
            columns,
            skip_unreadable=options.unreadable == "skip",
            infinite_is_missing=options.of(model, "infinite") == "missing",
            missing=tuple(model.settings.get("missing", ())),
            precision=str(model.weights.dtype),
            nulls_for_missing=model.settings.get("missing_columns") == "null",
        )
    )


def open_for(
    model: Predictor, data: Any, filter_text: str | None, *, empty: bool = False
) -> tuple[Dataset, Any, tuple[str, ...]]:
    """Return data for a model to score, the filter and its columns; `empty` data is allowed if asked for.

    Raises
    ------
    DataError
        The data cannot be opened.

    """
    nulls = model.settings.get("missing_columns") == "null"
    return open_data(data, filter_text, trained=model.encoding.types, nulls=nulls, empty=empty)


def say_none_left(filter_text: str, n_rows: int, filtered: int) -> None:
    """Say that a filter leaves no row, if it is the filter, of so many in the row groups that could hold a match."""
    if filtered < n_rows:
        return
    none = f"none of {counted(n_rows, 'row')} fulfils it" if n_rows else "no row group can hold a match"
    log.warning("--filter %r leaves no row: %s, and what is written holds none", filter_text, none)
