"""Where something is written: checked before anything is done, and held as long as that takes."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamsgd.compute.local_files import check_replaceable, only_writer
from streamsgd.data.stores.filesystems import LOCAL, locate
from streamsgd.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from streamsgd.data.source import Source


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
        if folder is not None:
            stack.callback(_remove_if_empty, folder)
            stack.enter_context(only_writer(folder / "run", f"--checkpoint {checkpoint}"))
        yield


def check_no_input(flag: str, out: str | os.PathLike[str] | None, *sources: Source) -> None:
    """Make sure that what is written replaces no file that is read.

    Parameters
    ----------
    flag
        What the place was given by, for the message.
    out
        Path or URL; None where nothing is written.
    sources
        What is read.

    Raises
    ------
    SettingsError
        It is one of their files.

    """
    if out is None:
        return
    place = locate(os.fspath(out))
    if any(source.uri == place.uri and first_read([place.path], source) for source in sources):
        raise SettingsError(f"{flag} {out}: would replace a file of the data that is read: choose another place")


def first_read(paths: Iterable[str], source: Source) -> str | None:
    """Return the first of some paths, of the storage of a source, that is one of its files, also by another name."""
    if source.uri != LOCAL:
        inputs = {ref.path for ref in source.files}
        return next((path for path in paths if path in inputs), None)
    there = {known: path for path in paths if (known := _identity(path)) is not None}
    return next((there[known] for ref in source.files if (known := _identity(ref.path)) in there), None) if there else None


def _identity(path: str) -> tuple[int, int] | None:
    """Return what a file of this machine is the same by, whatever link leads there; None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116  of each of many files
    except OSError:
        return None
    return found.st_dev, found.st_ino


def check_apart(places: Mapping[str, str | os.PathLike[str] | None]) -> None:
    """Make sure that of several files none replaces another.

    Parameters
    ----------
    places
        Paths or URLs by what they were given by; None of those that are not written.

    Raises
    ------
    SettingsError
        Two are one.

    """
    flags: dict[Any, str] = {}
    for flag, out in places.items():
        first = flag if out is None else flags.setdefault(locate(os.fspath(out)), flag)
        if first != flag:
            raise SettingsError(f"{flag} {out}: is the place of {first} too: choose another one")


def check_no_model(flag: str, out: str | os.PathLike[str], model: Any) -> None:
    """Make sure that what is written does not replace the model file that it is made of.

    Raises
    ------
    SettingsError
        It would.

    """
    if isinstance(model, str | os.PathLike) and locate(os.fspath(model)) == locate(os.fspath(out)):
        raise SettingsError(f"{flag} {out}: would replace the model that it is made of: choose another place")


def check_places(out: str | os.PathLike[str] | None, checkpoint: str | None) -> None:
    """Make sure that a model and its checkpoints can be written where they are to be, without writing anything.

    Raises
    ------
    SettingsError
        They cannot.

    """
    for flag, path in zip((f"--out {out}", f"--checkpoint {checkpoint}"), _checked(out, checkpoint), strict=True):
        _check_writable(flag, path)


def check_file(flag: str, out: str | os.PathLike[str]) -> None:
    """Make sure that a file can be written at a path, without writing anything; of a URL nothing is known.

    Raises
    ------
    SettingsError
        It cannot.

    """
    _check_writable(f"{flag} {out}", _file(flag, out))


def _file(flag: str, out: str | os.PathLike[str]) -> Path | None:
    """Return the path on this machine of a file to be written, where there is nothing that it must not replace."""
    path = local_path(out)
    if path is not None:
        if os.path.isdir(path):  # noqa: PTH112  Path.is_dir raises where a name is too long
            raise SettingsError(f"{flag} {out}: is a folder; name a file in it, such as {path / 'model.sgd'}")
        check_replaceable(path)
    return path


def _check_writable(what: str, path: Path | None) -> None:
    above = None if path is None else next(folder for folder in path.absolute().parents if folder.exists())
    if above is not None and not (above.is_dir() and os.access(above, os.W_OK)):
        raise SettingsError(f"{what}: {above} cannot be written; choose another place")


def _checked(out: str | os.PathLike[str] | None, checkpoint: str | None) -> tuple[Path | None, Path | None]:
    """Return the paths on this machine of a model and its checkpoints, where there is nothing that they must not replace."""
    path = None if out is None else _file("--out", out)
    folder = None if checkpoint is None else local_path(checkpoint)
    if folder is not None and os.path.lexists(folder) and not folder.is_dir():
        raise SettingsError(f"--checkpoint {checkpoint}: is a file, and checkpoints need a folder of their own")
    return path, folder


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
