"""What an external shuffle will write, and what that takes: from data, columns and seed alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from streamsgd.compute.context import usual_threads
from streamsgd.data.exact_types import exact_schema
from streamsgd.data.notes import passing_on
from streamsgd.data.sizes import group_widths
from streamsgd.data.source import WHOLE_BYTES
from streamsgd.errors import BudgetError
from streamsgd.messages import format_bytes
from streamsgd.planning.budget import INTERPRETER, RESERVE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamsgd.data.dataset import Dataset


VERSION = 1
"""Of the order and of the files."""

BUCKET_BYTES = 24 << 20
"""Decoded bytes of a bucket, which is a file ..."""

MOST_BUCKETS = 1 << 12
"""... as long as there are no more than so many."""

GROUP_BYTES = 8 << 20

LEAST_ROWS, MOST_ROWS = 1 << 10, 1 << 17
"""Decoded bytes of a row group, and its rows."""

COPIES = 4
"""Times that rows of a run or a bucket are in memory: as read, together, in order, and as they are written."""

LEAST_RUN, MOST_RUN = 8 << 20, 512 << 20
"""Bytes of a run."""

DISK_COPIES = 2.2
"""Times that the decoded rows are on disk: in runs and in files."""


@dataclass(frozen=True)
class ShuffleLayout:
    """What a shuffle will write: follows from data, columns and seed alone."""

    schema: Any
    seed: int
    rows: int
    bytes: int
    """Decoded, about."""
    n_buckets: int
    group_rows: int
    digest: str
    """Of all that decides the output."""
    stored: bool = False
    """Whether columns are copied in the types of their files, all alike; else in those of the data set."""

    @property
    def bucket_memory(self) -> int:
        """Bytes of memory that a bucket takes while it is sorted and written; some are a little larger than the mean."""
        return int(1.25 * COPIES * self.bytes / self.n_buckets)

    @property
    def least_memory(self) -> int:
        """The smallest limit in bytes that holds a bucket and a read."""
        held = INTERPRETER + max(COPIES * LEAST_RUN + 3 * WHOLE_BYTES, self.bucket_memory)
        return -(-held * RESERVE // (RESERVE - 1))

    @property
    def disk_bytes(self) -> int:
        """Bytes on disk that the shuffle takes while it runs, about."""
        return int(DISK_COPIES * self.bytes) + (8 << 20)


def layout_of(dataset: Dataset, columns: Sequence[str], seed: int, *, as_data: bool = False) -> ShuffleLayout:
    """Return what a shuffle of some columns of a data set writes.

    With `as_data` they are for others to read: of the types of the files where these are alike, and they say which columns are
    no features. Where types of files do not say by themselves that one holds all values, those are read.

    Raises
    ------
    NoOneTypeError
        No type holds the values of a column of all files.

    """
    inventory: Any = getattr(dataset.source, "inventory", None)
    stored = as_data and inventory is not None and len(inventory.file_schemas) == 1 and not dataset.types
    fields = [dataset.schema.field(name) for name in columns]
    if stored:
        there = inventory.file_schemas[0]
        fields = [there.field(f.name) if f.name in there.names and f.name not in dataset.partition_names else f for f in fields]
    schema = exact_schema(dataset, pa.schema(fields), stored=stored)
    schema = passing_on(schema, dataset.aside) if as_data else schema
    widths = group_widths(dataset, columns) + 8.0
    total = int(float(dataset.rows @ widths))
    rows = dataset.n_rows
    per_group = max(LEAST_ROWS, min(MOST_ROWS, int(GROUP_BYTES * rows / max(1, total))))
    digest = hashlib.sha256(f"{VERSION} {seed} {stored} {dataset.fingerprint} {schema}".encode())
    digest.update(dataset.file.tobytes() + dataset.index.tobytes() + dataset.rows.tobytes())
    return ShuffleLayout(
        schema,
        seed,
        rows,
        total,
        max(1, min(MOST_BUCKETS, -(-total // BUCKET_BYTES))),
        1 << (per_group.bit_length() - 1),
        digest.hexdigest(),
        stored,
    )


def check_memory(layout: ShuffleLayout, limit: int) -> None:
    """Refuse a limit that cannot hold a bucket.

    Raises
    ------
    BudgetError
        It cannot; the message names the smallest that can.

    """
    if limit < layout.least_memory:
        error = BudgetError(
            f"--memory {format_bytes(limit)} cannot hold a shuffle of {format_bytes(layout.bytes)}; "
            f"the smallest budget that can is --memory {-(-layout.least_memory // 10**6)}MB"
        )
        error.least = -(-layout.least_memory // 10**6) * 10**6
        raise error


def buckets_at_once(layout: ShuffleLayout, limit: int) -> int:
    """Return how many buckets are sorted and written side by side in a memory limit."""
    left = limit - limit // RESERVE - INTERPRETER
    return max(1, min(usual_threads(None), left // max(1, layout.bucket_memory)))


def run_bytes(limit: int) -> int:
    """Return the bytes of a run in a memory limit."""
    left = limit - limit // RESERVE - INTERPRETER - 3 * WHOLE_BYTES
    return max(LEAST_RUN, min(MOST_RUN, left // COPIES))
