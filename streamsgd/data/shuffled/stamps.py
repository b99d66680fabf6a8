"""What tells files from later ones of the same size and footer: their ETags or times of modification, as digests."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamsgd.data.stores.files import FileRef

MOST_STAMPS = 4096
"""Digests that are kept; of more files, each is of several."""


def stamp_of(files: Sequence[FileRef]) -> str:
    """Return the digest of the stamps of some files."""
    return hashlib.sha256("\0".join(ref.stamp for ref in files).encode()).hexdigest()[:12]


def stamps_of(files: Sequence[FileRef]) -> list[str]:
    """Return digests of what tells a file from a later one of its size and footer: its ETag or its time of modification."""
    return [stamp_of(some) for some in _together(files)]


def written_since(files: Sequence[FileRef], stamps: Sequence[str]) -> str:
    """Name the first file whose stamp is not what was kept; empty if there is none."""
    now = stamps_of(files)
    if len(now) != len(stamps):
        return ""
    some = next((some for some, a, b in zip(_together(files), now, stamps, strict=True) if a != b), ())
    return f"{some[0].name}{' or one of the files after it' if len(some) > 1 else ''}" if some else ""


def _together(files: Sequence[FileRef]) -> list[Sequence[FileRef]]:
    size = max(1, -(-len(files) // MOST_STAMPS))
    return [files[k : k + size] for k in range(0, len(files), size)]
