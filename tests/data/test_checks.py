"""Codes beyond their dictionary and columns that are there twice: named, or left out and counted, never looked up."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamsgd
from streamsgd.data.checks import check_codes, checked_columns
from streamsgd.errors import DataError, UnreadableError

N, GROUP = 600, 200


def coded(codes: list[int | None], size: int, kind: Any) -> pa.DictionaryArray:
    values = pa.array([f"v{k}" for k in range(size)], pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(codes, kind), values, safe=False)


def nested(array: pa.DictionaryArray, how: str) -> Any:
    n = len(array)
    if how == "list":
        return pa.ListArray.from_arrays(pa.array([0, n], pa.int32()), array)
    if how == "map":
        return pa.MapArray.from_arrays(pa.array([0, n], pa.int32()), pa.array(range(n), pa.int64()), array)
    if how == "struct":
        return pa.StructArray.from_arrays([array], ["deep"])
    return pa.chunked_array([array.slice(0, n // 2), array.slice(n // 2)]) if how == "chunks" else array


@settings(deadline=None)
@given(
    st.lists(st.none() | st.integers(-9, 120), max_size=40),
    st.integers(0, 9),
    st.sampled_from([pa.int8(), pa.int16(), pa.int32(), pa.int64()]),
    st.sampled_from(["plain", "chunks", "list", "map", "struct"]),
)
def test_a_code_is_refused_if_and_only_if_it_is_beyond_the_dictionary(
    codes: list[int | None], size: int, kind: Any, how: str
) -> None:
    column = nested(coded(codes, size, kind), how)
    if any(code is not None and not 0 <= code < size for code in codes):
        with pytest.raises(ValueError, match="column 'c' has the code"):
            check_codes("c", column)
    else:
        check_codes("c", column)


def test_what_lies_beneath_a_null_is_no_code() -> None:
    codes = pa.Array.from_buffers(pa.int32(), 3, [pa.py_buffer(b"\x05"), pa.py_buffer(np.array([0, 99, 1], np.int32))])
    check_codes("c", pa.DictionaryArray.from_arrays(codes, pa.array(["a", "b"]), safe=False))


def test_a_column_that_was_read_twice_or_not_at_all_is_named() -> None:
    table = pa.table([pa.array([1]), pa.array([2]), pa.array([3])], ["a", "b", "a"])
    assert checked_columns(table, ["b"]) == [table.column(1)]
    with pytest.raises(ValueError, match="'a' was read 2 times"):
        checked_columns(table, ["a", "b"])
    with pytest.raises(ValueError, match="'c' was read 0 times"):
        checked_columns(table, ["b", "c"])


@pytest.fixture
def beyond(tmp_path: Path) -> Path:
    """Three row groups, in the second of which the last codes of a dictionary of five values are 7."""
    rng, path = np.random.default_rng(0), tmp_path / "part.parquet"
    word = pa.array([f"word{k}" for k in rng.integers(0, 5, N)])
    table = pa.table({"word": word, "x": rng.standard_normal(N), "y": rng.standard_normal(N)})
    table = table.cast(pa.schema([pa.field("word", pa.string(), nullable=False), *list(table.schema)[1:]]))
    pq.write_table(table, path, row_group_size=GROUP, compression="none", use_dictionary=["word"])
    chunk = pq.read_metadata(path).row_group(1).column(0)
    data = bytearray(path.read_bytes())
    stop = chunk.dictionary_page_offset + chunk.total_compressed_size
    data[stop - 3 : stop] = b"\xff\xff\xff"
    path.write_bytes(data)
    return path


USED: list[tuple[str, Callable[..., Any]]] = [
    ("the first look", lambda path, **more: streamsgd.plan(str(path), "y", **more)),
    ("whole row groups", lambda path, **more: streamsgd.train(str(path), "y", classes=(), epochs=1, **more)),
    ("slices", lambda path, **more: streamsgd.train(str(path), "y", epochs=1, chunk_rows=50, **more)),
    ("a text", lambda path, **more: streamsgd.train(str(path), "y", epochs=1, text=["word"], **more)),
]


@pytest.mark.parametrize(("what", "use"), USED, ids=[name for name, _ in USED])
def test_a_code_beyond_the_dictionary_is_named_with_file_row_group_and_column(
    beyond: Path, what: str, use: Callable[..., Any]
) -> None:
    with pytest.raises(UnreadableError, match=r"part\.parquet, row group 1: .*'word' has the code 7 in a dictionary of 5"):
        use(beyond, executor="inline", memory="1GB")


def test_rows_of_such_a_row_group_are_left_out_and_counted(beyond: Path) -> None:
    model = streamsgd.train(str(beyond), "y", epochs=1, executor="inline", memory="1GB", unreadable="skip")
    assert model.provenance["rows_learned"] == N - GROUP
    assert model.provenance["counts"]["skipped"] == GROUP
    assert "row group 1" in model.provenance["left_out"][0]


def test_a_run_that_left_out_every_row_says_so(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    pq.write_table(pa.table({"x": np.arange(9.0), "y": np.arange(9.0)}), path, compression="none", use_dictionary=False)
    model = streamsgd.train(str(path), "y", epochs=1, executor="inline", memory="1GB")
    assert model.provenance["rows_learned"] == 9
    with pytest.raises(DataError, match="of 9 rows none is left to learn from: 9 were held out"):
        streamsgd.train(str(path), "y", epochs=1, executor="inline", memory="1GB", validation=0.999999)


@pytest.mark.parametrize(
    "more",
    [
        {"target": "y"},
        {"target": "word", "exclude": ["y"]},
        {"target": "y", "exclude": ["x"]},
        {"target": "y", "filter": "word > 'a'"},
        {"target": "y", "text": ["word"]},
    ],
    ids=str,
)
def test_a_run_of_which_no_row_can_be_read_says_so_and_blames_no_column_for_having_no_value(
    beyond: Path, tmp_path: Path, more: dict[str, Any]
) -> None:
    rows = pq.ParquetFile(beyond).read_row_groups([0, 2])
    path = tmp_path / "whole.parquet"
    pq.write_table(rows, path, compression="none", use_dictionary=["word"])
    chunk = pq.read_metadata(path).row_group(0).column(0)
    data = bytearray(path.read_bytes())
    stop = chunk.dictionary_page_offset + chunk.total_compressed_size
    data[stop - 3 : stop] = b"\xff\xff\xff"
    path.write_bytes(data)
    fate = r"(1 row group with all of them cannot be read|400 were skipped)"
    said = rf"of 400 rows none is left to learn from: {fate}.*whole\.parquet, row group 0: "
    with pytest.raises(DataError, match=said):
        streamsgd.train(str(path), **more, epochs=1, executor="inline", memory="1GB", unreadable="skip")


def test_codes_of_a_table_in_memory_are_checked_too() -> None:
    table = pa.table({"word": coded([0, 1, 9] * 20, 3, pa.int32()), "y": np.arange(60.0)})
    with pytest.raises(DataError, match="'word' has the code 9 in a dictionary of 3"):
        streamsgd.train(table, "y", epochs=1, executor="inline", memory="1GB")
