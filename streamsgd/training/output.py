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
        path = None if out is None else local_path(out)
        if path is not None:
            if path.is_dir():
                raise SettingsError(f"--out {out}: is a folder; name a file in it, such as {path / 'model.sgd'}")
            check_replaceable(path)
            stack.enter_context(only_writer(path, f"--out {out}"))
        folder = None if checkpoint is None else local_path(checkpoint)
        if folder is not None:
            if folder.exists() and not folder.is_dir():
                raise SettingsError(f"--checkpoint {checkpoint}: is a file, and checkpoints need a folder of their own")
            if path is None or folder != path.with_name(f"{path.name}.ckpt"):  # which the lock of the model stands for
                stack.callback(_remove_if_empty, folder)
                stack.enter_context(only_writer(folder / "run", f"--checkpoint {checkpoint}"))
        yield


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
