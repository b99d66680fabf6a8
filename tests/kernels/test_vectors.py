"""Products of matrices and of factors in registers: those of NumPy, and the same bits however sums are cut."""

from typing import Any

import numpy as np
import pytest

from streamsgd.kernels.compile.jit import lean_kernel
from streamsgd.kernels.compile.tiles import add_product
from streamsgd.kernels.compile.vectors import products_of_eight, pull_eight
from streamsgd.kernels.learn.factors import FACTORS, derive_factors, join, move_factors
from streamsgd.kernels.structs.state import aligned


@lean_kernel
def product(a, at_a, row_a, step_a, b, at_b, step_b, c, at_c, row_c, rows, columns, depth):  # type: ignore[no-untyped-def]
    add_product(a, at_a, row_a, step_a, b, at_b, step_b, c, at_c, row_c, rows, columns, depth)


@lean_kernel
def learn_factors(slots, index, x, n, k, own, joint, lengths, strides):  # type: ignore[no-untyped-def]
    squares = join(slots, index, x, n, k, own, joint)
    derive_factors(x, n, k, own, joint, lengths)
    move_factors(slots, index, n, k, own, strides)
    return squares


@lean_kernel
def pull_and_multiply(own, pulls, weights, b, pitch, out):  # type: ignore[no-untyped-def]
    for first in range(0, pitch, 8):
        pull_eight(own, pulls, weights, b, first, pitch)
        products_of_eight(own, b, first, pitch, out)


def flat(shape: tuple[int, int], kind: str, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(kind)


@pytest.mark.parametrize(("kind", "near"), [("float32", 1e-5), ("float64", 1e-13)])
@pytest.mark.parametrize(
    ("rows", "columns", "depth"), [(4, 16, 1), (16, 64, 13), (7, 50, 9), (1, 1, 3), (5, 31, 2), (3, 8, 40)]
)
def test_products_are_those_of_numpy(rows: int, columns: int, depth: int, kind: str, near: float) -> None:
    a, b, c = flat((rows, depth), kind, 1), flat((depth, columns), kind, 2), flat((rows, columns), kind, 3)
    expected = c + a @ b
    turned = np.ascontiguousarray(a.T)
    for one, row, step in ((a, depth, 1), (turned, 1, rows)):
        got = c.copy()
        product(one.ravel(), 0, row, step, b.ravel(), 0, columns, got.reshape(-1), 0, columns, rows, columns, depth)
        assert np.abs(got - expected).max() <= near * depth


def test_a_sum_that_is_cut_in_two_has_the_same_bits() -> None:
    a, b = flat((21, 37), "float32", 1), flat((37, 43), "float32", 2)
    whole, parts = np.zeros((21, 43), np.float32), np.zeros((21, 43), np.float32)
    product(a.ravel(), 0, 37, 1, b.ravel(), 0, 43, whole.reshape(-1), 0, 43, 21, 43, 37)
    for row in range(21):  # one row at a time, and in three parts of the sum
        for first, last in ((0, 10), (10, 11), (11, 37)):
            where = (a.ravel(), row * 37 + first, 37, 1, b.ravel(), first * 43, 43, parts.reshape(-1), row * 43, 43)
            product(*where, 1, 43, last - first)
    assert np.array_equal(whole, parts)


@pytest.mark.parametrize("k", [1, 7, 8, 9, 16, 19])
def test_factors_of_a_row_are_those_of_numpy(k: int) -> None:
    n, size = 11, 32
    cells = aligned(20, size, np.dtype("float64"))
    cells[:] = flat((20, size), "float64", 4)
    slots: Any = cells.T[1 : size - 1]
    index, x = np.array([3, 0, 7, 7, 19, 4, 5, 6, 1, 2, 8], np.uint32), flat((1, n), "float64", 5)[0]
    strides = flat((1, n), "float64", 6)[0]
    z = slots[FACTORS : FACTORS + k, index].T * x[:, None]
    u = x[:, None] * (z.sum(axis=0) - z)
    expected = slots.copy()
    np.add.at(expected.T, (index[:, None].astype(int), FACTORS + np.arange(k)), strides[:, None] * u)
    own, joint, lengths = np.zeros(n * k), np.zeros(k), np.zeros(n)
    squares = learn_factors(slots, index, x, n, k, own, joint, lengths, strides)
    assert abs(squares - (z * z).sum()) <= 1e-12 * n * k
    assert np.abs(joint - z.sum(axis=0)).max() <= 1e-12
    assert np.abs(own.reshape(n, k) - u).max() <= 1e-12
    assert np.abs(lengths - (u * u).sum(axis=1)).max() <= 1e-10
    assert np.abs(slots - expected).max() <= 1e-12


@pytest.mark.parametrize("pitch", [8, 24])
def test_pairs_of_entries_are_those_of_numpy(pitch: int) -> None:
    b = 9
    own, before, weights = flat((b + 1, pitch), "float64", 7), flat((b + 1, pitch), "float64", 8), flat((1, b), "float64", 9)[0]
    pulls, out = before.copy(), np.zeros(b)
    pull_and_multiply(own.reshape(-1), pulls.reshape(-1), weights, b, pitch, out)
    before[b] += weights @ own[:b]
    before[:b] += weights[:, None] * own[b]
    assert np.abs(pulls - before).max() <= 1e-12
    assert np.abs(out - own[:b] @ own[b]).max() <= 1e-12
