"""Checkpoints: everything a run needs to go on to the same bits, written so that a kill at any instant leaves one."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streamsgd.errors import ModelError
from streamsgd.kernels.compile.jit import cpu_target
from streamsgd.model import store

if TYPE_CHECKING:
    import numpy as np

OURS = re.compile(r"epoch\d{6,}-chunk\d{9,}\.ckpt")
"""What checkpoints are called; whatever else is in their folder is somebody else's."""

HALF = re.compile(rf"\.{OURS.pattern}(\.[0-9a-f]+)?\.partial")
"""What their unfinished files are called."""

log = logging.getLogger("streamsgd")


@dataclass
class Checkpoints:
    """The checkpoints of one run in a folder (a path or URL), newest last by name."""

    folder: str
    keep: int = 2

    def save(self, epoch: int, chunk: int, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
        """Write the checkpoint before (epoch, chunk), drop the oldest and those of a later cursor; return its name.

        Raises
        ------
        ModelError
            The storage refused; earlier checkpoints stay.

        """
        name = f"epoch{epoch:06d}-chunk{chunk:09d}.ckpt"
        header = {**header, "cpu": cpu_target()}
        store.write(f"{self.folder}/{name}", store.pack("checkpoint", header, arrays))
        names = self.names()
        past = [other for other in names if other <= name]
        # Those after this one are damaged and were passed over: kept, they would push out good ones.
        for old in {*names} - {*past[-self.keep :]}:
            store.remove(f"{self.folder}/{old}")
        return name

    def names(self) -> list[str]:
        """Return the names of the checkpoints, oldest first."""
        return [name for name in store.names(self.folder) if OURS.fullmatch(name)]

    def newest(self) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """Return header and arrays of the newest checkpoint that verifies, or None if there is none at all.

        A damaged one is passed over with a warning: the run goes on from the one before.

        Raises
        ------
        ModelError
            There are checkpoints, but every one is damaged.

        """
        names = self.names()
        for name in reversed(names):
            try:
                header, arrays = store.unpack("checkpoint", store.read(f"{self.folder}/{name}"), f"{self.folder}/{name}")
            except ModelError as error:
                log.warning("passing over a checkpoint: %s", error)
                continue
            if not {"phases", "runs"} & header.keys():
                raise ModelError(
                    f"{self.folder}/{name} was saved by an older version of streamsgd, whose runs this one cannot go on with: "
                    "pass --resume never to start anew, or finish the run with that version"
                )
            return header, arrays
        if names:
            raise ModelError(f"{self.folder}: no checkpoint can be read; delete the folder to start from the beginning")
        return None

    def clear(self) -> None:
        """Delete all checkpoints and what a killed writer of them left, nothing else, and the folder if it is empty then."""
        for name in store.names(self.folder):
            if OURS.fullmatch(name) or HALF.fullmatch(name):
                store.remove(f"{self.folder}/{name}")
        store.remove_folder(self.folder)
