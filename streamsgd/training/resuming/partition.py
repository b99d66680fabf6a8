"""A checkpoint that was saved of another partition: a daily job that was killed yesterday begins today's anew, and says so."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from streamsgd.data.open import is_by_file, open_whole
from streamsgd.training.resuming.saved import shares_none

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.settings.fields import Settings

log = logging.getLogger("streamsgd")


def of_this(data: Any, saved: Any, settings: Settings, progress: Callable[[int, int], None] | None = None) -> tuple[Any, Any]:
    """Return the data, opened once, and what was saved if that may be of this data; None in its place if it is of others.

    It is of others where it was of files, by their paths, none of which is among these; of `--resume always` it is not asked.

    Raises
    ------
    DataError
        The data cannot be opened.

    """
    if saved is None or settings.resume != "auto" or not saved[0].get("paths") or not is_by_file(data):
        return data, saved
    source = open_whole(data, progress).source
    if saved[0].get("fingerprint") == source.fingerprint or not shares_none(source.files, str(saved[0]["paths"])):
        return source, saved
    log.warning(
        "the checkpoint in %s is of other files, none of which is among the %s of this run: the run starts anew, and that "
        "checkpoint is dropped",
        settings.checkpoint,
        f"{len(source.files):,}",
    )
    return source, None
