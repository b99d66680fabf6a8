"""What a finished output of scoring says of its model and its input, so that it is not made again."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MARK = b"streamsgd"
"""Key in an output's Parquet metadata that says from which model and input it was made ..."""

STAMP = b"streamsgd.input"
"""... and when that input was written."""


def mark_of(filesystem: Any, path: str) -> bytes | None:
    """Return what a finished output says of its model and input; None if there is none."""
    return marks_of(filesystem, path).get(MARK)


def marks_of(filesystem: Any, path: str) -> dict[bytes, bytes]:
    """Return all that a finished output says; nothing if there is none."""
    try:
        with filesystem.open_input_file(path) as source:
            return dict(pq.read_schema(source).metadata or {})
    except (OSError, pa.ArrowInvalid):
        return {}
