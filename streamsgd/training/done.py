"""Whether a run was made before: its model is there, of the same data and the same settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from streamsgd.errors import ModelError
from streamsgd.model import store
from streamsgd.settings.batches import found_before
from streamsgd.settings.make import identity
from streamsgd.training.look import survey
from streamsgd.training.start import read_start

if TYPE_CHECKING:
    import os

    from streamsgd.settings.fields import Settings


def is_done(out: str | os.PathLike[str], data: Any, settings: Settings) -> bool:
    """Whether `out` is the model that these data and settings make; only footers are read.

    Raises
    ------
    DataError
        The data is missing, damaged or empty.
    ModelError
        The model to go on from cannot be read.

    """
    try:
        header, _ = store.unpack("model", store.read(out), str(out))
    except ModelError:
        return False
    if settings.start is not None:
        settings, _ = read_start(settings.start, settings)
    settings = found_before(settings, header.get("provenance", {}).get("pilot")) or settings
    now = msgspec.json.decode(msgspec.json.encode(identity(settings)))
    if now != header.get("settings"):
        return False
    dataset, *_ = survey(data, settings, moments=False)
    return bool(dataset.fingerprint == header.get("provenance", {}).get("fingerprint"))
