"""Decoded columns into the rows of a block: the transposition, with imputation and scaling on the way.

Columns come as addresses of Arrow buffers, because a tuple of arrays would compile anew for every number of columns
and one call per column would touch every row once per column: 105 ns per row of 28 float32 against 14.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from streamsgd.kernels.compile.jit import lean, lean_kernel
from streamsgd.kernels.compile.memory import LINE, SIDE, address_of, load32, load64, ramp32, ramp64, touch, transpose


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
    holes: np.ndarray
    """bool (n,): whether many values may be missing, so that it pays to fill them before rows are written."""


LEAD = 256 << 10
"""Bytes of the block to ask for ahead of time: a tile, so that the places that a row may take are at hand in any order."""

STRIP = 512
"""Rows that are encoded at a time ..."""

STRIP_NUMBERS = 1 << 16
"""... or fewer, so that a strip of all columns stays in the second-level cache."""

PAD = 16
"""Numbers between the columns of a strip, so that they do not share the sets of a cache."""


class Strip(NamedTuple):
    """Room for the rows that are encoded at a time, and how they go on into the block."""

    numbers: Any
    """Of the type of the block: where column c stands from c * pitch on."""
    rows: int
    pitch: int
    eights: np.ndarray
    """int64: columns whose places, and those of the seven after them, are neighbours."""
    singles: np.ndarray
    """int64: the others."""


def new_strip(place: np.ndarray, kind: Any, most: int) -> Strip:
    """Return a strip of up to so many rows for columns with these places."""
    pitch = most + PAD
    return Strip(np.empty(len(place) * pitch, kind), most, pitch, *_runs_of_eight(place.tobytes()))


@lru_cache(maxsize=64)
def _runs_of_eight(places: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Cut columns into eights with neighbouring places, the last of a run overlapping the one before, and single ones."""
    place = np.frombuffer(places, np.int64)
    eights, singles = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for run in np.split(np.arange(len(place)), np.flatnonzero(np.diff(place) != 1) + 1):
        if len(run) >= SIDE:
            eights.append(np.minimum(run[::SIDE], run[-1] + 1 - SIDE))
        else:
            singles.append(run)
    return np.concatenate(eights), np.concatenate(singles)


def scatter(columns: Columns, dest: Any, values: Any, missing: Any, infinite: Any) -> None:
    """Write each row of the columns to its place in the block.

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
    n, kind = len(columns.place), values.dtype
    most = max(SIDE, min(STRIP, STRIP_NUMBERS // max(n, 1) // SIDE * SIDE))
    # float32 columns are shifted and scaled in the precision of the block: converting each value would cost a third more.
    shift, scale, fill = columns.shift.astype(kind), columns.scale.astype(kind), columns.fill.astype(kind)
    # Where these rows begin, whatever their order within a tile; dropped ones are the largest of unsigned numbers.
    first = int(dest[: 1 << 12].view(np.uint32).min()) if len(dest) else 0
    strip = new_strip(columns.place, kind, most)
    scatter_numbers(columns, shift, scale, fill, strip, dest, first, values, missing, infinite)


@lean_kernel
def scatter_numbers(columns, shift, scale, fill, strip, dest, first_place, values, missing, infinite):
    """Do what `scatter` says, a strip of rows at a time.

    A strip is encoded column by column, then transposed in registers, eight rows and eight columns with neighbouring places
    at a time, and written as vectors, of which the processor can have many under way. Arrow's allocator puts columns at
    addresses that share the sets of every cache, so that 28 of them must not be read side by side. 28 float32 columns and
    a float64 of decoded Parquet cost 17 ns per row; number by number 45, one column after another 100.

    `shift`, `scale` and `fill` are those of the columns in the type of the block. Nothing is allocated here: making an array
    takes a tenth of a second to compile.
    """
    n, n_rows = columns.place.shape[0], dest.shape[0]
    source, pitch, eights, singles = strip.numbers, strip.pitch, strip.eights, strip.singles
    row_bytes = values.shape[1] * values.itemsize
    start = address_of(values) + first_place * row_bytes
    whole = n_rows - n_rows % SIDE
    for first in range(0, whole, strip.rows):
        last = min(first + strip.rows, whole)
        _touch_all(start + first * row_bytes + LEAD, start + last * row_bytes + LEAD)
        for c in range(n):
            after = c + 1 if c + 1 < n else 0
            size = 8 if columns.wide[after] else 4
            ahead = columns.address[after] + (first if after else last) * size
            _touch_all(ahead, ahead + (last - first) * size)
            _encode(columns, c, first, last, shift[c], scale[c], source, c * pitch)
        filled = lowest_of(dest, first, last) >= 0  # those of dropped rows are not counted
        if filled:
            for c in range(n):
                if columns.holes[c]:
                    missing[c] += _fill(source, c * pitch, last - first, fill[c])
        for r in range(first, last, SIDE):
            if lowest(dest, r) < 0:
                _scatter_rows(columns, r, r + SIDE, dest, values, missing, infinite, filled)
                continue
            check, at = values.dtype.type(0.0), r - first
            for e in range(eights.shape[0]):
                c = eights[e]
                check += transpose(source, c * pitch + at, pitch, values, dest, r, columns.place[c])
            for e in range(singles.shape[0]):
                c = singles[e]
                for q in range(SIDE):
                    z = source[c * pitch + at + q]
                    check += z
                    values[dest[r + q], columns.place[c]] = z
            if not _is_finite(check):
                _scatter_rows(columns, r, r + SIDE, dest, values, missing, infinite, filled)
    # Not a bare False, which is a type of its own and would compile the function again.
    _scatter_rows(columns, whole, n_rows, dest, values, missing, infinite, np.bool_(0))
    for c in range(n):
        if columns.flag[c] >= 0:
            _flag_missing(columns, c, dest, values)


@lean
def _encode(columns, c, first, last, shift, scale, source, at):
    """Shift and scale some rows of a column."""
    address, at = columns.address[c], at - first
    r = first
    if columns.wide[c]:
        own_shift, own_scale = columns.shift[c], columns.scale[c]
        while r < last:
            ramp64(address, r, own_shift, own_scale, source, at + r)
            r += SIDE
    else:
        while r < last:
            ramp32(address, r, shift, scale, source, at + r)
            r += SIDE


@lean
def _fill(source, at, n, fill):
    """Fill the NaN of some numbers; return how many there were."""
    count = 0
    for q in range(at, at + n):
        bad = np.isnan(source[q])
        count += bad
        source[q] = fill if bad else source[q]
    return count


@lean
def lowest_of(dest, first, last):
    """Return the least place of some rows."""
    least = dest[first]
    for r in range(first, last):
        least = min(least, dest[r])
    return least


@lean
def _touch_all(first, last):
    """Ask for the lines from one address to another."""
    while first < last:
        touch(first)
        first += LINE


@lean
def lowest(dest, r):
    lowest = dest[r]
    for q in range(1, SIDE):
        lowest = min(lowest, dest[r + q])
    return lowest


@lean
def _is_finite(x):
    """Not np.isfinite: Numba tests x - x for that, which reassociation takes for zero even where x is NaN."""
    return not (np.isnan(x) or np.isinf(x))


@lean
def _scatter_rows(columns, first, last, dest, values, missing, infinite, filled):
    """Write some rows with care: drop, impute, count, but for what was `filled` and counted before."""
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
                missing[c] += np.isnan(x) and not (filled and columns.holes[c])
                infinite[c] += not np.isnan(x)


@lean
def _flag_missing(columns, c, dest, values):
    for r in range(dest.shape[0]):
        x = load64(columns.address[c], r) if columns.wide[c] else np.float64(load32(columns.address[c], r))
        if dest[r] >= 0:
            values[dest[r], columns.flag[c]] = 0.0 if _is_finite(x) else 1.0
