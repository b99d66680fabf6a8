"""Where a run writes: checked before anything is done, and held as long as the run takes."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from streamsgd.compute.local_files import check_replaceable, only_writer
from streamsgd.data.filesystems import LOCAL, locate
from streamsgd.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator


def local_path(uri: str | os.PathLike[str]) -> Path | None:
    """Return the path of a place on this machine; None of one elsewhere."""
    place = locate(os.fspath(uri))
    return Path(place.path) if place.uri == LOCAL else None


@contextmanager
def reserved(out: str | os.PathLike[str] | None, checkpoint: str | None) -> Iterator[None]:
    """Hold the place of a model and of its checkpoints, so that a second run with one of them is refused.

    Object stores have no locks: of two runs that write there the last one wins.

    Raises
    ------
    SettingsError
        A model or checkpoints cannot be written there, or another run writes them.

    """
    with ExitStack() as stack:
        path, folder = _checked(out, checkpoint)
        if path is not None:
            stack.enter_context(only_writer(path, f"--out {out}"))
        # Of those beside a model the lock of the model speaks.
        if folder is not None and (path is None or folder != path.with_name(f"{path.name}.ckpt")):
            stack.callback(_remove_if_empty, folder)
            stack.enter_context(only_writer(folder / "run", f"--checkpoint {checkpoint}"))
        yield


def check_places(out: str | os.PathLike[str], checkpoint: str) -> None:
    """Make sure that a model and its checkpoints can be written where they are to be, without writing anything.

    Raises
    ------
    SettingsError
        They cannot.

    """
    for flag, path in zip((f"--out {out}", f"--checkpoint {checkpoint}"), _checked(out, checkpoint), strict=True):
        above = None if path is None else next(folder for folder in path.absolute().parents if folder.exists())
        if above is not None and not (above.is_dir() and os.access(above, os.W_OK)):
            raise SettingsError(f"{flag}: {above} cannot be written; choose another place")


def _checked(out: str | os.PathLike[str] | None, checkpoint: str | None) -> tuple[Path | None, Path | None]:
    """Return the paths on this machine of a model and its checkpoints, where there is nothing that they must not replace."""
    path = None if out is None else local_path(out)
    if path is not None:
        if path.is_dir():
            raise SettingsError(f"--out {out}: is a folder; name a file in it, such as {path / 'model.sgd'}")
        check_replaceable(path)
    folder = None if checkpoint is None else local_path(checkpoint)
    if folder is not None and folder.exists() and not folder.is_dir():
        raise SettingsError(f"--checkpoint {checkpoint}: is a file, and checkpoints need a folder of their own")
    return path, folder


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
