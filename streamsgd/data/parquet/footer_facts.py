"""What the footer of one file says, checked: rows and bytes of its row groups, and its schema."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamsgd.data.notes import noted
from streamsgd.data.parquet.footers import fixed_columns, split_footer
from streamsgd.data.parquet.int96 import INT96_UNIT, marked
from streamsgd.data.parquet.no_footer import damaged
from streamsgd.data.stores.filesystems import first_line
from streamsgd.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from streamsgd.data.stores.files import FileRef

LARGE_FOOTER = 4 << 20  # bytes; parsed footers take ten times their length, so large ones are parsed one at a time ...

GROUPS_AT_ONCE = 1024  # ... and in parts

WIDE_BYTES = 16
"""Of integers of 128 bits, which are bytes to Parquet."""


class FooterFacts(NamedTuple):
    """What is kept of the footer of a file."""

    rows: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    digest: bytes
    schema: bytes  # serialized, to find equal ones fast
    stamp: str = ""


def parse_footer(footer: bytes, ref: FileRef) -> FooterFacts:
    """Return what a footer says.

    Raises
    ------
    DataError
        It is damaged, it lies, or a column is of a type that Arrow cannot read; the message names file and column.

    """
    parts = [footer] if len(footer) < LARGE_FOOTER else split_footer(footer, GROUPS_AT_ONCE)
    rows, size, claimed = [], [], 0
    try:
        for part in parts:
            with pq.ParquetFile(pa.BufferReader(part), coerce_int96_timestamp_unit=INT96_UNIT) as file:
                # not metadata.schema: it makes a cycle, and a million row groups wait for the collector (1.9 GB)
                arrow = marked(file.schema_arrow, partial(_read_otherwise, part, file.metadata))
                _check_zones(arrow.types)
                schema = noted(arrow, file.metadata.metadata).serialize().to_pybytes()
                counts = _counts(file.metadata)
                rows.append(counts[0])
                size.append(counts[1])
                claimed = file.metadata.num_rows
    except pa.ArrowNotImplementedError as error:
        raise DataError(_unknown_type(footer, ref, first_line(error))) from error
    except (pa.ArrowException, OSError, OverflowError, UnicodeDecodeError) as error:
        raise damaged(ref, f"its footer cannot be read, the file is damaged ({first_line(error)})") from error
    _check_counts(joined(rows, np.int64), claimed, ref)
    return FooterFacts(joined(rows, np.int64), joined(size, np.int64), hashlib.sha256(footer).digest(), schema)


def _check_zones(kinds: Iterable[Any]) -> None:
    """Raise UnicodeDecodeError where the name of a time zone is no text: whoever asks for it later would."""
    for kind in kinds:
        if pa.types.is_timestamp(kind):
            _ = kind.tz
        elif "tz=" in str(kind):
            _check_zones(kind.field(k).type for k in range(kind.num_fields))


def _read_otherwise(part: bytes, metadata: Any, unit: str) -> Any:
    """Return the schema of a footer as it is with INT96 of another unit."""
    with pq.ParquetFile(pa.BufferReader(part), metadata=metadata, coerce_int96_timestamp_unit=unit) as file:
        return file.schema_arrow


def _counts(metadata: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return rows and bytes by row group; asking a broken file for other fields can abort the process."""
    count = metadata.num_row_groups
    rows, size = np.empty(count, np.int64), np.empty(count, np.int64)
    for i in range(count):
        group = metadata.row_group(i)
        rows[i], size[i] = group.num_rows, group.total_byte_size
    return rows, np.clip(size, 0, 1 << 50)


def _unknown_type(footer: bytes, ref: FileRef, said: str) -> str:
    """Return what to say of a file with a column that Arrow cannot read, which its own words do not name."""
    wide = [name for name, bare in fixed_columns(footer).items() if bare == WIDE_BYTES]
    if "64 bits" not in said or not wide:
        return f"{ref.path}: has a column of a type that cannot be read: {said}; write it as another type"
    named = f"column {wide[0]!r} is" if len(wide) == 1 else f"columns {', '.join(map(repr, wide))} are"
    return (
        f"{ref.path}: {named} of type Int128, as Polars writes it, which Arrow cannot read: write it as Int64, as a "
        "Decimal or as a string, e.g. frame.with_columns(polars.col("
        f"{wide[0]!r}).cast(polars.Int64)), or leave it out of the file"
    )


def _check_counts(rows: npt.NDArray[np.int64], claimed: int, ref: FileRef) -> None:
    count, most = len(rows), int(rows.max(initial=0))
    if (count and rows.min() < 0) or most > np.iinfo(np.int32).max:
        bad = int(rows.min()) if rows.min() < 0 else most
        raise damaged(ref, f"its footer says {bad:,} rows for a row group and {claimed:,} for the file; it lies")
    if int(rows.sum()) != claimed:
        said = f"its footer says {claimed:,} rows for the file but {int(rows.sum()):,} in its {count:,} row groups; it lies"
        raise damaged(ref, said)


def joined(arrays: list[Any], dtype: Any) -> Any:
    """Return arrays one after another, also none."""
    return np.concatenate([np.empty(0, dtype), *arrays])
