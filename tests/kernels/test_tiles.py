"""Tiles of matrices: the sums are NumPy's, and no bit depends on where they are cut."""

import numpy as np
import pytest
from numba import njit

from streamsgd.kernels.compile import tiles


@njit
def add_up(a, b, c, depth):
    tiles.add_triangle(a, b, c, depth)


@pytest.mark.parametrize("n", [1, 3, 4, 8, 9, 17, 29, 32, 50])
def test_a_triangle_is_that_of_the_product_wherever_the_sum_is_cut(n: int) -> None:
    """Lines of A and B are as long as the triangle is wide, or longer."""
    rng = np.random.default_rng(n)
    a, b, first = rng.normal(size=(16, n + n % 3)), rng.normal(size=(16, n + n % 3)), rng.normal(size=(n, n))
    whole, parts, own = first.copy(), first.copy(), first.copy()
    add_up(a, b, whole, 13)
    add_up(a, b, parts, 5)
    add_up(a[5:], b[5:], parts, 8)
    below = np.tril_indices(n)
    np.testing.assert_allclose(whole[below], (first + a[:13, :n].T @ b[:13, :n])[below], rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(whole[below], parts[below])
    add_up(a, b, own, 0)
    np.testing.assert_array_equal(own, first)
