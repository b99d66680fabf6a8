"""What a job takes of memory."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.compute.context import usual_threads
from streamsgd.compute.memory import parse_limit
from streamsgd.data.sizes import BATCH_BYTES, whole_bytes
from streamsgd.errors import BudgetError
from streamsgd.kernels.learn.race import CELL
from streamsgd.kernels.models.machines import LINEAR, by_columns, is_linear, numbers_of_entry
from streamsgd.kernels.parts.traits import holds_factors, is_race
from streamsgd.kernels.structs.block import MOST_LEARNERS
from streamsgd.planning import budget as budgets
from streamsgd.planning.lanes import CHUNK_BYTES, ROUNDS, Lanes, lane_copies, n_blocks
from streamsgd.training.judged.refusals import judged_bytes
from streamsgd.training.noise.growing import growth_bytes
from streamsgd.training.phases import wanted

if TYPE_CHECKING:
    from streamsgd.data.dataset import Dataset
    from streamsgd.features.encoding import Encoding
    from streamsgd.stream.loader import Loader
    from streamsgd.training.outline import Outline


VALID_BLOCK_BYTES = 16 << 20
"""Bytes of each block in which a validation set streams by."""

LONG_ROW = 1 << 21
"""Entries of the longest list or map that a plan makes room for: footers do not tell how long the longest is."""

LONG_COPIES = 12
"""Times that a row of more bytes than a batch is in memory: decoded, as entries of two chunks, and by what all that is made."""

ONE_LANE = Lanes(1, "average", "as set")


def size_budget(
    outline: Outline,
    dataset: Dataset,
    recipe: Loader,
    chunk_rows: int | None,
    *,
    lanes: Lanes = ONE_LANE,
    looked: int = 0,
    longest: int = 0,
    beside: int = 0,
) -> budgets.Budget:
    """Make the budget of a job with so many bytes of a model beside its own.

    Its first look took `looked` bytes for values, `longest` of them those of one row.

    Raises
    ------
    BudgetError
        The limit cannot hold the job; the smallest one that is named can.

    """
    limit = parse_limit(outline.settings.memory)
    budget_in = partial(
        _budget,
        outline,
        dataset,
        recipe,
        chunk_rows=chunk_rows,
        lanes=lanes,
        looked=looked,
        longest=longest,
        given=limit,
        beside=beside,
    )
    try:
        return budget_in(limit=limit)
    except BudgetError as error:
        refusal = error
    while True:  # a larger limit reads more at once, and so may need more
        try:
            budget_in(limit=refusal.least)
        except BudgetError as error:
            refusal = error
        else:
            raise refusal


def _budget(
    outline: Outline,
    dataset: Dataset,
    recipe: Loader,
    *,
    chunk_rows: int | None,
    lanes: Lanes,
    looked: int,
    longest: int,
    given: int,
    limit: int,
    beside: int,
) -> budgets.Budget:
    settings, parts, weights = outline.settings, outline.parts, outline.n_weights
    valid = budgets.N_BLOCKS * VALID_BLOCK_BYTES * 2 if settings.valid else 0
    useful = None
    if lanes.number > 1:
        data = dataset.n_rows * (recipe.row_bytes + 4)
        useful = min(CHUNK_BYTES, max(budgets.LEAST_CHUNK, data // (ROUNDS * lanes.number)))
    further = phases_bytes(outline)
    further += 2 * 8 * weights if settings.average != "none" else 0
    further += growth_bytes(settings, recipe.encoding, weights) + judged_bytes(parts, weights)
    at_once = recipe.at_once if limit == given else max(recipe.at_once, whole_bytes(limit))
    cost = dataset.source.cost(recipe.encoding.sources, at_once)
    return budgets.make_budget(
        limit=limit,
        given=given,
        look=looked,
        decode_per_thread=cost.per_thread + LONG_COPIES * max(0, longest - BATCH_BYTES),
        threads=usual_threads(settings.threads),
        footers=cost.kept,
        model=model_bytes(weights, parts.optimizer, settings.precision) * lane_copies(lanes)
        + (8 * outline.n_parameters if holds_factors(parts.optimizer) else 0)  # of a model in a file's layout
        + long_row_bytes(recipe.encoding, settings.precision, races=is_race(parts.optimizer), model=parts.model)
        + valid
        + further
        + beside,
        row_bytes=recipe.row_bytes,
        data_rows=dataset.n_rows,
        chunk_rows=chunk_rows,
        interpreter=budgets.INTERPRETER + (budgets.WIDE_KERNELS if recipe.encoding.is_wide else 0),
        n_blocks=n_blocks(lanes),
        useful=useful,
        table_bytes=cost.held_per_row,
    )


def phases_bytes(outline: Outline) -> int:
    """Return the bytes of all phases that run: one that makes no pass takes nothing."""
    kinds = wanted(outline.settings, outline.parts)
    return sum(kind.memory(outline) for kind in kinds if kind.passes(outline))


def long_row_bytes(encoding: Encoding, precision: str, *, races: bool, model: Any = LINEAR) -> int:
    """Return the bytes in which a row of `LONG_ROW` entries is learned, as `new_scratch` has them; 0 without lists and maps."""
    if all(column.kind == "text" for column in encoding.tails):
        return 0
    per_learner = MOST_LEARNERS + 1 if races else 0
    per_model = 0 if is_linear(model) else 2 * numbers_of_entry(model)
    places = 4 if by_columns(model) else 0
    return LONG_ROW * (4 + places + np.dtype(precision).itemsize * (5 + per_learner + per_model))


def model_bytes(n_weights: int, optimizer: Any, precision: str) -> int:
    """Return the bytes of weights, gradient and memory of an optimizer, of their copy for a checkpoint, and of a model."""
    if is_race(optimizer):
        return n_weights * (2 * CELL * np.dtype(precision).itemsize + 16)
    return n_weights * 8 * (4 + 2 * int(optimizer.n_slots))
