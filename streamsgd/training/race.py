"""The race of `kernels.learn.race` from outside: its memory, its end, and what it owes."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from streamsgd.kernels.learn.race import CELL, GAP, HEAVIEST, LOSSES, MIXED, RACE_SUMS, SCALE, SEENS, SLOWEST, SPREADS, SQUARES
from streamsgd.kernels.parts.optimizers import Normalized, NormalizedBatches
from streamsgd.kernels.structs.block import MOST_LEARNERS
from streamsgd.kernels.structs.state import CLIPPED, LEAST, MOST, RACE, SEEN, SPREAD, STEPS, State, aligned, new_clock

RACE_ROWS = 1 << 17
"""Rows of a race: learning takes five times as long meanwhile, a tenth of a second in all."""

TOLERANCE = 1e-9
"""Of sums of losses, by rounding, per row and unit of loss."""


def rates(learning_rate: float) -> list[float]:
    """Return the rates of the learners."""
    return [learning_rate * SLOWEST * 2.0**k for k in range(MOST_LEARNERS)]


def start_race(weights: np.ndarray) -> State:
    """Return the state in which every learner has these weights, (n,)."""
    cells = aligned(weights.size, CELL, weights.dtype)
    cells[:, :MOST_LEARNERS] = weights[:, None]
    nothing = np.zeros(0, weights.dtype)
    sums = np.zeros(RACE + RACE_SUMS)
    return State(cells.reshape(-1), np.zeros((1, 0), weights.dtype), nothing, new_clock(), np.zeros(3), sums, touched=nothing)


def leader(state: State) -> int:
    """Return the learner with the least loss so far."""
    return int(np.argmin(losses(state)))


def losses(state: State) -> np.ndarray:
    """Return the loss so far of every learner, float64 (n_learners,)."""
    found: np.ndarray = state.sums[RACE + LOSSES : RACE + LOSSES + MOST_LEARNERS]
    return found


def weights_of(state: State, k: int) -> np.ndarray:
    """Return a copy of a learner's weights, (n,), which may owe penalties."""
    found: np.ndarray = state.weights.reshape(-1, CELL)[:, k].copy()
    return found


def unmixed(state: State) -> float:
    """Return by how much the leader has lost more than the mixture, which predicts while a race lasts and is not kept."""
    return float(losses(state).min() - state.sums[RACE + MIXED])


def successor(rate: float, *, in_batches: bool) -> Any:
    """Return the optimizer of a learner that goes on alone."""
    cls: Any = NormalizedBatches if in_batches else Normalized
    return cls(rate)


def end_race(state: State, alone: State, k: int, batch: int) -> State:
    """Return the state of a learner that goes on, to learn batches of so many rows: `alone` holds its weights already."""
    cells = state.weights.reshape(-1, CELL)
    alone.slots[0], alone.slots[1] = cells[:, SQUARES + k], cells[:, SCALE]
    if batch > 1:
        m = math.sqrt(state.sums[RACE + SEENS + k] / max(state.sums[RACE + SPREADS + k], sys.float_info.min))
        alone.slots[0] /= batch * batch
        alone.slots[1] = m / np.where(cells[:, SCALE] > 0.0, cells[:, SCALE], 1.0)
    alone.clock[[STEPS, CLIPPED]], alone.tally[:] = state.clock[[STEPS, CLIPPED]], state.tally
    alone.sums[[LEAST, MOST]] = state.sums[[LEAST, MOST]]
    alone.sums[[SPREAD, SEEN]] = state.sums[[RACE + SPREADS + k, RACE + SEENS + k]]
    return alone


def owed(state: State, mixing: str) -> float:
    """Return by how much the mixture's loss may exceed that of the best learner: a theorem, see `kernels.learn.race`."""
    if mixing == "likelihood":
        return math.log(MOST_LEARNERS)
    if mixing == "squares":
        width = max(state.sums[MOST], 0.0) - min(state.sums[LEAST], 0.0)
        return float(state.sums[RACE + HEAVIEST] * width * width * math.log(MOST_LEARNERS))
    return float(2.0 * state.sums[RACE + GAP])


def check_mixture(state: State, mixing: str) -> None:
    """Make sure that the mixture kept what it promises: of numbers, for what left the finite ones is told at the chunk's end.

    Raises
    ------
    AssertionError
        It did not, which is a bug.

    """
    mixed, best = float(state.sums[RACE + MIXED]), float(losses(state).min())
    if not (math.isfinite(mixed) and math.isfinite(best)):
        return
    slack = TOLERANCE * (abs(best) + float(state.clock[STEPS]))
    if not mixed <= best + owed(state, mixing) + slack:
        raise AssertionError(
            f"the mixture lost {mixed!r}, the best learner {best!r}, and no more than {owed(state, mixing)!r} may lie between"
        )


def describe(learning_rate: float, state: State, mixing: str, weight: float) -> dict[str, Any]:
    """Return rates, losses per unit of the rows' total weight, and the bound, as plain values for a model's provenance."""
    weight = weight or 1.0  # of no row, whose losses are 0
    return {
        "rate": rates(learning_rate)[leader(state)],
        "rows": int(state.clock[STEPS]),
        "rates": rates(learning_rate),
        "losses": (losses(state) / weight).tolist(),
        "mixture": float(state.sums[RACE + MIXED]) / weight,
        "at_most_above_best": owed(state, mixing) / weight,
    }
