"""What a caller may ask otherwise of a saved model than training did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from streamsgd.model.predictor import Predictor
    from streamsgd.stream.stats import Account


class ScoringOptions(NamedTuple):
    """Settings of a scoring run: how rows are taken, None for as in training, and who reads them in how much memory."""

    weight: str | None = None
    """Column of row weights."""
    bad_rows: str | None = None
    unreadable: str | None = None
    infinite: str | None = None
    filter: str | None = None
    memory: str | None = None
    threads: int | None = None
    executor: str = "auto"
    workers: int | None = None
    scheduler: str | None = None
    client: Any = None
    """Of distributed, whose workers score."""
    account: Account | None = None
    """Filled meanwhile."""

    def of(self, model: Predictor, name: str) -> str | None:
        """Return what holds: what was asked for, else what training had."""
        asked: str | None = getattr(self, name)
        return model.settings.get(name) if asked is None else asked


NO_OPTIONS = ScoringOptions()
