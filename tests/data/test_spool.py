"""What comes once is kept on disk as it came: whatever its types, and not in memory."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import streamsgd
from streamsgd.data.open import open_whole
from streamsgd.errors import DataError

polars = pytest.importorskip("polars")

N = 60
X = np.random.default_rng(0).normal(size=N)
FAST: dict[str, Any] = {"memory": "1GB", "threads": 1, "epochs": 1}
STRANGE = {
    "interval": pa.array([(1, 2, 3)] * N, pa.month_day_nano_interval()),
    "list of intervals": pa.array([[(1, 2, 3)]] * N, pa.list_(pa.month_day_nano_interval())),
    "union": pa.UnionArray.from_sparse(pa.array([0] * N, pa.int8()), [pa.array(X)]),
    "struct of nothing": pa.array([{}] * N, pa.struct([])),
    "dictionary of lists": pa.DictionaryArray.from_arrays(pa.array([0, 1] * 30), pa.array([[1], [2]])),
}
PLAIN = {
    "runs": pc.run_end_encode(pa.array([1, 1, 2] * 20)),
    "dictionary with a null": pa.DictionaryArray.from_arrays(pa.array([0, 1] * 30), pa.array(["a", None])),
    "dictionary of views": pa.DictionaryArray.from_arrays(pa.array([0, 1] * 30), pa.array(["a", "b"], pa.string_view())),
    "categories of Polars": polars.Series(["a", "b"] * 30, dtype=polars.Categorical).to_arrow(),
    "lists of categories of Polars": polars.Series([["a"], ["b"]] * 30, dtype=polars.List(polars.Categorical)).to_arrow(),
}


def table(**columns: Any) -> pa.Table:
    return pa.table({"x": X, "y": 2 * X, **columns})


def streamed(data: pa.Table) -> list[Any]:
    return [iter([data]), iter([data, data.slice(0, 0)]), data.to_reader()]


@pytest.mark.parametrize("case", STRANGE)
def test_a_type_that_parquet_does_not_know_is_refused_by_name_only_where_it_is_wanted(case: str) -> None:
    data = table(c=STRANGE[case])
    expected = streamsgd.train(data, "y", exclude=["c"], **FAST).weights
    for stream in streamed(data):
        assert np.array_equal(streamsgd.train(stream, "y", exclude=["c"], **FAST).weights, expected)
    for way in (data, *streamed(data)):
        with pytest.raises(DataError, match="feature 'c' is of type"):
            streamsgd.train(way, "y", **FAST)
    with pytest.raises(DataError, match=r"column 'c' (is .* but .* in table|of the stream is of type .*: leave it out)"):
        streamsgd.train(iter([table(c=X), data]), "y", **FAST)


@pytest.mark.parametrize("case", PLAIN)
def test_a_type_that_parquet_does_not_know_is_made_plain(case: str) -> None:
    data = table(c=PLAIN[case])
    model = streamsgd.train(data, "y", **FAST)
    for stream in streamed(data):
        assert np.array_equal(streamsgd.train(stream, "y", **FAST).weights, model.weights)
    assert np.array_equal(model.predict(iter([data])), model.predict(data))


@pytest.mark.parametrize(
    ("kind", "values"), [(polars.Struct([]), [{}] * N), (polars.List(polars.Struct([])), [[{}]] * N)], ids=["flat", "inside"]
)
def test_a_lazy_frame_that_parquet_cannot_hold_comes_by_its_batches(kind: Any, values: list[Any]) -> None:
    frame = polars.from_arrow(table()).with_columns(polars.Series(values, dtype=kind).alias("c")).lazy()
    expected = streamsgd.train(table(), "y", **FAST).weights
    assert np.array_equal(streamsgd.train(frame, "y", exclude=["c"], **FAST).weights, expected)
    with pytest.raises(DataError, match="'c' is of type"):
        streamsgd.train(frame, "y", **FAST)


@pytest.mark.parametrize("kind", [polars.Object, polars.Int128])
def test_a_type_of_polars_that_arrow_does_not_know_is_refused_by_name(kind: Any) -> None:
    """Of objects it would see where they are in memory."""
    frame = polars.from_arrow(table()).with_columns(polars.Series([1] * N, dtype=kind).alias("c"))
    for way in (frame, frame.lazy(), iter([frame]), [frame, frame]):
        with pytest.raises(DataError, match=r"column 'c' .*of Polars, which Arrow cannot hold"):
            streamsgd.train(way, "y", **FAST)


def test_nulls_where_a_schema_says_there_are_none_are_missing() -> None:
    strict = pa.schema([pa.field("x", pa.float64(), nullable=False), pa.field("y", pa.float64())])
    holes = pa.table([pa.array([None, 1.0] * 30), X], schema=strict)
    for tables in ([holes], [table().cast(strict), holes], [holes, table().cast(strict)]):
        dataset = open_whole(iter(tables))
        assert dataset.n_rows == N * len(tables)


@pytest.mark.parametrize(
    "columns",
    [
        (pa.nulls(N), pa.array(X)),
        tuple(
            pa.array([f"v{k}_{i}" for i in range(N)]).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string()))
            for k in range(4)
        ),
        (pa.array(X.astype("f2")), pa.array(X * 1e7)),
        (pa.array(X.astype("f4")), pa.array(np.full(N, 16777217.0))),
    ],
    ids=["null first", "many new categories", "half first", "float first"],
)
def test_a_later_table_may_hold_what_the_type_of_the_first_cannot(columns: tuple[Any, ...]) -> None:
    tables = [table(c=column) for column in columns]
    model = streamsgd.train(iter(tables), "y", **FAST)
    assert np.isfinite(model.predict(tables)).all()
    pd = pytest.importorskip("pandas")
    pandas = [pd.DataFrame({"x": X, "y": X, "c": column.to_pandas()}) for column in columns]
    streamsgd.train(iter(pandas), "y", **FAST)


def test_a_stream_whose_types_go_to_and_fro_stays_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rows, most, before = 1 << 15, 0, pa.total_allocated_bytes()

    def tables() -> Iterator[pa.Table]:
        nonlocal most
        for k in range(80):
            most = max(most, pa.total_allocated_bytes() - before)
            yield pa.table({"x": pa.array(np.full(rows, k), pa.int64() if k % 2 else pa.float32()), "y": pa.nulls(rows)})

    found = open_whole(tables())
    assert found.n_rows == 80 * rows
    assert most < 80 * rows * 8 / 4
    assert [ref.name for ref in found.source.files] == [f"table {k} of the stream" for k in range(80)]
    del found
    gc.collect()
    assert not list(tmp_path.iterdir())
