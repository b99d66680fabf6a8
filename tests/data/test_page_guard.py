"""Pages that claim more than their column chunk has: found however the file is read, before Arrow takes memory for them."""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsgd.data.parquet.footers import index_footer
from streamsgd.data.parquet.page_guard import LONGEST_HEADER, GuardedPages, PageHeaders
from streamsgd.data.parquet.spans import column_spans
from streamsgd.kernels.thrift import walk_pages

FORMS: dict[str, dict[str, Any]] = {
    "usual": {},
    "plain": {"use_dictionary": False, "compression": "none"},
    "second": {"data_page_version": "2.0", "compression": "zstd", "write_page_checksum": True},
    "delta": {"use_dictionary": False, "column_encoding": {"c": "DELTA_BYTE_ARRAY"}},
    "long headers": {"write_statistics": True, "use_dictionary": False},
}


def written(form: str, page: int = 300) -> tuple[bytes, list[tuple[str, int, int]]]:
    """Return a file of two row groups with many pages, and where its column chunks lie."""
    rng = np.random.default_rng(3)
    n, length = 2000, 900 if form == "long headers" else 1
    table = pa.table({"c": [str(k) * length for k in rng.integers(0, 99, n)], "x": rng.random(n), "l": [[1, 2, None]] * n})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=1200, data_page_size=page, write_batch_size=50, **FORMS[form])
    data = sink.getvalue()
    length = int.from_bytes(data[-8:-4], "little") + 8
    index = index_footer(data[-length:])
    assert index is not None
    spans = [column_spans(data[-length:], int(a), int(b)) for a, b in zip(index.bounds[:-1], index.bounds[1:], strict=True)]
    return data, [chunk for group in spans for chunk in group or ()]


WRITTEN = {form: written(form) for form in FORMS}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(FORMS)), st.data())
def test_headers_are_followed_to_the_end_of_every_chunk_in_any_cut_of_reads(form: str, drawn: st.DataObject) -> None:
    data, spans = WRITTEN[form]
    for _, start, size in spans:
        chunk, at = PageHeaders(start), start
        most = drawn.draw(st.sampled_from([1, 7, 64, 1000, 100_000]))
        while at < start + size:
            n = min(drawn.draw(st.integers(1, most)) if most > 1000 else most, start + size - at)
            chunk.follow(at, data[at : at + n], unknown)
            at += n
        assert chunk.header == start + size
        assert not chunk.held


def unknown(at: int) -> tuple[int, int]:
    """What is said of a byte that is in no column chunk."""
    return at, at


@pytest.mark.parametrize("form", FORMS)
def test_a_guarded_file_reads_as_the_file(form: str) -> None:
    data, spans = WRITTEN[form]
    guard = GuardedPages(pa.BufferReader(data), lambda: [(start, size) for _, start, size in spans])
    opened = pq.ParquetFile(pa.PythonFile(guard, mode="r"), pre_buffer=False, buffer_size=512)
    found = pa.Table.from_batches(opened.iter_batches(batch_size=77, use_threads=False))
    assert found == pq.read_table(io.BytesIO(data)).cast(found.schema)
    ends = {start + size for _, start, size in spans}
    assert ends <= set(guard.chunks) | {start for _, start, _ in spans}
    assert all(guard.chunks[end].header == end for end in ends & set(guard.chunks))
    assert "spans" not in vars(guard), "footers are parsed for large pages alone"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "after its neighbour"])
def test_a_large_page_is_refused_where_its_chunk_ends_before_it_does(form: str, alone: bool) -> None:
    data, spans = WRITTEN[form]
    (_, before, _), (_, start, size) = spans[:2]
    page = walk_pages(np.frombuffer(data[start:], np.uint8), 0, 1)[1]

    def end_at(stop: int) -> None:
        chunk = PageHeaders(start if alone else before)
        if not alone:
            chunk.follow(before, data[before:start], unknown)
        chunk.most = 1
        chunk.follow(start, data[start : start + size], lambda _: (start, stop))

    for stop in range(start + 1, start + page, max(1, page // 40)):
        with pytest.raises(
            pa.ArrowInvalid, match=rf"at byte {start:,} says that it has {page:,} bytes, but its chunk ends after"
        ):
            end_at(stop)
    end_at(start + page)
    end_at(start + size)


def test_what_is_read_out_of_order_or_is_no_header_is_left_to_arrow() -> None:
    data, spans = WRITTEN["plain"]
    _, start, size = spans[0]
    for at in range(start + 1, start + size, 97):
        PageHeaders(at, most=1).follow(at, data[at : start + size], lambda at: (start, start + size))
    chunk = PageHeaders(0)
    for at in range(0, LONGEST_HEADER + 2, LONGEST_HEADER // 2 + 1):
        chunk.follow(at, b"\x18" + b"\xff" * (LONGEST_HEADER // 2), unknown)  # a string of no end
    assert not chunk.held


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(list(FORMS)), st.lists(st.tuples(st.floats(0, 1), st.integers(1, 5000)), max_size=12), st.booleans())
def test_a_sound_file_may_be_read_anywhere(form: str, reads: list[tuple[float, int]], on: bool) -> None:
    """Footers too, and on from where one stopped: bytes that are no page header may look like one of any size."""
    data, spans = WRITTEN[form]
    guard = GuardedPages(pa.BufferReader(data), lambda: [(start, size) for _, start, size in spans])
    for share, n in reads:
        at = guard.at if on else int(share * len(data))
        guard.seek(at)
        for chunk in guard.chunks.values():
            chunk.most = min(chunk.most, 50)
        assert guard.read(n) == data[at : at + n]


def test_what_looks_like_a_large_page_outside_of_column_chunks_is_none() -> None:
    header = (
        b"".join(b"\x15" + varint(2 * value) for value in (0, 5, 67_049_030)) + b"\x2c\x15\x02\x15\x00\x15\x06\x15\x06\x00\x00"
    )
    data = b"PAR1" + header + bytes(100)
    guard = GuardedPages(pa.BufferReader(data), lambda: [(0, 4)])
    guard.seek(4)
    assert guard.read(200) == data[4:]


def test_a_claim_of_a_gigabyte_takes_no_memory() -> None:
    """As a mutant of scripts/fuzz_parquet.py did: 1.3 GB for a page of five bytes."""
    sizes = {"type": 0, "uncompressed": 5, "compressed": 1_304_732_891}
    header = b"".join(b"\x15" + varint(2 * value) for value in sizes.values()) + b"\x2c\x15\x02\x15\x00\x15\x06\x15\x06\x00\x00"
    guard = GuardedPages(pa.BufferReader(header + b"12345" + bytes(400)), lambda: [(0, len(header) + 5)])
    with pytest.raises(pa.ArrowInvalid, match=r"the page at byte 0 says that it has 1,304,732,9\d\d bytes"):
        pa.PythonFile(guard, mode="r").read_at(len(header) + 100, 0)


def varint(n: int) -> bytes:
    """Return a number of the compact protocol of Thrift."""
    return bytes([n & 127 | 128]) + varint(n >> 7) if n > 127 else bytes([n])
