"""Learning from arrays in memory: rows as a block, and a linear function of them, pass after pass. No Dask, no Arrow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.features.layout import Layout, most_entries
from streamsgd.kernels.learn.fit import fit, settled
from streamsgd.kernels.parts.traits import is_sequential
from streamsgd.kernels.structs.block import new_scratch
from streamsgd.kernels.structs.rows import TAIL
from streamsgd.kernels.structs.state import LOSS, SEEN, SPREAD, STEPS, WEIGHT, State, make_state
from streamsgd.kernels.structs.step import StepContext

if TYPE_CHECKING:
    from streamsgd.kernels.structs.block import Block, Parts

STILL = 1e30
"""Scale of a weight that is not to move: the steps of an intercept that is not wanted are so many times as small."""

NO_BATCH = 1 << 62
"""A batch size that nobody reaches: rows are learned one by one anyway."""

STEEPEST = 1e12
"""The largest gradient of a coordinate, as in scikit-learn: of rows learned one by one only where a rate is far too large."""

PRECISION = "float64"


class Rows:
    """Rows of a matrix as a block.

    Parameters
    ----------
    matrix
        Floats (n_rows, n_columns), an array or a sparse matrix of scipy in CSR form, whose values are kept as float32.

    """

    def __init__(self, matrix: Any) -> None:
        self.n, self.width = matrix.shape
        sparse = hasattr(matrix, "indptr")
        layout = Layout(0 if sparse else self.width, (), int(sparse), self.width + 1, mixed=True)
        self.block: Block = layout.allocate(self.n, PRECISION)
        if sparse:
            self._pool = _entries(matrix)  # the block points into it
            starts = matrix.indptr.astype(np.int64)
            self.block.rows.tails[:, 0, 0] = starts[:-1] * TAIL + self._pool.ctypes.data
            self.block.rows.tails[:, 0, 1] = np.diff(starts)
        else:
            self.block.rows.values[:, : self.width] = matrix
        self.scratch = new_scratch(1, np.dtype(PRECISION), most_entries(self.block, layout))


def _entries(matrix: Any) -> np.ndarray:
    pool = np.empty((matrix.nnz, 2), np.int32)
    pool[:, 0] = matrix.indices
    pool[:, 1] = matrix.data.astype(np.float32).view(np.int32)
    return pool


class Descent:
    """One linear function that learns: weights (n_columns + 1,), the intercept last, and what the optimizer remembers.

    Parameters
    ----------
    parts
        As of the first pass; later ones may have other numbers, not other kinds.
    weights
        Where to start, float64 (n_columns + 1,).
    fixed
        Whether the intercept stays what it is.

    """

    def __init__(self, parts: Parts, weights: np.ndarray, *, fixed: bool = False) -> None:
        self.parts = parts
        self.state = self._new_state(weights)
        if fixed:
            self.state.slots[1, -1] = STILL
            self.state.sums[[SPREAD, SEEN]] = 1.0  # as of a row: the first may be empty, and nothing else would move

    def _new_state(self, weights: np.ndarray) -> State:
        lazy, optimizer = bool(self.parts.penalty._fields), self.parts.optimizer
        batches = not is_sequential(optimizer)
        return make_state(weights, optimizer.n_slots, weights.dtype, few=True, lazy=lazy, batches=batches)

    def learn(self, rows: Rows, y: np.ndarray, weight: np.ndarray, order: np.ndarray) -> float:
        """Learn rows in an order, int32 (n,), and return the mean of their losses before, each weighted."""
        rows.block.y[:], rows.block.weight[:] = y, weight
        size = NO_BATCH if is_sequential(self.parts.optimizer) else 1
        pace = StepContext(size, rows.width, 0.0, 0.0, 1.0, clip_value=STEEPEST)
        self.state.tally[:] = 0.0
        # Every row is a tile of its own.
        fit(self.parts, rows.block, order, np.arange(rows.n), self.state, pace, rows.scratch)
        return float(self.state.tally[LOSS] / max(self.state.tally[WEIGHT], np.finfo(float).tiny))

    @property
    def steps(self) -> int:
        """Rows learned."""
        return int(self.state.clock[STEPS])

    def weights(self) -> np.ndarray:
        """Return a copy of the weights, penalties paid."""
        weights: np.ndarray = self.state.weights.copy()
        if self.state.paid.size:
            settled(self.parts, self.state, len(weights) - 1, weights)
        return weights

    def __getstate__(self) -> tuple[Parts, dict[str, np.ndarray]]:
        return self.parts, {key: np.ascontiguousarray(array) for key, array in self.state._asdict().items()}

    def __setstate__(self, saved: tuple[Parts, dict[str, np.ndarray]]) -> None:
        # As at the start: what belongs to a weight is side by side, which a copy of each array is not.
        self.parts, arrays = saved
        self.state = self._new_state(np.array(arrays["weights"]))
        for key, value in self.state._asdict().items():
            value[...] = arrays[key]
