"""Settings that have an effect only beside another one: alone they are refused, so that nobody believes in what is not done."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from streamsgd.errors import SettingsError
from streamsgd.settings.arguments import shown
from streamsgd.settings.describe import describe
from streamsgd.settings.folds import fold_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.settings.fields import Settings


log = logging.getLogger("streamsgd")


class Need(NamedTuple):
    """What one setting needs."""

    setting: str
    met: Callable[[Settings], bool]
    """Whether what it needs is there."""
    why: str
    """What it does, and what to pass."""


def _keeps_a_share(settings: Settings) -> bool:
    return fold_of(settings) is not None or bool(settings.validation and not isinstance(settings.validation, str))


def _samples(settings: Settings) -> bool:
    return settings.method is not None


def _writes_rows(settings: Settings) -> bool:
    return settings.cache in ("auto", "disk") or settings.keep_cache  # which is refused by its own name


SAMPLE = "use streamsgd sample, or pass --method sgld-cv"

NEEDS = (
    Need("valid_filter", lambda s: s.valid is not None, "chooses rows of --valid: pass that, or a condition as --validation"),
    Need("validation_group", _keeps_a_share, "keeps values together in a share of the rows: pass --validation 0.1 with it"),
    Need("min_improvement", lambda s: s.patience is not None, "is what --patience takes for an improvement: pass that with it"),
    Need("keep_weights", lambda s: bool(s.class_weight), "leaves --class-weight in the probabilities: pass that with it"),
    Need("prior", _samples, f"is for sampling: {SAMPLE}; what shrinks weights in training is --penalty"),
    Need("temperature", _samples, f"is for sampling: {SAMPLE}"),
    Need("chains", _samples, f"is for sampling: {SAMPLE}"),
    Need("draws", _samples, f"is for sampling: {SAMPLE}"),
    Need("cache_size", _writes_rows, "bounds encoded rows on disk, and none are written: pass --cache auto or disk"),
    Need(
        "cache_dir",
        lambda s: _writes_rows(s) or s.shuffle in ("auto", "external"),
        "is for rows that are kept on disk, and none are: pass --cache auto or disk, or --shuffle external",
    ),
)
"""Each of them, in the order of `Settings`; at its default a setting asks for nothing."""

OF_CHECKPOINTS = ("checkpoint_every", "checkpoint_chunks", "checkpoint_keep")
"""Settings that need a place of checkpoints, which nobody knows before a run begins."""


def check_needs(settings: Settings) -> None:
    """Refuse settings that have no effect.

    Raises
    ------
    SettingsError
        What one of them needs is missing; the message says what that is.

    """
    known = {setting.name: setting for setting in describe()}
    for name, met, why in NEEDS:
        if is_set(settings, name) and not met(settings):
            value = "" if known[name].metavar == "" else f" {shown(getattr(settings, name))}"
            raise SettingsError(f"{known[name].flag}{value} {why}")


def say_no_checkpoint(settings: Settings) -> None:
    """Say which setting of checkpoints has no effect where none are made."""
    given = next((name for name in OF_CHECKPOINTS if is_set(settings, name)), None)
    if settings.checkpoint is None and given is not None:
        flag = f"--{given.replace('_', '-')} {getattr(settings, given):g}"
        log.warning("%s is about checkpoints, and none are made: pass --checkpoint FOLDER, or where to save the model", flag)


def is_set(settings: Settings, name: str) -> bool:
    """Whether a setting is not at its default."""
    default = next(setting.default for setting in describe() if setting.name == name)
    return bool(getattr(settings, name) != default)
