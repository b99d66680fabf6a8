"""Numbers of a restored state that kernels take for places in arrays, as no kernel asks whether one is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamsgd.kernels.learn.growing import GOAL, LINES, STRIDE
from streamsgd.kernels.structs.state import FILLED, TOUCHED

if TYPE_CHECKING:
    from streamsgd.kernels.learn.growing import Growth
    from streamsgd.kernels.structs.state import State


def check_bounds(state: State, batch_rows: int, growth: Growth | None) -> None:
    """Refuse what would be read or written beyond an array.

    Parameters
    ----------
    state, growth
        As restored.
    batch_rows
        Rows per update, where they do not grow.

    Raises
    ------
    ValueError
        A number is none that training comes to.

    """
    filled, n_touched = int(state.clock[FILLED]), int(state.clock[TOUCHED])
    most = batch_rows if growth is None else int(growth.counts[GOAL])
    if not 0 <= filled < most:
        raise ValueError(f"its running batch has {filled:,} of {most:,} rows")
    if not -1 <= n_touched <= state.touched.size:
        raise ValueError(f"its running batch touches {n_touched:,} weights, and there is room for {state.touched.size:,}")
    touched = state.touched.ravel()[: max(0, n_touched)]
    if touched.size and not 0 <= touched.min() <= touched.max() < state.weights.size:
        raise ValueError("its running batch touches weights that are not there")
    if growth is not None and not (0 <= growth.counts[LINES] <= len(growth.ledger) and growth.counts[STRIDE] > 0):
        raise ValueError("its ledger of batches has lines that are not there")
