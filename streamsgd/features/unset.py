"""Whether the settings leave it to the look what columns become: what is asked for is asked of the columns as they are."""

from __future__ import annotations

from streamsgd.settings.fields import Settings

UNSET = (
    *("optimizer", "learning_rate", "schedule", "batch_size", "rate_scaling", "clip_norm", "clip_value", "steps", "average"),
    *("standard_errors", "method", "phases", "start", "combine"),
)
"""Settings of which none is set where the look chooses bins, names, crosses and shrinkage.

Not `rare`: which rows are learned says nothing of columns, and a run that thins is to be as good a model as one that does not.
"""


def leaves_open(settings: Settings) -> bool:
    """Whether nothing is set about how to learn."""
    default = Settings(target="")
    return not settings.polish and all(getattr(settings, name) == getattr(default, name) for name in UNSET)


def may_thin(settings: Settings) -> bool:
    """Whether rows are left out whatever the table: then nothing may weigh against rows, nor judge weights by all of them.

    Not for `auto`, which leaves tables alone that are small enough for such things.
    """
    return settings.rare not in ("none", "auto")


def knows_all_values(settings: Settings) -> bool:
    """Whether values that the look has not seen are not to be learned either, with nothing set about how to learn.

    A run of one pass is that of tables that come one by one, or of data that goes on; from one that keeps its memory
    another goes on.
    """
    return settings.epochs != 1 and not settings.keep_memory and leaves_open(settings)
