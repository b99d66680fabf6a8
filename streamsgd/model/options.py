"""What a caller may ask otherwise of a saved model than training did."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from streamsgd.model.predictor import Predictor


class ScoringOptions(NamedTuple):
    """Settings of a scoring run; None for what they were in training."""

    weight: str | None = None
    """Column of row weights."""
    bad_rows: str | None = None
    unreadable: str | None = None
    infinite: str | None = None
    intervals: float | None = None
    """Share of an interval's level; None for no intervals."""

    def of(self, model: Predictor, name: str) -> str | None:
        """Return what holds: what was asked for, else what training had."""
        asked: str | None = getattr(self, name)
        return model.settings.get(name) if asked is None else asked


NO_OPTIONS = ScoringOptions()
