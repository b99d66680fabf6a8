"""Which rows are held out of training: a share by a stable hash of their place, or of a value, or those of a condition."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from streamsgd.data.filters import RowFilter, row_filter
from streamsgd.data.normalise import undictionaried
from streamsgd.errors import SettingsError
from streamsgd.features.hashing import NULL, hash_whole, name_seed
from streamsgd.kernels.encode.shuffle import hold_out
from streamsgd.messages import nearest
from streamsgd.settings.folds import fold_of

if TYPE_CHECKING:
    from streamsgd.data.dataset import Dataset
    from streamsgd.planning.chunks import Piece
    from streamsgd.settings.fields import Settings


@dataclass(frozen=True)
class HeldOut:
    """Says of rows whether they are held out; the same in every epoch, process and order of the rows.

    Parameters
    ----------
    share
        Of rows, or of the values of a group.
    group
        Column whose values are held out as wholes; '' for rows one by one. Rows without a value are a group.
    condition
        Instead of a share: rows that fulfil it.

    """

    share: float = 0.0
    group: str = ""
    condition: RowFilter | None = None
    by_number: bool = False
    """Whether rows are known by their number in the data, not by file and row group: a table is then split as its file is."""

    def __bool__(self) -> bool:
        """Whether any row may be held out."""
        return bool(self.share) or self.condition is not None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that it needs."""
        if self.condition is not None:
            return self.condition.columns
        return (self.group,) if self.group else ()

    @property
    def stream(self) -> Any:
        """What must be the same of runs that learn from one stream."""
        return self.share

    def rows(self, dataset: Dataset, piece: Piece, columns: dict[str, Any]) -> np.ndarray:
        """Return which rows of a piece are held out, bool (n,); `columns` are Arrow arrays of all its rows.

        Raises
        ------
        DataError
            The condition cannot be worked out for some value.

        """
        if self.condition is not None:
            given = columns if self.condition.columns else {"": np.zeros(piece.rows)}
            fulfilled: np.ndarray = self.condition.keep(given, dataset.source.where(piece))
            return fulfilled
        return self.below(self.share, dataset, piece, columns)

    def below(self, share: float, dataset: Dataset, piece: Piece, columns: dict[str, Any]) -> np.ndarray:
        """Return which rows of a piece are among the first `share` of all by their hash, bool (n,)."""
        if not 0.0 < share < 1.0:
            return np.full(piece.rows, share > 0.0)
        return self._of_group(columns[self.group], share) if self.group else self._by_place(dataset, piece, share)

    def _of_group(self, column: Any, share: float) -> np.ndarray:
        """Hash values as text, so that a value is in or out whatever row group, file or order it comes in."""
        plain = undictionaried(column)
        plain = plain.combine_chunks() if isinstance(plain, pa.ChunkedArray) else plain
        hashes = hash_whole(plain.cast(pa.large_string()).cast(pa.large_binary()).fill_null(NULL), name_seed(self.group))
        below: np.ndarray = hashes < np.int64(share * 2.0**32)
        return below

    def _by_place(self, dataset: Dataset, piece: Piece, share: float) -> np.ndarray:
        held = np.zeros(piece.rows, np.bool_)
        threshold = np.uint64(min(share * 2.0**64, 2.0**64 - 2048))
        at, row = 0, piece.start
        first = int(dataset.rows[: piece.first].sum()) if self.by_number else 0
        for group in range(piece.first, piece.last):
            n = min(int(dataset.rows[group]) - row, piece.rows - at)
            key = BY_NUMBER if self.by_number else _group_key(dataset, group)
            hold_out(key, first + row, threshold, held[at : at + n])
            first += int(dataset.rows[group]) if self.by_number else 0
            at, row = at + n, 0
        return held


@dataclass(frozen=True)
class HeldFold(HeldOut):
    """One of several folds, which are equal shares by the same hash: every row is in just one.

    Parameters
    ----------
    number
        From 1; 0 for none, which learns all rows.
    folds
        How many there are.

    """

    number: int = 0
    folds: int = 1

    def __bool__(self) -> bool:
        """Whether any row may be held out."""
        return self.number > 0

    def rows(self, dataset: Dataset, piece: Piece, columns: dict[str, Any]) -> np.ndarray:
        """Return which rows of a piece are in the fold, bool (n,)."""
        before = self.below(max(0, self.number - 1) / self.folds, dataset, piece, columns)
        held: np.ndarray = self.below(self.number / self.folds, dataset, piece, columns) & ~before
        return held

    def numbers(self, dataset: Dataset, piece: Piece, columns: dict[str, Any]) -> np.ndarray:
        """Return the number of the fold of each row of a piece, uint8 (n,)."""
        found = np.full(piece.rows, self.folds, np.uint8)
        for k in range(1, self.folds):
            found -= self.below(k / self.folds, dataset, piece, columns)
        return found

    @property
    def stream(self) -> tuple[Any, ...]:
        """What runs have in common that leave out other folds of the same rows."""
        return self.folds, self.group


NOTHING_HELD = HeldOut()

BY_NUMBER = np.uint64(0x5EED)
"""In the place of the key of a row group."""


def _group_key(dataset: Dataset, group: int) -> np.uint64:
    name = dataset.source.files[int(dataset.file[group])].name
    text = f"{name}\0{int(dataset.index[group])}"
    return np.uint64(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little"))


def held_out(settings: Settings, schema: Any, share: float) -> HeldOut:
    """Return which rows of a data set the settings hold out: those of a condition, or a share of the rows.

    Raises
    ------
    SettingsError
        The condition is none, or the column of the groups is not there or has no values that can be compared.

    """
    fold = fold_of(settings)
    if fold is None and isinstance(settings.validation, str) and settings.validation != "auto":
        return HeldOut(condition=row_filter(settings.validation, schema, "--validation"))
    group = settings.validation_group or ""
    if group and group not in schema.names:
        raise SettingsError(f"--validation-group {group}: the data has no such column{nearest(group, schema.names)}")
    if group and pa.types.is_nested(schema.field(group).type):
        raise SettingsError(
            f"--validation-group {group}: is of type {schema.field(group).type}; name a column of single values"
        )
    if fold is not None:
        return HeldFold(1.0 / fold[1], group, number=fold[0], folds=fold[1])
    return HeldOut(share, group, by_number=settings.validation == "auto")
