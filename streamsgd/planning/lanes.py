"""Lanes: into how many streams of chunks a run is split, and how they become one model. Fixed by settings and data alone.

Workers are who happens to be there; lanes are part of what is computed. A round gives the next chunks of the plan to as many
lanes; every lane learns its chunk from the common model, and the lanes are merged (see `merging`). What lanes learn in a round
they learn apart, which costs least once the model is near: so one lane learns chunk 0 alone, and no round is wider than what
came before it.
"""

from __future__ import annotations

from typing import NamedTuple

LANE_BYTES = 4 << 30
"""Bytes of rows per lane, if nobody says how many lanes there are: smaller data takes one machine minutes."""

MOST_LANES = 64
"""Lanes, if nobody says."""

ROUNDS = 16
"""Rounds that an epoch has at least, as far as chunks can be cut: docs/lanes.md has what fewer cost."""

CHUNK_BYTES = 256 << 20
"""The largest chunk of a lane: about a second of work, which is what a worker that dies can lose."""

SIDE_BY_SIDE = 4
"""Lanes of one process that learn at the same time, as its budget counts them ..."""

READ_AHEAD = 2
"""... and chunks that are read meanwhile."""

LARGE_BATCH = 4096
"""Rows per step and lane from which on `sync` is worth its messages."""


class Lanes(NamedTuple):
    """How many lanes, how they are combined, and why so."""

    number: int
    combine: str
    """`average`: each learns a chunk apart. `sync`: each adds its share to the gradient of every step."""
    why: str


def n_blocks(lanes: Lanes) -> int:
    """Return the chunks that a process holds at a time."""
    if lanes.number == 1:
        return READ_AHEAD
    return (lanes.number if lanes.combine == "sync" else min(lanes.number, SIDE_BY_SIDE)) + READ_AHEAD


def lane_copies(lanes: Lanes) -> int:
    """Return how many models a process holds: the common one, those that learn side by side, and what they gained."""
    return 1 if lanes.number == 1 else 1 + 2 * min(lanes.number, SIDE_BY_SIDE)


def width(lanes: Lanes, epoch: int, chunk: int, n_chunks: int, *, alone: bool) -> int:
    """Return how many lanes take part in the round that begins with a chunk.

    Parameters
    ----------
    lanes
        Of the run.
    epoch, chunk, n_chunks
        The chunk's place, and the chunks of its epoch.
    alone
        Whether only one can go on, as while several learners race.

    """
    most = lanes.number
    if not epoch and lanes.combine == "average":
        most = min(most, 1 << (max(1, chunk).bit_length() - 1))
    return 1 if alone else min(most, n_chunks - chunk)
