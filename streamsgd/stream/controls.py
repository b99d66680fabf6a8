"""What columns say that decide which rows are learned, as what: part by part as they are read.

A piece may have a million rows, and what decides may be long texts: of each part only the answers are kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from streamsgd.features.target import encode_target, encode_weight, is_labelled
from streamsgd.stream.groups import codes_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamsgd.data.dataset import Dataset
    from streamsgd.features.target import Target
    from streamsgd.planning.chunks import Piece
    from streamsgd.stream.held import HeldOut


class RowFacts(NamedTuple):
    """Of the rows of a piece, or of a part of one; arrays have its rows."""

    wanted: np.ndarray
    """bool: which fulfil the filter."""
    unseen: np.ndarray
    """bool: which have a class that is none of the target's, as far as that is allowed."""
    y: np.ndarray | None
    y_good: np.ndarray | None
    """bool: which have a target."""
    weight: np.ndarray | None
    weight_good: np.ndarray | None
    held: np.ndarray | None
    """bool: which are held out; None where no column decides that."""
    folds: np.ndarray | None
    """uint8: in which fold they are; the same."""
    codes: np.ndarray | None
    """int32: which of the labels each has by which rows are told apart."""


class Rules(Protocol):
    """By what columns decide, as a `Loader` has it."""

    dataset: Dataset
    target: Target | None
    weight: str | None
    filter: Any
    filter_columns: tuple[str, ...]
    held: HeldOut
    counts_unseen: bool
    by: str | None

    def folds(self, piece: Piece, columns: dict[str, Any]) -> np.ndarray | None:
        """Return the fold of each row, where columns decide it."""


def facts_of(rules: Rules, piece: Piece, columns: dict[str, Any], labels: dict[str, int]) -> RowFacts:
    """Return what the columns of some rows say; `labels` takes in those that are new."""
    n = piece.rows
    wanted = np.ones(n, np.bool_)
    if rules.filter is not None:
        given = columns if rules.filter_columns else {"": np.zeros(n)}  # a condition may need no column
        wanted = rules.filter.keep(given, rules.dataset.source.where(piece))
    y = y_good = weight = weight_good = None
    unseen, target = np.zeros(n, np.bool_), rules.target
    if target:
        y, y_good = encode_target(target, columns[target.name])
        if rules.counts_unseen and target.classes:
            unseen = wanted & is_labelled(target, columns[target.name]) & ~y_good
    if rules.weight:
        weight, weight_good = encode_weight(columns[rules.weight])
    held = rules.held.rows(rules.dataset, piece, columns) if rules.held.columns else None
    folds = rules.folds(piece, columns)
    codes = None
    if rules.by is not None:
        judged = wanted & (True if y_good is None else y_good) & (True if weight_good is None else weight_good)
        codes = codes_of(rules.by, columns[rules.by], judged, labels)
    return RowFacts(wanted, unseen, y, y_good, weight, weight_good, held, folds, codes)


def join_facts(parts: Sequence[RowFacts]) -> RowFacts:
    """Return the facts of parts one after another."""
    if len(parts) == 1:
        return parts[0]
    joined: list[Any] = [None if some[0] is None else np.concatenate(some) for some in zip(*parts, strict=True)]
    return RowFacts(*joined)


def flat(column: Any) -> Any:
    """Return a column as one Arrow array."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
