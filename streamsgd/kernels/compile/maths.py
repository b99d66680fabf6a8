"""exp, log and log1p that LLVM can turn into vector code. Calls into libm cannot be: 13 of the 24 ns of a logistic row.

In Python they are the functions of `math`. In kernels they are short polynomials, right to one unit in the last place of the
type of their argument (two for log1p); `exp` goes no lower than the smallest normal number, and no higher than the largest
power that is finite: a score that far has left everything reasonable, and NaN stays NaN.
"""

import math

import numpy as np
from numba import types

from streamsgd.kernels.compile.jit import dispatch, exact_kernel

BEYOND = 2.3190468138462996e-17
"""What the float64 nearest to log(2) lacks of it."""


def exp(x):
    """Return e to the power of x."""
    return math.exp(x)


def log1p(x):
    """Return log(1 + x) for x in 0 .. 1."""
    return math.log1p(x)


def log1p_flat(x):
    """Return what `log1p` does, the same bits, in code that becomes vector code in float64 too.

    So who adds up what comes of it must say in which order: see `kernels.sums.objective.add_in_order`.
    """
    return math.log1p(x)


def _make_exp(real, whole, digits, bias, low, high, degree):
    """exp(n log 2 + r) = 2^n sum of r^k / k!, |r| <= log(2) / 2; log 2 in two parts keeps r exact (Cody and Waite 1980)."""
    log2e, half = real(1.0 / math.log(2.0)), real(0.5)
    upper = np.floor(math.log(2.0) * 2.0**9) / 2.0**9
    upper, lower = real(upper), real(math.log(2.0) - upper + BEYOND)
    low, high = real(low), real(high)
    coefficients = tuple(real(1.0 / math.factorial(k)) for k in range(degree, -1, -1))
    shift, offset = whole(digits), whole(bias)

    def exp(x):
        z = low if x < low else (min(x, high))
        n = np.floor(z * log2e + half)  # `math.floor` gives an int64, for which there is no vector code
        r = z - n * upper - n * lower
        p = coefficients[0]
        for k in range(1, degree + 1):
            p = p * r + coefficients[k]
        return p * whole((whole(np.int32(n)) + offset) << shift).view(real) if x == x else x

    return exp


def _make_log1p(real, terms):
    """log((1 + z) / (1 - z)) = 2 (z + z^3 / 3 + z^5 / 5 ...) with z = x / (2 + x), at most 1/3."""
    two = real(2.0)
    coefficients = tuple(real(1.0 / (2 * k + 1)) for k in range(terms, -1, -1))

    def log1p(x):
        z = x / (two + x)
        s = z * z
        p = coefficients[0]
        for k in range(1, terms + 1):
            p = p * s + coefficients[k]
        return two * z * p

    return log1p


def series_of_log1p(s):
    """Return the sum of s^k / (2 k + 1)."""
    p = _SERIES[0]
    for k in range(1, _HALF):
        p = p * s + _SERIES[k]
    for k in range(_HALF, _TERMS):
        p = p * s + _SERIES[k]
    return p


_TERMS, _HALF = 18, 10
"""A sum of 18 terms stays a loop to LLVM, and what has loops in it becomes no vector code: two of 9 are written out."""

_SERIES = tuple(1.0 / (2 * k + 1) for k in range(_TERMS - 1, -1, -1))


def _log1p_flat(x):
    """As of `_make_log1p`, in float64: products are rounded before they are added, as they are in its loop."""
    z = x / (2.0 + x)
    return 2.0 * z * series_of_log1p(z * z)


_EXP = {
    types.float32: _make_exp(np.float32, np.int32, 23, 127, -87.0, 88.0, 7),
    types.float64: _make_exp(np.float64, np.int64, 52, 1023, -708.0, 709.0, 13),
}

_LOG1P = {types.float32: _make_log1p(np.float32, 6), types.float64: _make_log1p(np.float64, 17)}

_LOG1P_FLAT = {types.float32: _make_log1p(np.float32, 6), types.float64: _log1p_flat}


@dispatch(exp, exact=True)
def _(x):
    return _EXP.get(x)


@dispatch(log1p, exact=True)
def _(x):
    return _LOG1P.get(x)


@dispatch(log1p_flat, exact=True, within=True)
def _(x):
    return _LOG1P_FLAT.get(x)


@dispatch(series_of_log1p, exact=True, within=True, fused=False)
def _(s):
    return series_of_log1p


def log(x):
    """Return the natural logarithm of a normal number above 0."""
    return math.log(x)


def _make_log(real, whole, digits, terms):
    """log(x) = n log 2 + log(m), m within sqrt(2) of 1."""
    two, one = real(2.0), real(1.0)
    low = real(math.sqrt(0.5)).view(whole)
    coefficients = tuple(real(1.0 / (2 * k + 1)) for k in range(terms, -1, -1))
    log2, shift = real(math.log(2.0)), whole(digits)

    def log(x):
        bits = real(x).view(whole)
        n = (bits - low) >> shift
        f = whole(bits - (n << shift)).view(real) - one
        z = f / (two + f)
        s = z * z
        p = coefficients[0]
        for k in range(1, terms + 1):
            p = p * s + coefficients[k]
        return real(n) * log2 + two * z * p

    return log


_LOG = {
    types.float32: _make_log(np.float32, np.int32, 23, 5),
    types.float64: _make_log(np.float64, np.int64, 52, 11),
}


@dispatch(log, exact=True)
def _(x):
    return _LOG.get(x)


def log1p_wide(x):
    """Return log(1 + x) for any x of at least 0; in exact kernels only."""
    return math.log1p(x)


def _make_log1p_wide(real, whole, digits, terms):
    """log(1 + x) = n log 2 + log(m), m within sqrt(2) of 1, and what rounding 1 + x lost: (x - (y - 1)) / y."""
    two, one = real(2.0), real(1.0)
    low = real(math.sqrt(0.5)).view(whole)
    coefficients = tuple(real(1.0 / (2 * k + 1)) for k in range(terms, -1, -1))
    log2, shift, largest = real(math.log(2.0)), whole(digits), np.finfo(real).max

    def log1p_wide(x):
        y = one + x
        bits = real(y).view(whole)
        n = (bits - low) >> shift
        m = whole(bits - (n << shift)).view(real)
        f = m - one
        z = f / (two + f)
        s = z * z
        p = coefficients[0]
        for k in range(1, terms + 1):
            p = p * s + coefficients[k]
        rest = (x - (y - one)) / y
        return real(n) * log2 + (two * z * p + rest) if x <= largest else x

    return log1p_wide


_LOG1P_WIDE = {
    types.float32: _make_log1p_wide(np.float32, np.int32, 23, 5),
    types.float64: _make_log1p_wide(np.float64, np.int64, 52, 11),
}


@dispatch(log1p_wide)
def _(x):
    return _LOG1P_WIDE.get(x)


@exact_kernel
def signed_log1p(numbers, out):
    """Fill `out` with sign(x) log(1 + |x|); NaN and Inf stay what they are."""
    for r in range(numbers.shape[0]):
        size = log1p_wide(abs(numbers[r]))
        out[r] = size if numbers[r] >= 0.0 else -size
