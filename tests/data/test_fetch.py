"""Laws of fetching: few requests, the right bytes, and damage told from a storage that refuses."""

import io
import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsgd.data.dataset import footer_bytes, read_dataset
from streamsgd.data.parquet.fetch import Fetched, check_answer, coalesce
from streamsgd.data.parquet.footers import index_footer
from streamsgd.data.parquet.spans import column_spans
from streamsgd.data.stores.files import open_source
from streamsgd.errors import DataError

SPANS = st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 300)), max_size=30)


@given(SPANS, st.integers(0, 500), st.integers(300, 2000))
def test_coalesced_ranges_hold_every_span_and_lie_apart(spans: list[tuple[int, int]], hole: int, most: int) -> None:
    ranges = coalesce(spans, hole, most)
    for start, n in spans:
        assert any(first <= start and start + n <= first + length for first, length in ranges)
    for (a, n), (b, _) in itertools.pairwise(ranges):
        assert a + n < b
    assert sum(n for _, n in ranges) <= sum(n for _, n in spans) + hole * len(spans)


@given(SPANS, st.lists(st.tuples(st.integers(0, 5300), st.integers(0, 400)), max_size=20))
def test_what_was_fetched_reads_like_the_file(spans: list[tuple[int, int]], reads: list[tuple[int, int]]) -> None:
    data = np.random.default_rng(0).bytes(6000)
    fetched = Fetched(pa.BufferReader(data), len(data), "f")
    fetched.fetch(spans)
    plain = io.BytesIO(data)
    for at, n in reads:
        assert fetched.seek(at) == plain.seek(at)
        assert fetched.read(n) == plain.read(n)
        assert fetched.tell() == plain.tell()


class Counting:
    """A file that counts reads."""

    def __init__(self, data: bytes) -> None:
        self.data, self.reads = data, 0

    def read_at(self, n: int, at: int) -> bytes:
        self.reads += 1
        return self.data[at : at + n]


def test_fetched_columns_need_no_further_read(tmp_path: Path) -> None:
    """Nested columns and dictionary pages included."""
    table = pa.table(
        {
            "x": np.arange(5000.0),
            "s": pa.array([f"v{k % 9}" for k in range(5000)]),
            "l": pa.array([[k, k + 1] for k in range(5000)]),
            "m": pa.array([{"a": k, "b": str(k)} for k in range(5000)]),
            "other": np.arange(5000),
        }
    )
    pq.write_table(table, tmp_path / "f.parquet", row_group_size=1000)
    source = open_source(tmp_path / "f.parquet")
    footer = footer_bytes(source, source.files[0])
    index = index_footer(footer)
    assert index is not None
    data = (tmp_path / "f.parquet").read_bytes()
    handle = Counting(data)
    fetched = Fetched(handle, len(data), "f")
    names = ["x", "s", "l", "m"]
    wanted = []
    for group in (1, 2, 3):
        spans = column_spans(footer, int(index.bounds[group]), int(index.bounds[group + 1]))
        assert spans is not None
        assert {name for name, _, _ in spans} == {*names, "other"}
        wanted += [(start, n) for name, start, n in spans if name in names]
    fetched.fetch(wanted)
    opened = pq.ParquetFile(pa.PythonFile(fetched, mode="r"), metadata=pq.read_metadata(pa.BufferReader(data)))
    assert opened.read_row_groups([1, 2, 3], columns=names, use_threads=False) == table.select(names).slice(1000, 3000)
    assert handle.reads == 1


def test_answers_that_are_no_bytes_of_the_file_are_told_apart() -> None:
    with pytest.raises(DataError, match=r"f: the endpoint answers with a page of HTML or XML .* proxy or a login page"):
        check_answer(b"\n <!DOCTYPE html><html>", 23, "f")
    with pytest.raises(ConnectionError, match="closed after 3 of 5 bytes"):
        check_answer(b"\x15\x00\x15", 5, "f")
    assert check_answer(b"\x15\x00\x15", 3, "f") == b"\x15\x00\x15"


# --- law: what lies in a file's place stays what was listed


def _write(path: Path, value: float) -> None:
    pq.write_table(pa.table({"x": np.full(100, value)}), path, use_dictionary=False, compression="none", write_statistics=False)


@pytest.mark.parametrize("how", ["rewritten", "replaced with its time"])
def test_a_file_of_the_same_size_and_footer_is_known_for_another(tmp_path: Path, how: str) -> None:
    path = tmp_path / "f.parquet"
    _write(path, 1.0)
    dataset = read_dataset(path)
    before = path.stat()
    other = tmp_path / "other"
    _write(other, 2.0)
    assert other.stat().st_size == before.st_size
    assert read_dataset(other).source.files[0].size == before.st_size
    if how == "rewritten":
        path.write_bytes(other.read_bytes())
        message = "its modification time is another"
    else:
        other.replace(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        message = "it is another file"
    with pytest.raises(DataError, match=rf"^f\.parquet: was replaced or written since it was listed \({message}, though"):
        dataset.source.open(dataset.source.files[0])


def test_a_file_that_grows_after_it_was_opened_is_named_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    _write(path, 1.0)
    source = read_dataset(path).source
    with source.open(source.files[0]) as handle:
        with path.open("ab") as file:
            file.write(b"more")
        with pytest.raises(DataError, match=r"^f\.parquet: is [\d,]+ bytes now but was [\d,]+ when listed"):
            source.check(source.files[0], handle)


def test_a_flipped_bit_in_a_page_with_a_checksum_is_found(tmp_path: Path, train: Any) -> None:
    path = tmp_path / "f.parquet"
    table = pa.table({"x": np.arange(3000.0), "y": np.arange(3000.0)})
    pq.write_table(table, path, row_group_size=1000, use_dictionary=False, compression="none", write_page_checksum=True)
    data = bytearray(path.read_bytes())
    place = bytes(data).index(np.float64(1500.0).tobytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"f\.parquet, row group 1: columns .* cannot be read: .*CRC checksum"):
        train(path)
    _, model, _ = train(path, unreadable="skip", scale="standard")
    assert model.provenance["counts"]["skipped"] == 1000
