"""Decoded columns into the rows of a block: the transposition, with imputation and scaling on the way.

Columns come as addresses of Arrow buffers, because a tuple of arrays would compile anew for every number of columns
and one call per column would touch every row once per column: 105 ns per row of 28 float32 against 40-60.
"""

from typing import NamedTuple

import numpy as np

from streamsgd.kernels.jit import inline, kernel
from streamsgd.kernels.memory import load32, load64


class Columns(NamedTuple):
    """One group of decoded columns without nulls (NaN stands for them), each of n_rows numbers."""

    address: np.ndarray
    """int64 (n,): where the values begin. Whoever calls keeps the buffers alive."""
    wide: np.ndarray
    """bool (n,): float64 where true, float32 elsewhere."""
    place: np.ndarray
    """int64 (n,): the column of the block that takes the values."""
    flag: np.ndarray
    """int64 (n,): the column of the block that takes 1 where a value is missing or infinite, -1 for none."""
    shift: np.ndarray
    """float64 (n,): subtracted first."""
    scale: np.ndarray
    """float64 (n,): multiplied then."""
    fill: np.ndarray
    """float64 (n,): what a missing value becomes, in block units."""


@kernel
def scatter(columns, dest, values, missing, infinite):
    """Write each row of the columns to its place in the block, four rows at a time.

    Few rows and all their columns together, because the places are permuted: a line of cache is filled while it is at hand.
    28 float32 columns and two float64 cost 31 ns per row in order and 57 permuted; one row at a time 53 and 67; one column
    after another three times as much.

    Parameters
    ----------
    columns
        n columns.
    dest
        int32 (n_rows,): the row of the block for each row, -1 for a dropped one.
    values
        Shape (block rows, block columns): the block.
    missing, infinite
        int64 (n,): counts of NaN and of infinite values among the rows kept; added to.

    """
    address, wide, place = columns.address, columns.wide, columns.place
    shift, scale = columns.shift, columns.scale
    # float32 columns are shifted and scaled in the precision of the block: converting each value would cost a third more.
    narrow_shift, narrow_scale = shift.astype(values.dtype), scale.astype(values.dtype)
    whole = dest.shape[0] - dest.shape[0] % 4
    for r in range(0, whole, 4):
        i0, i1, i2, i3 = dest[r], dest[r + 1], dest[r + 2], dest[r + 3]
        if min(min(i0, i1), min(i2, i3)) < 0:
            _scatter_rows(columns, r, r + 4, dest, values, missing, infinite)
            continue
        check = values.dtype.type(0.0)
        for c in range(address.shape[0]):
            j = place[c]
            if wide[c]:
                z0 = values.dtype.type((load64(address[c], r) - shift[c]) * scale[c])
                z1 = values.dtype.type((load64(address[c], r + 1) - shift[c]) * scale[c])
                z2 = values.dtype.type((load64(address[c], r + 2) - shift[c]) * scale[c])
                z3 = values.dtype.type((load64(address[c], r + 3) - shift[c]) * scale[c])
            else:
                z0 = (load32(address[c], r) - narrow_shift[c]) * narrow_scale[c]
                z1 = (load32(address[c], r + 1) - narrow_shift[c]) * narrow_scale[c]
                z2 = (load32(address[c], r + 2) - narrow_shift[c]) * narrow_scale[c]
                z3 = (load32(address[c], r + 3) - narrow_shift[c]) * narrow_scale[c]
            check += (z0 + z1) + (z2 + z3)
            values[i0, j] = z0
            values[i1, j] = z1
            values[i2, j] = z2
            values[i3, j] = z3
        if not _is_finite(check):
            _scatter_rows(columns, r, r + 4, dest, values, missing, infinite)
    _scatter_rows(columns, whole, dest.shape[0], dest, values, missing, infinite)
    for c in range(address.shape[0]):
        if columns.flag[c] >= 0:
            _flag_missing(columns, c, dest, values)


@inline
def _is_finite(x):
    """Not np.isfinite: Numba tests x - x for that, which reassociation takes for zero even where x is NaN."""
    return not (np.isnan(x) or np.isinf(x))


@inline
def _scatter_rows(columns, first, last, dest, values, missing, infinite):
    """Write some rows with care: drop, impute, count."""
    for r in range(first, last):
        i = dest[r]
        if i < 0:
            continue
        for c in range(columns.address.shape[0]):
            if columns.wide[c]:
                x = load64(columns.address[c], r)
                z = values.dtype.type((x - columns.shift[c]) * columns.scale[c])
            else:
                x = np.float64(load32(columns.address[c], r))
                z = values.dtype.type(x) - values.dtype.type(columns.shift[c])
                z *= values.dtype.type(columns.scale[c])
            if _is_finite(z):
                values[i, columns.place[c]] = z
            else:
                values[i, columns.place[c]] = columns.fill[c]
                missing[c] += np.isnan(x)
                infinite[c] += not np.isnan(x)


@inline
def _flag_missing(columns, c, dest, values):
    for r in range(dest.shape[0]):
        x = load64(columns.address[c], r) if columns.wide[c] else np.float64(load32(columns.address[c], r))
        if dest[r] >= 0:
            values[dest[r], columns.flag[c]] = 0.0 if _is_finite(x) else 1.0
