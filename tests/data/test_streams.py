"""Tables as people hold them train the model that the same rows in one table train."""

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import streamsgd
from streamsgd.data.open import open_whole
from streamsgd.data.sources.streams import table_of_rows
from streamsgd.data.stores.files import open_source
from streamsgd.data.timings import Timings
from streamsgd.errors import DataError, SettingsError
from streamsgd.planning.chunks import Piece
from streamsgd.testing import check_source

duckdb = pytest.importorskip("duckdb")
polars = pytest.importorskip("polars")

N = 500
WHOLE = pa.table({"x": np.arange(N) * 0.5, "c": [f"v{k % 3}" for k in range(N)], "y": np.arange(N) % 2})


def parts(table: pa.Table = WHOLE, n: int = 130) -> list[pa.Table]:
    return [table.slice(at, n) for at in range(0, table.num_rows, n)]


def rows_of(data: Any) -> list[dict[str, Any]]:
    """Return the rows of data, read as training reads them."""
    source = open_whole(data).source
    reader, rows = source.reader(), []
    for group, n in enumerate(source.groups.rows.tolist()):
        for arrays in reader.read(Piece(0, group, group + 1, 0, n, 0), tuple(source.schema.names), Timings()) if n else ():
            rows += pa.table(arrays, names=source.schema.names).to_pylist()
    return rows


WAYS: dict[str, Callable[[], Any]] = {
    "list of tables": parts,
    "list of batches": WHOLE.to_batches,
    "list of frames": lambda: [part.to_pandas() for part in parts()],
    "generator": lambda: iter(parts()),
    "map": lambda: map(polars.from_arrow, parts()),
    "reader": lambda: WHOLE.to_reader(max_chunksize=70),
    "lazy frame": lambda: polars.from_arrow(WHOLE).lazy().filter(polars.col("x") >= 0),
    "relation": lambda: duckdb.from_arrow(WHOLE).filter("x >= 0"),
    "dict of columns": lambda: {name: WHOLE[name].to_pylist() for name in WHOLE.column_names},
    "list of dicts": WHOLE.to_pylist,
    "data set in memory": lambda: pads.dataset(parts()),
}


@pytest.mark.parametrize("way", WAYS)
def test_rows_are_the_same_however_they_are_held(way: str) -> None:
    assert rows_of(WAYS[way]()) == WHOLE.to_pylist()


@pytest.mark.parametrize("way", ["list of tables", "generator", "lazy frame", "list of dicts"])
def test_each_is_a_source(way: str) -> None:
    check_source(open_whole(WAYS[way]()).source)


@pytest.mark.parametrize("kind", ["parquet", "feather", "csv"])
def test_a_pyarrow_dataset_brings_its_formats_and_folders(kind: str, tmp_path: Path) -> None:
    table = WHOLE.append_column("day", pa.array(np.arange(N) // 250))
    pads.write_dataset(table, tmp_path, format=kind, partitioning=["day"], partitioning_flavor="hive")
    found = pads.dataset(tmp_path, format=kind, partitioning="hive")
    assert sorted(rows_of(found), key=lambda row: row["x"]) == table.to_pylist()
    check_source(open_whole(found).source)
    with pytest.raises(SettingsError, match="filtered or projected"):
        open_whole(found.filter(pads.field("x") > 3))


def test_a_stream_trains_the_model_of_its_rows_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    options: dict[str, Any] = {"epochs": 2, "threads": 1, "validation": 0.0}
    expected = streamsgd.train(WHOLE, "y", **options).weights
    assert np.array_equal(streamsgd.train(parts(), "y", **options).weights, expected)
    assert np.array_equal(streamsgd.train(WHOLE.to_reader(), "y", **options).weights, expected)
    open_whole(iter(parts()))
    gc.collect()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (lambda: iter([]), "no table"),
        (lambda: iter([1]), "item 0 of the stream is of type int"),
        (lambda: iter([WHOLE, WHOLE.drop_columns(["c"])]), "table 1 of the stream: has no column 'c'"),
        (lambda: [WHOLE, WHOLE.drop_columns(["c"])], "table 1: has no column 'c'"),
        (lambda: [WHOLE, WHOLE.set_column(1, "c", pa.array(range(N)))], "column 'c' is string in table 0 but int64"),
        (lambda: {"x": [1, 2], "y": [1]}, "several lengths"),
        (lambda: [{"x": 1}, {"x": "one"}], "column 'x' of the rows"),
        (lambda: [{}], "the rows have no columns"),
        (dict, "the rows have no columns"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(data: Callable[[], Any], what: str) -> None:
    with pytest.raises(DataError, match=what):
        streamsgd.train(data(), "y", memory="1GB", threads=1)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(-9, 9) | st.none()), min_size=1, max_size=6))
@settings(max_examples=50, deadline=None)
def test_no_key_of_any_dict_is_lost(rows: list[dict[str, int | None]]) -> None:
    names = dict.fromkeys(name for row in rows for name in row)
    assume(names)
    assert table_of_rows(rows).to_pylist() == [{name: row.get(name) for name in names} for row in rows]


def test_dicts_are_scored() -> None:
    model = streamsgd.train(WHOLE, "y", epochs=1, threads=1)
    expected = model.predict(WHOLE)[:3]
    assert np.array_equal(model.predict(WHOLE.slice(0, 3).to_pylist()), expected)
    assert np.array_equal(model.predict(WHOLE.slice(0, 3).to_pydict()), expected)
    assert np.array_equal(model.predict(WHOLE.to_pylist()[0]), expected[:1])


# --- links


def test_hard_links_count_each_and_symbolic_ones_are_refused(tmp_path: Path) -> None:
    pq.write_table(WHOLE, tmp_path / "a.parquet")
    for k in range(9):
        os.link(tmp_path / "a.parquet", tmp_path / f"b{k}.parquet")
    assert len(open_source(tmp_path).files) == 10
    (tmp_path / "c.parquet").symlink_to(tmp_path / "b3.parquet")
    with pytest.raises(DataError, match=r"c\.parquet: is the same file as .*b3\.parquet, by a symbolic link"):
        open_source(tmp_path)


@pytest.mark.parametrize("name", ["gone.parquet", "sub/gone.parquet", "day=3"])
def test_a_link_to_nothing_is_an_error(tmp_path: Path, name: str) -> None:
    pq.write_table(WHOLE, tmp_path / "a.parquet")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=f"{name}: is a link to .*nowhere, which is not there"):
        open_source(tmp_path)
    (tmp_path / name).rename(tmp_path / "_hidden")
    assert len(open_source(tmp_path).files) == 1


def test_a_dataset_of_lance_is_streamed_without_its_deleted_rows(tmp_path: Path) -> None:
    """By its library; the folder itself is refused by name."""
    lance = pytest.importorskip("lance")
    rows = pa.table({"x": np.arange(300.0), "y": np.arange(300) % 2})
    dataset = lance.write_dataset(rows, tmp_path / "d.lance")
    dataset.delete("x < 100")
    found = open_whole(lance.dataset(tmp_path / "d.lance"))
    assert found.n_rows == 200
    assert found.schema.names == ["x", "y"]
    with pytest.raises(DataError, match=r"dataset of Lance.*lance\.dataset"):
        open_whole(str(tmp_path / "d.lance"))
