"""Some rows of a data set with what a model makes of them, for pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamsgd.stream.stream import read_chunk, sequential_plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamsgd.kernels.structs.block import Block
    from streamsgd.model.predictor import Predictor
    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.stream.loader import Loader

MOST = 50_000
"""Rows of a picture."""

BLOCK_BYTES = 8 << 20

PLACES = 32
"""Places of a data set that the rows come from, at most."""


class Sampled(NamedTuple):
    """Rows in units of the target."""

    y: np.ndarray
    """float64 (n,): 0 or 1, the number of a class, or a number."""
    mean: np.ndarray
    """float64 (n, n_outputs): probabilities, counts or values."""
    weight: np.ndarray
    """float64 (n,)."""


def sample_scores(recipe: Loader, model: Predictor, *, held: bool = False, most: int = MOST) -> Sampled:
    """Return rows of about evenly spaced chunks with their predictions, all of them or those that were held out.

    Raises
    ------
    DataError
        The data cannot be read.

    """
    plan = sequential_plan(recipe, BLOCK_BYTES)
    n = plan.n_chunks(0)
    block, room = recipe.allocate(min(plan.chunk_rows, plan.n_rows)), np.empty(min(plan.chunk_rows, plan.n_rows), np.int32)
    parts: list[Sampled] = []
    places = np.unique(np.linspace(0, n - 1, min(n, PLACES)).round().astype(int)).tolist()
    quota = -(-most // len(places))
    for k in places:
        filled = read_chunk(recipe, plan, plan.chunk(0, k), block, room)
        parts.append(_some(model, filled, held, quota))
    return Sampled(*(np.concatenate([part[k] for part in parts]) for k in range(3)))


def _some(model: Predictor, filled: LoadedChunk, held: bool, quota: int) -> Sampled:
    """Return up to so many rows of a chunk, evenly spaced."""
    found = [_scored(model, block, start, stop) for block, start, stop in _runs(filled, held)]
    empty = Sampled(np.zeros(0), np.zeros((0, model.n_outputs)), np.zeros(0))
    whole = Sampled(*(np.concatenate([empty[k], *(part[k] for part in found)]) for k in range(3)))
    step = max(1, -(-len(whole.y) // quota))
    return Sampled(*(values[::step] for values in whole))


def _runs(filled: LoadedChunk, held: bool) -> Iterator[tuple[Block, int, int]]:
    if held:
        yield from ((block, 0, len(block.y)) for block in filled.held_blocks())
    else:
        yield from ((filled.block, start, stop) for start, stop in filled.learned_runs())


def _scored(model: Predictor, block: Block, start: int, stop: int) -> Sampled:
    _, means, _ = model.score_block(block, start, stop)
    y, mean = model.in_target_units(block.y[start:stop]), model.in_target_units(means)
    return Sampled(y.astype(np.float64), mean.astype(np.float64), block.weight[start:stop].astype(np.float64))
