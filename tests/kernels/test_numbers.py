"""Columns into rows: the kernel equals a plain loop, whatever the types, places, gaps and missing values."""

from typing import Any

import numpy as np
import pytest

from streamsgd.kernels.encode.numbers import Columns, scatter

INF, NAN = np.inf, np.nan


def columns_of(arrays: list[np.ndarray], **given: Any) -> Columns:
    n = len(arrays)
    usual: dict[str, Any] = {"shift": np.zeros(n), "scale": np.ones(n), "fill": np.zeros(n), "holes": np.arange(n) % 2 == 0}
    usual |= {"place": np.arange(n), "flag": np.full(n, -1)}
    address = np.array([a.ctypes.data for a in arrays], np.int64)
    wide = np.array([a.dtype == np.float64 for a in arrays])
    rest = {key: np.array(given.get(key, value), value.dtype) for key, value in usual.items()}
    return Columns(address, wide, **rest)


def plainly(arrays: list[np.ndarray], columns: Columns, dest: np.ndarray, values: np.ndarray) -> Any:
    """Do what `scatter` says, one value at a time, in float64."""
    missing, infinite = np.zeros(len(arrays), np.int64), np.zeros(len(arrays), np.int64)
    kind = values.dtype.type
    for c, array in enumerate(arrays):
        for r, i in enumerate(dest.tolist()):
            if i < 0:
                continue
            x = float(array[r])
            with np.errstate(over="ignore", invalid="ignore"):
                z = kind((x - columns.shift[c]) * columns.scale[c])
            values[i, columns.place[c]] = z if np.isfinite(z) else columns.fill[c]
            missing[c] += np.isnan(x)
            infinite[c] += not np.isnan(x) and not np.isfinite(z)
            if columns.flag[c] >= 0:
                values[i, columns.flag[c]] = not np.isfinite(x)
    return missing, infinite


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("n_rows", [0, 1, 3, 4, 5, 8, 101])
def test_rows_are_those_of_a_plain_loop(n_rows: int, precision: str) -> None:
    """Any mixture of widths, permuted and dropped rows, NaN and Inf, indicators; in fours and the rest."""
    rng = np.random.default_rng(n_rows)
    for drop, odd in ((0.0, 0.0), (0.3, 0.0), (0.0, 0.2), (0.3, 0.2), (1.0, 0.5)):
        arrays = []
        for c in range(5):
            array = rng.normal(size=n_rows).astype(np.float64 if c % 2 else np.float32)
            array[rng.random(n_rows) < odd] = NAN
            array[rng.random(n_rows) < odd / 4] = rng.choice([INF, -INF])
            arrays.append(array)
        kept = rng.random(n_rows) >= drop
        dest = np.full(n_rows, -1, np.int32)
        dest[kept] = rng.permutation(n_rows)[: kept.sum()]
        columns = columns_of(
            arrays, place=[3, 0, 1, 4, 2], flag=[-1, 5, -1, 6, 7], shift=rng.normal(size=5),
            scale=rng.uniform(0.5, 2.0, 5), fill=rng.normal(size=5),
        )  # fmt: skip
        got, expected = np.full((2, n_rows, 8), -99.0, precision)
        missing, infinite = np.zeros((2, 5), np.int64)
        scatter(columns, dest, got, missing, infinite)
        counts = plainly(arrays, columns, dest, expected)
        np.testing.assert_allclose(got, expected, rtol=0, atol=5e-6 if precision == "float32" else 1e-13)
        assert (missing.tolist(), infinite.tolist()) == tuple(count.tolist() for count in counts)
        assert (got[np.setdiff1d(np.arange(n_rows), dest)] == -99.0).all()


def test_counts_add_up_over_calls() -> None:
    column = np.array([1.0, NAN, INF, NAN, 2.0])
    missing, infinite = np.ones(1, np.int64), np.ones(1, np.int64)
    values = np.zeros((5, 1))
    for _ in range(2):
        scatter(columns_of([column], fill=[7.0]), np.arange(5, dtype=np.int32), values, missing, infinite)
    assert (missing[0], infinite[0]) == (5, 3)
    assert values[:, 0].tolist() == [1.0, 7.0, 7.0, 7.0, 2.0]


def test_a_number_too_large_for_the_block_is_infinite_there() -> None:
    """1e39 is finite as float64 and infinite as float32: it is counted, never stored."""
    values, missing, infinite = np.zeros((8, 1), np.float32), np.zeros(1, np.int64), np.zeros(1, np.int64)
    column = np.array([1.0, 1e39, -1e39, 2.0, 3.0, 1e38, 1.0, 1e300])
    scatter(columns_of([column], fill=[-5.0]), np.arange(8, dtype=np.int32), values, missing, infinite)
    assert (missing[0], infinite[0]) == (0, 3)
    np.testing.assert_allclose(values[:, 0], [1, -5, -5, 2, 3, 1e38, 1, -5], rtol=1e-6)


def test_finite_rows_whose_sum_overflows_are_kept() -> None:
    """Rows are checked four at a time by their sum, which may overflow where no value does."""
    values, missing, infinite = np.zeros((4, 1), np.float32), np.zeros(1, np.int64), np.zeros(1, np.int64)
    column = np.full(4, 3e38)
    scatter(columns_of([column]), np.arange(4, dtype=np.int32), values, missing, infinite)
    assert (missing[0], infinite[0]) == (0, 0)
    np.testing.assert_allclose(values, 3e38, rtol=1e-6)


def test_infinities_of_both_signs_do_not_hide_each_other() -> None:
    values, missing, infinite = np.zeros((4, 2)), np.zeros(2, np.int64), np.zeros(2, np.int64)
    arrays = [np.array([INF, -INF, 1.0, 2.0]), np.array([0.0, NAN, NAN, INF], np.float32)]
    scatter(columns_of(arrays, fill=[9.0, 8.0]), np.arange(4, dtype=np.int32), values, missing, infinite)
    assert (missing.tolist(), infinite.tolist()) == ([0, 2], [2, 1])
    assert values.tolist() == [[9.0, 0.0], [9.0, 8.0], [1.0, 8.0], [2.0, 8.0]]
