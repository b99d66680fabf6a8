"""Whether the settings leave it to the look what columns become: what is asked for is asked of the columns as they are."""

from __future__ import annotations

from streamsgd.settings.fields import Settings

UNSET = (
    *("optimizer", "learning_rate", "schedule", "batch_size", "rate_scaling", "clip_norm", "clip_value", "steps", "average"),
    *("penalty", "polish", "standard_errors", "noise", "method", "rare", "phases", "start", "combine"),
)
"""Settings of which none is set where the look chooses bins, names, crosses and shrinkage."""


def leaves_open(settings: Settings) -> bool:
    """Whether nothing is set about how to learn."""
    default = Settings(target="")
    return all(getattr(settings, name) == getattr(default, name) for name in UNSET)
