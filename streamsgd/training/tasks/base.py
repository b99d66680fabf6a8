"""What every task reports of a chunk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streamsgd.model.evaluate import new_metrics, update_metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.data.timings import Timings
    from streamsgd.model.metrics import Metrics
    from streamsgd.model.model import Model
    from streamsgd.planning.chunks import Chunk
    from streamsgd.stream.chunk import LoadedChunk, LoadedPiece
    from streamsgd.training.job import Job


@dataclass
class ChunkReport:
    """What one lane brought, beside what it learned: the account of its chunk."""

    chunk: Chunk
    pieces: list[LoadedPiece] = field(repr=False)
    """Without their rows."""
    spent: Timings
    held: Metrics | None = None
    """Of the rows held out."""
    waited: float = 0.0
    fit_seconds: float = 0.0
    rows: int = 0
    """That were learned."""
    worker: str = ""
    """Who did it; empty for this process."""
    bytes_sent: int = 0


def held_metrics(job: Job, filled: LoadedChunk, model: Callable[[], Model]) -> Metrics | None:
    """Return the metrics of a chunk's held-out rows."""
    if not job.settings.validation:
        return None
    found, now = new_metrics(job.parts.loss, job.target), model()
    for block in filled.held_blocks():
        update_metrics(found, now, block, 0, len(block.y))
    return found
