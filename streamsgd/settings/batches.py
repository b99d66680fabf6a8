"""What `--batch-size` says of batches that grow."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from streamsgd.settings.registry import make

if TYPE_CHECKING:
    from streamsgd.planning.batches import Adaptive
    from streamsgd.settings.fields import Settings


def adaptive(settings: Settings) -> Adaptive | None:
    """Return how batches grow, or None where they do not."""
    size = settings.batch_size
    return _made(size) if isinstance(size, str) and size.startswith("adaptive") else None


@cache
def _made(spec: str) -> Adaptive:
    made: Adaptive = make("batch_size", spec)
    return made
