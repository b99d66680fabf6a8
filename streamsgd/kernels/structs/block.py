"""Named tuples of arrays that kernels take: parts, a chunk as numbers, room for a span of rows."""

from typing import Any, NamedTuple

import numpy as np

from streamsgd.kernels.compile.memory import SIDE
from streamsgd.kernels.models.machines import LINEAR, by_columns, in_layers, is_linear, numbers_of_entry

SPAN = 16
"""Rows of a batch whose scores are worked out side by side."""


class Parts(NamedTuple):
    """What is being minimised and how: one part of each kind, hyper-parameters only."""

    loss: Any
    penalty: Any
    optimizer: Any
    schedule: Any
    model: Any = LINEAR
    """As `kernels.models.machines.compiled` returns it."""


class Block(NamedTuple):
    """A chunk as numbers; targets and weights may be views of the rows' own memory."""

    rows: Any
    """A layout of `kernels.structs.rows`."""
    y: Any
    """Targets, shape (n_rows,): 0 or 1, a class index, or a number."""
    weight: Any
    """Row weights, shape (n_rows,)."""


class Scratch(NamedTuple):
    """Room for a span of rows."""

    numbers: Any
    """Shape (5, SPAN) or (5, n_outputs): scores, slopes, targets, weights and losses of the rows, or for the outputs of one."""
    index: Any
    """uint32 (SPAN, entries): coordinates of the rows' entries; unsigned, so that indexing asks for no sign. Twice as many for
    models that ask for places, which stand behind them."""
    x: Any
    """Shape (SPAN, entries): their factors."""
    counts: Any
    """int64 (SPAN,): how many there are."""
    room: Any
    """Shape (4, entries): for what is worked out per entry of a row; beyond them nothing that cannot be a divisor."""
    learners: Any
    """float64 (4, MOST_LEARNERS): scores and what follows from them, by learner of a race."""
    steps: Any
    """Shape (3, MOST_LEARNERS): what their steps are made of."""
    roots: Any
    """Shape (entries, MOST_LEARNERS): by entry and learner."""
    sides: Any
    """Shape (entries,): factors in units of their largest."""
    out: Any = np.zeros(0)
    """Derivatives of a score by its parameters, (entries * width + beyond,), of models that are not linear."""
    kept: Any = np.zeros(0)
    """What such a model keeps of a row between its score and them."""


def new_scratch(n_outputs: int, kind: Any, entries: int = 0, model: Any = LINEAR) -> Scratch:
    """Return room for rows of up to so many entries; batches of rows that meet all weights of a linear model need none."""
    room = -(-entries // SIDE) * SIDE
    of_entries = 0 if is_linear(model) else room * numbers_of_entry(model)
    sizes = (0, 0) if is_linear(model) else (of_entries + model.beyond(), of_entries + model.room())
    if in_layers(model):
        rows, further = model.span_room(room, SPAN)
        sizes = (max(sizes[0], rows), max(sizes[1], further))
    return Scratch(
        np.zeros((5, SPAN if n_outputs == 1 else n_outputs), kind),
        np.zeros((SPAN, 2 * room if by_columns(model) else room), np.uint32),
        np.zeros((SPAN, room), kind),
        np.zeros(2 * SPAN, np.int64),
        np.ones((4, room), kind),
        np.zeros((4, MOST_LEARNERS)),
        np.zeros((3, MOST_LEARNERS), kind),
        np.zeros((room, MOST_LEARNERS), kind),
        np.zeros(room, kind),
        *(np.zeros(size, kind) for size in sizes),
    )


MOST_LEARNERS = 6
