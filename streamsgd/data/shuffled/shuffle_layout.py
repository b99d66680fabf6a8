"""What an external shuffle will write, and what that takes: from data, columns and seed alone."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from streamsgd.compute.context import usual_threads
from streamsgd.data.exact_types import exact_schema
from streamsgd.data.notes import passing_on
from streamsgd.data.sizes import group_widths, is_wild
from streamsgd.data.source import WHOLE_BYTES, BaseSource
from streamsgd.data.timings import Timings
from streamsgd.errors import BudgetError, StreamSGDError
from streamsgd.messages import format_bytes
from streamsgd.planning.budget import INTERPRETER, RESERVE
from streamsgd.planning.chunks import Piece
from streamsgd.planning.sums import dot

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

LONGER = 4
"""Times that rows must be longer in memory than footers let expect for buckets and row groups to be made for that."""

MEASURED_GROUPS, MEASURED_ROWS = 8, 64
"""Row groups whose first rows are measured where footers do not say how long they are in memory."""

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
    told, rows = int(dot(dataset.rows, widths)), dataset.n_rows
    total = max(told, int(_decoded(dataset, columns)))
    long = total > LONGER * max(told, BUCKET_BYTES)
    told = total if long else told
    per_group = max(1 if long else LEAST_ROWS, min(MOST_ROWS, int(GROUP_BYTES * rows / max(1, told))))
    n_buckets = max(1, min(MOST_BUCKETS, -(-told // BUCKET_BYTES)))
    digest = hashlib.sha256(f"{VERSION} {seed} {stored} {dataset.fingerprint} {schema}".encode())
    digest.update(f"{n_buckets} {per_group}".encode() * long)
    digest.update(dataset.file.tobytes() + dataset.index.tobytes() + dataset.rows.tobytes())
    return ShuffleLayout(
        schema,
        seed,
        rows,
        total,
        n_buckets,
        1 << (per_group.bit_length() - 1),
        digest.hexdigest(),
        stored,
    )


def _decoded(dataset: Dataset, columns: Sequence[str]) -> float:
    """Return the bytes of all rows in memory where values may be stored by what they share, 0 where they are not."""
    source: Any = dataset.source
    there = [name for name in columns if name in source.schema.names]
    if isinstance(source, BaseSource) or not is_wild(source.schema, there, ()):
        return 0.0
    known = sum(getattr(source, "decoded", {}).get(name, math.inf) for name in there)
    return known + 8.0 * dataset.n_rows if math.isfinite(known) else _measured(dataset, there)


def _measured(dataset: Dataset, columns: Sequence[str]) -> float:
    """Return about the bytes of all rows, from the first rows of some row groups."""
    some, reader = np.flatnonzero(dataset.rows > 0), dataset.reader(keeps_open=False)
    n_rows = n_bytes = 0
    for group in np.unique(some[np.linspace(0, len(some) - 1, min(MEASURED_GROUPS, len(some))).astype(int)]).tolist():
        piece = Piece(0, group, group + 1, 0, min(MEASURED_ROWS, int(dataset.rows[group])), 0)
        try:
            for part in reader.read(piece, tuple(columns), Timings()):
                n_rows, n_bytes = n_rows + len(part[0]), n_bytes + sum(column.nbytes for column in part)
        except StreamSGDError:
            continue  # who reads all rows will say so
    return dataset.n_rows * (8.0 + n_bytes / max(1, n_rows))


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
