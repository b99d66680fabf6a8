"""Whether the settings leave it to the look what columns become: what is asked for is asked of the columns as they are."""

from __future__ import annotations

from streamsgd.settings.fields import Settings

UNSET = (
    *("optimizer", "learning_rate", "schedule", "batch_size", "rate_scaling", "clip_norm", "clip_value", "steps", "average"),
    *("standard_errors", "method", "rare", "phases", "start", "combine"),
)
"""Settings of which none is set where the look chooses bins, names, crosses and shrinkage."""


def leaves_open(settings: Settings) -> bool:
    """Whether nothing is set about how to learn."""
    default = Settings(target="")
    return not settings.polish and all(getattr(settings, name) == getattr(default, name) for name in UNSET)


def knows_all_values(settings: Settings) -> bool:
    """Whether values that the look has not seen are not to be learned either, with nothing set about how to learn.

    A run of one pass is that of tables that come one by one, or of data that goes on; from one that keeps its memory
    another goes on.
    """
    return settings.epochs != 1 and not settings.keep_memory and leaves_open(settings)
