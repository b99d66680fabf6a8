"""Whether a run was made before: its model is there, of the same data and the same settings."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import msgspec

from streamsgd.data.stores.filesystems import LOCAL, connect, local_or_remote_output, retry
from streamsgd.errors import ModelError
from streamsgd.model import store
from streamsgd.model.validate import Origin, converted
from streamsgd.settings.batches import found_before
from streamsgd.settings.make import identity
from streamsgd.training.look import survey, survey_as
from streamsgd.training.resuming.start import read_start

if TYPE_CHECKING:
    from streamsgd.settings.fields import Settings

log = logging.getLogger("streamsgd")


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
        converted(header.get("provenance"), Origin, str(out), "provenance")
    except ModelError:
        return False
    start = None
    if settings.start is not None:
        settings, start = read_start(settings.start, settings)
    settings = found_before(settings, header["provenance"].get("pilot")) or settings
    now = msgspec.json.decode(msgspec.json.encode(identity(settings)))
    if now != header.get("settings"):
        return False
    known = start and survey_as(data, settings, start.model.encoding)
    dataset, *_ = known or survey(data, settings, moments=False)
    if dataset.fingerprint != header["provenance"].get("fingerprint"):
        return False
    if name := _written_since(out, dataset.source):
        log.warning(
            "%s is the model of these settings and of data of these sizes and footers, but %s was written since: it is trained "
            "again",
            *(out, name),
        )
    return not name


def _written_since(out: str | os.PathLike[str], source: Any) -> str:
    """Name a file that was written, or put in its place, when the model was there already; empty if there is none.

    By their times, as make does it: what else would tell cannot be kept in the model, which is the same bytes whenever
    and of whichever copy of the data it is made.
    """
    filesystem, path = local_or_remote_output(out)
    (made,) = retry(lambda: filesystem.get_file_info([path]), str(out))
    files = [ref for ref in source.files if ref.path]
    if not made.mtime_ns or not files or not source.uri:
        return ""
    for ref, time in zip(files, _times(source.uri, [ref.path for ref in files]), strict=True):
        if (time or 0) >= made.mtime_ns:
            return str(ref.name)
    return ""


def _times(uri: str, paths: list[str]) -> list[int | None]:
    """Return when files were written, in nanoseconds; of local ones when they were put in their place, if that was later."""
    if uri == LOCAL:
        found = [os.stat(path) for path in paths]  # noqa: PTH116  thousands of files
        return [max(stat.st_mtime_ns, stat.st_ctime_ns) for stat in found]
    return [info.mtime_ns for info in retry(lambda: connect(uri).get_file_info(paths), paths[0])]
