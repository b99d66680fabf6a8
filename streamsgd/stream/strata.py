"""Batches with fixed shares of two classes, whose weights keep the mean gradient what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from streamsgd.kernels.structs.block import Block


def stratify(block: Block, starts: np.ndarray, counts: np.ndarray, key: np.uint64, *, share: float, batch: int) -> np.ndarray:
    """Return rows of the block, int32, batch after batch, each with the same number of either class; set their weights.

    A batch of b rows has b_1 = share b positives and b_0 others. A row of a class with n_c of the n rows of the chunk counts
    (n_c / n) (b / b_c), so that the mean gradient of a batch is that of the chunk on average, with the variance
    sum_c (n_c / n)^2 S_c^2 / b_c (Cochran 1977, Sampling Techniques, section 5.6). Rows of a class take turns: all of them in a
    new order, again and again.
    There are about as many batches as without strata. A chunk of one class is learned as it is.

    Parameters
    ----------
    block
        Whose weights change.
    starts, counts
        int64 (n_tiles,): rows to learn.
    key
        Of the chunk.
    share
        Of positives in a batch, between 0 and 1.
    batch
        Rows of a batch, 2 at least.

    """
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(int(key))))
    ends = np.cumsum(counts)
    rows = np.repeat(starts - (ends - counts), counts) + np.arange(int(ends[-1]) if len(ends) else 0)
    positive = block.y[rows] > 0.5
    classes = rows[~positive], rows[positive]
    if not all(map(len, classes)):
        return generator.permutation(rows).astype(np.int32)
    n_batches = max(1, round(len(rows) / batch))
    of_one = sizes_of(share, batch)[1]
    order = np.empty((n_batches, batch), np.int32)
    for some, members, part in zip(classes, (batch - of_one, of_one), (order[:, of_one:], order[:, :of_one]), strict=True):
        part[:] = _in_turns(generator, some, n_batches * members).reshape(n_batches, members)
        block.weight[some] *= len(some) / len(rows) * batch / members
    return order.ravel()


def sizes_of(share: float, batch: int) -> tuple[int, int]:
    """Return how many rows of a batch are negatives, and positives: one of either at least."""
    of_one = min(max(round(share * batch), 1), batch - 1)
    return batch - of_one, of_one


def _in_turns(generator: np.random.Generator, rows: np.ndarray, n: int) -> np.ndarray:
    rounds = -(-n // len(rows))
    return np.concatenate([generator.permutation(rows) for _ in range(rounds)])[:n]
