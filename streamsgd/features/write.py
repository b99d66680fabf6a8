"""Arrow and NumPy columns into the rows of a block: what encoders of kinds share, one call of a kernel each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamsgd.features.arrow import address, bitmap, float_address, has_nulls, is_double
from streamsgd.kernels.encode.categories import Codes, Crosses, scatter_slots
from streamsgd.kernels.encode.numbers import Columns, scatter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamsgd.features.column import Destination


class NumberPlaces(NamedTuple):
    """Where n numbers of a row go, and what is done to them on the way."""

    place: np.ndarray
    """int64 (n,): the column of the block for the number ..."""
    flag: np.ndarray
    """int64 (n,): ... and for a 1 where it is missing or infinite, -1 for none."""
    shift: np.ndarray
    """float64 (n,): subtracted first."""
    scale: np.ndarray
    """float64 (n,): multiplied then."""
    fill: np.ndarray
    """float64 (n,): what a missing number becomes."""

    @classmethod
    def neighbours(cls, first: int, n: int) -> NumberPlaces:
        """Return n places side by side for numbers as they are, 0 where missing."""
        place = np.arange(first, first + n, dtype=np.int64)
        return cls(place, np.full(n, -1, np.int64), np.zeros(n), np.ones(n), np.zeros(n))

    def some(self, chosen: np.ndarray) -> NumberPlaces:
        """Return the places that a bool (n,) chooses."""
        return NumberPlaces(*(values[chosen] for values in self))


def write_numbers(
    values: Sequence[Any], places: NumberPlaces, rows: Destination, holes: Sequence[bool] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Write columns of numbers to their places in a block.

    Parameters
    ----------
    values
        n float32 or float64 arrays, Arrow's or contiguous NumPy's, of n_rows numbers each; NaN where missing.
    places
        Of the n columns.
    rows
        Where the rows go.
    holes
        Whether many values of each may be missing; by default as Arrow's nulls say.

    Returns
    -------
    missing, infinite
        int64 (n,): NaN and infinite values among the rows kept.

    """
    columns = Columns(
        np.array([float_address(column) for column in values], np.int64),
        np.array([is_double(column) for column in values], np.bool_),
        *places,
        np.array([_has_nulls(column) for column in values] if holes is None else holes, np.bool_),
    )
    missing, infinite = np.zeros(len(values), np.int64), np.zeros(len(values), np.int64)
    scatter(columns, rows.dest, rows.block.rows.values, missing, infinite)
    return missing, infinite


def _has_nulls(column: Any) -> bool:
    return not isinstance(column, np.ndarray) and has_nulls(column)


NO_CROSSES = Crosses(np.zeros((0, 0), np.int32), np.zeros(0, np.uint32), 0, 0)


def write_slots(
    codes: Sequence[Any], nulls: Sequence[int], first: int, rows: Destination, crosses: Crosses = NO_CROSSES
) -> None:
    """Write columns of coordinates to the slots of a block, side by side.

    Parameters
    ----------
    codes
        For each slot int32 (n_rows,) coordinates, or int32 codes (an Arrow array that may have nulls) and the int32
        coordinates of the codes.
    nulls
        For each slot the coordinate of null codes.
    first
        Column of the block with the first slot.
    rows
        Where the rows go.
    crosses
        Combinations of these columns, which take the slots after them.

    """
    arrays = [found if isinstance(found, np.ndarray) else found[0] for found in codes]
    tables = [None if isinstance(found, np.ndarray) else np.append(found[1], np.int32(0)) for found in codes]
    bits = [bitmap(array) for array in arrays]
    bound = Codes(
        np.array([address(array) for array in arrays], np.int64),
        np.array([where for where, _ in bits], np.int64),
        np.array([skip for _, skip in bits], np.int64),
        np.array([0 if table is None else address(table) for table in tables], np.int64),
        np.array(nulls, np.int64),
    )
    scatter_slots(bound, crosses, rows.dest, first, rows.block.rows.ids)
