"""exp, log and log1p of kernels are those of NumPy in long double, to a unit or two in the last place."""

import math

import numpy as np
import pytest
from numba import njit

from streamsgd.kernels.compile import maths


@njit
def fill_exp(x, out):
    for i in range(x.size):
        out[i] = maths.exp(x[i])


@njit
def fill_log(x, out):
    for i in range(x.size):
        out[i] = maths.log(x[i])


@njit
def fill_log1p(x, out):
    for i in range(x.size):
        out[i] = maths.log1p(x[i])


@njit
def fill_log1p_flat(x, out):
    for i in range(x.size):
        out[i] = maths.log1p_flat(x[i])


def compiled(fill, x: np.ndarray) -> np.ndarray:
    out = np.empty_like(x)
    fill(x, out)
    return out


def ulps(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.max(np.abs(found - truth) / (np.abs(truth) * np.finfo(found.dtype).eps)))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_exp_is_right_to_a_unit_in_the_last_place(kind: type) -> None:
    limit = 87.0 if kind is np.float32 else 708.0
    x = np.concatenate([np.linspace(-limit, limit, 300_001), np.linspace(-1, 1, 100_001)]).astype(kind)
    assert ulps(compiled(fill_exp, x), np.exp(x.astype(np.longdouble))) < 1.1


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_log1p_is_right_to_two_units_from_0_to_1(kind: type) -> None:
    x = np.concatenate([np.linspace(0, 1, 300_001)[1:], 10.0 ** np.linspace(-30, 0, 2001)]).astype(kind)
    assert ulps(compiled(fill_log1p, x), np.log1p(x.astype(np.longdouble))) < 2.0


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_log1p_that_becomes_vector_code_has_the_same_bits(kind: type) -> None:
    x = np.concatenate([np.linspace(0, 1, 30_001), 10.0 ** np.linspace(-30, 0, 2001)]).astype(kind)
    np.testing.assert_array_equal(compiled(fill_log1p_flat, x), compiled(fill_log1p, x))
    assert maths.log1p_flat(0.25) == math.log1p(0.25)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_log_is_right_to_two_units_or_so_much_of_one(kind: type) -> None:
    top = 37.0 if kind is np.float32 else 307.0
    x = np.concatenate([10.0 ** np.linspace(-top, top, 300_001), np.linspace(0.5, 2.0, 100_001)]).astype(kind)
    found, truth = compiled(fill_log, x), np.log(x.astype(np.longdouble))
    assert (np.abs(found - truth) <= 2.0 * np.finfo(kind).eps * np.maximum(np.abs(truth), 0.5)).all()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_what_is_too_far_stays_finite_and_nan_stays_nan(kind: type) -> None:
    x = np.array([-np.inf, -1e30, 1e30, np.inf, np.nan, 0.0], kind)
    found = compiled(fill_exp, x)
    assert (found[:2] > 0).all()
    assert (found[:2] < 1e-37).all()
    assert (found[2:4] > 1e38).all()
    assert np.isfinite(found[:4]).all()
    assert np.isnan(found[4])
    assert found[5] == 1.0
    assert compiled(fill_log1p, np.zeros(1, kind))[0] == 0.0


def test_in_python_they_are_those_of_math() -> None:
    assert maths.exp(1.5) == math.exp(1.5)
    assert maths.log(1.5) == math.log(1.5)
    assert maths.log1p(0.5) == math.log1p(0.5)
