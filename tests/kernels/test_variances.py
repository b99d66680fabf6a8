"""Variances of scores, line by line, are x'Vx, wherever a row stands and however many columns there are."""

from typing import Any

import numpy as np
import pytest

from streamsgd.kernels.structs.block import Block, new_scratch
from streamsgd.kernels.structs.rows import OWN, Dense, Mixed
from streamsgd.kernels.sums.spread import score_variances
from streamsgd.model.posterior.intervals import _in_lines, _in_tiles

N_ROWS = 21


def block_of(width: int, kind: type, layout: str) -> tuple[Block, np.ndarray]:
    """Return rows of numbers, or of numbers and a category of three, and their matrix, the intercept last."""
    values = np.random.default_rng(width).normal(size=(N_ROWS, width + 1 + OWN)).astype(kind)
    numbers = [values[:, :width].astype(np.float64)]
    if layout == "dense":
        rows: Any = Dense(np.ascontiguousarray(values[:, : width + OWN]))
    else:
        whole, chosen = (np.int32 if kind is np.float32 else np.int64), np.arange(N_ROWS) % 3
        values[:, width + OWN] = (width + chosen).astype(whole).view(kind)
        by, tails = np.full(1, -1, np.int32), np.zeros((N_ROWS, 0, 2), np.int64)
        rows = Mixed(values, values.view(whole), by, tails, width, 1, width + 3, False)
        numbers.append(np.eye(3)[chosen])
    return Block(rows, values[:, width], values[:, width + 1]), np.column_stack([*numbers, np.ones(N_ROWS)])


@pytest.mark.parametrize("layout", ["dense", "mixed"])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("width", [0, 1, 2, 3, 4, 7, 12])
def test_they_are_the_quadratic_form(width: int, kind: type, layout: str) -> None:
    block, x = block_of(width, kind, layout)
    half = np.random.default_rng(9).normal(size=(x.shape[1], x.shape[1]))
    covariance, out = half @ half.T, np.zeros(N_ROWS)
    lines, scratch = _in_lines(_in_tiles(covariance)), new_scratch(1, np.float64, width + 3)
    score_variances(block, 0, N_ROWS, lines, out, scratch)
    np.testing.assert_allclose(out, np.einsum("ia,ab,ib->i", x, covariance, x), rtol=1e-12)
    for start, stop in ((0, 1), (3, 12), (N_ROWS - 1, N_ROWS)):
        part = np.zeros(stop - start)
        score_variances(block, start, stop, lines, part, scratch)
        assert part.tobytes() == out[start:stop].tobytes()
