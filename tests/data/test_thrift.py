"""What a footer says of column chunks, by our own reading: as Arrow reads it, and a ValueError where bits are wrong."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsgd.data.parquet.footers import group_chunks, is_sound


def footer_of(data: bytes) -> bytes:
    return data[-8 - int.from_bytes(data[-8:-4], "little") :]


def written(**options: Any) -> bytes:
    table = pa.table(
        {
            "x": np.arange(100.0),
            "word": [f"w{k % 7}" for k in range(100)],
            "list": [[k, k] for k in range(100)],
            "map": pa.array([[(str(k), 1.0)] for k in range(100)], pa.map_(pa.string(), pa.float32())),
            "pair": [{"a": k, "b.c": str(k)} for k in range(100)],
        }
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=30, **options)
    return sink.getvalue()


def check(data: bytes) -> None:
    metadata = pq.read_metadata(io.BytesIO(data))
    groups = list(range(metadata.num_row_groups))
    for g, (rows, chunks) in zip(groups, group_chunks(footer_of(data), groups), strict=True):
        theirs = metadata.row_group(g)
        assert rows == theirs.num_rows
        columns = [theirs.column(j) for j in range(theirs.num_columns)]
        assert [chunk[:3] for chunk in chunks] == [
            (c.path_in_schema, c.total_compressed_size, c.total_uncompressed_size) for c in columns
        ]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zstd", "write_page_index": True},
        {"version": "1.0", "write_statistics": False},
        {"write_page_checksum": True},
    ],
)
def test_column_chunks_are_as_arrow_reads_them(options: dict[str, Any]) -> None:
    check(written(**options))


def test_so_are_those_of_other_writers(shared_data: Path) -> None:
    checked = 0
    for path in sorted((shared_data / "parquet").rglob("*.parquet")):
        data = path.read_bytes()
        try:
            groups = pq.read_metadata(io.BytesIO(data)).num_row_groups
        except (pa.ArrowException, OSError):
            continue
        if groups:
            check(data)
            checked += 1
    assert checked > 100


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 255)), min_size=1, max_size=4))
def test_wrong_bytes_are_a_value_error_or_numbers_in_range(changes: list[tuple[int, int]]) -> None:
    footer = bytearray(FOOTER)
    for at, byte in changes:
        footer[at % (len(footer) - 8)] = byte
    try:
        found = list(group_chunks(bytes(footer), range(4)))
    except ValueError:
        return
    assert all(0 <= size <= 1 << 50 for _, chunks in found for chunk in chunks for size in chunk[1:] if size is not None)


FOOTER = footer_of(written())


def test_sound_footers_are_taken_for_sound() -> None:
    for options in (
        {},
        {"version": "1.0"},
        {"write_statistics": False},
        {"data_page_version": "2.0", "write_page_index": True},
    ):
        assert is_sound(footer_of(written(**options)))


def test_a_chunk_of_another_type_is_not_sound_and_prunes_nothing(tmp_path: Path) -> None:
    """Arrow ends the process if it is asked for the statistics of such a chunk."""
    path = tmp_path / "part.parquet"
    pq.write_table(pa.table({"x": pa.array(range(100), pa.int32())}), path, row_group_size=50)
    data = path.read_bytes()
    mark = b"\x15\x02\x19"  # ColumnMetaData: type INT32, then the list of encodings
    assert data.count(mark) == 2
    path.write_bytes(data.replace(mark, b"\x15\x0a\x19"))
    assert not is_sound(footer_of(path.read_bytes()))
    program = f"import streamsgd; streamsgd.plan({str(path)!r}, 'x', filter='x > 3')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "SettingsError: no feature" in done.stderr or "part.parquet" in done.stderr
