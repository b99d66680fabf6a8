"""Files without a footer: cut off, or never Parquet. What they begin with tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamsgd.errors import DataError

if TYPE_CHECKING:
    from streamsgd.data.stores.files import FileRef

MAGIC = b"PAR1"

HEAD = 64
"""Bytes that tell what a file is."""

_MODEL = b'{"__metadata__":{"streamsgd"'
"""What a model or a checkpoint has behind the length of its header."""

MEND = (
    "remove it or write it again; row groups that cannot be read may be skipped, but not a file without its footer: nobody "
    "knows what rows it holds"
)
"""What to do about a file whose footer is not there, or not sound."""


def damaged(ref: FileRef, why: str) -> DataError:
    """Return the error of a file whose footer cannot be read: by its whole path, for it is to be found and replaced."""
    return DataError(f"{ref.path}: {why}: {MEND}")


def no_footer(ref: FileRef, head: bytes, why: str) -> DataError:
    """Return the error of a file that does not end as Parquet does, from what it begins with."""
    if head[8:].startswith(_MODEL):
        return DataError(f"{ref.path}: is a model or a checkpoint, and Parquet is wanted there: name the data")
    if head.startswith(MAGIC):
        return damaged(ref, f"{why}; it is truncated")
    return DataError(
        f"{ref.path}: is not Parquet ({why}), and nothing else is read: write it as Parquet, or give its rows as a table to "
        "streamsgd in Python"
    )
