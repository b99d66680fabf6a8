"""Many states into one: what lanes made of a common state, added up in float64 in an order that lanes alone decide.

Every lane starts a round from the same state and brings a `Delta`. Deltas are merged along a tree whose shape depends on
how many there are and on nothing else, then the common state moves by the total. With w the common weight, w_v and A_v
those of lane v:

    w <- w + sum a_v (w_v - w) / sum a_v

An optimizer that adapts (`weighs_by` names the memory A in which it adds up squared gradients) has a_v = A_v - A, coordinate by
coordinate: a weight that one lane alone met moves as far as that lane moved it, and one that all met moves by their mean (the
all-reduce of Vowpal Wabbit: Agarwal et al. 2014, JMLR 15, section 2.2). Any other has a_v = the rows of the lane, for all
weights. Each memory moves likewise, or becomes the largest, as its optimizer says in `merges`: "mean" or "max". Counters
add up.

So sums of squares grow as those of one lane, and rates fall with the rows of a lane. Had they grown by what all lanes met, a
lane would move less in a round than alone, although the mean of V lanes is V times less noisy: on 400 k rows that one lane has
not yet learned to the end, 8 lanes would lose half as much again (docs/lanes.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from streamsgd.kernels.parts.traits import by_rows
from streamsgd.kernels.structs.state import ETA, LEAST, MOST, SEEN, SPREAD, STEPS, State, cells_of

LEAST_SHARE = 1e-7
"""What a lane's share of a weight is at least, in units of its sum of squares: a float32 no longer grows by less."""


Placed = tuple[np.ndarray, np.ndarray]
"""Where numbers stand, and the numbers."""


@dataclass(slots=True)
class Delta:
    """What some lanes made of a common state of n weights."""

    rows: int
    """Rows learned."""
    tally: np.ndarray
    """float64 (3,): weighted loss before learning, weight and number of the rows."""
    index: np.ndarray | None
    """int32 or int64 (m,): the weights that changed, in order; None for all."""
    shares: np.ndarray
    """float64 (m,), the sum of a_v, or (0,) where rows are the shares."""
    moves: np.ndarray
    """float64 (1 + n_means, m): sums of a_v times the move of the weight, and of each memory that is a mean."""
    most: np.ndarray
    """float64 (n_most, m): the largest of the memories that are maxima."""
    counters: np.ndarray
    """float64 (5,): growth of the two sums of a sequential optimizer; of the lane ahead updates done, the sum of rates, and,
    where memory fades by rows, those of all updates."""
    span: np.ndarray
    """float64 (2,): least and greatest target."""

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        arrays = (self.shares, self.moves, self.most)
        return sum(array.nbytes for array in arrays) + (0 if self.index is None else self.index.nbytes)

    def merge(self, other: Delta) -> Delta:
        """Return the delta of the lanes of both."""
        both = replace(
            self,
            rows=self.rows + other.rows,
            tally=self.tally + other.tally,
            counters=np.append(self.counters[:2] + other.counters[:2], np.maximum(self.counters[2:], other.counters[2:])),
            span=np.array([min(self.span[0], other.span[0]), max(self.span[1], other.span[1])]),
        )
        if self.index is None or other.index is None:
            both.shares, both.moves = self.shares + other.shares, self.moves + other.moves
            both.most = np.maximum(self.most, other.most)
            return both
        both.index = index = np.union1d(self.index, other.index)
        mine, theirs = np.searchsorted(index, self.index), np.searchsorted(index, other.index)
        both.shares = _spread(np.add, len(index), (mine, self.shares), (theirs, other.shares))
        both.moves = _spread(np.add, len(index), (mine, self.moves), (theirs, other.moves))
        both.most = _spread(np.maximum, len(index), (mine, self.most), (theirs, other.most))
        return both


def _spread(join: np.ufunc, size: int, first: Placed, second: Placed) -> np.ndarray:
    """Return two arrays, each over some of the weights, as one over all of them; what no lane touched counts as 0."""
    (mine, values), (theirs, others) = first, second
    if not values.size:
        return values
    room = np.zeros((*values.shape[:-1], size))
    room[..., mine] = values
    room[..., theirs] = join(room[..., theirs], others)
    return room


def kinds(optimizer: Any) -> tuple[str, ...]:
    """Return how each memory of an optimizer is merged."""
    return tuple(getattr(optimizer, "merges", ("mean",) * int(optimizer.n_slots)))


def delta_of(optimizer: Any, before: State, after: State, rows: int, tally: np.ndarray) -> Delta:
    """Return what a lane that learned so many rows made of the state before."""
    index = _changed(before, after)
    some: Any = slice(None) if index is None else index
    old, new = before.slots[: int(optimizer.n_slots), some], after.slots[: int(optimizer.n_slots), some].astype(np.float64)
    grown = new - old
    by = getattr(optimizer, "weighs_by", None)
    shares = np.zeros(0) if by is None else np.maximum(grown[by], LEAST_SHARE * new[by])
    moves = [after.weights[some].astype(np.float64) - before.weights[some]]
    moves += [grown[k] for k, kind in enumerate(kinds(optimizer)) if kind == "mean"]
    steps, fades = float(after.clock[STEPS]), by_rows(optimizer)
    spread, seen = after.sums[[SPREAD, SEEN]] - before.sums[[SPREAD, SEEN]]
    return Delta(
        rows,
        tally,
        index,
        shares,
        np.stack(moves) * (float(rows) if by is None else shares),
        new[[k for k, kind in enumerate(kinds(optimizer)) if kind == "max"]],
        np.array([spread, 0.0 if fades else seen, steps, after.sums[ETA], after.sums[SEEN] if fades else 0.0]),
        after.sums[[LEAST, MOST]],
    )


def _changed(before: State, after: State) -> np.ndarray | None:
    """Return the weights that changed, if rows touch few of many."""
    one, other = cells_of(before), cells_of(after)
    if not one.shape[1]:
        return None
    # Bits, not numbers: cells are two or more of eight bytes, and a bit that changed is a change.
    differs = (one.view(np.uint64) != other.view(np.uint64)).any(axis=1)
    return np.flatnonzero(differs).astype(np.int32 if len(differs) < 1 << 31 else np.int64)


def move_by(optimizer: Any, state: State, gain: Delta) -> None:
    """Move the common state by what its lanes gained."""
    some: Any = slice(None) if gain.index is None else gain.index
    if gain.shares.size:
        by = np.divide(gain.moves, gain.shares, out=np.zeros_like(gain.moves), where=gain.shares > 0.0)
    else:
        by = gain.moves / max(gain.rows, 1)
    state.weights[some] = state.weights[some] + by[0]
    means, most = iter(by[1:]), iter(gain.most)
    for k, kind in enumerate(kinds(optimizer)):
        old = state.slots[k, some]
        state.slots[k, some] = np.maximum(old, next(most)) if kind == "max" else old + next(means)
    state.clock[STEPS] = int(gain.counters[2])
    state.sums[[SPREAD, SEEN]] += gain.counters[:2]
    state.sums[SEEN] = gain.counters[4] if by_rows(optimizer) else state.sums[SEEN]
    state.sums[[LEAST, MOST]] = gain.span
    state.sums[ETA] = gain.counters[3]
    state.paid[:] = gain.counters[3]
