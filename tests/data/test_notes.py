"""What writers note beside a schema helps to read a column, and is passed over where it is not as it should be."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import streamsgd
from streamsgd.data.notes import FILE_ASIDE, aside_of, noted
from streamsgd.data.open import open_whole
from streamsgd.errors import DataError

pd = pytest.importorskip("pandas")

duckdb = pytest.importorskip("duckdb")
pl = pytest.importorskip("polars")

N = 60
FAST: dict[str, Any] = {"executor": "inline", "memory": "1GB", "epochs": 1}
FRAME = pd.DataFrame({"x": np.sin(np.arange(N)), "y": np.arange(N) % 2.0}, index=np.arange(N) ** 2 % 61)

names = st.sampled_from(["x", "y", "", "index_columns", "categorical", "__index_level_0__"])
keys = st.sampled_from(["index_columns", "columns", "name", "field_name", "pandas_type", "x"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | names,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@given(values)
@example({"index_columns": None})
@example({"index_columns": "x"})
@example({"index_columns": {"x": 1}})
@example({"columns": ["x"]})
@example({"columns": {"name": "x"}})
@example({"columns": [{"name": ["x"], "pandas_type": "categorical"}]})
@settings(max_examples=200, deadline=None)
def test_any_metadata_is_read_as_far_as_it_is_understood(value: Any) -> None:
    for key in (b"pandas", FILE_ASIDE):
        schema = pa.schema({"x": pa.float64(), "l": pa.list_(pa.int64()), "y": pa.int64()}, {key: json.dumps(value).encode()})
        found = noted(schema)
        assert found.names == schema.names
        assert {*aside_of(found)} <= {*schema.names}


@pytest.mark.parametrize("raw", [b"", b"null", b"[", b"\xff", b"[" * 100_000, b'{"index_columns": ["x", 3, null, {}]}'])
def test_metadata_that_is_no_json_is_no_error(raw: bytes, tmp_path: Path) -> None:
    table = pa.table({"x": [1.0, 2.0], "y": [1, 2]}).replace_schema_metadata({b"pandas": raw})
    pq.write_table(table, tmp_path / "a.parquet")
    for data in (table, tmp_path / "a.parquet"):
        assert dict(open_whole(data).aside) == ({"x": "the index of a DataFrame"} if raw.startswith(b"{") else {})


WAYS: dict[str, Any] = {
    "a file": lambda path: path,
    "a table": pq.read_table,
    "a table without notes": lambda path: pq.read_table(path).replace_schema_metadata(None),
    "Polars": pl.read_parquet,
    "Polars, lazily": pl.scan_parquet,
    "DuckDB": lambda path: duckdb.sql(f"select * from '{path}'"),
    "a list of tables": lambda path: [pl.read_parquet(path)] * 2,
    "batches": lambda path: pl.read_parquet(path).to_arrow().to_reader(),
}


@pytest.mark.parametrize("way", WAYS)
def test_an_index_without_a_name_is_no_feature_whoever_kept_it(
    way: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a random target it said the order, which it was sorted by."""
    FRAME.to_parquet(tmp_path / "a.parquet")
    with caplog.at_level(logging.WARNING):
        model = streamsgd.train(WAYS[way](tmp_path / "a.parquet"), "y", **FAST)
    assert model.encoding.sources == ("x",)
    assert sum("'__index_level_0__': the index of a DataFrame" in message for message in caplog.messages) == 1


@pytest.mark.parametrize(
    "asked",
    [
        {"features": ["x", "__index_level_0__"]},
        {"features": ["__index*"]},
        {"categorical": ["__index_level_0__"]},
        {"transform": ["__index_level_0__=none"]},
        {"missing": ["__index_level_0__=zero"]},
        {"cross": ["x*__index_level_0__"], "categorical": ["__index_level_0__"]},
    ],
)
def test_who_names_an_index_has_it(asked: Any, tmp_path: Path) -> None:
    FRAME.to_parquet(tmp_path / "a.parquet")
    model = streamsgd.train(pl.read_parquet(tmp_path / "a.parquet"), "y", **FAST, **asked)
    assert "__index_level_0__" in model.encoding.sources


@pytest.mark.parametrize("columns", [["v"], ["v", "l"]])
def test_a_type_that_arrow_does_not_know_is_named_with_its_column(columns: list[str], tmp_path: Path) -> None:
    """Of integers of 128 bits it was said that the file is damaged."""
    frame = pl.DataFrame({"x": [1.0, 2.0], "v": [1, 2], "l": [[1], [2]], "s": ["a", "b"]})
    kinds = {"v": pl.Int128, "l": pl.List(pl.Int128)}
    frame = frame.with_columns(pl.col(name).cast(kinds[name]) for name in columns)
    frame.write_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: column.*'v'.* of type Int128, .*polars\.Int64") as refusal:
        open_whole(tmp_path / "a.parquet")
    assert all(repr(name) in str(refusal.value) for name in columns)
    assert "damaged" not in str(refusal.value)
    with pytest.raises(DataError, match=r"'v'.*Int128.*cast it, or drop"):
        open_whole(frame)
