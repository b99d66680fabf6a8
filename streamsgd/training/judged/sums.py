"""What steps that are judged are made of: sums over rows at some weights, and where the machine stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.kernels.sums.objective import SIZE, add_chunk, new_curvature

if TYPE_CHECKING:
    from streamsgd.kernels.structs.block import Block

WORK = 1 << 13
"""Pairs of weights that a row may add to, on average; of more only every so many rows is taken."""


@dataclass
class Counters:
    """Where the machine stands: numbers only."""

    radius: float
    goal: int
    """Rows that a gradient asks for."""
    fresh: int = 0
    """Rows that have judged so far."""
    look: int = 0
    """At how many of them the next verdict is."""
    looks: int = 0
    """Number of that verdict; 0 where nothing is being judged."""
    predicted: float = 0.0
    length: float = 0.0
    easier: float = 0.0
    """By how much the penalty falls with the step."""
    from_start: int = 1
    """Whether what is being added up began with an epoch."""
    exact: int = 0
    """Whether the gradient is that of all rows."""
    at_rest: int = 0
    seen: int = 0
    """Rows of this epoch."""
    epoch_rows: int = 0
    """Rows of an epoch, once one has ended."""
    refused: int = 0
    """Proposals since the last step that was taken."""
    tail: float = 0.0
    """Range of the differences of past decisions per unit of length, worth less from one to the next."""
    proposals: int = 0
    accepted: int = 0
    judged: int = 0
    """Rows of all decisions."""
    largest: int = 0
    """Rows of the largest gradient of a proposal."""
    lines: int = 0
    every: int = 1
    """Of how many proposals one is in the ledger."""


class Side:
    """What rows add up to at some weights."""

    def __init__(self, n_weights: int, n_outputs: int, *, bends: bool, pairs: bool, caution: float) -> None:
        members = np.arange(n_weights // n_outputs if pairs else 0, dtype=np.int32)
        every = max(1, n_weights**2 // 2 // WORK) if pairs else 1
        self.curvature = new_curvature(n_weights if bends else 0, members, n_outputs, every, caution)
        self.gradient = np.zeros(n_weights)
        self.sums = np.zeros(3)
        """Size of losses, rows, and rows of the block of curvature."""

    @property
    def rows(self) -> int:
        """How many there were."""
        return int(self.sums[1])

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """Return what is added up, under a name."""
        found = {"gradient": self.gradient, "sums": self.sums}
        found |= {"diagonal": self.curvature.diagonal, "block": self.curvature.block}
        return {f"{name}.{key}": array for key, array in found.items()}

    def fade(self, factor: float) -> None:
        """Multiply everything."""
        for array in self.arrays("").values():
            np.multiply(array, factor, out=array)

    def clear(self) -> None:
        """Begin anew."""
        for array in self.arrays("").values():
            array[...] = 0.0

    def plus(self, other: Side) -> None:
        """Add what another one has."""
        for mine, theirs in zip(self.arrays("").values(), other.arrays("").values(), strict=True):
            np.add(mine, theirs, out=mine)

    def add(self, loss: Any, some: tuple[Block, np.ndarray, np.ndarray], weights: np.ndarray, scratch: Any) -> np.ndarray:
        """Add rows `starts` to `starts + counts` of a block; return the sums of `add_chunk`, float64 (3,)."""
        block, starts, counts = some
        tiles = np.zeros((len(starts), 3))
        add_chunk(loss, block, starts, counts, weights, self.gradient, self.curvature, tiles, scratch)
        every, total = int(self.curvature.every[0]), tiles.sum(axis=0)
        in_block = (-(-(starts + counts) // every) + (-starts // every)).sum()
        self.sums += [total[SIZE], counts.sum(), in_block]
        found: np.ndarray = total
        return found
